"""Lists made from a folder: frames kept and dropped, and the split."""

import json
import math
import pathlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import input_pipeline
from input_pipeline.tools import make_splits
from tests.support import drives, kitti_folder


@pytest.fixture(name='root')
def fixture_root(tmp_path):
  return tmp_path / 'kitti'


@pytest.fixture(name='output')
def fixture_output(tmp_path):
  return tmp_path / 'made' / 'lists'


def test_lists_pass_the_checks_before_training(root, output):
  for number in (1, 3):
    for camera in (2, 3):
      kitti_folder.write_drive(
        root, drive=drives.drive_name(number), camera=camera, frames=8
      )
  summary = make_splits.make_splits(root, output, validation_share=0.5)
  config = kitti_folder.make_config(
    root,
    train_split=str(output / 'train.txt'),
    eval_split=str(output / 'val.txt'),
  )
  checked = input_pipeline.open_data(config)
  # Six of eight frames have both neighbours, for each camera.
  assert (checked.train_examples, len(checked.eval_lines)) == (12, 12)
  assert 'in both splits' not in str(checked)
  train, validation = drives.read(output)
  assert [(line.frame, line.side) for line in train] == [
    (frame, side) for side in 'lr' for frame in range(1, 7)
  ]
  assert summary['train'] == {
    'drives': 1,
    'frames': 12,
    'hours': round(6 / 36000, 4),
  }
  assert summary['dropped'] == {'no neighbour': 8}
  assert summary == json.loads((output / 'summary.json').read_text())
  assert len(validation) == 12


def test_missing_camera_of_a_drive_is_counted(root, output):
  drives.write_moving(root, 8, 8)
  drives.write_pictures(root, drives.DRIVE, np.arange(6) * 5, camera=3)
  summary = make_splits.make_splits(root, output, validation_share=0.5)
  assert summary['lacks_cameras'] == {'r': 1}
  assert summary['drives'][drives.drive_name(2)]['lacks_cameras'] == ['r']
  lines = sum(drives.read(output), [])
  assert sum(line.side == 'r' for line in lines) == 4
  assert '1 drive without camera r' in make_splits.describe(summary)


def test_single_camera(root, output):
  drives.write_moving(root, 8, 8)
  drives.write_pictures(root, drives.DRIVE, np.arange(8) * 5, camera=3)
  summary = make_splits.make_splits(root, output, cameras=['r'])
  lines = sum(drives.read(output), [])
  assert {str(line).rpartition(' ')[2] for line in lines} == {'r'}
  assert summary['excluded'] == {
    drives.drive_name(2): 'no frame left: the cameras have none'
  }


def test_standing_frames_by_oxts(root, output):
  # The pictures all stand still: the packets decide.
  for camera in (2, 3):
    drives.write_pictures(root, drives.DRIVE, [9] * 20, camera=camera)
  speeds = [(5.0, 0.0)] * 20
  speeds[4], speeds[5], speeds[6] = (0.1, 0.1), (-3.0, 0.0), (0.3, 0.5)
  drives.write_oxts(root, drives.DRIVE, speeds)
  summary = make_splits.make_splits(root, output, validation_share=0.1)
  frames = drives.read_frames(output)
  assert 4 not in frames and {3, 5, 6, 7} <= set(frames)
  assert summary['dropped']['standing'] == 2  # One moment, two cameras.
  assert summary['drives'][drives.DRIVE]['judged_by'] == {'oxts': 18}


def test_speed_0_keeps_standing_frames(root, output):
  drives.write_pictures(root, drives.DRIVE, [9] * 20)
  summary = make_splits.make_splits(root, output, min_speed=0)
  assert 'standing' not in summary['dropped']
  assert summary['drives'][drives.DRIVE]['judged_by'] == {}


@pytest.mark.parametrize('suffix', ['png', 'jpg'])
def test_standing_frames_by_picture_differences(root, output, suffix):
  greys = np.arange(20) * 10
  greys[7] = greys[8] = greys[6]  # Standing from frame 7 on.
  drives.write_pictures(root, drives.DRIVE, greys, suffix=suffix)
  summary = make_splits.make_splits(root, output)
  frames = drives.read_frames(output)
  assert not {7, 8} & set(frames) and {6, 9} <= set(frames)
  assert summary['dropped']['standing'] == 2
  assert summary['drives'][drives.DRIVE]['judged_by'] == {'images': 18}


def test_next_frame_is_compared_if_it_is_the_only_neighbour(root, output):
  greys = np.arange(20) * 10
  greys[7] = greys[6]
  drives.write_pictures(root, drives.DRIVE, greys)
  make_splits.make_splits(root, output, frame_offsets=[0, 1])
  frames = drives.read_frames(output)
  assert 6 not in frames and {0, 5, 7} <= set(frames) and 19 not in frames


