"""Where deformable convolution samples: what its implementations in plain JAX share."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

RING = 2  # zero pixels around the frame: from -2 and `size` on, both corners of a sample lie among them


def sampling_axis(
    out_size: int, kernel_size: int, stride: int, padding: int, dilation: int, dtype: DTypeLike
) -> jax.Array:
    """`[out_size, kernel_size]`: where each tap looks along one axis before its offset, in input pixels."""
    window = jnp.arange(out_size, dtype=dtype) * stride - padding
    tap = jnp.arange(kernel_size, dtype=dtype) * dilation
    return window[:, None] + tap[None, :]


def lower_corner(position: jax.Array, size: int | jax.Array) -> tuple[jax.Array, jax.Array]:
    """The pixel at or before each position on an axis of `size` pixels, and how far behind it the position lies.

    Only the integer index is clamped, never the position, so derivatives are those of the unclamped interpolation. It
    counts from the ring's first pixel.
    """
    lower = jnp.floor(position)
    return jnp.clip(lower, -RING, size).astype(jnp.int32) + RING, position - lower
