"""Speeds of oxts packets; test_make_splits tests their use in the lists."""

import math

import hypothesis
from hypothesis import strategies as st

from input_pipeline.tools import motion


@hypothesis.settings(deadline=None, derandomize=True)
@hypothesis.given(
  content=st.one_of(
    st.text(max_size=80).map(str.encode),
    st.binary(max_size=80),
    st.lists(
      st.one_of(
        st.floats().map(str), st.sampled_from(['1e999', '1e308', '-', '1_0'])
      ),
      min_size=28,
      max_size=31,
    ).map(lambda words: ' '.join(words).encode()),
  )
)
def test_any_packet_has_a_speed_or_raises(tmp_path_factory, content):
  path = tmp_path_factory.mktemp('oxts') / '0000000001.txt'
  path.write_bytes(content)
  try:
    speed = motion.read_speed(path)
  except ValueError as error:
    assert str(path) in str(error)
  else:
    assert math.isfinite(speed) and speed >= 0
    assert len(content.decode().split()) == 30