def test_pictures_are_compared_where_packets_are_missing(root, output):
  drives.write_pictures(root, drives.DRIVE, [9] * 20)
  drives.write_oxts(root, drives.DRIVE, [(5.0, 0.0)] * 16)
  summary = make_splits.make_splits(root, output)
  judged_by = summary['drives'][drives.DRIVE]['judged_by']
  assert judged_by == {'oxts': 15, 'images': 3}
  assert summary['dropped']['standing'] == 3


def test_neighbours_missing_in_the_middle(root, output):
  drives.write_moving(root, 20)
  (root / drives.DRIVE / 'image_02/data/0000000008.png').unlink()
  summary = make_splits.make_splits(root, output, frame_offsets=[-2, 1])
  frames = drives.read_frames(output)
  assert not {0, 1, 7, 8, 10, 19} & set(frames)
  assert {2, 6, 9, 11} <= set(frames)
  assert summary['dropped']['no neighbour'] == 5


@pytest.mark.parametrize('seed', range(5))
def test_split_by_drive_is_near_the_share(seed):
  sizes = {f'drive{n}': 10 + 7 * n for n in range(30)}
  chosen = make_splits.split_by_drive(sizes, share=0.2, seed=seed)
  share = sum(sizes[drive] for drive in chosen) / sum(sizes.values())
  assert share == pytest.approx(0.2, abs=0.03)


@hypothesis.settings(deadline=None, derandomize=True)
@hypothesis.given(
  sizes=st.lists(st.integers(1, 5000), min_size=2, max_size=8),
  share=st.floats(0, 1, exclude_min=True, exclude_max=True),
  seed=st.integers(0, 9),
)
def test_both_lists_get_a_drive(sizes, share, seed):
  sizes = {f'drive{n}': size for n, size in enumerate(sizes)}
  chosen = make_splits.split_by_drive(sizes, share=share, seed=seed)
  assert 0 < len(chosen) < len(sizes)
  assert chosen <= set(sizes)


def test_split_depends_only_on_the_seed(root, tmp_path):
  drives.write_moving(root, *[6] * 8)
  made = {}
  for name, seed in (('a', 0), ('b', 0), ('c', 1), ('d', 2)):
    make_splits.make_splits(
      root, tmp_path / name, validation_share=0.25, seed=seed
    )
    made[name] = [
      (tmp_path / name / file).read_bytes() for file in ('train.txt', 'val.txt')
    ]
    train, validation = drives.read(tmp_path / name)
    assert {line.drive for line in train}.isdisjoint(
      line.drive for line in validation
    )
    assert len(validation) == 8  # Two drives of four frames.
  assert made['a'] == made['b']
  assert len({lists[1] for lists in made.values()}) > 1


def test_eigen_drives_are_excluded_and_reported(root, output):
  assert len(set(make_splits.EIGEN_TEST)) == 28
  eigen = [
    drives.drive_name(2, '2011_09_26'),
    drives.drive_name(47, '2011_10_03'),
  ]
  others = [
    drives.drive_name(1, '2011_09_26'),
    drives.drive_name(2),
    drives.drive_name(3, '2011_10_03'),
  ]
  for drive in eigen + others:
    drives.write_pictures(root, drive, np.arange(6) * 5)
  summary = make_splits.make_splits(root, output)
  assert {line.drive for line in sum(drives.read(output), [])} == set(others)
  assert summary['excluded'] == dict.fromkeys(eigen, 'Eigen test drive')
  assert f'{eigen[0]}: excluded, Eigen test drive' in make_splits.describe(
    summary
  )
  again = make_splits.make_splits(root, output / 'all', exclude=('none',))
  assert again['excluded'] == {}
  assert set(again['drives']) == set(eigen + others)


def test_drives_of_the_odometry_test_are_excluded_too(root, output):
  names = [
    drives.drive_name(1),
    drives.drive_name(2, '2011_09_26'),
    drives.drive_name(33, '2011_09_30'),
  ]
  for drive in names:
    drives.write_pictures(root, drive, np.arange(6) * 5)
  make_splits.main(
    [
      f'--root={root}',
      f'--output={output}',
      '--exclude=eigen_test,odometry_test',
    ]
  )
  assert {line.drive for line in sum(drives.read(output), [])} == {names[0]}
  summary = json.loads((output / 'summary.json').read_text())
  assert summary['excluded'] == {
    names[1]: 'Eigen test drive',
    names[2]: 'odometry test drive',
  }


def test_unrectified_drives_are_excluded(root, output):
  drives.write_moving(root, 12)
  extract = drives.DRIVE.replace('_sync', '_extract')
  drives.write_pictures(root, extract, np.arange(12))
  summary = make_splits.make_splits(root, output)
  assert 'not rectified' in summary['excluded'][extract]
  assert set(summary['drives']) == {drives.DRIVE}


