"""MSITF made narrow and shallow, for CPUs: the same architecture at an eighth of the work.

    python train.py --config=configs/msitf_small.py --workdir=runs/msitf_small --config.data.dir=DATA

691,818 parameters. Not trained yet. Chosen to upscale a window of 4 frames of 180x144 in under 3 s on two CPU cores
(`python -m benchmarks.network --config=msitf_small`). Measured in one run, matrix products at 292 to 320 GFLOP/s:

    channels  offset groups  trunk groups  GFLOP  seconds
    32        4              2             461    3.5
    32        4              1             448    3.2
    24        3              2             262    2.7
    24        3              1             254    2.5
    16        2              3             124    2.1

Below 24 channels hardly any time is saved: what is left does not shrink with the products.
"""

from configs import msitf


def get_config():
    config = msitf.get_config()
    config.model.channels = 24
    config.model.residual_blocks = 3
    config.model.offset_groups = 3
    config.model.temporal_heads = 3
    config.model.trunk_groups = 1
    config.model.window_heads = 3
    config.data.degradation = "bi"  # what people's downscaled video is nearest to
    return config
