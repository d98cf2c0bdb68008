"""Tests of input_pipeline.command_line."""

import os
import signal
import time

import pytest

from input_pipeline import command_line


def test_terminated_command_cleans_up():
  before = signal.getsignal(signal.SIGTERM)
  cleaned = []
  terminated = pytest.raises(SystemExit)
  with terminated as ended, command_line.report_errors():
    try:
      os.kill(os.getpid(), signal.SIGTERM)
      time.sleep(5)  # The handler runs here at the latest.
    finally:
      cleaned.append(True)
  assert ended.value.code == 128 + signal.SIGTERM
  assert cleaned and signal.getsignal(signal.SIGTERM) is before


def test_user_errors_are_one_line():
  exits = pytest.raises(SystemExit)
  with exits as ended, command_line.report_errors():
    raise ValueError('no such folder')
  assert ended.value.code == 'ValueError: no such folder'
  with exits as ended, command_line.report_errors():
    raise KeyboardInterrupt
  assert ended.value.code == 'interrupted'
  with pytest.raises(KeyError), command_line.report_errors():
    raise KeyError('ours')


def test_paths_are_local():
  assert command_line.local_path('~/kitti') == os.path.expanduser('~/kitti')
  assert command_line.local_path('') == ''
