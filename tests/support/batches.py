"""A look at every training batch on its way into the loop."""

import input_pipeline


def on_each(function):
  """Makes training call a function of step and batch before each step."""
  create_batches = input_pipeline.create_train_batches

  def create_seen_batches(*args, start_step, **kwargs):
    batches = create_batches(*args, start_step=start_step, **kwargs)
    for step, batch in enumerate(batches, start=start_step + 1):
      function(step, batch)
      yield batch

  input_pipeline.create_train_batches = create_seen_batches
