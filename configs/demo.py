"""The demonstration: the street at 192x64, minutes on two CPU cores.

  python main.py --config=configs/demo.py --workdir=runs/demo

Two drives to learn from and a third to be measured on; docs/RESULTS.md says
what it reaches.
"""

from configs import default


def get_config():
  """Returns the demo's config."""
  config = default.get_config()
  config.batch_size = 4
  config.num_steps = 750
  config.data.root = 'runs/street_192x64'
  config.data.height = 64
  config.data.width = 192
  config.data.street.drives = 3
  config.data.street.frames = 60
  config.data.street.height = 64
  config.data.street.width = 192
  config.eval.crop = 'garg'
  config.optimizer.learning_rate = 2e-4
  config.optimizer.decay_epochs = ()
  config.log_every = 50
  config.picture_every = 250
  config.eval_every = 250
  config.checkpoint_every = 250
  return config
