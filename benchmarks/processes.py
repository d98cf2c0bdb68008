"""A fresh process for each measurement."""

import concurrent.futures
import multiprocessing


def run_alone(function, *arguments):
  """Calls a function in a fresh process, so that its peak memory is its own.

  Args:
    function: a module's function.
    *arguments: its arguments; they and the result are pickled.

  Returns:
    What the function returns.
  """
  with concurrent.futures.ProcessPoolExecutor(
    1, mp_context=multiprocessing.get_context('spawn')
  ) as pool:
    return pool.submit(function, *arguments).result()
