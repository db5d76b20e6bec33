"""Fixed linear resizes with half-pixel centres and clamped edges (PyTorch's `align_corners=False`)."""

from collections.abc import Callable
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp

from msitf_jax.ops.optical_flow import halfway, optical_flow


def upsample2x(x: jax.Array) -> jax.Array:
    """Bilinear x2: `[..., H, W, C]` -> `[..., 2H, 2W, C]`.

    Output pixel 2i lies a quarter pixel before input pixel i and 2i + 1 a quarter after, so the weights are
    always 3/4 and 1/4: two shifted sums an axis, with no index arrays and no matrix product.
    """
    for axis in (x.ndim - 3, x.ndim - 2):
        size = x.shape[axis]
        first = jax.lax.slice_in_dim(x, 0, 1, axis=axis)
        last = jax.lax.slice_in_dim(x, size - 1, size, axis=axis)
        before = jnp.concatenate([first, jax.lax.slice_in_dim(x, 0, size - 1, axis=axis)], axis)
        after = jnp.concatenate([jax.lax.slice_in_dim(x, 1, size, axis=axis), last], axis)
        pair = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
        x = pair.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])
    return x


def trilinear_base(clip: jax.Array) -> jax.Array:
    """The clip resized linearly in time and space: `[B, N, H, W, C]` -> `[B, 2N-1, 4H, 4W, C]`.

    What published weights are trained on top of. Time follows the half-pixel rule like space does, so for N = 4 the
    seven frames lie at input times 0, .357, .929, 1.5, 2.071, 2.643 and 3, not at multiples of a half.
    """
    batch, frames, height, width, channels = clip.shape
    shape = (batch, 2 * frames - 1, 4 * height, 4 * width, channels)
    return jax.image.resize(clip, shape, "linear", precision=jax.lax.Precision.HIGHEST)


def bicubic_base(clip: jax.Array) -> jax.Array:
    """Bicubic in space, in time each frame or the mean of two: `[B, N, H, W, C]` -> `[B, 2N-1, 4H, 4W, C]`.

    Every frame is enlarged by Keys' cubic kernel (a = -0.5) with mirrored borders, which is MATLAB's
    `imresize(4, "bicubic")`; each frame between is the mean of its neighbors.
    """
    large = bicubic4x(clip)
    return interleave(large, (large[:, :-1] + large[:, 1:]) / 2)


def flow_base(clip: jax.Array) -> jax.Array:
    """As `bicubic_base`, but each frame between is the mean of its neighbors moved halfway along the optical flow.

    See `msitf_jax.ops.optical_flow`.
    """
    batch, frames, *frame = clip.shape
    earlier, later = (clip[:, first : first + frames - 1].reshape(-1, *frame) for first in (0, 1))
    between = halfway(earlier, later, optical_flow(earlier, later))
    return bicubic4x(interleave(clip, between.reshape(batch, frames - 1, *frame)))


def interleave(frames: jax.Array, between: jax.Array) -> jax.Array:
    """`[B, N, ...]` and `[B, N-1, ...]` -> `[B, 2N-1, ...]`, in turns."""
    out = jnp.zeros((frames.shape[0], 2 * frames.shape[1] - 1, *frames.shape[2:]), frames.dtype)
    return out.at[:, ::2].set(frames).at[:, 1::2].set(between)


@jax.named_scope("bicubic")
def bicubic4x(frames: jax.Array) -> jax.Array:
    """MATLAB's `imresize(4, "bicubic")`: `[B, N, H, W, C]` -> `[B, N, 4H, 4W, C]`."""
    return _cubic4x(_cubic4x(frames, axis=2), axis=3)


# The enlarged clips that a network may add to, which are what it is compared with, too.
Base: TypeAlias = Literal["trilinear", "bicubic", "flow"]
BASES: dict[Base, Callable[[jax.Array], jax.Array]] = {
    "trilinear": trilinear_base,
    "bicubic": bicubic_base,
    "flow": flow_base,
}


def _cubic4x(x, axis):
    size = x.shape[axis]
    padded = jnp.pad(x, [(2, 2) if i == axis else (0, 0) for i in range(x.ndim)], mode="symmetric")
    taps = [jax.lax.slice_in_dim(padded, start, start + size, axis=axis) for start in range(5)]
    # Output pixel 4i + p lies at input pixel i + (2p - 3) / 8.
    phases = [
        sum(_keys_cubic(place - (2 * phase - 3) / 8) * tap for place, tap in zip(range(-2, 3), taps, strict=True))
        for phase in range(4)
    ]
    return jnp.stack(phases, axis + 1).reshape(*x.shape[:axis], 4 * size, *x.shape[axis + 1 :])


def _keys_cubic(distance):
    """The bicubic kernel (Keys, 1981) with a = -0.5."""
    x = abs(distance)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0
