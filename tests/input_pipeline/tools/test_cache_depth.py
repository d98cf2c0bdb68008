"""Kinds of ground truth, and the file that holds a split's depth maps."""

import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

import input_pipeline
from input_pipeline import command_line, splits
from input_pipeline.sources import kitti, truths
from input_pipeline.tools import cache_depth
from tests.support import kitti_folder

DRIVE = kitti_folder.DRIVE
EXAMPLE = splits.Example(DRIVE, 3, 'l')


@pytest.fixture(name='root')
def fixture_root(tmp_path):
  root = tmp_path / 'kitti'
  kitti_folder.write_drive(root)
  kitti_folder.write_splits(root)
  write_improved(root, 'val')
  return root


def write_improved(root, part, frames=(0, 3, 5), *, value=512):
  """Writes annotated depth of 2 m whose corner is the frame's number."""
  below = f'{pathlib.Path(DRIVE).name}/proj_depth/groundtruth/image_02'
  for frame in frames:
    depth = np.full((12, 40), value, np.uint16)
    depth[0, 0] = 256 * frame
    kitti_folder.save(depth, root / part / below / f'{frame:010d}.png')


def make_eval(config, **options):
  data = input_pipeline.open_data(config, train=False)
  return list(data.eval_batches(batch_size=2, **options))


def run(root, output, kind, *more):
  cache_depth.main(
    [
      f'--root={root}',
      '--split=splits/test.txt',
      f'--kind={kind}',
      f'--output={output}',
      *more,
    ]
  )


@pytest.mark.parametrize('kind', truths.KINDS)
def test_file_equals_the_folder(root, tmp_path, capsys, kind):
  output = tmp_path / 'new' / 'truth.npz'
  run(root, output, kind)
  assert '3 depth maps written' in capsys.readouterr().out
  computed = make_eval(kitti_folder.make_config(root, ground_truth=kind))
  # The file replaces the scans and pictures that it was made from.
  for name in (
    f'{DRIVE}/velodyne_points/data',
    f'{DRIVE}/depth_02/data',
    'val',
  ):
    (root / name).rename(root / f'{name}_gone')
  config = kitti_folder.make_config(
    root, ground_truth=kind, ground_truth_file=str(output)
  )
  input_pipeline.open_data(config)
  stored = make_eval(config)
  assert len(stored) == len(computed) == 2
  for one, other in zip(stored, computed, strict=True):
    assert one.keys() == other.keys()
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])
  assert computed[0]['depth'].any()


def test_improved_is_found_in_the_usual_places(root, tmp_path):
  folder = kitti.Folder(str(root))
  # A folder of its own comes before the raw root, train before val.
  own = tmp_path / 'annotated'
  write_improved(own, 'train', value=1024)
  truth = truths.open_truth('improved', folder, improved_root=str(own))
  assert truth.missing(EXAMPLE) == []
  assert truth.size(EXAMPLE) == (12, 40)
  depth = truth.read(EXAMPLE)
  assert depth[0, 0] == 3 and depth[1, 1] == 4
  # Unpacked into the drive itself.
  (root / 'val' / pathlib.Path(DRIVE).name / 'proj_depth').rename(
    root / DRIVE / 'proj_depth'
  )
  truth = truths.open_truth('improved', folder)
  assert truth.read(EXAMPLE)[1, 1] == 2
  (missing,) = truth.missing(splits.Example(DRIVE, 4, 'r'))
  assert missing.endswith('proj_depth/groundtruth/image_03/0000000004.png')


def test_writing_twice_changes_nothing(root, tmp_path, capsys):
  output = tmp_path / 'truth.npz'
  run(root, output, 'lidar')
  content = output.read_bytes()
  run(root, output, 'lidar')
  assert 'already exists, unchanged' in capsys.readouterr().out
  assert output.read_bytes() == content
  with pytest.raises(SystemExit, match="holds the ground truth 'lidar'"):
    run(root, output, 'dense')
  (root / 'splits/test.txt').write_text(f'{DRIVE} 0 l\n')
  with pytest.raises(SystemExit, match='from other examples; remove it'):
    run(root, output, 'lidar')
  scan = root / DRIVE / 'velodyne_points/data/0000000003.bin'
  scan.write_bytes(scan.read_bytes()[:-16])
  (root / 'splits/test.txt').write_text(
    ''.join(f'{DRIVE} {frame} l\n' for frame in (0, 3, 5))
  )
  with pytest.raises(SystemExit, match='other files, or they have changed'):
    run(root, output, 'lidar')
  scan.write_bytes(scan.read_bytes() + bytes(16))
  run(root, output, 'lidar')
  calibration = root / pathlib.Path(DRIVE).parent / kitti.CAMERA_FILE
  calibration.write_text(calibration.read_text().replace('19.5', '19.6'))
  with pytest.raises(SystemExit, match='other files, or they have changed'):
    run(root, output, 'lidar')
  for folder in (tmp_path, f'{tmp_path}/new/'):
    with pytest.raises(SystemExit, match='is a folder; name a file'):
      run(root, folder, 'lidar')
  assert output.read_bytes() == content


