"""2-D convolution whose derivatives are fast on the CPU too.

What `jax.grad` derives for a convolution's kernel is up to 70 times slower inside `lax.scan` on XLA's CPU backend, and
slower by 4 on large frames. Both derivatives are convolutions or products again; spelled out as such they
take the fast path everywhere. Other platforms keep JAX's own, which their libraries recognise.
"""

import functools

import jax
import jax.numpy as jnp

STRIP_PIXELS = 1024  # of large frames, unrolled at a time for the kernel's gradient: few enough for the cache
# From here on the kernel's gradient is such a product, below it is a convolution.
MANY_PIXELS = 8192
MANY_CHANNELS = 64 * 64
_NHWC = ("NHWC", "HWIO", "NHWC")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv2d(x, kernel, stride=1, dtype=None):
    """Square convolution with zero padding `k // 2` on every side.

    Args:
      x: `[B, H, W, C]`.
      kernel: `[k, k, C, Co]`, k odd, of x's type.
      stride: the same on both axes.
      dtype: of the result, which is summed up in it; None is x's.

    Returns:
      `[B, ceil(H / stride), ceil(W / stride), Co]`.
    """
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), ((pad, pad),) * 2, dimension_numbers=_NHWC, preferred_element_type=dtype
    )


def _forward(x, kernel, stride, dtype):
    return conv2d(x, kernel, stride, dtype), (x, kernel)


def _backward(stride, dtype, residuals, cotangent):
    x, kernel = residuals
    cotangent = cotangent.astype(x.dtype)

    def derived(x, kernel, cotangent):
        return jax.vjp(functools.partial(conv2d.fun, stride=stride), x, kernel)[1](cotangent)

    def spelled_out(x, kernel, cotangent):
        pixels, channels = x.size // x.shape[3], x.shape[3] * kernel.shape[3]
        unroll = stride == 1 and (pixels > MANY_PIXELS or channels > MANY_CHANNELS)
        kernel_gradient = _kernel_gradient_in_strips if unroll else _kernel_gradient
        return _input_gradient(x, kernel, cotangent, stride), kernel_gradient(x, kernel, cotangent, stride)

    return jax.lax.platform_dependent(x, kernel, cotangent, cpu=spelled_out, default=derived)


conv2d.defvjp(_forward, _backward)


def _accumulator(dtype):
    """The type that a kernel's gradient is summed up in."""
    return dtype if dtype.itemsize >= 4 else jnp.dtype(jnp.float32)


def _input_gradient(x, kernel, cotangent, stride):
    """The cotangent, spread out by the stride, convolved with the kernel turned by 180 degrees."""
    size = kernel.shape[0]
    before = size - 1 - size // 2
    padding = [(before, x.shape[axis] - before + size - 2 - (cotangent.shape[axis] - 1) * stride) for axis in (1, 2)]
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    return jax.lax.conv_general_dilated(
        cotangent, turned, (1, 1), padding, lhs_dilation=(stride, stride), dimension_numbers=_NHWC
    )


def _kernel_gradient(x, kernel, cotangent, stride):
    """The input convolved with the cotangent, channels taking the place of the batch and the batch that of channels."""
    size = kernel.shape[0]
    pad = size // 2
    padding = [(pad, size + (cotangent.shape[axis] - 1) * stride - x.shape[axis] - pad) for axis in (1, 2)]
    # Transposed by hand: told by dimension numbers, XLA picks layouts that have no fast path within a loop.
    x, cotangent = x.transpose(3, 1, 2, 0), cotangent.transpose(1, 2, 0, 3)
    out = jax.lax.conv_general_dilated(
        x,
        cotangent,
        (1, 1),
        padding,
        rhs_dilation=(stride, stride),
        dimension_numbers=_NHWC,
        preferred_element_type=_accumulator(x.dtype),
    )
    return out.transpose(1, 2, 0, 3).astype(kernel.dtype)


def _kernel_gradient_in_strips(x, kernel, cotangent, stride):
    """The product of the input and the cotangent, one of them unrolled into patches, a strip at a time; stride 1."""
    size = kernel.shape[0]
    if x.shape[3] <= cotangent.shape[3]:
        return _patch_product(x, cotangent, size)
    # The wider one stays as it is. Seen from the input's pixels the cotangent's patches are turned by 180 degrees.
    return _patch_product(cotangent, x, size)[::-1, ::-1].swapaxes(2, 3)


def _patch_product(unrolled, plain, size):
    """Sum over pixels of patch times pixel: `[B, H, W, C]`, `[B, H, W, D]` -> `[size, size, C, D]`."""
    batch, height, width, channels = unrolled.shape
    rows = max(n for n in range(1, max(1, STRIP_PIXELS // width) + 1) if height % n == 0)
    margin = (size // 2, size // 2)
    padded = jnp.pad(unrolled, ((0, 0), margin, margin, (0, 0)))

    def strip(total, where):
        image, first = where
        part = jax.lax.dynamic_slice(padded, (image, first, 0, 0), (1, rows + size - 1, width + size - 1, channels))
        patches = [part[0, i : i + rows, j : j + width] for i in range(size) for j in range(size)]
        patches = jnp.concatenate(patches, -1).reshape(rows * width, size * size * channels)
        pixels = jax.lax.dynamic_slice(plain, (image, first, 0, 0), (1, rows, width, plain.shape[3]))
        pixels = pixels.reshape(rows * width, plain.shape[3])
        return total + jnp.matmul(patches.T, pixels, preferred_element_type=total.dtype), None

    images, firsts = jnp.meshgrid(jnp.arange(batch), jnp.arange(0, height, rows), indexing="ij")
    total = jnp.zeros((size * size * channels, plain.shape[3]), _accumulator(plain.dtype))
    total, _ = jax.lax.scan(strip, total, (images.ravel(), firsts.ravel()))
    return total.astype(plain.dtype).reshape(size, size, channels, plain.shape[3])
