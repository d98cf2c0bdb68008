"""What the commands of the input pipeline share."""

import os
import signal
import threading
import time

import pytest

from input_pipeline import command_line


def test_a_terminated_command_cleans_up():
  before = signal.getsignal(signal.SIGTERM)
  cleaned = []
  terminated = pytest.raises(SystemExit)
  with terminated as ended, command_line.cleaning_up_when_terminated():
    try:
      os.kill(os.getpid(), signal.SIGTERM)
      time.sleep(5)  # The handler runs here at the latest.
    finally:
      cleaned.append(True)
  assert ended.value.code == 128 + signal.SIGTERM
  assert cleaned and signal.getsignal(signal.SIGTERM) is before


def test_another_thread_may_render():
  done = []

  def work():
    with command_line.cleaning_up_when_terminated():
      done.append(True)

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert done


def test_what_a_person_can_put_right_is_one_message():
  refused = pytest.raises(SystemExit)
  with refused as ended, command_line.ending_in_one_message():
    raise ValueError('no such folder')
  assert ended.value.code == 'ValueError: no such folder'
  with refused as ended, command_line.ending_in_one_message():
    raise KeyboardInterrupt
  assert ended.value.code == 'interrupted'
  with pytest.raises(KeyError), command_line.ending_in_one_message():
    raise KeyError('ours')


def test_a_path_is_of_this_machine():
  assert command_line.local_path('~/kitti') == os.path.expanduser('~/kitti')
  assert command_line.local_path('') == ''