@pytest.mark.parametrize('offsets', [[-1, 1], [-3, 2], [2], [-2]])
def test_single_drive_is_split_with_a_gap(root, output, offsets):
  drives.write_moving(root, 30)
  drives.write_pictures(root, drives.DRIVE, np.arange(30) * 5, camera=3)
  summary = make_splits.make_splits(
    root, output, validation_share=0.2, frame_offsets=offsets
  )
  used = [
    {line.frame + offset for line in lines for offset in [0, *offsets]}
    for lines in drives.read(output)
  ]
  assert max(used[0]) == min(used[1]) - 1  # Nothing shared, nothing wasted.
  assert summary['split_by'] == 'time'
  total = sum(summary[part]['frames'] for part in ('train', 'validation'))
  assert total + sum(summary['dropped'].values()) == 60
  assert any('split by time' in line for line in make_splits.describe(summary))


def assert_raises(root, output, error, message, **arguments):
  with pytest.raises(error, match=message):
    make_splits.make_splits(root, output, **arguments)
  assert not output.exists()
  assert not output.parent.exists() or not any(output.parent.iterdir())


def test_no_calibration(root, output):
  drives.write_moving(root, 8)
  (root / drives.DATE / 'calib_cam_to_cam.txt').unlink()
  assert_raises(
    root, output, FileNotFoundError, f'{drives.DATE}/calib_cam_to_cam.txt'
  )


def test_empty_folders(root, output):
  assert_raises(
    root, output, FileNotFoundError, 'no drive below .*kitti: pass --root'
  )
  root.mkdir()
  assert_raises(
    root, output, FileNotFoundError, 'no drive below .*image_02/data'
  )
  (root / drives.DRIVE / 'image_02/data').mkdir(parents=True)
  assert_raises(
    root, output, ValueError, 'nothing is left .*the cameras have none'
  )


def test_frames_without_ground_truth_do_not_validate(root, output):
  for number in (1, 3):
    for camera in (2, 3):
      kitti_folder.write_drive(
        root, drive=drives.drive_name(number), camera=camera, frames=8
      )
  arguments = {'validation_share': 0.5, 'ground_truth': 'lidar'}
  validating = drives.DRIVE
  scans = root / validating / 'velodyne_points/data'
  (scans / '0000000004.bin').unlink()
  summary = make_splits.make_splits(root, output, **arguments)
  train, validation = drives.read(output)
  assert len(train) == 12  # Training needs no ground truth.
  assert {line.drive for line in validation} == {validating}
  assert sorted({line.frame for line in validation}) == [1, 2, 3, 5, 6]
  assert summary['validation']['frames'] == len(validation) == 10
  assert summary['drives'][validating]['dropped'] == {
    'no neighbour': 4,
    'no ground truth': 2,
  }
  for scan in scans.iterdir():
    scan.unlink()
  assert_raises(
    root,
    output.parent / 'other' / 'lists',
    ValueError,
    "none of the 12 validation frames has the ground truth 'lidar', the "
    'first lacks .*0000000001.bin',
    **arguments,
  )


def test_empty_result_raises_with_the_reasons(root, output):
  drives.write_pictures(root, drives.drive_name(2, '2011_09_26'), range(9))
  drives.write_pictures(root, drives.DRIVE, [3] * 9)
  assert_raises(
    root,
    output,
    ValueError,
    '1 drive: Eigen test drive; 1 drive: .*2 no neighbour, 7 standing',
  )


def test_drive_too_short_for_two_lists_raises(root, output):
  drives.write_moving(root, 5)
  assert_raises(
    root, output, ValueError, f'{drives.DRIVE} is the only drive .*3 frames'
  )


@pytest.mark.parametrize(
  'text',
  ['', '1 2 3', ' '.join(['1'] * 29 + ['x']), ' '.join(['nan'] * 30)],
)
def test_bad_packet_is_named(root, output, text):
  drives.write_moving(root, 8)
  drives.write_oxts(root, drives.DRIVE, [(1.0, 0.0)] * 8)
  (root / drives.DRIVE / 'oxts/data/0000000003.txt').write_text(text)
  assert_raises(
    root, output, ValueError, '0000000003.txt is not an oxts packet'
  )


def test_unreadable_picture_is_named(root, output):
  drives.write_moving(root, 8)
  picture = root / drives.DRIVE / 'image_02/data/0000000003.png'
  picture.write_text('no picture')
  assert_raises(root, output, ValueError, '0000000003.png cannot be read')


