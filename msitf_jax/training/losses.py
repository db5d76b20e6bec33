"""Training losses, and the measure that people follow."""

from collections.abc import Callable
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp

EPSILON = 1e-6
SQUARES = 16.0  # times the squared error: as steep as the Charbonnier loss at an error of 1/32


def charbonnier(output: jax.Array, truth: jax.Array) -> jax.Array:
    """Charbonnier loss (Lai et al., CVPR 2017), summed, not averaged, over everything: `sum(sqrt(d^2 + 1e-6))`.

    Args:
      output, truth: arrays of one shape, values in 0..1.

    Returns:
      A scalar of their type.
    """
    return jnp.sum(jnp.sqrt((output - truth) ** 2 + EPSILON))


def squares(output: jax.Array, truth: jax.Array) -> jax.Array:
    """Squared errors, which PSNR is made of, summed over everything: `sum(16 * d^2)`.

    The factor keeps gradients, and with them the optimizer's moments and `max_grad_norm`, near those of `charbonnier`,
    so that a run can change from one to the other.

    Args:
      output, truth: arrays of one shape, values in 0..1.

    Returns:
      A scalar of their type.
    """
    return SQUARES * jnp.sum((output - truth) ** 2)


Loss: TypeAlias = Literal["charbonnier", "squares"]
LOSSES: dict[Loss, Callable[[jax.Array, jax.Array], jax.Array]] = {"charbonnier": charbonnier, "squares": squares}


def clip_psnr(output: jax.Array, truth: jax.Array) -> jax.Array:
    """PSNR in dB of each clip over all its frames and channels, peak 1, outputs clipped to 0..1.

    Args:
      output, truth: `[B, ...]`, values in 0..1.

    Returns:
      `[B]`; 100 dB at most, which stands for equal clips.
    """
    error = jnp.mean((jnp.clip(output, 0, 1) - truth) ** 2, axis=tuple(range(1, output.ndim)))
    return -10 * jnp.log10(jnp.maximum(error, 1e-10))
