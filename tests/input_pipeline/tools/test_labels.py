"""The check of masks, and their colours."""

import collections
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from input_pipeline import cityscapes, images
from input_pipeline.tools import labels
from tests.support import kitti_folder

_GREY = np.zeros((4, 8), np.uint8)
_DRIVE = kitti_folder.DRIVE


def _mask(*values):
  """A mask of equal vertical stripes of these values."""
  return np.repeat(np.array(values, np.uint8), len(_GREY[0]) // len(values))[
    None
  ].repeat(len(_GREY), axis=0)


def _run(capsys, *arguments):
  """Runs the command; returns its exit code, stdout and stderr."""
  code = 0
  try:
    labels.main([*map(str, arguments)])
  except SystemExit as leaving:
    code = leaving.code
  printed = capsys.readouterr()
  if isinstance(code, str):  # What Python makes of it.
    code, printed = 1, printed._replace(err=printed.err + code)
  return code, printed.out, printed.err


def _write_stills(root, layout, masks, **options):
  for number, mask in enumerate(masks):
    kitti_folder.write_still(
      root, f'{number:06d}', _GREY, mask, layout=layout, **options
    )
  return root


def test_kitti_raw(tmp_path, capsys):
  kitti_folder.write_drive(tmp_path)  # 6 frames, 4 masks.
  kitti_folder.write_drive(tmp_path, camera=3, labelled=(5,), suffix='jpg')
  other = _DRIVE.replace('0001', '0002')
  kitti_folder.write_drive(tmp_path, drive=other, labelled=())
  code, output, _ = _run(capsys, 'check', tmp_path)
  assert code == 0
  first, *coverage = output.splitlines()[:5]
  assert first.startswith(f'{tmp_path}: KITTI raw, coding train_ids (guessed')
  assert coverage == [
    f'{_DRIVE} semantic_02: 4 of 6 frames have masks, 66.7 %',
    f'{other} semantic_02: 0 of 6 frames have masks, 0.0 %',
    f'{_DRIVE} semantic_03: 1 of 6 frames have masks, 16.7 %',
    f'{"class":<14}  % of labelled pixels',
  ]
  assert output.splitlines()[-1] == 'nothing is wrong'


def test_class_shares_match_the_masks(tmp_path, capsys):
  root = tmp_path / _DRIVE
  kitti_folder.save(_GREY, root / 'image_02/data/0000000000.png')
  kitti_folder.save(
    _mask(0, 0, 0, 18, 13, 255, 255, 255),
    root / 'semantic_02/data/0000000000.png',
  )
  scan = labels.check(tmp_path).scan
  assert scan.pixels.tolist() == [12, *[0] * 12, 4, *[0] * 4, 4, 12]
  _, output, _ = _run(capsys, 'check', tmp_path)
  rows = dict(line.rsplit(maxsplit=1) for line in output.splitlines()[3:22])
  assert list(rows) == list(cityscapes.NAMES)
  shares = collections.Counter(rows.values())
  assert shares == {'60.000': 1, '20.000': 2, 'absent': 16}
  assert rows['road'] == '60.000' and rows['car'] == '20.000'
  assert 'unlabelled: 37.50 % of all pixels' in output


@pytest.mark.parametrize('layout', ['kitti', 'cityscapes'])
def test_ids_of_stills(tmp_path, layout):
  _write_stills(tmp_path, layout, [_mask(7, 26), _mask(0, 33)])
  report = labels.check(tmp_path)
  assert report.scan.coding == 'ids'
  assert not report.problems
  pixels = dict(zip(cityscapes.NAMES, report.scan.pixels, strict=False))
  assert {name for name, count in pixels.items() if count} == {
    'road',
    'car',
    'bicycle',
  }
  assert report.scan.pixels[-1] == _GREY.size // 2


def test_cityscapes_names_determine_the_coding(tmp_path):
  # By its values this would be a mask of train ids.
  _write_stills(tmp_path, 'cityscapes', [_mask(7)], split='val')
  report = labels.check(tmp_path)
  assert (report.layout, report.scan.coding) == ('Cityscapes', 'ids')
  assert 'names' in report.scan.reason
  (doubt,) = report.problems.values()
  assert doubt == ['0 of 1 masks hold values from 19 to 33, as ids would']
  _write_stills(tmp_path, 'cityscapes', [_mask(18)] * 2, ending='labelTrainIds')
  report = labels.check(tmp_path, coding='train_ids')
  assert [str(group) for group in report.groups] == [
    'train: 2 of 2 frames have masks, 100.0 %',
    'val: 0 of 1 frames have masks, 0.0 %',
  ]
  assert report.scan.pixels[18] == 2 * _GREY.size
  (lines,) = report.problems.values()
  (missing,) = lines
  assert missing.endswith('val/city/000000_gtFine_labelTrainIds.png')


