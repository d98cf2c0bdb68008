"""Sequences with true poses: both layouts, every line read or an error."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import input_pipeline
from input_pipeline.sources import odometry
from tests.support import kitti_folder

_FRAMES = 5
_DRIVES = [f'2011_09_26/2011_09_26_drive_{n:04d}_sync' for n in (1, 2)]


def _pose_lines(count, step=1.0):
  """Poses of a camera that turns and moves `step` metres ahead per frame."""
  lines = []
  for index in range(count):
    c, s = np.cos(0.1 * index), np.sin(0.1 * index)
    row = [c, 0, s, 0, 0, 1, 0, 0, -s, 0, c, step * index]
    lines.append(' '.join(f'{value:.7e}' for value in row))
  return lines


def _write_poses(path, lines):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text('\n'.join(lines) + '\n')


def _write_frames(folder, digits, *, count=_FRAMES, first=0, suffix='png'):
  """Writes frames whose grey level is their number."""
  for index in range(first, first + count):
    grey = np.full((12, 40, 3), 10 * index, np.uint8)
    kitti_folder.save(grey, folder / f'{index:0{digits}d}.{suffix}')


@pytest.fixture(name='benchmark_root')
def fixture_benchmark_root(tmp_path):
  """KITTI odometry: 09 as PNG, 10 as JPEG; 08 has no truth, 11 no frames."""
  root = tmp_path / 'odometry'
  for name, suffix in (('08', 'png'), ('09', 'png'), ('10', 'jpg')):
    _write_frames(root / 'sequences' / name / 'image_2', 6, suffix=suffix)
  for name, step in (('09', 1.0), ('10', 2.0), ('11', 3.0)):
    _write_poses(root / 'poses' / f'{name}.txt', _pose_lines(_FRAMES, step))
  return root


@pytest.fixture(name='raw_root')
def fixture_raw_root(tmp_path):
  """KITTI raw, like the street: two drives with poses, one without."""
  root = tmp_path / 'raw'
  lines = []
  for drive in (*_DRIVES, 'other/unposed_sync'):
    kitti_folder.write_date((root / drive).parent)
    _write_frames(root / drive / 'image_02' / 'data', 10)
    lines += [f'{drive} {frame} l\n' for frame in (1, 3)]
  for drive in _DRIVES:
    _write_poses(root / drive / 'poses.txt', _pose_lines(_FRAMES))
  (root / 'splits').mkdir()
  (root / 'splits' / 'test.txt').write_text(''.join(lines))
  return root


def _open(root, *names):
  return odometry.open_sequences(kitti_folder.make_config(root), names)


def test_kitti_odometry_layout(benchmark_root):
  assert odometry.is_odometry_root(benchmark_root)
  sequences = _open(benchmark_root)
  assert [sequence.name for sequence in sequences] == ['09', '10']
  first, second = sequences
  assert [file[-10:] for file in first.files] == [
    f'{index:06d}.png' for index in range(_FRAMES)
  ]
  assert second.files[0].endswith('000000.jpg')
  assert first.poses.shape == (_FRAMES, 4, 4)
  np.testing.assert_allclose(first.poses[:, 2, 3], range(_FRAMES))
  np.testing.assert_allclose(second.poses[:, 2, 3], range(0, 10, 2))
  np.testing.assert_allclose(first.poses[2, 0, 2], np.sin(0.2), atol=1e-6)
  np.testing.assert_array_equal(first.poses[3, 3], [0, 0, 0, 1])


def test_kitti_raw_layout(raw_root):
  assert not odometry.is_odometry_root(raw_root)
  sequences = _open(raw_root)
  assert [s.name for s in sequences] == [d.split('/')[1] for d in _DRIVES]
  assert len(sequences[0].files) == _FRAMES  # All frames, not the split's.


@pytest.mark.parametrize('layout', ['benchmark', 'raw'])
def test_only_named_sequences_are_opened(benchmark_root, raw_root, layout):
  root, name = {
    'benchmark': (benchmark_root, '10'),
    'raw': (raw_root, _DRIVES[1]),
  }[layout]
  (sequence,) = _open(root, name)
  assert sequence.name == name.split('/')[-1]


@pytest.mark.parametrize('reader', ['memory', 'tf'])
def test_pairs_are_in_order_and_padded(benchmark_root, reader):
  config = kitti_folder.make_config(benchmark_root, reader=reader)
  sequence = odometry.open_sequences(config, ['09'])[0]
  batches = [
    list(
      input_pipeline.pair_batches(
        config, sequence, batch_size=6, process_index=index, process_count=2
      )
    )
    for index in range(2)
  ]
  assert [len(shard) for shard in batches] == [1, 1]
  frames = np.concatenate([shard[0]['frames'] for shard in batches])
  mask = np.concatenate([shard[0]['mask'] for shard in batches])
  assert frames.shape == (6, 2, 8, 24, 3) and frames.dtype == np.uint8
  pairs = frames[:, :, 4, 12, 0] // 10
  assert pairs.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4], [3, 4], [3, 4]]
  assert mask.tolist() == [True] * 4 + [False] * 2


def _error(root, *names, error=ValueError):
  with pytest.raises(error) as caught:
    _open(root, *names)
  return str(caught.value)


def test_no_poses_is_one_message(raw_root, benchmark_root):
  for drive in _DRIVES:
    (raw_root / drive / 'poses.txt').unlink()
  for path in (benchmark_root / 'poses').iterdir():
    path.unlink()
  for root in (raw_root, benchmark_root):
    message = _error(root, error=FileNotFoundError)
    for part in ('splits/test.txt', str(root), '--config.data.root'):
      assert part in message


def test_absent_parts_are_named(benchmark_root, raw_root):
  message = _error(benchmark_root, '08', error=FileNotFoundError)
  assert f'{benchmark_root}/poses/08.txt' in message
  message = _error(benchmark_root, '11')
  assert f'0 frames in {benchmark_root}/sequences/11/image_2' in message
  message = _error(raw_root, 'nowhere', error=FileNotFoundError)
  assert f'{raw_root}/nowhere/poses.txt' in message


def test_sequence_named_twice_is_opened_once(raw_root):
  assert len(_open(raw_root, _DRIVES[0], f'{_DRIVES[0]}/')) == 1


@pytest.mark.parametrize('count', [_FRAMES - 1, _FRAMES + 1])
def test_poses_and_frames_must_match(benchmark_root, count):
  path = benchmark_root / 'poses' / '09.txt'
  _write_poses(path, _pose_lines(count))
  message = _error(benchmark_root, '09')
  assert str(path) in message
  assert f'{count} poses for the {_FRAMES} frames' in message


def test_gap_in_the_frames(benchmark_root):
  folder = benchmark_root / 'sequences' / '09' / 'image_2'
  (folder / '000002.png').rename(folder / '000009.png')
  message = _error(benchmark_root, '09')
  assert str(folder) in message and 'frame 2 is missing' in message


@pytest.mark.parametrize(
  ('line', 'advice'),
  [
    ('1 0 0 0 0 1 0 0 0 0 1', 'needs 12 finite numbers'),
    ('', 'needs 12 finite numbers'),
    ('1 0 0 x 0 1 0 0 0 0 1 0', 'finite numbers'),
    ('1 0 0 nan 0 1 0 0 0 0 1 0', 'finite numbers'),
    ('1e9 0 0 0 0 1 0 0 0 0 1 0', 'not rigid'),
    ('1 0 0 0 0 1 0 0 0 0 -1 0', 'not rigid'),
    ('0 0 0 0 0 0 0 0 0 0 0 0', 'not rigid'),
  ],
)
def test_bad_pose_line(tmp_path, line, advice):
  path = tmp_path / 'poses.txt'
  lines = _pose_lines(4)
  lines[2] = line
  _write_poses(path, lines)
  with pytest.raises(ValueError, match='line 3: .*') as error:
    odometry.read_poses(path)
  assert str(path) in str(error.value)
  assert advice in str(error.value)


_WORD = st.one_of(
  st.floats().map(repr), st.sampled_from(['0', '1', '-1']), st.text(max_size=4)
)


@hypothesis.settings(deadline=None, derandomize=True)
@hypothesis.given(
  content=st.one_of(
    st.binary(max_size=80),
    st.lists(
      st.one_of(
        st.sampled_from(_pose_lines(3)),
        st.lists(_WORD, min_size=11, max_size=13).map(' '.join),
      ),
      max_size=4,
    ).map(lambda lines: '\n'.join(lines).encode(errors='replace')),
  )
)
def test_any_pose_file_is_read_or_raises_with_the_file_name(
  tmp_path_factory, content
):
  path = tmp_path_factory.mktemp('poses') / 'poses.txt'
  path.write_bytes(content)
  try:
    poses = odometry.read_poses(path)
  except ValueError as error:
    assert f'{path}, line ' in str(error)
  else:
    assert poses.shape[0] >= 1 and poses.shape[1:] == (4, 4)
    assert np.isfinite(poses).all()


def test_records_have_no_poses(raw_root):
  config = kitti_folder.make_config(raw_root, source='tfds')
  with pytest.raises(FileNotFoundError, match='needs true poses.*source=kitti'):
    input_pipeline.open_sequences(config)
