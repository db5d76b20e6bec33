"""Where a training run starts from when it is given no weights."""

import math
from typing import Literal, TypeAlias, get_args

import jax.numpy as jnp
from flax import nnx

from msitf_jax.model.alignment import DeformableConv
from msitf_jax.model.config import MSITFConfig
from msitf_jax.model.layers import Conv
from msitf_jax.model.msitf import MSITF

Initialization: TypeAlias = Literal["published", "he"]
INITIALIZATIONS: tuple[Initialization, ...] = get_args(Initialization)


def draw(config: MSITFConfig, *, initialization: Initialization, seed: int) -> MSITF:
    """Draws the weights of a network.

    Args:
      config: `MSITFConfig`.
      initialization: "published", as `MSITF` is drawn, or "he": see `_keep_variance`.
      seed: of everything drawn.

    Returns:
      `MSITF`.
    """
    model = MSITF(config, rngs=nnx.Rngs(seed))
    if initialization == "he":
        _keep_variance(model)
    return model


def _keep_variance(model):
    """Rescales convolutions so that features keep their variance from layer to layer (He et al., ICCV 2015).

    PyTorch's default divides it by 6 in each; so far down the published network, an image is all but lost in what the
    biases add, and hundreds of steps pass before the network adds anything of use to a base that is a good one. The
    last convolution starts at zero, the whole network thus as its base.
    """
    gain = math.sqrt(6)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, Conv):
            module.kernel[...] = gain * module.kernel[...]
            module.bias[...] = jnp.zeros_like(module.bias[...])
        elif isinstance(module, DeformableConv):
            module.kernel[...] = 2 * gain * module.kernel[...]  # masks start at a half
    last = model.reconstruction.conv_last
    last.kernel[...] = jnp.zeros_like(last.kernel[...])
