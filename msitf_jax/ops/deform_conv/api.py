"""The public deformable convolution: checks its arguments and picks an implementation."""

import functools
import logging
import operator
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from msitf_jax.ops.deform_conv import pallas_triton, reference

_IMPLEMENTATIONS = ("triton", "xla")


def deform_conv2d(
    x: jax.Array,
    offset: jax.Array,
    mask: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 1,
    dilation: int | tuple[int, int] = 1,
    implementation: Literal["triton", "xla"] | None = None,
) -> jax.Array:
    """Modulated deformable 2-D convolution (Deformable ConvNets v2, Zhu et al., CVPR 2019, equation 1).

    `out[p] = bias + sum_k weight_k . (mask_k(p) * x(p * stride - padding + r_k * dilation + offset_k(p)))`,
    where x is sampled bilinearly and every corner outside the frame counts as zero. Channels are cut into G
    equal offset groups; group g moves input channels `g * C / G ... (g + 1) * C / G - 1`. The same operation as
    `torchvision.ops.deform_conv2d` with one weight group, channels last.

    Args:
      x: `[B, H, W, C]`, floating point.
      offset: `[B, Ho, Wo, G, K, 2]`, K = kh * kw taps row by row, (dy, dx) in input pixels.
      mask: `[B, Ho, Wo, G, K]`, usually in 0..1.
      weight: `[kh, kw, C, Co]`.
      bias: `[Co]` or None.
      stride, padding, dilation: an int, or a pair (rows, columns); padding on both sides.
      implementation: "xla" is plain JAX; "triton" a fused Pallas kernel on NVIDIA GPUs, and plain JAX elsewhere and,
        with a line in the log, for what the kernel can't take: GPUs older than compute capability 8.0, other types than
        float32 and bfloat16, over 64 channels a group or 128 features, over 65,535 images, 2**31 elements or more,
        symbolic sizes, a JAX without Pallas's Triton backend. Only first derivatives in reverse mode pass through the
        kernel, and through plain JAX on a CPU. None is "triton" where the default device is an NVIDIA GPU and it can
        take the arguments.

    Returns:
      `[B, Ho, Wo, Co]` in x's dtype, `Ho = (H + 2 * padding - dilation * (kh - 1) - 1) // stride + 1`.

    Raises:
      ValueError: a shape that does not fit the others, an integer x, an unknown implementation, or more than 2**31
        groups of channels in a batch.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    >>> half_a_pixel_right = jnp.zeros((1, 3, 3, 1, 1, 2)).at[..., 1].set(0.5)
    >>> ones = jnp.ones((1, 3, 3, 1, 1))
    >>> deform_conv2d(x, half_a_pixel_right, ones, jnp.ones((1, 1, 1, 1)), padding=0)[0, :, :, 0]
    Array([[0.5, 1.5, 1. ],
           [3.5, 4.5, 2.5],
           [6.5, 7.5, 4. ]], dtype=float32)
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"`x` has dtype {x.dtype}, expected floating point")
    pairs = {
        "stride": _pair("stride", stride, 1),
        "padding": _pair("padding", padding, 0),
        "dilation": _pair("dilation", dilation, 1),
    }
    _check_shapes(x.shape, offset.shape, mask.shape, weight.shape, bias, **pairs)
    if implementation not in (None, *_IMPLEMENTATIONS):
        raise ValueError(f"`implementation` (={implementation!r}) must be None or one of {list(_IMPLEMENTATIONS)}")
    function: Callable[..., jax.Array] = reference.deform_conv2d
    if implementation == "triton" or (implementation is None and pallas_triton.runs_here()):
        reason = pallas_triton.unsupported(x, offset, weight)
        if reason is None:
            function = pallas_triton.deform_conv2d
        else:
            _log_once(f"deform_conv2d in plain JAX instead of Triton: {reason}")
    return function(x, offset, mask, weight, bias, **pairs)


@functools.cache
def _log_once(line):
    logging.getLogger(__name__).warning(line)


def _pair(name, value, smallest):
    try:
        pair = tuple(map(operator.index, value if isinstance(value, tuple | list) else (value, value)))
    except TypeError:
        pair = ()
    if len(pair) != 2 or min(pair) < smallest:
        raise ValueError(f"`{name}` (={value!r}) must be an int of at least {smallest}, or a pair of them")
    return pair


def _check_shapes(x, offset, mask, weight, bias, stride, padding, dilation):
    if len(x) != 4 or 0 in x:
        raise ValueError(f"`x` has shape {x}, expected [batch, height, width, channels], none of them 0")
    if len(weight) != 4 or weight[2] != x[3] or min(weight) == 0:
        raise ValueError(f"`weight` has shape {weight}, expected [kh, kw, {x[3]}, features] for x of shape {x}")
    out = tuple(
        (x[axis + 1] + 2 * padding[axis] - dilation[axis] * (weight[axis] - 1) - 1) // stride[axis] + 1
        for axis in (0, 1)
    )
    if any(size < 1 for size in out):
        raise ValueError(f"`weight` of {weight[0]}x{weight[1]} taps does not fit x of shape {x} even once")
    fixed = (x[0], *out)
    if len(offset) != 6 or offset[:3] != fixed or offset[4:] != (weight[0] * weight[1], 2):
        raise ValueError(f"`offset` has shape {offset}, expected {[*fixed, 'groups', weight[0] * weight[1], 2]}")
    if offset[3] == 0 or x[3] % offset[3]:
        raise ValueError(f"`x` channels (={x[3]}) must be divisible by `offset` groups (={offset[3]})")
    if mask != offset[:5]:
        raise ValueError(f"`mask` has shape {mask}, expected {offset[:5]} to go with offset")
    if bias is not None and bias.shape != (weight[3],):
        raise ValueError(f"`bias` has shape {bias.shape}, expected ({weight[3]},)")
