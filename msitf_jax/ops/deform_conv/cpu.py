"""Deformable convolution in plain JAX in the form that XLA compiles well for CPUs, forward and backward.

The sums are those of `reference`. What is said of speed was measured with jax 0.10.2 and read off the machine code.

- A group of channels is an image of its own in the table that is sampled. A pixel and its right neighbor are one run
  of numbers there, and what a sample adds to the gradient of x is two such runs.
- The backward pass samples anew, some rows of pixels at a time, and adds to one table of sums for all of them. Products
  of a sample's gradient with its four corners give the gradients of its offset and mask.
- Steps end in `_sums`, into whose results XLA fuses nothing: each is one loop, vectorized over a group's channels.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.export import is_symbolic_dim

from msitf_jax.ops.chunks import fold_chunks, map_chunks
from msitf_jax.ops.deform_conv.positions import RING, lower_corner, sampling_axis

SAMPLES = 1 << 18  # numbers sampled at a time: about what a core's second cache holds
SYMBOLIC_ROWS = 4  # at a time where it is not known yet how wide they are
_RUNS = lax.ScatterDimensionNumbers(
    update_window_dims=(1, 2), inserted_window_dims=(), scatter_dims_to_operand_dims=(0, 1)
)


class Options(NamedTuple):
    """What a call asks for besides its arrays; see `msitf_jax.ops.deform_conv2d`."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    samples: int  # numbers sampled at a time, at most, but at least those of a row of pixels


class Points(NamedTuple):
    """The samples of P pixels; four arrays `[P, G, K]`."""

    corner: jax.Array  # the pixel above and to the left, int: a row of the flat table
    down: jax.Array  # how far below it the sample lies, 0..1
    right: jax.Array  # and how far to its right
    mask: jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def deform_conv2d(options: Options, x: jax.Array, offset: jax.Array, mask: jax.Array, weight: jax.Array) -> jax.Array:
    """Deformable convolution without bias; differentiable once, in reverse mode.

    Args:
      options: strides and the like.
      x: `[B, H, W, C]`.
      offset, mask, weight: as `msitf_jax.ops.deform_conv2d` takes them, of one type, float32 or wider.

    Returns:
      `[B, Ho, Wo, Co]` in x's type.
    """
    table, matrix = _table(x, offset.shape[3]), _matrix(weight, offset.shape[3]).astype(x.dtype)
    rows, locate, at_a_time = _rows(options, x, offset, mask, weight)

    def convolve(rows):
        halves = _sample(table, locate(*rows))
        return jnp.concatenate([half @ matrix for half in halves]).reshape(-1, offset.shape[2], weight.shape[3])

    return map_chunks(convolve, rows, at_a_time).reshape(*offset.shape[:3], weight.shape[3])


def _forward(options, *arrays):
    return deform_conv2d(options, *arrays), arrays


def _backward(options, arrays, cotangent):
    x, offset, mask, weight = arrays
    groups, taps, wide = offset.shape[3], offset.shape[4], offset.dtype
    table, matrix = _table(x, groups), _matrix(weight, groups).astype(x.dtype)
    rows, locate, at_a_time = _rows(options, x, offset, mask, weight)
    product = functools.partial(jnp.matmul, preferred_element_type=wide)

    def add(sums, part):
        table_sum, matrix_sum = sums
        rows, cotangent = part
        points, cotangent = locate(*rows), cotangent.reshape(-1, cotangent.shape[2])
        first, second = _sample(table, points)
        half = first.shape[0]
        matrix_sum += product(cotangent[:half].T, first) + product(cotangent[half:].T, second)
        gradient = product(cotangent, matrix.T).reshape(-1, groups, taps, table.shape[2])
        out = [g.reshape(-1, offset.shape[2], *g.shape[1:]) for g in _point_gradients(table, points, gradient)]
        return (_add_to_corners(table_sum, points, gradient), matrix_sum), out

    # Weights the other way round, for which XLA's library of products need not turn samples.
    sums = jnp.zeros_like(table, dtype=wide), jnp.zeros_like(matrix.T, dtype=wide)
    parts = rows, cotangent.reshape(-1, *cotangent.shape[2:])
    (table_sum, matrix_sum), (d_offset, d_mask) = fold_chunks(add, sums, parts, at_a_time)
    d_weight = matrix_sum.T.reshape(groups, taps, -1, weight.shape[3]).swapaxes(0, 1).reshape(weight.shape)
    d_x = _image(table_sum, x.shape).astype(x.dtype)
    return d_x, d_offset.reshape(offset.shape), d_mask.reshape(mask.shape), d_weight


