"""The reference config: every field, its default and its meaning.

  python main.py --workdir=runs/default

Trains the whole method on the rendered street. Other configs override fields.
"""

import ml_collections


def get_config():
  """Returns the reference config."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.batch_size = 12  # Global: over all devices and processes.
  config.num_epochs = 20
  config.num_steps = 0  # 0: num_epochs passes over the training split.
  # Initial weights of a new run: another workdir, a folder of --mode=publish,
  # Monodepth2's files (encoder.pth, depth.pth, ...), or hf://OWNER/REPO.
  config.init_from = ''
  config.init_checkpoint = 'latest'  # Of that workdir; or best (by abs_rel)

  config.data = _data()

  config.model = _model()

  config.augmentation = ml_collections.ConfigDict()
  config.augmentation.flip_probability = 0.5
  config.augmentation.jitter_probability = 0.5
  config.augmentation.brightness = 0.2
  config.augmentation.contrast = 0.2
  config.augmentation.saturation = 0.2
  config.augmentation.hue = 0.1
  config.augmentation.whole_batch = False  # One draw for the whole batch.

  config.loss = _loss()

  config.optimizer = ml_collections.ConfigDict()  # Adam
  config.optimizer.learning_rate = 1e-4
  config.optimizer.decay_epochs = (15.0,)
  config.optimizer.decay_factor = 0.1
  config.optimizer.clip_norm = 0.0  # 0: no clipping

  config.eval = ml_collections.ConfigDict()
  config.eval.batch_size = 8
  config.eval.crop = 'none'  # garg, eigen or none
  config.eval.min_depth = 1e-3  # metres
  config.eval.max_depth = 80.0
  config.eval.median_scaling = True
  config.eval.flip = False  # Average with the mirrored image's prediction.
  config.eval.checkpoint = 'latest'  # For all modes except train; or best
  config.eval.panels = 8  # Number of pictures of an evaluation.
  # For --mode=evaluate: labelled stills to measure the classes on, in a layout
  # of data.semantic_root, their coding, and the split of Cityscapes.
  config.eval.semantic_root = ''
  config.eval.semantic_labels = 'ids'
  config.eval.semantic_split = 'val'  # or train
  # For --mode=evaluate: measure the camera's motion against true poses.
  config.eval.odometry = False
  config.eval.odometry_sequences = ()  # ('09', '10') or drives; () for all.

  config.log_every = 50  # These four in steps.
  config.picture_every = 500
  config.eval_every = 1000
  config.checkpoint_every = 1000
  config.keep_checkpoints = 2  # Latest ones; the best is kept as well.
  config.report = False  # Write report.html at the end, as --mode=report does.
  config.profile = False  # Trace ten steps for TensorBoard's profiler.
  return config


def _model():
  model = ml_collections.ConfigDict()
  model.encoder_layers = 18  # ResNet-10, 18, 34, 50 or 101
  model.pose_layers = 18
  model.dtype = 'float32'  # Of the computation; or bfloat16
  model.min_depth = 0.1  # Depth at disparity 1 and at disparity 0, in metres
  model.max_depth = 100.0  # (up to the unknown scale of monocular training).
  # ImageNet ResNets of torchvision or timm: a file, or hf://OWNER/REPO.
  model.encoder_weights = ''
  model.pose_weights = ''
  model.semantics = True  # The second decoder; the parts below need it.
  model.attention = ml_collections.ConfigDict()
  model.attention.levels = (4, 3, 2)  # Of the decoders, stride 2^i; () is off.
  model.attention.heads = 4
  model.attention.width = 64  # Channels over all heads.
  model.attention.key_stride = 16  # Pixels between keys; 1: no pooling.
  model.attention.gain_rate = 10.0  # Factor on the gains' learning rate.
  model.attention.implementation = 'auto'  # plain, blockwise or fused
  model.seem = ml_collections.ConfigDict()
  model.seem.enabled = True
  model.seem.points = 2048  # Drawn per image and training step.
  model.seem.edge_width = 1  # Pixels on each side of a semantic border.
  model.seem.levels = (0, 1, 2)  # Of the decoders, sampled at the points.
  model.seem.width = 256
  model.seem.depth = 3  # Hidden layers.
  # Points that prediction refines at a time; 0: all pixels, edges are kept.
  model.seem.chunk = 2048
  return model


def _loss():
  loss = ml_collections.ConfigDict()
  loss.automask = True
  loss.smoothness_weight = 1e-3
  loss.scale_weight = 0.01  # Keeps the sigmoid from saturating.
  loss.enhanced_weight = 1.0  # Of SEEM's points; 1: equal to other pixels.
  loss.segment_weight = 0.1  # See losses.segment_prior.
  loss.cross_entropy_weight = 0.3
  loss.class_weights = ()  # 19 numbers; () weighs all classes alike.
  return loss


def _data():
  data = ml_collections.ConfigDict()
  # street (rendered if missing), kitti, or tfds: records of build_records
  data.source = 'street'
  data.root = 'runs/street'  # KITTI raw layout; for tfds its --output
  # memory (every process holds the whole split), or tf: read while training
  data.reader = 'memory'
  # Files of lines DRIVE FRAME SIDE, at the path or below the root. For tfds
  # `train` and `eval`, or the lists that the records were built from.
  data.train_split = 'splits/train.txt'
  data.eval_split = 'splits/test.txt'
  # A training example that cannot be read: stop, or replace it by the nearest
  # one of its drive and count it in a warning. Evaluation always stops.
  data.unreadable = 'stop'
  data.height = 192
  data.width = 640
  data.frame_offsets = (0, -1, 1)  # The target, then its sources.
  data.labels = 'train_ids'  # Coding of semantic_02: or ids, or none
  # Labelled stills for the cross-entropy alone: a folder in the layout of
  # Cityscapes (leftImg8bit, gtFine) or KITTI semantic (image_2, semantic).
  data.semantic_root = ''
  data.semantic_labels = 'ids'  # Their coding.
  data.semantic_share = 0.5  # Stills per example of a batch.
  # lidar (forward distance, the usual one), lidar_z (camera z), improved
  # (KITTI's annotated depth; use eval.crop none), dense (depth_02), or none:
  # no evaluation, eval_split is not needed.
  data.ground_truth = 'dense'
  data.ground_truth_root = ''  # improved: holds train/ and val/; '': the root
  data.ground_truth_file = ''  # Of input_pipeline.tools.cache_depth; '': none
  data.street = ml_collections.ConfigDict()
  data.street.drives = 6
  data.street.frames = 60
  data.street.test_drives = 1
  data.street.height = 192
  data.street.width = 640
  data.street.seed = 0
  return data
