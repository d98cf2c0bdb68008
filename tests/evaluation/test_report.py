"""The page of a run: what it holds, and that a browser shows it."""

import functools
import html.parser
import json
import os
import shutil
import subprocess
import types

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sgde_jax import run_files
from sgde_jax.evaluation import charts, report
from sgde_jax.inference import steps
from sgde_jax.weights import initial
from tests.support import runs

_CHROMIUM = next(
  filter(None, map(shutil.which, ('chromium', 'google-chrome', 'chrome'))), None
)


class _Page(html.parser.HTMLParser):
  """Collects the tags of a page and checks that they are closed."""

  _VOID = ('meta', 'link', 'img', 'input')

  def __init__(self, path):
    super().__init__()
    self.text = path.read_text()
    self.tags, self._open = [], []
    self.feed(self.text)
    self.close()
    assert not self._open

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in self._VOID:
      self._open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self._open.pop() == tag

  def find(self, tag):
    return [attributes for name, attributes in self.tags if name == tag]

  def titles(self):
    return [attributes['id'] for attributes in self.find('section')]


def _predict_depth(variables, frames, *, model, flip):
  """Stands in for `steps.predict_step`: depth from the frame's brightness."""
  del variables, flip
  inverse = 0.02 + frames.mean(axis=-1) / (1000 if model.seem else 900)
  labels = jnp.asarray(frames[..., 0] % 19, jnp.uint8)
  return steps.BatchPrediction(inverse, labels if model.semantics else None)


class _Network:
  """Stands in for the whole network."""

  def __init__(self, *, semantics=True, seem=True, attention=(4, 3)):
    self.semantics, self.seem = semantics, seem
    self.attention_levels = attention

  def clone(self, *, seem):
    return _Network(semantics=self.semantics, seem=seem)

  def apply(self, variables, images, points, *, method):
    assert method == 'attention_maps'
    del variables
    shape = (len(images), points.shape[1], 2, 4)
    maps = jnp.arange(1.0, 9.0).reshape(2, 4) / 36
    return {
      level: jnp.broadcast_to(maps, shape) for level in self.attention_levels
    }


@pytest.fixture(name='write')
def fixture_write(root, tmp_path, monkeypatch, one_device):
  """A function that writes the report of an invented run, and returns it."""
  monkeypatch.setattr(steps, 'predict_step', _predict_depth)

  def write(network=None, *, baseline=None, **overrides):
    network = network or _Network()
    state = types.SimpleNamespace(variables={}, step=np.int32(20))
    monkeypatch.setattr(initial, 'load_trained', lambda *_: (network, state))
    workdir = tmp_path / 'run <&>'
    workdir.mkdir(exist_ok=True)
    _write_log(workdir)
    config = runs.make_config(root, **overrides)
    return _Page(report.write(config, workdir, baseline=baseline))

  return write


def _write_log(workdir, steps=(5, 10, 15, 20)):
  entries = [
    {'step': step, 'train/loss': 1 / step, 'train/ms_per_step': 3.0}
    for step in steps
  ]
  entries += [
    {'step': step, 'protocol': 'p', 'eval/abs_rel': 1 / (step + 1)}
    for step in (0, 20)
  ]
  lines = (json.dumps(entry) + '\n' for entry in entries)
  (workdir / 'metrics.jsonl').write_text(''.join(lines))


def test_whole_run(write, tmp_path):
  page = write()
  assert page.titles() == [
    *('training', 'evaluation', 'borders', 'classes', 'confusion'),
    *('best', 'median', 'worst', 'attention', 'config'),
  ]
  assert 'run &lt;&amp;&gt;' in page.text
  # Depth, error and classes of each of the three images.
  sliders = [a for a in page.find('input') if a['type'] == 'range']
  assert len(sliders) == 9
  # Nothing comes from anywhere else.
  for tag, attributes in page.tags:
    for name in ('src', 'href'):
      target = attributes.get(name, '#')
      assert target.startswith(('data:', '#')), (tag, target)
  # Loss and abs_rel; not the speed.
  assert [a['aria-label'] for a in page.find('svg')] == [
    'loss',
    'abs_rel over steps',
  ]
  stored = run_files.read_evaluation(tmp_path / 'run <&>')
  assert stored.made['step'] == 20
  for row in stored.images:
    assert page.text.count(f'<code>{row["example"]}</code>') == 1