deform_conv2d.defvjp(_forward, _backward)


def _table(x, groups):
    """`[B, H, W, C]` -> `[G * B * (H + 4), W + 4, C / G]`: an image a group, in a ring of zeros."""
    x = jnp.pad(x, ((0, 0), (RING, RING), (RING, RING), (0, 0)))
    x = x.reshape(*x.shape[:3], groups, -1).transpose(3, 0, 1, 2, 4)
    return x.reshape(-1, *x.shape[3:])


def _image(table, shape):
    """The inverse of `_table`, for an x of this shape."""
    batch, height, _, channels = shape
    groups = channels // table.shape[2]
    table = table.reshape(groups, batch, height + 2 * RING, *table.shape[1:])[:, :, RING:-RING, RING:-RING]
    return table.transpose(1, 2, 3, 0, 4).reshape(shape)


def _matrix(weight, groups):
    """`[kh, kw, C, Co]` -> `[G * K * C / G, Co]`, in the order in which samples come."""
    height, width, channels, features = weight.shape
    return weight.reshape(height * width, groups, channels // groups, features).swapaxes(0, 1).reshape(-1, features)


def _rows(options, x, offset, mask, weight):
    """What to go over.

    Returns:
      Arrays over all rows of pixels of the whole batch; a function that makes `Points` of these arrays for some rows;
      how many rows to take at a time.
    """
    frame, kernel = x.shape[:3], weight.shape[:2]
    batch, out_height, out_width, _, taps, _ = offset.shape
    settings = zip(offset.shape[1:3], kernel, options.stride, options.padding, options.dilation, strict=True)
    y, columns = (sampling_axis(*axis, offset.dtype) for axis in settings)
    y, columns = jnp.repeat(y, kernel[1], axis=1), jnp.tile(columns, (1, kernel[0]))
    image = jnp.broadcast_to(jnp.arange(batch, dtype=jnp.int32)[:, None], (batch, out_height))
    y = jnp.broadcast_to(y, (batch, *y.shape))
    rows = [a.reshape(-1, *a.shape[2:]) for a in (image, y, offset, mask)]
    row_samples = out_width * taps * x.shape[3]
    symbolic = is_symbolic_dim(out_height * row_samples)
    at_a_time = SYMBOLIC_ROWS if symbolic else options.samples // row_samples
    return rows, functools.partial(_locate, frame, columns), at_a_time


def _locate(frame, columns, image, y, offset, mask):
    """Where the samples of R rows of pixels lie.

    Args:
      frame: (images, height, width) of x.
      columns: `[Wo, K]`, where taps look before their offsets.
      image, y: `[R]` int and `[R, K]`, the image that a row belongs to and where its taps look.
      offset, mask: `[R, Wo, G, K, 2]` and `[R, Wo, G, K]`.

    Returns:
      `Points` of P = R * Wo pixels.
    """
    images, height, width = frame
    size, strides = jnp.asarray([height, width], offset.dtype), jnp.asarray([width + 2 * RING, 1], jnp.int32)
    first, second = jnp.eye(2, dtype=offset.dtype)  # of two axes, rows and columns
    first, second, size, strides = (jnp.expand_dims(a, range(4)) for a in (first, second, size, strides))
    base = y[:, None, None, :, None] * first + columns[None, :, None, :, None] * second
    corner, beyond = lower_corner(base + offset, size)
    plane = jnp.arange(offset.shape[2], dtype=jnp.int32)[None, None, :, None] * images + image[:, None, None, None]
    corner += (plane * (height + 2 * RING))[..., None] * first.astype(jnp.int32)
    # Sums over both axes, even where only one counts: worked out once, not by all that makes use of them.
    points = _sums([corner * strides, beyond * first, beyond * second, mask[..., None] * first], axis=4)
    return Points(*(a.reshape(-1, *a.shape[2:]) for a in points))


def _sums(arrays: Sequence[jax.Array], axis: int) -> list[jax.Array]:
    """Sums over an axis of arrays of one shape, in one loop into which XLA fuses what they are made from, gathers too.

    A single array it would write out in full first, for a library that sums it up.
    """
    zeros = [np.zeros((), a.dtype) for a in arrays]
    return lax.reduce(list(arrays), zeros, lambda a, b: [x + y for x, y in zip(a, b, strict=True)], (axis,))


def _gather(table, corner, dtype):
    """`[..]` -> `[.., C / G]`."""
    flat = table.reshape(-1, table.shape[2])
    return flat.at[corner].get(mode="promise_in_bounds", wrap_negative_indices=False).astype(dtype)


def _sample(table, points):
    """The samples of the first and of the second half of the pixels, `[P / 2, G * K * C / G]`, in the table's type."""
    count, width = points.mask.shape[0], table.shape[1]
    half = (count + 1) // 2

    def weighted_corners(points):
        corner, down, right, mask = (a[..., None] for a in points)
        number = jnp.arange(4, dtype=jnp.int32)[None, None, None, :]
        below, beside = number // 2, number % 2
        weight = jnp.where(below == 1, down, 1 - down) * mask * jnp.where(beside == 1, right, 1 - right)
        return weight[..., None] * _gather(table, corner + below * width + beside, weight.dtype)

    # Of one size: if their number is odd, they share a pixel.
    halves = [Points(*(a[first : first + half] for a in points)) for first in (0, count - half)]
    first, second = _sums([weighted_corners(points) for points in halves], axis=3)
    first, second = (samples.astype(table.dtype).reshape(half, -1) for samples in (first, second))
    return first, second[2 * half - count :]


def _point_gradients(table, points, gradient):
    """Gradients of offsets and mask, `[P, G, K, 2]` and `[P, G, K]`, from that of samples, `[P, G, K, C / G]`."""
    corner, down, right, mask = points
    steps = 0, 1, table.shape[1], table.shape[1] + 1
    a, b, c, d = _sums([gradient * _gather(table, corner + step, gradient.dtype) for step in steps], axis=3)
    upper, lower = a + right * (b - a), c + right * (d - c)
    d_offset = (lower - upper) * mask, ((1 - down) * (b - a) + down * (d - c)) * mask
    return jnp.stack(d_offset, axis=-1), upper + down * (lower - upper)


def _add_to_corners(table, points, gradient):
    """Adds to the table's gradient what samples with this gradient, `[P, G, K, C / G]`, contribute to it."""
    height, width, channels = table.shape
    corner, down, right, mask = points
    # A run of two pixels: the left one gets all, then a share moves on to the right one.
    left, moved = (jnp.asarray(a, down.dtype)[None, None, None, :] for a in ([1, 0], [-1, 1]))
    shares = jnp.stack(jnp.broadcast_arrays(left, right[..., None] * moved), axis=3) * mask[..., None, None]
    shares = shares[..., None] * gradient[..., None, None, :]
    runs = _sums([a[..., None, None, None] * shares for a in (1 - down, down)], axis=3)
    flat, row, column = table.reshape(height, -1), corner // width, corner % width * channels
    for step, run in enumerate(runs):
        places = jnp.stack([row + step, column], axis=-1).reshape(-1, 2)
        flat = lax.scatter_add(flat, places, run.reshape(-1, 1, 2 * channels), _RUNS, mode="promise_in_bounds")
    return flat.reshape(table.shape)
