"""Optical flow between two frames, in plain JAX and without parameters.

Coarse to fine, as classical methods do: at each level of an image pyramid the flow is refined by iterations of Lucas
and Kanade (IJCAI 1981), with a robust norm (Black and Anandan, 1996), and smoothed. The flow is that of the frame in
the middle: pixel p shows what the earlier frame has at `p - flow(p) / 2` and the later one at `p + flow(p) / 2`
(bilateral motion estimation; Choi et al., 2007). `seen_from` brings it to the grids of other times, the two frames' own
among them.
"""

import functools
import math

import jax
import jax.numpy as jnp

from msitf_jax.ops.dtypes import at_least_float32

LEVELS = 4
ITERATIONS = 3  # at each level
WINDOW_SIGMA, WINDOW_RADIUS = 1.5, 3  # pixels over which one motion is assumed
ROBUST = 0.02  # differences of brightness above it, of 1, count less and less
DAMPING = 5e-3  # of the least squares: where there is no texture, the flow stays as it is
LARGEST_STEP = 1.0  # pixels that an iteration may move
INVERSIONS = 2  # fixed-point steps of `seen_from`
_SMOOTH = (0.25, 0.5, 0.25)
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def optical_flow(earlier: jax.Array, later: jax.Array) -> jax.Array:
    """The motion from one frame to another, seen from halfway between them.

    No gradient passes through it.

    Args:
      earlier, later: `[B, H, W, 3]`, RGB in 0..1.

    Returns:
      `[B, H, W, 2]`, at least float32: (dy, dx) in pixels from `earlier` to `later`, on the grid of the frame halfway.
    """
    dtype = at_least_float32(earlier.dtype)
    images = jax.lax.stop_gradient(jnp.stack([earlier, later]).astype(dtype))
    gray = jnp.einsum("...c,c->...", images, jnp.asarray(_LUMA, dtype), precision="highest")
    height, width = gray.shape[2:]
    pyramid = [_replicate(gray, 2 ** (LEVELS - 1))]
    for _ in range(LEVELS - 1):
        pyramid.append(_halve(pyramid[-1]))
    flow = jnp.zeros((*pyramid[-1].shape[1:], 2), dtype)
    for level, pair in enumerate(reversed(pyramid)):
        if level:
            flow = 2 * _double(flow)
        refine = functools.partial(_refine, *pair)
        flow = jax.lax.fori_loop(0, ITERATIONS, lambda _, flow, refine=refine: refine(flow), flow)
    return flow[:, :height, :width]


def seen_from(flow: jax.Array, step: jax.Array | float) -> jax.Array:
    """A flow on another grid: that of the frame `step` times the motion away.

    Args:
      flow: `[B, H, W, 2]`, of `optical_flow`.
      step: -0.5 leads to the earlier frame, 0.5 to the later one; anything that broadcasts with the flow.

    Returns:
      `[B, H, W, 2]`: g with `g(p) = flow(p - step * g(p))`, by fixed-point iteration.
    """
    found = flow
    for _ in range(INVERSIONS):
        found = bilinear_warp(flow, -step * found)
    return found


def bilinear_warp(x: jax.Array, flow: jax.Array) -> jax.Array:
    """x sampled bilinearly at `p + flow(p)`, positions outside moved to the border.

    Args:
      x: `[B, H, W, C]`.
      flow: `[B, H, W, 2]`, (dy, dx) in pixels.

    Returns:
      `[B, H, W, C]`.
    """
    down, right = _fractions(x, flow)
    above, below = ((1 - right) * left + right * beside for left, beside in _taps(x, flow, first=0, count=2))
    return (1 - down) * above + down * below


def cubic_warp(x: jax.Array, flow: jax.Array) -> jax.Array:
    """As `bilinear_warp`, by Keys' cubic kernel (1981; a = -0.5), which keeps images sharp."""
    rows, columns = (_cubic_weights(fraction) for fraction in _fractions(x, flow))
    lines = _taps(x, flow, first=-1, count=4)
    return sum(
        vertical * sum(horizontal * tap for horizontal, tap in zip(columns, line, strict=True))
        for vertical, line in zip(rows, lines, strict=True)
    )


def halfway(earlier: jax.Array, later: jax.Array, flow: jax.Array) -> jax.Array:
    """The frame halfway between two: the mean of both, moved along the flow.

    Args:
      earlier, later: `[B, H, W, C]`.
      flow: `[B, H, W, 2]`, of `optical_flow`.

    Returns:
      `[B, H, W, C]`.
    """
    return (cubic_warp(earlier, -flow / 2) + cubic_warp(later, flow / 2)) / 2