def test_best_and_worst_image_are_those_of_the_evaluation(write, tmp_path):
  page = write()
  evaluation = run_files.read_evaluation(tmp_path / 'run <&>')
  errors = sorted(row['abs_rel'] for row in evaluation.images)
  for title, error in zip(('best', 'median', 'worst'), errors, strict=True):
    section = page.text.split(f'<section id="{title}">')[1]
    assert f'abs_rel {error:.4f}' in section.split('</section>')[0]


def test_stored_evaluation_is_used(write, tmp_path):
  write()
  path = tmp_path / 'run <&>' / 'evaluation' / 'metrics.json'
  figures = json.loads(path.read_text())
  path.write_text(json.dumps(figures | {'rmse': 12.3456}))
  assert '12.3456' in write().text
  # But not one by another protocol.
  assert '12.3456' not in write(eval__max_depth=50.0).text


def test_baseline_is_drawn_next_to_the_run(write, tmp_path, root):
  write()
  shutil.copytree(tmp_path / 'run <&>', tmp_path / 'other')
  path = tmp_path / 'other' / 'evaluation' / 'metrics.json'
  figures = json.loads(path.read_text())
  figures |= {'abs_rel': figures['abs_rel'] * 2, 'list': 'other.txt'}
  path.write_text(json.dumps(figures))
  page = write(baseline=tmp_path / 'other')
  assert '<polyline class="baseline"' in page.text
  assert '<span class="bar baseline"' in page.text
  assert '<span class="good">-50.0 %</span>' in page.text
  assert 'was evaluated by another list, other.txt.' in page.text
  with pytest.raises(FileNotFoundError, match=f'--baseline.*{root}'):
    write(baseline=root)


def test_run_without_semantics(write):
  network = _Network(semantics=False, seem=None, attention=())
  page = write(network, model__semantics=False, data__labels='none')
  assert page.titles() == [
    *('training', 'evaluation', 'borders-and-classes'),
    *('best', 'median', 'worst', 'config'),
  ]
  assert 'No evaluated image has labels' in page.text
  # Between the image and its depth.
  assert len(page.find('input')) == 3


def test_baseline_on_labelled_frames(write):
  network = _Network(semantics=False, seem=None, attention=())
  page = write(network, model__semantics=False)
  assert page.titles() == [
    *('training', 'evaluation', 'borders', 'classes'),
    *('best', 'median', 'worst', 'config'),
  ]
  assert 'classes</figcaption>' in page.text


def test_run_without_ground_truth(write):
  page = write(data__ground_truth='none')
  assert page.titles() == ['training', 'evaluation', 'config']
  assert 'no ground truth, so nothing was evaluated' in page.text
  assert not page.find('img')


def test_constant_series_has_a_flat_line():
  drawn = charts.lines('loss', {'run': [(0, 2.0), (10, 2.0 + 1e-9)]})
  heights = {
    point.split(',')[1]
    for point in drawn.split('points="')[1].split('"')[0].split()
  }
  assert len(heights) == 1


def test_series_of_the_baseline_alone_has_its_style():
  drawn = charts.lines('enhanced', {'run': [], 'baseline': [(0, 1), (1, 2)]})
  assert 'class="baseline" points' in drawn
  assert 'class="run"' not in drawn


def test_lines_stay_inside_and_are_thinned():
  rng = np.random.default_rng(0)
  points = list(zip(range(5000), rng.normal(size=5000).tolist(), strict=True))
  drawn = charts.lines('loss', {'run': points})
  places = drawn.split('points="')[1].split('"')[0].split()
  assert 200 < len(places) <= 300
  x, y = np.array([place.split(',') for place in places], float).T
  assert x.min() >= 0 and x.max() <= 340
  assert y.min() >= 0 and y.max() <= 190
  assert (np.diff(x) > 0).all()


def test_bars_are_as_long_as_their_values():
  rows = {'pole': [0.2, 0.1], 'none': [None, 0.0]}
  drawn = charts.bars(rows, ['first', 'second'])
  widths = [part.split('%')[0] for part in drawn.split('width:')[1:]]
  assert widths == ['100.0', '50.0', '0.0', '0.0']
  assert '<td>-</td>' in drawn
  drawn = charts.bars({'pole': [0.2, None]}, ['first', 'second'])
  assert '<td>-</td>' not in drawn and 'second' not in drawn


