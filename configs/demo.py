"""The demonstration: the whole method at 192x64, minutes on two CPU cores.

  python main.py --config=demo --workdir=runs/demo

ResNet-10 encoders, two drives for training and a third for evaluation;
docs/results.md has its figures.
"""

from sgde_jax.configs import default


def get_config():
  """Returns the demo's config."""
  config = default.get_config()
  config.batch_size = 4
  config.num_steps = 560
  config.data.root = 'runs/street_192x64'
  config.data.height = 64
  config.data.width = 192
  config.data.street.drives = 3
  config.data.street.frames = 60
  config.data.street.height = 64
  config.data.street.width = 192
  config.model.encoder_layers = 10
  config.model.pose_layers = 10
  config.model.seem.points = 512
  # At this size most pixels move by less than one pixel, so that the auto-mask
  # would remove too many of them at first.
  config.loss.automask = False
  config.augmentation.jitter_probability = 0.0  # All drives have equal light.
  config.eval.flip = True
  config.eval.crop = 'garg'
  config.optimizer.learning_rate = 2e-4
  config.optimizer.decay_epochs = (15.0,)  # Of 29 steps.
  config.log_every = 20
  config.picture_every = 560
  config.eval_every = 560
  config.checkpoint_every = 560
  config.report = True
  return config