@pytest.mark.parametrize(
  ('masks', 'coding'),
  [
    ([[7, 26], [7, 11]], 'ids'),  # The second could be either.
    ([[0, 18], [1, 2], [1, 26]], 'train_ids'),  # The third is a mistake.
    ([[0, 255], [1, 200]], 'train_ids'),
  ],
)
def test_coding_is_guessed_by_most_masks(tmp_path, masks, coding):
  _write_stills(tmp_path, 'kitti', [_mask(*mask) for mask in masks])
  report = labels.check(tmp_path)
  assert report.scan.coding == coding
  assert bool(report.problems) == (coding == 'train_ids')


def test_all_problems_are_listed(tmp_path, capsys):
  _write_stills(tmp_path, 'kitti', [_mask(0, 18)] * 9)
  masks = tmp_path / 'semantic'
  kitti_folder.save(_mask(0, 19, 77, 0), masks / '000001_10.png')
  kitti_folder.save(_mask(0, 18)[:3], masks / '000002_10.png')
  (masks / '000003_10.png').write_bytes(b'no picture')
  kitti_folder.save(np.zeros((4, 8, 3), np.uint8), masks / '000004_10.png')
  kitti_folder.save(np.zeros((4, 8), np.uint16), masks / '000005_10.png')
  (tmp_path / 'image_2/000006_10.png').write_bytes(b'no picture')
  (masks / '000007_10.png').unlink()
  (masks / '000008_10.png').rename(masks / '8.png')
  code, output, _ = _run(capsys, 'check', tmp_path, '--coding=train_ids')
  assert code == 1
  wrong = output[output.index('WRONG') :].replace(f'{tmp_path}/', '')
  heads = [line for line in wrong.splitlines() if not line.startswith('  ')]
  assert heads == [
    'WRONG, masks or pictures that cannot be read: 4',
    'WRONG, masks with a value outside the coding: 1',
    'WRONG, masks of another size than their picture: 1',
    'WRONG, masks without a picture: 1',
    'WRONG, missing masks: 2',
  ]
  for text in (
    'semantic/000001_10.png: value 19 is outside',
    'semantic/000002_10.png is 8x3, image_2/000002_10.png is 8x4',
    'semantic/000003_10.png cannot be read',
    'semantic/000004_10.png has Pillow mode RGB',
    'semantic/000005_10.png has Pillow mode I;16',
    'image_2/000006_10.png cannot be read',
    'semantic/8.png\n',
    'semantic/000007_10.png\n  semantic/000008_10.png',
  ):
    assert text in wrong
  # Three intact masks and the small one count, not that with other values.
  pixels = labels.check(tmp_path, coding='train_ids').scan.pixels
  assert pixels.sum() == 2 * pixels[18] == 3 * 4 * 8 + 3 * 8


def test_ten_problems_are_listed_and_the_others_counted(tmp_path):
  _write_stills(tmp_path, 'kitti', [_mask(99)] * 13)
  lines = str(labels.check(tmp_path)).splitlines()
  first = lines.index('WRONG, masks with a value outside the coding: 13')
  assert all('value 99' in line for line in lines[first + 1 : first + 11])
  assert lines[first + 11 :] == ['  (+3 more)']


def test_folder_without_masks_is_one_message(tmp_path, capsys):
  for name, hints in (
    ('empty', ['semantic_02', 'gtFine', 'image_2']),
    ('raw', ['semantic_02']),
    ('stills', ['image_2']),
  ):
    if name == 'empty':
      (tmp_path / name).mkdir()
    if name == 'raw':
      kitti_folder.write_drive(tmp_path / name, labelled=())
    if name == 'stills':
      kitti_folder.save(_GREY, tmp_path / name / 'image_2/0.png')
    code, output, errors = _run(capsys, 'check', tmp_path / name)
    assert code == 1 and not output
    assert len(errors.splitlines()) == 1
    assert f'there is no mask in {tmp_path / name}' in errors
    assert all(hint in errors for hint in hints)
  code, _, errors = _run(capsys, 'check', tmp_path / 'nowhere')
  assert code == 1 and f'there is no mask in {tmp_path / "nowhere"}' in errors


