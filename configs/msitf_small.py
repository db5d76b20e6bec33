"""MSITF made narrow and shallow, for CPUs: the same architecture at an eighth of the work.

    python train.py --config=configs/msitf_small.py --workdir=runs/msitf_small --config.data.dir=DATA

692,394 parameters. The weights `msitf-small` were trained with this for 72 minutes on two CPU cores, then with larger
crops for 85 more, see MODEL_CARD.md: 23.97 dB PSNR-Y on calendar and walk of Vid4 (`bi`). Its size was chosen to
upscale a window of 4 frames of 180x144 in under 3 s there: 2.98 s, 265 GFLOP, products at 293 GFLOP/s
(`python -m benchmarks.network --config=msitf_small`). Measured in one earlier run with `interpolation="first"`, at 292
to 320 GFLOP/s:

    channels  offset groups  trunk groups  GFLOP  seconds
    32        4              2             461    3.5
    32        4              1             448    3.2
    24        3              2             262    2.7
    24        3              1             254    2.5
    16        2              3             124    2.1

Below 24 channels hardly any time is saved: what is left does not shrink with the products.
"""

from ml_collections import config_dict

from configs import msitf


def get_config() -> config_dict.ConfigDict:
    """`configs.msitf` with some fields changed."""
    config = msitf.get_config()
    config.model.channels = 24
    config.model.residual_blocks = 3
    config.model.offset_groups = 3
    config.model.temporal_heads = 3
    config.model.trunk_groups = 1
    config.model.window_heads = 3
    config.model.stochastic_depth = 0.0
    config.model.base = "bicubic"
    config.model.interpolation = "both"
    config.initialization = "he"
    config.data.degradation = "bi"  # what people's downscaled video is nearest to
    config.data.crop = 16
    config.batch_size = 4
    config.num_train_steps = 7_000
    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup = 500
    config.optimizer.period = 7_000
    config.optimizer.periods = 1
    config.optimizer.max_grad_norm = 20_000.0
    config.ema_decay = 0.999
    config.eval_every = 1_000
    config.eval_clips = 16
    config.checkpoint_every = 500
    return config