def _fractions(x, flow):
    """How far below and to the right of its corner each position lies: `[B, H, W, 1]` each, 0..1."""
    return [_corner(flow, axis, x.shape[axis + 1])[1][..., None].astype(x.dtype) for axis in (0, 1)]


def _taps(x, flow, *, first, count):
    """`count` lines of `count` pixels around each position, `[B, H, W, C]` each, borders replicated.

    `first` is where the first of them lies, counted from the position's corner.
    """
    batch, height, width, channels = x.shape
    before, after = -first, count - 1 + first
    padded = jnp.pad(x, ((0, 0), (before, after), (before, after), (0, 0)), mode="edge")
    height, width = padded.shape[1:3]
    table = padded.reshape(batch, height * width, channels)
    corner = _corner(flow, 0, x.shape[1])[0] * width + _corner(flow, 1, x.shape[2])[0]
    # An image at a time: JAX does not see that a number of pairs times one of pixels is positive if both are symbolic.
    gather = jax.vmap(lambda table, places: table.at[places].get(mode="promise_in_bounds"))
    return [[gather(table, corner + (i * width + j)) for j in range(count)] for i in range(count)]


def _corner(flow, axis, size):
    """The pixel at or before each clamped position along an axis, int32, and how far behind it the position lies."""
    grid = jax.lax.broadcasted_iota(flow.dtype, flow.shape[:-1], axis + 1)
    position = jnp.clip(grid + flow[..., axis], 0, size - 1)
    lower = jnp.floor(position)
    return lower.astype(jnp.int32), position - lower


def _cubic_weights(f):
    return (
        ((-0.5 * f + 1) * f - 0.5) * f,
        (1.5 * f - 2.5) * f * f + 1,
        ((-1.5 * f + 2) * f + 0.5) * f,
        (0.5 * f - 0.5) * f * f,
    )


def _refine(earlier, later, flow):
    """One iteration: images `[B, H, W]`, flow `[B, H, W, 2]` -> a better flow."""
    before = bilinear_warp(earlier[..., None], -flow / 2)[..., 0]
    after = bilinear_warp(later[..., None], flow / 2)[..., 0]
    difference = after - before
    dy, dx = _gradient((before + after) / 2)  # how the difference changes with the flow
    weight = ROBUST / (jnp.abs(difference) + ROBUST)
    products = jnp.stack([dy * dy, dy * dx, dx * dx, dy * difference, dx * difference], -1)
    yy, yx, xx, y, x = jnp.moveaxis(_blur(weight[..., None] * products, _window()), -1, 0)
    yy, xx = yy + DAMPING * ROBUST, xx + DAMPING * ROBUST
    step = -jnp.stack([xx * y - yx * x, yy * x - yx * y], -1) / (yy * xx - yx * yx)[..., None]
    return _blur(flow + jnp.clip(step, -LARGEST_STEP, LARGEST_STEP), _SMOOTH)


def _window():
    weights = [math.exp(-0.5 * (place / WINDOW_SIGMA) ** 2) for place in range(-WINDOW_RADIUS, WINDOW_RADIUS + 1)]
    return [weight / sum(weights) for weight in weights]


def _gradient(image):
    """Central differences of `[B, H, W]` along rows and columns."""
    padded = jnp.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge")
    return (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2, (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2


def _blur(x, weights):
    """`[B, H, W, C]` filtered along both axes, borders replicated."""
    radius = len(weights) // 2
    for axis in (1, 2):
        size = x.shape[axis]
        padded = jnp.pad(x, [(radius, radius) if i == axis else (0, 0) for i in range(4)], mode="edge")
        x = sum(
            weight * jax.lax.slice_in_dim(padded, first, first + size, axis=axis)
            for first, weight in enumerate(weights)
        )
    return x


def _halve(images):
    """Means of 2x2 pixels: `[2, B, H, W]`, H and W even."""
    two, batch, height, width = images.shape
    return images.reshape(two, batch, height // 2, 2, width // 2, 2).mean((3, 5))


def _double(flow):
    """Flow at twice the size, not yet twice as large."""
    return _blur(jnp.repeat(jnp.repeat(flow, 2, 1), 2, 2), _SMOOTH)


def _replicate(images, multiple):
    """The last row and column repeated up to sizes that are multiples: `[2, B, H, W]`."""
    for axis in (2, 3):
        size = images.shape[axis]
        places = jnp.minimum(jnp.arange((size + multiple - 1) // multiple * multiple), size - 1)
        images = jnp.take(images, places, axis=axis, mode="clip")
    return images
