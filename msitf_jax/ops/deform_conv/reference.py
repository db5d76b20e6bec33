"""Modulated deformable convolution in plain JAX: the definition that other implementations are held to.

Four gathers and one matrix product. Nothing loops over pixels, so it runs wherever JAX does, and
`jax.grad` gives all five gradients.
"""

import jax.numpy as jnp


def _sampling_axis(out_size, kernel_size, stride, padding, dilation, dtype):
    """`[out_size, kernel_size]`: where each tap looks along one axis before its offset, in input pixels."""
    window = jnp.arange(out_size, dtype=dtype) * stride - padding
    tap = jnp.arange(kernel_size, dtype=dtype) * dilation
    return window[:, None] + tap[None, :]


def _corners(position, size):
    """The two pixels around each position on an axis of `size` pixels: [(index, weight), (index, weight)].

    A corner outside the frame has weight zero. Only its integer index is clamped, never the position, so the weights'
    derivatives are those of the unclamped bilinear interpolation.
    """
    lower = jnp.floor(position)
    fraction = position - lower
    lower = lower.astype(jnp.int32)
    return [
        (jnp.clip(index, 0, size - 1), jnp.where((index >= 0) & (index < size), weight, 0))
        for index, weight in ((lower, 1 - fraction), (lower + 1, fraction))
    ]


def deform_conv2d(x, offset, mask, weight, bias, *, stride, padding, dilation):
    """See `msitf_jax.ops.deform_conv2d`, which checks the arguments; here strides and the like are pairs."""
    batch, height, width, channels = x.shape
    _, out_height, out_width, groups, taps, _ = offset.shape
    kernel_height, kernel_width, _, features = weight.shape
    precise = x.dtype if x.dtype.itemsize >= 4 else jnp.float32  # positions need more than bfloat16
    offset, mask = offset.astype(precise), mask.astype(precise)

    y = _sampling_axis(out_height, kernel_height, stride[0], padding[0], dilation[0], precise)
    y = jnp.repeat(y, kernel_width, axis=1)[None, :, None, None, :] + offset[..., 0]
    x_axis = _sampling_axis(out_width, kernel_width, stride[1], padding[1], dilation[1], precise)
    x_axis = jnp.tile(x_axis, (1, kernel_height))[None, None, :, None, :] + offset[..., 1]

    # A row of the table is one group's channels at one pixel: [B * H * W * G, C / G].
    table = x.reshape(batch * height * width * groups, channels // groups)
    frame = jnp.arange(batch, dtype=jnp.int32)[:, None, None, None, None] * (height * width)
    group = jnp.arange(groups, dtype=jnp.int32)[None, None, None, :, None]

    # One weight a corner, complete before it meets the channels: weights applied in turn are worked out once a channel.
    samples = sum(
        (row_weight * column_weight * mask)[..., None]
        * table.at[(frame + row * width + column) * groups + group].get(mode="promise_in_bounds").astype(precise)
        for row, row_weight in _corners(y, height)
        for column, column_weight in _corners(x_axis, width)
    )
    # Samples come group by group and tap by tap: bring the weights into that order, not the samples.
    samples = samples.astype(x.dtype).reshape(batch * out_height * out_width, taps * channels)
    weight = weight.reshape(taps, groups, channels // groups, features).swapaxes(0, 1)
    out = samples @ weight.reshape(taps * channels, features)
    out = out.reshape(batch, out_height, out_width, features)
    return (out if bias is None else out + bias[None, None, None, :]).astype(x.dtype)
