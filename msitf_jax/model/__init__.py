"""The network; read config, layers, alignment, temporal, swin, msitf in this order beside the paper."""
