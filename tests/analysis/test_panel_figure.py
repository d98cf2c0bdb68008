"""Panels of several runs in one picture."""

import numpy as np
from absl import flags
from PIL import Image

from analysis import panel_figure
from tests.support import commands, kitti_folder


def test_panels_are_stacked(tmp_path):
  rng = np.random.default_rng(0)
  panels = [rng.integers(0, 256, (20, w, 3), np.uint8) for w in (30, 40)]
  for name, panel in zip('ab', panels, strict=True):
    kitti_folder.save(panel, tmp_path / name / 'pictures/eval_000003.png')
  workdirs, output = f'{tmp_path}/a,{tmp_path}/b', tmp_path / 'c.png'
  with commands.flags_of(panel_figure):
    arguments = (f'--workdirs={workdirs}', f'--output={output}', '--number=3')
    flags.FLAGS(['test', *arguments])
    panel_figure.main([])
  found = np.asarray(Image.open(output))
  assert found.shape == (40, 40, 3)
  np.testing.assert_array_equal(found[:20, :30], panels[0])
  np.testing.assert_array_equal(found[20:], panels[1])
  assert (found[:20, 30:] == 255).all()
