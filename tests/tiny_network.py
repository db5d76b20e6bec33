"""A network that costs a test little: small, made without drawing weights, which compiles for ten seconds."""

import contextlib

import jax
from flax import nnx

from msitf_jax import MSITF, MSITFConfig
from tests.conftest import randomised

TINY = MSITFConfig(channels=8, residual_blocks=1, trunk_groups=1, offset_groups=2)
TINY_FLOW = MSITFConfig(
    channels=8,
    residual_blocks=1,
    offset_groups=2,
    alignment="flow",
    propagation_blocks=1,
    interpolation_blocks=1,
    trunk="conv",
    trunk_groups=1,
    trunk_blocks=1,
    upsampling="one_step",
    context=False,
    base="flow",
)


def tiny_network(config=TINY):
    """`MSITF` whose parameters are normal numbers, the same in every run; of 8 channels it adds about 8 of 255."""
    return randomised(lambda: MSITF(config, rngs=nnx.Rngs(0)), 0.05)


@contextlib.contextmanager
def quick_compilation():
    """In it, JAX compiles in half the time what then runs half as fast."""
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
