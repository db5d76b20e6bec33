"""2-D convolution that keeps all cores of a CPU busy, and its derivatives too.

XLA's CPU backend deals a convolution out to its threads in tiles of 64 columns by 128 output channels; rows and images
follow one another. Small images, as in training, would leave all but one core idle: here they are laid side by side.
What `jax.grad` derives for a convolution's kernel is up to 70 times slower inside `lax.scan` there. Both derivatives
are convolutions again; spelled out as such they take the fast path everywhere. Other platforms keep the plain
convolution and JAX's derivatives, which their libraries recognise.
"""

import functools
import os

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim
from jax.typing import DTypeLike

from msitf_jax.ops.chunks import largest_divisor
from msitf_jax.ops.dtypes import at_least_float32

TILE_COLUMNS = 64
TILES_PER_THREAD = 2  # where they don't divide evenly, at most a third of the time is lost
SMALLEST_STRIP = 4  # rows; each brings two more from its neighbors
FEW_PIXELS = 512  # up to here, moving them costs as much as it gains
LARGE_IMAGE, LARGE_BATCH, PART = 2 << 20, 7 << 19, 3 << 19  # bytes of input and cotangent: see `_cached_part`
_NHWC = ("NHWC", "HWIO", "NHWC")


def conv2d(x: jax.Array, kernel: jax.Array, stride: int = 1, dtype: DTypeLike | None = None) -> jax.Array:
    """Square convolution with zero padding `k // 2` on every side.

    Args:
      x: `[B, H, W, C]`.
      kernel: `[k, k, C, Co]`, k odd, of x's type.
      stride: the same on both axes.
      dtype: of the result, which is summed up in it; None is x's.

    Returns:
      `[B, ceil(H / stride), ceil(W / stride), Co]`.
    """
    if kernel.shape[0] == stride == 1:
        # Up to ten times as fast on a CPU as the convolution that it is.
        return jnp.matmul(x, kernel[0, 0], preferred_element_type=dtype)
    return _conv2d(x, kernel, stride, dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv2d(x, kernel, stride, dtype):
    plain = functools.partial(_plain, stride=stride, dtype=dtype)
    strips = _strips(x.shape)
    if stride > 1 or not strips:
        return plain(x, kernel)
    laid_out = functools.partial(_side_by_side, strips=strips, dtype=dtype)
    return jax.lax.platform_dependent(x, kernel, cpu=laid_out, default=plain)


def _plain(x, kernel, *, stride, dtype):
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), ((pad, pad),) * 2, dimension_numbers=_NHWC, preferred_element_type=dtype
    )


def _strips(shape):
    """Into how many strips to cut each image of a batch so that, side by side, they suffice for all threads.

    None if they are wide enough as they are, too small to be worth it, or of symbolic sizes.
    """
    batch, height, width, _ = shape
    if any(map(is_symbolic_dim, shape)):
        return None
    wanted = TILE_COLUMNS * TILES_PER_THREAD * (os.cpu_count() or 1)
    if width >= wanted or batch * height * width <= FEW_PIXELS:
        return None
    numbers = [n for n in range(1, height + 1) if height % n == 0 and (n == 1 or height // n >= SMALLEST_STRIP)]
    return next((n for n in numbers if n * batch * (width + 1) >= wanted), numbers[-1])


def _side_by_side(x, kernel, *, strips, dtype):
    """The plain convolution at stride 1, of one image a strip high in which all strips of all images lie in a row.

    Between them are columns of zeros, which serve as padding for both neighbors; above and below each strip are its
    neighbors' rows.
    """
    batch, height, width, channels = x.shape
    pad, rows = kernel.shape[0] // 2, height // strips
    x = jnp.pad(x, ((0, 0), (pad, pad), (0, pad), (0, 0)))
    x = jnp.stack([x[:, first : first + rows + 2 * pad] for first in range(0, height, rows)])
    x = x.transpose(2, 0, 1, 3, 4).reshape(1, rows + 2 * pad, -1, channels)
    out = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), ((0, 0), (pad, pad)), dimension_numbers=_NHWC, preferred_element_type=dtype
    )
    out = out.reshape(rows, strips, batch, width + pad, -1)[:, :, :, :width]
    return out.transpose(2, 1, 0, 3, 4).reshape(batch, height, width, -1)


def _forward(x, kernel, stride, dtype):
    return _conv2d(x, kernel, stride, dtype), (x, kernel)


