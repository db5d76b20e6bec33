"""MSITF along optical flow, narrow and shallow, for CPUs.

    python train.py --config=configs/msitf_small.py --workdir=runs/msitf_small --config.data.dir=DATA

321,748 parameters. The weights `msitf-small` were trained with this, see MODEL_CARD.md. Motion is found without
parameters and corrected by what is learned (`msitf_jax/model/flow.py`); plain 3x3 convolutions take the place of window
attention, and one sub-pixel step that of two convolutions at full size. docs/choices.md has what each choice is worth.

The rate is constant: the run has no end, and any of its checkpoints can be cooled down (docs/train.md).
"""

from ml_collections import config_dict

from configs import msitf


def get_config() -> config_dict.ConfigDict:
    """`configs.msitf` with some fields changed."""
    config = msitf.get_config()
    config.model.channels = 32
    config.model.residual_blocks = 3
    config.model.offset_groups = 4
    config.model.alignment = "flow"
    config.model.propagation_blocks = 3
    config.model.interpolation_blocks = 2
    config.model.trunk = "conv"
    config.model.trunk_groups = 1
    config.model.trunk_blocks = 5
    config.model.stochastic_depth = 0.0
    config.model.upsampling = "one_step"
    config.model.context = False
    config.model.base = "flow"
    config.initialization = "he"
    config.data.degradation = "bi"  # what people's downscaled video is nearest to
    config.data.frames = 3
    config.data.thirds = 0.5
    config.data.crop = 32
    config.data.crop_candidates = 4
    config.batch_size = 4
    config.num_train_steps = 1_000_000_000
    config.optimizer.name = "muon"
    config.optimizer.schedule = "constant"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.min_learning_rate = 1e-6
    config.optimizer.warmup = 500
    config.optimizer.max_grad_norm = 57_000.0
    config.ema_decay = 0.999
    config.eval_every = 5_000
    config.eval_clips = 30
    config.checkpoint_every = 1_000
    return config
