"""A look at every training batch on its way into the loop."""

import input_pipeline


def on_each(function):
  """Makes training call a function of step and batch before each step."""
  train_batches = input_pipeline.Data.train_batches

  def seen_batches(self, *, start_step, **kwargs):
    batches = train_batches(self, start_step=start_step, **kwargs)
    for step, batch in enumerate(batches, start=start_step + 1):
      function(step, batch)
      yield batch

  input_pipeline.Data.train_batches = seen_batches