def test_failure_leaves_nothing_behind(root, tmp_path):
  scan = root / DRIVE / 'velodyne_points/data/0000000005.bin'
  scan.write_bytes(scan.read_bytes()[:-3])
  output = tmp_path / 'out' / 'truth.npz'
  with pytest.raises(SystemExit, match='0000000005.bin is truncated'):
    run(root, output, 'lidar')
  assert list(output.parent.iterdir()) == []
  scan.unlink()
  with pytest.raises(SystemExit, match='1 file missing, .*0000000005.bin'):
    run(root, output, 'lidar')
  with pytest.raises(SystemExit, match='no split list at .*/no/such'):
    run('/no/such', output, 'lidar')
  with pytest.raises(SystemExit, match='val/ of ground_truth_root'):
    run(root, output, 'improved', f'--ground_truth_root={tmp_path}')


def test_terminated_process_leaves_nothing_behind(root, tmp_path):
  output = tmp_path / 'out' / 'truth.npz'
  script = f"""
import os, signal
from input_pipeline.sources import kitti
from tests.input_pipeline.tools import test_cache_depth
kitti.read_scan = lambda *args: os.kill(os.getpid(), signal.SIGTERM)
test_cache_depth.run({str(root)!r}, {str(output)!r}, 'lidar')
"""
  result = subprocess.run(
    [sys.executable, '-c', script],
    cwd=kitti_folder.REPOSITORY,
    check=False,
    capture_output=True,
    text=True,
  )
  assert result.returncode == 128 + signal.SIGTERM
  assert 'Traceback' not in result.stderr
  assert list(output.parent.iterdir()) == []


def test_paths_are_local_and_expand_the_home_folder(monkeypatch, capsys):
  monkeypatch.setenv('HOME', '/home/someone')
  assert command_line.local_path('~/kitti') == '/home/someone/kitti'
  assert command_line.local_path('a/b') == 'a/b'
  with pytest.raises(SystemExit):
    run('KITTI', 'gs://bucket/truth.npz', 'lidar')
  errors = capsys.readouterr().err
  assert '--output: gs://bucket/truth.npz is a URL: ' in errors


def test_damaged_files_raise_before_training(root, tmp_path):
  output = tmp_path / 'truth.npz'
  config = kitti_folder.make_config(root, ground_truth_file=str(output))
  with pytest.raises(ValueError, match='truth.npz cannot be read: .*No such'):
    input_pipeline.open_data(config)
  run(root, output, 'dense')
  with pytest.raises(ValueError, match="'dense', but config.data.ground_tru"):
    input_pipeline.open_data(config)
  config.ground_truth = 'dense'
  (root / 'splits/test.txt').write_text(f'{DRIVE} 0 l\n{DRIVE} 1 l\n')
  with pytest.raises(ValueError, match=f'lacks 1 .*{DRIVE} 1 l in .*truth.npz'):
    input_pipeline.open_data(config)
  whole = output.read_bytes()
  # Cut short; a bare array; a bad stream in the middle of a depth map.
  np.save(tmp_path / 'array.npy', np.zeros(3))
  middle = bytearray(whole)
  middle[len(whole) // 2 : len(whole) // 2 + 40] = bytes(40)
  (root / 'splits/test.txt').write_text(f'{DRIVE} 3 l\n')
  for content in (
    whole[:300],
    (tmp_path / 'array.npy').read_bytes(),
    bytes(middle),
  ):
    output.write_bytes(content)
    with pytest.raises(ValueError, match='truth.npz cannot be read'):
      input_pipeline.open_data(config)
      make_eval(config)


@pytest.mark.skipif(
  not kitti_folder.REAL_DRIVE.is_dir(),
  reason='no real drive at ../shared/kitti',
)
def test_real_drive(tmp_path):
  drive = '2011_09_26/2011_09_26_drive_0009_sync'
  split = tmp_path / 'list.txt'
  split.write_text(f'{drive} 0 l\n{drive} 2 l\n')
  output = tmp_path / 'truth.npz'
  assert (
    cache_depth.write_truth(
      str(kitti_folder.REAL_ROOT), str(split), kind='lidar_z', output=output
    )
    == 2
  )
  stored = truths.StoredTruth(output, 'lidar_z')
  example = splits.Example(drive, 2, 'l')
  assert stored.size(example) == (375, 1242)
  np.testing.assert_array_equal(
    stored.read(example),
    kitti.scan_depth(
      kitti.read_scan(
        kitti_folder.REAL_DRIVE / 'velodyne_points/data/0000000002.bin'
      ),
      kitti.read_calibration(kitti_folder.REAL_DRIVE.parent),
      forward_distance=False,
    ),
  )
  # A scan fills a twentieth of the picture: the file is small.
  assert output.stat().st_size < 2 * 375 * 1242
