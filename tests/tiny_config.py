"""The published configuration, made so small that a step takes no time and compiling it little."""

from configs import msitf


def get_config():
    config = msitf.get_config()
    config.num_train_steps = 6
    config.batch_size = 2
    config.model.channels = 8
    config.model.residual_blocks = 1
    config.model.offset_groups = 2
    config.model.temporal_heads = 8
    config.model.trunk_groups = 1
    config.model.window_heads = 2
    config.data.crop = 8
    config.data.synthetic_clips = 2
    config.data.synthetic_height = 64
    config.data.synthetic_width = 64
    config.optimizer.learning_rate = 1e-3
    config.optimizer.period = 10
    config.log_every = 2
    config.eval_every = 3
    config.eval_clips = 1
    config.checkpoint_every = 2
    config.keep_last = 3
    return config
