"""Names of files at the edge: endings, lengths, encodings, numbering."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from input_pipeline import files, splits
from input_pipeline.sources import kitti, stills, truths
from input_pipeline.tools import labels
from tests.support import kitti_folder

_EXAMPLE = splits.Example(kitti_folder.DRIVE, 1, 'l')


@pytest.mark.parametrize('name', ['1.PNG', '01.png', '0000000001.Png'])
@pytest.mark.parametrize(
  'kind', ['image', 'semantic', 'depth', 'velodyne_points', 'oxts']
)
def test_every_kind_of_file_may_have_its_own_numbering(tmp_path, kind, name):
  ending = {'velodyne_points': '.BIN', 'oxts': '.TXT'}.get(kind, '.png')
  camera = None if kind in ('velodyne_points', 'oxts') else 2
  drive = tmp_path / kitti_folder.DRIVE
  place = kitti.data_folder(drive, kind, camera)
  os.makedirs(place)
  path = os.path.join(place, os.path.splitext(name)[0] + ending)
  open(path, 'w').close()
  folder = kitti.Folder(str(tmp_path))
  assert folder.file(kind, _EXAMPLE) == path
  assert folder.expected_file(kind, _EXAMPLE) == path


def test_improved_truth_may_have_its_own_numbering(tmp_path):
  name = os.path.basename(kitti_folder.DRIVE)
  path = tmp_path / 'val' / name / 'proj_depth/groundtruth/image_02/1.PNG'
  kitti_folder.save(np.full((4, 6), 512, np.uint16), path)
  folder = kitti.Folder(str(tmp_path))
  truth = truths.open_truth('improved', folder)
  assert truth.sources(_EXAMPLE) == [str(path)]
  assert not truth.missing(_EXAMPLE)
  np.testing.assert_array_equal(truth.read(_EXAMPLE), np.full((4, 6), 2.0))
  absent = splits.Example(kitti_folder.DRIVE, 2, 'l')
  assert truth.missing(absent)[0].endswith('0000000002.png')


def test_mixed_endings_of_stills(tmp_path):
  picture, mask = np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.uint8)
  for name, ending in (('a', 'png'), ('b', 'PNG'), ('C', 'Png')):
    kitti_folder.save(picture, tmp_path / f'image_2/{name}.{ending}')
    kitti_folder.save(mask, tmp_path / f'semantic/{name}.png')
  (tmp_path / 'image_2' / '._a.png').touch()
  pictures, masks, found = stills.list_files(
    tmp_path, coding='ids', split='train'
  )
  assert [os.path.basename(path) for path in pictures] == [
    *('C.Png', 'a.png', 'b.PNG')
  ]
  assert masks == found and len(found) == 3
  city = tmp_path / 'cityscapes'
  kitti_folder.save(picture, city / 'leftImg8bit/val/x/a_leftImg8bit.PNG')
  kitti_folder.save(mask, city / 'gtFine/val/x/a_gtFine_labelIds.PNG')
  pictures, masks, found = stills.list_files(city, coding='ids', split='val')
  assert len(pictures) == 1 and masks == found and len(found) == 1


def test_masks_to_colour_may_have_any_ending(tmp_path):
  for name in ('a.png', 'B.PNG'):
    kitti_folder.save(np.zeros((4, 6), np.uint8), tmp_path / 'in' / name)
  labels.colour(tmp_path / 'in', tmp_path / 'out', coding='train_ids')
  names = sorted(path.name for path in (tmp_path / 'out').iterdir())
  assert names == ['B.png', 'a.png']


@pytest.mark.parametrize('length', [250, 255])
def test_long_names_are_written(tmp_path, length):
  name = 'é' * ((length - 4) // 2) + 'x' * (length % 2) + '.txt'
  assert len(os.fsencode(name)) == length
  files.write_text(tmp_path / name, 'whole')
  assert os.listdir(tmp_path) == [name]
  with files.whole_folder(tmp_path / name.replace('.', '_')) as folder:
    (folder / name).touch()
  with files.whole_files(tmp_path / name.replace('.', '-')) as folder:
    (folder / name).touch()
  assert len(list(tmp_path.rglob('*.txt'))) == 3


def test_names_that_are_not_utf_8(tmp_path):
  path = tmp_path / os.fsdecode(b'\xff.txt')
  files.write_text(path, str(path))
  assert path.read_bytes() == os.fsencode(path)
  image = tmp_path / 'image_02' / 'data' / os.fsdecode(b'\xff.png')
  kitti_folder.save(np.zeros((4, 6, 3), np.uint8), image)
  with Image.open(image) as picture:
    assert picture.size == (6, 4)


_PRINTS = """
import sys
from input_pipeline import command_line
command_line.protect_output()
for _ in range(2):
  for stream in (sys.stdout, sys.stderr):
    print('name \\udcff \\xe9', file=stream, flush=True)
print('x' * 100000)
with open(sys.argv[1], 'w') as file:
  file.write(f'done {file.fileno() > 2}')
"""


@pytest.mark.parametrize('reads', ['closed', 'pipe', 'ascii'])
def test_output_that_nobody_reads_ends_no_command(tmp_path, reads):
  arguments = [sys.executable, '-c', _PRINTS, str(tmp_path / 'done')]
  environment = os.environ | {'PYTHONIOENCODING': 'ascii:strict'}
  options = {'env': environment, 'cwd': kitti_folder.REPOSITORY}
  if reads == 'closed':
    script = 'exec "$@" >&- 2>&-'
    command = ['sh', '-c', script, 'sh', *arguments]
    result = subprocess.run(command, check=False, **options)
  elif reads == 'ascii':
    result = subprocess.run(
      arguments, check=False, capture_output=True, **options
    )
    assert result.stdout.startswith(b'name \\udcff \\xe9')
    assert result.stderr == 2 * b'name \\udcff \\xe9\n'
  else:
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
      arguments, check=False, stdout=writer, stderr=writer, **options
    )
    os.close(writer)
  assert result.returncode == 0
  assert (tmp_path / 'done').read_text() == 'done True'
