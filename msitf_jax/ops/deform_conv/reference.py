"""Modulated deformable convolution in plain JAX: the definition that other implementations are held to.

Four gathers and one matrix product, for as many images, or rows of pixels, at a time as memory is meant to hold. It
runs wherever JAX does, and `jax.grad` gives all five gradients. A CPU gets the same from `cpu` in less time.
"""

import functools

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

from msitf_jax.ops.chunks import map_chunks, on_cpu
from msitf_jax.ops.convolution import add_bias
from msitf_jax.ops.deform_conv import cpu
from msitf_jax.ops.deform_conv.positions import RING, lower_corner, sampling_axis
from msitf_jax.ops.dtypes import at_least_float32

DEVICE_SAMPLES = 1 << 26  # numbers sampled at a time, elsewhere than on a CPU: they keep it busy, and its memory free


def deform_conv2d(
    x: jax.Array,
    offset: jax.Array,
    mask: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None,
    *,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    samples: int | None = None,
) -> jax.Array:
    """See `msitf_jax.ops.deform_conv2d`, which checks the arguments; here strides and the like are pairs.

    Args:
      samples: numbers sampled at a time, at most: those of some images if one has no more, else of some rows of pixels.
        None is what suits JAX's default device. Where sizes are symbolic it says nothing.
    """
    if samples is None:
        samples = on_cpu(cpu.SAMPLES, DEVICE_SAMPLES)
    batch, height, width, _ = x.shape
    groups = offset.shape[3]
    largest_index = batch * (height + 2 * RING) * (width + 2 * RING) * groups
    if not is_symbolic_dim(largest_index) and largest_index >= 1 << 31:
        raise ValueError(f"`x` of shape {x.shape} in {groups} groups is more than 32-bit indices count: cut the batch")
    # Positions, and sums of gradients of weights, need more than bfloat16.
    wide = at_least_float32(x.dtype)
    offset, mask, weight = offset.astype(wide), mask.astype(wide), weight.astype(wide)

    if on_cpu(True, False):
        options = cpu.Options(stride, padding, dilation, samples)
        # The sizes of several images, multiplied out, are more than JAX can compare where they are symbolic.
        images = 1 if any(map(is_symbolic_dim, offset.shape)) else batch
        x, offset, mask, weight = _varying_alike(x, offset, mask, weight)
        out = map_chunks(lambda part: cpu.deform_conv2d(options, *part, weight), (x, offset, mask), images)
    else:
        out = _deform_conv2d(x, offset, mask, weight, stride, padding, dilation, samples)
    return (out if bias is None else add_bias(out, bias)).astype(x.dtype)


def _varying_alike(*arrays):
    """Within `jax.shard_map`, where one array may differ between devices, tells it all may, as `jax.custom_vjp` wants.

    JAX then adds up gradients of those that don't. Elsewhere, and in what is compiled, nothing happens.
    """
    zeros = [jnp.zeros_like(a[(0,) * a.ndim], dtype=jnp.float32) for a in arrays]
    return [a + functools.reduce(jnp.add, zeros).astype(a.dtype) for a in arrays]


def _deform_conv2d(x, offset, mask, weight, stride, padding, dilation, samples):
    """Without bias, the form for other devices than CPUs, derived by JAX."""
    batch, height, width, channels = x.shape
    out_height, out_width, groups = offset.shape[1:4]
    kernel_height, kernel_width = weight.shape[:2]
    wide = offset.dtype
    y = sampling_axis(out_height, kernel_height, stride[0], padding[0], dilation[0], wide)
    y = jnp.repeat(y, kernel_width, axis=1)[None, :, None, None, :] + offset[..., 0]
    x_axis = sampling_axis(out_width, kernel_width, stride[1], padding[1], dilation[1], wide)
    x_axis = jnp.tile(x_axis, (1, kernel_height))[None, None, :, None, :] + offset[..., 1]

    row, down = lower_corner(y, height)
    column, right = lower_corner(x_axis, width)
    group = jnp.arange(groups, dtype=jnp.int32)[None, None, None, :, None]
    corner = (row * (width + 2 * RING) + column) * groups + group
    # Corners outside the frame find zeros there. A row of the table is one group's channels at one pixel.
    table = jnp.pad(x, ((0, 0), (RING, RING), (RING, RING), (0, 0))).reshape(batch, -1, channels // groups)
    # Kept for the gradients, samples and the pixels around them would be dozens of times as large as x: gathered again.
    sample_and_multiply = jax.checkpoint(functools.partial(_sample_and_multiply, (width + 2 * RING) * groups))
    row_samples = out_width * kernel_height * kernel_width * channels
    if is_symbolic_dim(out_height * row_samples):
        images, rows = 1, out_height
    else:
        images, rows = samples // (out_height * row_samples) or batch, samples // row_samples

    def convolve(part):
        table, corner, *points = part
        frame = jnp.arange(len(table), dtype=jnp.int32)[:, None, None, None, None] * table.shape[1]
        points = [a.reshape(-1, *a.shape[2:]) for a in (corner + frame, *points)]
        table = table.reshape(-1, table.shape[2])
        out = map_chunks(lambda points: sample_and_multiply(table, *points, weight), points, rows)
        return out.reshape(-1, out_height, out_width, out.shape[-1])

    # Images have a gradient of their own; rows add to one of the whole batch, which takes a pass over it.
    return map_chunks(convolve, (table, corner, down, right, mask), images)


def _sample_and_multiply(next_row, table, corner, down, right, mask, weight):
    """The product of samples and weights.

    Args:
      next_row: from a corner to the one below it, in rows of the table.
      table: `[.., C / G]`, x with a ring of zeros.
      corner: `[R, Wo, G, K]` int, where in the table the corner above and to the left of each sample is.
      down, right: how far below it and to its right the sample lies, 0..1; of this shape, like `mask`.
      mask: factor of each sample.
      weight: `[kh, kw, C, Co]`, multiplied in the table's type.

    Returns:
      `[R, Wo, Co]` in that type.
    """
    channels, features = weight.shape[2:]
    groups, taps = corner.shape[2:]
    next_column = groups
    # One weight a corner, complete before it meets the channels: weights applied in turn are worked out once a channel.
    samples = sum(
        bilinear[..., None] * table.at[corner + step].get(mode="promise_in_bounds").astype(bilinear.dtype)
        for step, bilinear in (
            (0, (1 - down) * (1 - right) * mask),
            (next_column, (1 - down) * right * mask),
            (next_row, down * (1 - right) * mask),
            (next_row + next_column, down * right * mask),
        )
    )
    # Samples come group by group and tap by tap: bring the weights into that order, not the samples.
    samples = samples.astype(table.dtype).reshape(-1, taps * channels)
    weight = weight.astype(table.dtype).reshape(taps, groups, channels // groups, features).swapaxes(0, 1)
    return (samples @ weight.reshape(taps * channels, features)).reshape(*corner.shape[:2], features)