def test_command_as_a_process(tmp_path):
  _write_stills(tmp_path, 'kitti', [_mask(7, 26), _mask(7, 99)])
  result = subprocess.run(
    [sys.executable, '-m', 'input_pipeline.tools.labels', 'check', tmp_path],
    cwd=kitti_folder.REPOSITORY,
    capture_output=True,
    text=True,
    check=False,
    env=os.environ | {'PYTHONWARNINGS': 'error'},
  )
  assert result.returncode == 1
  assert 'value 99' in result.stdout
  assert not re.sub(r'reading masks: .*\n', '', result.stderr)


def test_colours_of_a_folder(tmp_path, capsys):
  masks, output = tmp_path / 'masks', tmp_path / 'new' / 'colours'
  kitti_folder.save(_mask(7, 26), masks / 'a.png')
  kitti_folder.save(_mask(0, 33), masks / 'b.png')
  (masks / '._b.png').write_bytes(b'no picture')  # As macOS leaves.
  code, printed, _ = _run(capsys, 'colour', masks, output)
  assert code == 0
  assert '2 pictures' in printed and 'coded as ids (guessed' in printed
  for name, train_ids, colours in (
    ('a', _mask(0, 13), {(128, 64, 128), (0, 0, 142)}),
    ('b', _mask(255, 18), {(0, 0, 0), (119, 11, 32)}),
  ):
    path = output / f'{name}.png'
    read = images.read_mask(path, coding='train_ids')
    np.testing.assert_array_equal(read, train_ids)
    image = Image.open(path)
    assert image.mode == 'P'
    shown = np.array(image.convert('RGB')).reshape(-1, 3)
    assert set(map(tuple, shown.tolist())) == colours
  assert sorted(path.name for path in output.iterdir()) == ['a.png', 'b.png']


def test_colours_of_a_file(tmp_path):
  kitti_folder.save(_mask(5, 255), tmp_path / 'mask.png')
  labels.colour(tmp_path / 'mask.png', tmp_path / 'out.png', coding='train_ids')
  read = images.read_mask(tmp_path / 'out.png', coding='train_ids')
  np.testing.assert_array_equal(read, _mask(5, 255))


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('nowhere', 'out'), 'no mask .*nowhere'),
    (('nowhere.png', 'out.png'), 'no mask .*nowhere.png'),
    (('masks', 'masks'), r'masks/a.png already exists'),
    (('masks/a.png', 'masks/a.png'), r'a.png already exists'),
    (('broken', 'out'), r'coding: 1, the first: .*c.png: value 99'),
  ],
)
def test_unwritable_colours_raise(tmp_path, capsys, arguments, message):
  kitti_folder.save(_mask(7, 26), tmp_path / 'masks/a.png')
  kitti_folder.save(_mask(7, 26), tmp_path / 'broken/b.png')
  kitti_folder.save(_mask(7, 99), tmp_path / 'broken/c.png')
  before = sorted(tmp_path.rglob('*'))
  code, output, errors = _run(
    capsys, 'colour', *(tmp_path / path for path in arguments)
  )
  assert code == 1 and not output
  assert re.search(message, errors)
  assert sorted(tmp_path.rglob('*')) == before


@pytest.mark.skipif(
  not kitti_folder.REAL_STILLS.is_dir(), reason='the labelled frames are absent'
)
def test_real_stills():
  report = labels.check(kitti_folder.REAL_STILLS)
  assert (report.layout, report.scan.coding) == ('KITTI semantic', 'ids')
  assert str(report.groups[0]) == 'image_2: 5 of 5 frames have masks, 100.0 %'
  assert not report.problems
  assert report.scan.pixels.sum() == 5 * 370 * 1224
  shares = report.scan.pixels[:-1] / report.scan.pixels[:-1].sum()
  largest = [cityscapes.NAMES[index] for index in np.argsort(-shares)[:4]]
  assert largest == ['building', 'road', 'vegetation', 'car']
  assert shares[0] == pytest.approx(0.228, abs=1e-3)