def test_confusion_shows_classes_that_occur():
  matrix = np.zeros((19, 19), int)
  matrix[0, 0], matrix[0, 5] = 30, 10
  drawn = charts.confusion(matrix)
  assert drawn.count('<tr>') == 3
  assert '--share:75.0%">75<' in drawn and '--share:25.0%">25<' in drawn


_PROBE_HEAD = """<head><script>
window.problems = [];
addEventListener('error', e => problems.push(String(e.message || e)), true);
console.error = (...x) => problems.push(x.join(' '));
</script>"""
_PROBE = """<script>
addEventListener('load', () => {
  const found = {widths: [], splits: []};
  for (const image of document.images) {
    found.widths.push(image.naturalWidth);
  }
  for (const input of document.querySelectorAll('.compare input')) {
    const over = input.closest('.compare').querySelector('.over');
    const clip = () => getComputedStyle(over).clipPath;
    const before = clip();
    input.value = 20;
    input.dispatchEvent(new Event('input', {bubbles: true}));
    found.splits.push([before, clip()]);
  }
  found.overflow = document.documentElement.scrollWidth - innerWidth;
  found.problems = problems;
  const probe = document.createElement('pre');
  probe.id = 'probe';
  probe.textContent = JSON.stringify(found);
  document.body.append(probe);
});
</script></body>"""


@pytest.mark.skipif(_CHROMIUM is None, reason='no Chromium')
def test_browser_shows_the_page(write, tmp_path):
  page = write()
  text = page.text.replace('<head>', _PROBE_HEAD).replace('</body>', _PROBE)
  (tmp_path / 'probed.html').write_text(text)
  open_page = functools.partial(_open_in_chromium, tmp_path)
  dom = open_page('--dump-dom', '--virtual-time-budget=5000')
  found = json.loads(dom.split('<pre id="probe">')[1].split('</pre>')[0])
  assert found['problems'] == []
  assert found['overflow'] <= 0
  assert len(found['widths']) == len(page.find('img'))
  assert min(found['widths']) > 0
  for before, after in found['splits']:
    assert '50%' in before and '20%' in after
  assert len(found['splits']) == 9
  picture = tmp_path / 'picture.png'
  open_page(f'--screenshot={picture}', '--window-size=1200,3000')
  pixels = np.asarray(Image.open(picture).convert('RGB'))
  assert pixels.shape == (3000, 1200, 3)
  assert pixels[::10, ::10].std() > 10


def _open_in_chromium(folder, *options):
  """Opens probed.html in a folder; returns the output."""
  usual = (
    '--headless --no-sandbox --disable-gpu --disable-quic --no-first-run'
    ' --disable-background-networking --disable-component-update --disable-sync'
    ' --hide-scrollbars'
  )
  profile = folder / 'profile'
  result = subprocess.run(
    [
      _CHROMIUM,
      *usual.split(),
      f'--user-data-dir={profile}',
      *options,
      (folder / 'probed.html').as_uri(),
    ],
    env=os.environ | {'HOME': str(folder)},
    capture_output=True,
    text=True,
    timeout=120,
    check=True,
  )
  return result.stdout


@pytest.mark.slow
def test_mode_report_of_a_trained_run(trained, tmp_path):
  for name in ('checkpoints', 'config.json', 'metrics.jsonl', 'evaluation'):
    os.symlink(trained / name, tmp_path / name)
  before = (trained / 'evaluation' / 'metrics.json').stat().st_mtime_ns
  output, _ = runs.run_main(
    '--mode=report', f'--workdir={tmp_path}', f'--baseline={trained}'
  )
  path = tmp_path / 'report.html'
  assert output == f'report: {path}\n'
  # Its last step has been evaluated while training.
  after = (trained / 'evaluation' / 'metrics.json').stat().st_mtime_ns
  assert before == after
  page = _Page(path)
  assert {'borders', 'confusion', 'best', 'worst', 'attention'} <= set(
    page.titles()
  )
  assert {'loss', 'photometric', 'abs_rel over steps'} <= {
    a['aria-label'] for a in page.find('svg')
  }
