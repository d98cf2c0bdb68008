"""Stacks the panels of one image by several runs into a picture.

  python -m analysis.panel_figure --output=docs/borders.png \
    --workdirs=runs/ablation_320x96/baseline_0,runs/ablation_320x96/full_0

Takes `pictures/eval_NUMBER.png`, which every evaluation writes for its first
`config.eval.panels` images.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
from absl import app, flags
from PIL import Image

from sgde_jax import visualization

FLAGS = flags.FLAGS


def stack(panels: Sequence[np.ndarray]) -> np.ndarray:
  """Stacks `[h, w, 3]` uint8 of any width, narrower ones on white."""
  width = max(panel.shape[1] for panel in panels)
  return np.concatenate(
    [
      np.pad(
        panel,
        ((0, 0), (0, width - panel.shape[1]), (0, 0)),
        constant_values=255,
      )
      for panel in panels
    ]
  )


def define_flags() -> None:
  flags.DEFINE_list('workdirs', None, 'Evaluated runs.', required=True)
  flags.DEFINE_string('output', None, 'A PNG.', required=True)
  flags.DEFINE_integer('number', 0, 'The index of the image.')


def main(_) -> None:
  name = f'pictures/eval_{FLAGS.number:06d}.png'
  paths = [pathlib.Path(workdir, name) for workdir in FLAGS.workdirs]
  panels = [np.asarray(Image.open(path).convert('RGB')) for path in paths]
  visualization.write_png(FLAGS.output, stack(panels))
  print(f'wrote {FLAGS.output}')


if __name__ == '__main__':
  define_flags()
  app.run(main)
