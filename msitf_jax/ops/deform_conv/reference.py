"""Modulated deformable convolution in plain JAX: the definition that other implementations are held to.

Four gathers and one matrix product. Nothing loops over pixels, so it runs wherever JAX does, and
`jax.grad` gives all five gradients.
"""

import functools

import jax
import jax.numpy as jnp

RING = 2  # zero pixels around the frame


def _sampling_axis(out_size, kernel_size, stride, padding, dilation, dtype):
    """`[out_size, kernel_size]`: where each tap looks along one axis before its offset, in input pixels."""
    window = jnp.arange(out_size, dtype=dtype) * stride - padding
    tap = jnp.arange(kernel_size, dtype=dtype) * dilation
    return window[:, None] + tap[None, :]


def _lower_corner(position, size):
    """The pixel at or before each position on an axis of `size` pixels, and how far behind it the position lies.

    Only the integer index is clamped, never the position, so derivatives are those of the unclamped interpolation. It
    is clamped to -2 and `size`, from where both corners lie outside, in the ring of zeros.
    """
    lower = jnp.floor(position)
    return jnp.clip(lower, -RING, size).astype(jnp.int32) + RING, position - lower


def deform_conv2d(x, offset, mask, weight, bias, *, stride, padding, dilation):
    """See `msitf_jax.ops.deform_conv2d`, which checks the arguments; here strides and the like are pairs."""
    product = functools.partial(_sample_and_multiply, stride=stride, padding=padding, dilation=dilation)
    # Kept for the gradients, corners and samples would be dozens of times as large as x: they are gathered again.
    out = jax.checkpoint(product)(x, offset, mask, weight)
    return (out if bias is None else out + bias[None, None, None, :]).astype(x.dtype)


def _sample_and_multiply(x, offset, mask, weight, *, stride, padding, dilation):
    batch, height, width, channels = x.shape
    out_height, out_width, groups, taps = offset.shape[1:5]
    kernel_height, kernel_width, _, features = weight.shape
    precise = x.dtype if x.dtype.itemsize >= 4 else jnp.float32  # positions need more than bfloat16
    offset, mask = offset.astype(precise), mask.astype(precise)

    y = _sampling_axis(out_height, kernel_height, stride[0], padding[0], dilation[0], precise)
    y = jnp.repeat(y, kernel_width, axis=1)[None, :, None, None, :] + offset[..., 0]
    x_axis = _sampling_axis(out_width, kernel_width, stride[1], padding[1], dilation[1], precise)
    x_axis = jnp.tile(x_axis, (1, kernel_height))[None, None, :, None, :] + offset[..., 1]

    # Corners outside the frame find zeros there. A row of the table is one group's channels at one pixel.
    table = jnp.pad(x, ((0, 0), (RING, RING), (RING, RING), (0, 0))).reshape(-1, channels // groups)
    rows, columns = height + 2 * RING, width + 2 * RING
    row, down = _lower_corner(y, height)
    column, right = _lower_corner(x_axis, width)
    frame = jnp.arange(batch, dtype=jnp.int32)[:, None, None, None, None] * rows
    group = jnp.arange(groups, dtype=jnp.int32)[None, None, None, :, None]
    corner = ((frame + row) * columns + column) * groups + group

    # One weight a corner, complete before it meets the channels: weights applied in turn are worked out once a channel.
    samples = sum(
        bilinear[..., None] * table.at[corner + step * groups].get(mode="promise_in_bounds").astype(precise)
        for step, bilinear in (
            (0, (1 - down) * (1 - right) * mask),
            (1, (1 - down) * right * mask),
            (columns, down * (1 - right) * mask),
            (columns + 1, down * right * mask),
        )
    )
    # Samples come group by group and tap by tap: bring the weights into that order, not the samples.
    samples = samples.astype(x.dtype).reshape(batch * out_height * out_width, taps * channels)
    weight = weight.reshape(taps, groups, channels // groups, features).swapaxes(0, 1)
    out = samples @ weight.reshape(taps * channels, features)
    return out.reshape(batch, out_height, out_width, features)