def _backward(stride, dtype, residuals, cotangent):
    x, kernel = residuals
    cotangent = cotangent.astype(x.dtype)

    def derived(x, kernel, cotangent):
        return jax.vjp(functools.partial(_plain, stride=stride, dtype=None), x, kernel)[1](cotangent)

    def spelled_out(x, kernel, cotangent):
        return _input_gradient(x, kernel, cotangent, stride), _kernel_gradient(x, kernel, cotangent, stride)

    return jax.lax.platform_dependent(x, kernel, cotangent, cpu=spelled_out, default=derived)


_conv2d.defvjp(_forward, _backward)


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x plus a number a channel: `[..., C]`, `[C]` -> x's shape and type.

    Added in the wider of both types: the gradient of a float32 bias, a sum over all pixels, is then summed up in
    float32 where x is bfloat16.
    """
    wide = max(x.dtype, bias.dtype, key=lambda dtype: dtype.itemsize)
    return (x.astype(wide) + jnp.expand_dims(bias.astype(wide), range(x.ndim - 1))).astype(x.dtype)


def _input_gradient(x, kernel, cotangent, stride):
    """The cotangent, spread out by the stride, convolved with the kernel turned by 180 degrees."""
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    if stride == 1:
        return conv2d(cotangent, turned)
    size = kernel.shape[0]
    before = size - 1 - size // 2
    padding = [(before, x.shape[axis] - before + size - 2 - (cotangent.shape[axis] - 1) * stride) for axis in (1, 2)]
    return jax.lax.conv_general_dilated(
        cotangent, turned, (1, 1), padding, lhs_dilation=(stride, stride), dimension_numbers=_NHWC
    )


def _kernel_gradient(x, kernel, cotangent, stride):
    """The input convolved with the cotangent, channels taking the place of the batch and the batch that of channels."""
    size = kernel.shape[0]
    if stride == 1 and x.shape[3] > cotangent.shape[3]:
        # The wider of both as the output's channels, of which each thread takes 128. Seen from the input, the cotangent
        # lies the other way round.
        return _kernel_gradient(cotangent, kernel.swapaxes(2, 3), x, 1)[::-1, ::-1].swapaxes(2, 3)
    pad = size // 2
    rows, columns = ((pad, size + (cotangent.shape[axis] - 1) * stride - x.shape[axis] - pad) for axis in (1, 2))
    images, height = _cached_part(x, cotangent)
    if stride > 1 or (images, height) == cotangent.shape[:2]:
        return _correlate(x, cotangent, (rows, columns), stride).astype(kernel.dtype)

    x = jnp.pad(x, ((0, 0), rows, (0, 0), (0, 0)))

    def add_part(total, i):
        image, strip = jnp.divmod(i, cotangent.shape[1] // height)
        first = (image * images, strip * height, 0, 0)
        part = jax.lax.dynamic_slice(x, first, (images, height + size - 1, *x.shape[2:]))
        part_cotangent = jax.lax.dynamic_slice(cotangent, first, (images, height, *cotangent.shape[2:]))
        return total + _correlate(part, part_cotangent, ((0, 0), columns)), None

    parts = cotangent.shape[0] // images * (cotangent.shape[1] // height)
    total = jnp.zeros(kernel.shape, at_least_float32(x.dtype))
    # Four at a time: they don't wait for each other.
    total, _ = jax.lax.scan(add_part, total, jnp.arange(parts), unroll=min(4, parts))
    return total.astype(kernel.dtype)


def _cached_part(x, cotangent):
    """(images, rows) of a batch to take at a time for a kernel's gradient.

    That convolution's kernel are the pixels of the whole batch, over which it goes many times. Where they don't stay in
    the cache it is a third as fast: measured, up to 2 MB an image or 3.5 MB in all are best left whole, more taken 1.5
    MB at a time.
    """
    batch, height, width, _ = cotangent.shape
    row = width * (x.shape[3] + cotangent.shape[3]) * x.dtype.itemsize
    if height * row <= LARGE_IMAGE and batch * height * row <= LARGE_BATCH:
        return batch, height
    rows = largest_divisor(height, PART // row)
    return (largest_divisor(batch, PART // (height * row)) if rows == height else 1), rows


def _correlate(x, cotangent, padding, stride=1):
    # Transposed by hand: told by dimension numbers, XLA picks layouts that have no fast path within a loop.
    x, cotangent = x.transpose(3, 1, 2, 0), cotangent.transpose(1, 2, 0, 3)
    out = jax.lax.conv_general_dilated(
        x,
        cotangent,
        (1, 1),
        padding,
        rhs_dilation=(stride, stride),
        dimension_numbers=_NHWC,
        preferred_element_type=at_least_float32(x.dtype),
    )
    return out.transpose(1, 2, 0, 3)
