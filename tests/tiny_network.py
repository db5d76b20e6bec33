"""A network that costs a test little: small, made without drawing weights, which compiles for ten seconds."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from msitf_jax import MSITF, MSITFConfig


def tiny_network():
    """`MSITF` of 8 channels whose parameters are normal numbers, the same in every run; it adds about 8 of 255."""
    config = MSITFConfig(channels=8, residual_blocks=1, trunk_groups=1, offset_groups=2)
    model = nnx.eval_shape(lambda: MSITF(config, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    state = nnx.state(model, nnx.Param)
    nnx.update(model, jax.tree.map(lambda a: jnp.asarray(0.05 * rng.standard_normal(a.shape, np.float32)), state))
    return model


@contextlib.contextmanager
def quick_compilation():
    """In it, JAX compiles in half the time what then runs half as fast."""
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
