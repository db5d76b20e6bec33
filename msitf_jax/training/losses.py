"""The training loss, and the measure that people follow."""

import jax
import jax.numpy as jnp

EPSILON = 1e-6


def charbonnier(output: jax.Array, truth: jax.Array) -> jax.Array:
    """Charbonnier loss (Lai et al., CVPR 2017), summed, not averaged, over everything: `sum(sqrt(d^2 + 1e-6))`.

    Args:
      output, truth: arrays of one shape, values in 0..1.

    Returns:
      A scalar of their type.
    """
    return jnp.sum(jnp.sqrt((output - truth) ** 2 + EPSILON))


def clip_psnr(output: jax.Array, truth: jax.Array) -> jax.Array:
    """PSNR in dB of each clip over all its frames and channels, peak 1, outputs clipped to 0..1.

    Args:
      output, truth: `[B, ...]`, values in 0..1.

    Returns:
      `[B]`; 100 dB at most, which stands for equal clips.
    """
    error = jnp.mean((jnp.clip(output, 0, 1) - truth) ** 2, axis=tuple(range(1, output.ndim)))
    return -10 * jnp.log10(jnp.maximum(error, 1e-10))
