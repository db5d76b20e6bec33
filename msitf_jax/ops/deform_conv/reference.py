"""Modulated deformable convolution in plain JAX: the definition that other implementations are held to.

Four gathers and one matrix product. Nothing loops over pixels, so it runs wherever JAX does, and
`jax.grad` gives all five gradients.
"""

import jax
import jax.numpy as jnp


def _sampling_axis(out_size, kernel_size, stride, padding, dilation, dtype):
    """`[out_size, kernel_size]`: where each tap looks along one axis before its offset, in input pixels."""
    window = jnp.arange(out_size, dtype=dtype) * stride - padding
    tap = jnp.arange(kernel_size, dtype=dtype) * dilation
    return window[:, None] + tap[None, :]


def _corners(position, size):
    """The two pixels around each position on an axis of `size` pixels, and their bilinear weights.

    A corner outside the frame has weight zero. Only its integer index is clamped, never the position,
    so the weights' derivatives are those of the unclamped bilinear interpolation.
    """
    lower = jnp.floor(position)
    fraction = position - lower
    result = []
    for corner, weight in ((lower, 1 - fraction), (lower + 1, fraction)):
        inside = (corner >= 0) & (corner < size)
        result.append((jnp.clip(corner, 0, size - 1).astype(jnp.int32), jnp.where(inside, weight, 0)))
    return result


def deform_conv2d(x, offset, mask, weight, bias, *, stride, padding, dilation):
    """See `msitf_jax.ops.deform_conv2d`, which checks the arguments; here strides and the like are pairs."""
    batch, height, width, channels = x.shape
    _, out_height, out_width, groups, taps, _ = offset.shape
    kernel_height, kernel_width, _, features = weight.shape
    coordinates = jnp.promote_types(offset.dtype, jnp.float32)
    offset = offset.astype(coordinates)

    y = _sampling_axis(out_height, kernel_height, stride[0], padding[0], dilation[0], coordinates)
    x_axis = _sampling_axis(out_width, kernel_width, stride[1], padding[1], dilation[1], coordinates)
    y = jnp.repeat(y, kernel_width, axis=1)[None, :, None, None, :] + offset[..., 0]
    x_axis = jnp.tile(x_axis, (1, kernel_height))[None, None, :, None, :] + offset[..., 1]

    # A row of the table is one group's channels at one pixel: [B * H * W * G, C / G].
    table = x.reshape(batch * height * width * groups, channels // groups)
    frame = jnp.arange(batch, dtype=jnp.int32)[:, None, None, None, None] * (height * width)
    group = jnp.arange(groups, dtype=jnp.int32)[None, None, None, :, None]
    rows, weights = [], []
    for row, row_weight in _corners(y, height):
        for column, column_weight in _corners(x_axis, width):
            rows.append((frame + row * width + column) * groups + group)
            weights.append((row_weight * column_weight * mask.astype(coordinates)).astype(x.dtype))
    # Without the barrier XLA fuses these into the gathers and works them out once a channel.
    rows, weights = jax.lax.optimization_barrier((rows, weights))

    samples = sum(
        w[..., None] * table.at[row].get(mode="promise_in_bounds")
        for row, w in zip(rows, weights, strict=True)
    )
    samples = samples.reshape(batch, out_height, out_width, taps * channels)
    # Samples come group by group and tap by tap: bring the weights into that order, not the samples.
    weight = weight.reshape(taps, groups, channels // groups, features).swapaxes(0, 1)
    out = samples @ weight.reshape(taps * channels, features)
    return out if bias is None else out + bias[None, None, None, :]