@pytest.mark.parametrize(
  'drive, message',
  [
    (f'{drives.DATE}/my drive', 'a list with .*my drive.*DRIVE FRAME SIDE'),
    ('#date/drive', 'a list with .*#date/drive.* has no example'),
    (f'{drives.DATE}/drive\udcff', 'surrogates not allowed'),
  ],
)
def test_unlistable_names_raise(root, output, drive, message):
  drives.write_pictures(root, drive, range(8))
  assert_raises(root, output, ValueError, message)


@pytest.mark.parametrize(
  'arguments, message',
  [
    ({'validation_share': 0.0}, 'validation_share is 0.0'),
    ({'validation_share': math.nan}, 'validation_share is nan'),
    ({'cameras': ['l', 'x']}, 'cameras is l,x: give l, r or l,r'),
    ({'cameras': ['l', 'l']}, 'cameras is l,l'),
    ({'exclude': ('all',)}, 'exclude is all: choose from eigen_test, odome'),
    (
      {'ground_truth': 'scans'},
      'ground_truth is scans: choose from none, lidar',
    ),
    ({'frame_offsets': [0]}, 'frame_offsets names no neighbour'),
  ],
)
def test_bad_arguments(root, output, arguments, message):
  drives.write_moving(root, 8)
  assert_raises(root, output, ValueError, message, **arguments)


def test_nonempty_folder_is_not_changed(root, output):
  drives.write_moving(root, 12)
  output.mkdir(parents=True)
  make_splits.make_splits(root, output)
  before = (output / 'train.txt').read_bytes()
  with pytest.raises(ValueError, match='exists and is not empty'):
    make_splits.make_splits(root, output, cameras=['l'])
  assert (output / 'train.txt').read_bytes() == before


def test_unwritable_output_raises_before_work(root, output, monkeypatch):
  drives.write_moving(root, 12)
  output.parent.mkdir()
  (output.parent / 'file').touch()
  monkeypatch.setattr(
    make_splits.motion, 'find_standing', lambda *_, **__: pytest.fail()
  )
  with pytest.raises(OSError, match='file'):
    make_splits.make_splits(root, output.parent / 'file' / 'lists')


def test_failed_write_leaves_nothing(root, output, monkeypatch):
  drives.write_moving(root, 12)

  def write_text(path, *_, **__):
    raise OSError(f'{path}: disk full')

  monkeypatch.setattr(pathlib.Path, 'write_text', write_text)
  assert_raises(root, output, OSError, 'disk full')


def test_command_line(root, output, capsys):
  drives.write_moving(root, 8, 8)
  make_splits.main(
    [
      f'--root={root}',
      f'--output={output}',
      '--validation_share=0.5',
      '--cameras=l',
      '--frame_offsets=-1,1',
      '--seed=3',
    ]
  )
  printed = capsys.readouterr().out
  assert 'train: 6 frames from 1 drive' in printed
  assert f'{drives.DRIVE}: ' in printed and '6 by images' in printed
  with pytest.raises(SystemExit, match='^ValueError: .* is not empty'):
    make_splits.main([f'--root={root}', f'--output={output}'])
  with pytest.raises(SystemExit, match='^2$'):
    make_splits.main(
      [f'--root={root}', f'--output={output}', '--frame_offsets=a']
    )
  assert 'invalid whole_numbers value' in capsys.readouterr().err


@pytest.mark.skipif(
  not kitti_folder.REAL_DRIVE.is_dir(), reason='needs the real KITTI drive'
)
def test_real_drive(output):
  summary = make_splits.make_splits(
    kitti_folder.REAL_ROOT, output, exclude=('none',), validation_share=0.2
  )
  train, validation = drives.read(output)
  # 51 frames, driven at 10 m/s: the first and the last have one neighbour.
  assert sorted({line.frame for line in train}) == list(range(1, 38))
  assert sorted({line.frame for line in validation}) == list(range(40, 50))
  assert len(train) == 2 * 37 and len(validation) == 2 * 10
  (drive,) = summary['drives'].values()
  assert drive['judged_by'] == {'oxts': 49}
  assert drive['dropped'] == {'no neighbour': 4, 'in the gap': 4}


@pytest.mark.skipif(
  not kitti_folder.REAL_DRIVE.is_dir(), reason='needs the real KITTI drive'
)
def test_pictures_of_a_moving_real_drive_differ(root, output):
  drive = root / drives.drive_name(9)
  kitti_folder.write_date(drive.parent)
  (drive / 'image_02').mkdir(parents=True)
  (drive / 'image_02/data').symlink_to(
    kitti_folder.REAL_DRIVE / 'image_02/data'
  )
  summary = make_splits.make_splits(root, output, exclude=('none',))
  assert summary['drives'][drives.drive_name(9)]['judged_by'] == {'images': 49}
  assert 'standing' not in summary['dropped']
