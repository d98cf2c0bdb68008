"""Runs main.py where neither TensorFlow nor clu can be imported.

python -m tests.support.without_tensorflow FLAGS
"""

import runpy
import sys

if __name__ == '__main__':
  # What Python takes for a module that is known to be absent.
  sys.modules |= dict.fromkeys(('tensorflow', 'clu', 'tensorboard'))
  runpy.run_path('main.py', run_name='__main__')
