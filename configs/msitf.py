"""MSITF as published, trained on Vimeo-90K.

    python -m input_pipeline.prepare vimeo90k --manual_dir=VIMEO --data_dir=DATA
    python train.py --config=configs/msitf.py --workdir=runs/msitf --config.data.dir=DATA

Published: 5,585,611 parameters, 600,000 steps of 16 clips on one GPU, 26.70 dB PSNR-Y on Vid4 (bd_matlab degradation).
This configuration has not been trained to its end by this project. Without `data.dir` it trains on synthetic clips.
"""

from ml_collections import config_dict


def get_config() -> config_dict.ConfigDict:
    """Every field can be set on the command line: `--config.optimizer.learning_rate=1e-4`."""
    config = config_dict.ConfigDict()
    config.seed = 0
    config.num_train_steps = 600_000
    config.batch_size = 16  # clips of all devices together
    config.initialization = "published"  # of weights that are drawn; or he, see msitf_jax.training.initialization
    config.init_from = config_dict.placeholder(str)  # start from these weights, .pth or .safetensors

    config.model = config_dict.ConfigDict()  # msitf_jax.MSITFConfig
    config.model.channels = 64
    config.model.residual_blocks = 5
    config.model.offset_groups = 8
    config.model.temporal_heads = 8
    config.model.trunk_groups = 6
    config.model.trunk_blocks = 2
    config.model.window_heads = 4
    config.model.mlp_ratio = 2
    config.model.stochastic_depth = 0.1
    config.model.base = "trilinear"
    config.model.interpolation = "first"
    config.model.alignment = "pcd"
    config.model.propagation_blocks = 2  # with an alignment along the flow
    config.model.interpolation_blocks = 2  # likewise
    config.model.trunk = "swin"
    config.model.upsampling = "two_steps"
    config.model.context = True

    config.data = config_dict.ConfigDict()  # input_pipeline.loader.DataConfig
    config.data.dir = config_dict.placeholder(str)  # prepared Vimeo-90K; without it, synthetic clips
    config.data.lr_dir = config_dict.placeholder(str)  # prepared low-resolution frames; without it, made on the fly
    config.data.degradation = "bd_matlab"
    config.data.frames = 4  # that go in; 2 are any pair of neighbors of these, and three are the truth
    config.data.crop = 32  # low-resolution pixels
    config.data.crop_candidates = 1  # of more the crop with the most detail and motion is taken
    config.data.thirds = 0.0  # share of clips with every third frame, for networks of other times than halfway
    config.data.threads = 2
    config.data.synthetic_clips = 64
    config.data.synthetic_height = 256
    config.data.synthetic_width = 448

    config.optimizer = config_dict.ConfigDict()  # Adam
    config.optimizer.name = "adam"  # or muon
    config.optimizer.schedule = "cosine"  # restarted cosine annealing; or constant
    config.optimizer.learning_rate = 2e-4
    config.optimizer.min_learning_rate = 1e-7
    config.optimizer.period = 150_000  # steps from one restart to the next
    config.optimizer.periods = 4
    config.optimizer.warmup = 0  # steps at the beginning over which the rate rises
    config.optimizer.cooldown = 0  # last steps over which a constant rate falls to min_learning_rate
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.99
    config.optimizer.max_grad_norm = config_dict.placeholder(float)  # unset: no clipping
    config.loss = "charbonnier"  # or squares, for the end of a training
    config.ema_decay = config_dict.placeholder(float)  # unset: no moving average

    config.compute_dtype = "float32"  # or bfloat16; parameters are float32 in both
    config.remat = False  # recompute for the gradients instead of keeping: a fraction of the memory, a third more time
    config.mesh = config_dict.ConfigDict()
    config.mesh.model = 1  # devices that share one set of parameters

    config.log_every = 100  # steps
    config.eval_every = 5_000
    config.eval_clips = 32
    config.checkpoint_every = 5_000
    config.keep_last = 3  # checkpoints
    config.keep_best = 1  # by PSNR-Y on the validation clips
    return config
