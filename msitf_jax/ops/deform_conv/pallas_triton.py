"""Modulated deformable convolution as Pallas kernels for NVIDIA GPUs, lowered by way of Triton.

A program takes some output pixels of one image. Tap by tap it gathers their four corners, interpolates, applies the
mask and multiplies by that tap's weights, so that samples, nine times the size of x, never leave its registers. Two
more kernels give the gradients, one of x, offsets and mask and one of the weights; they sample anew instead of keeping
anything. What pixels add to the gradient of x is added up atomically, in whatever order they come.

Coordinates and sums are float32 throughout; products follow JAX's setting of matrix-product precision: TF32 by
default, under "highest" three of TF32 for each, which together are as good as float32.

Here are when the kernels run, how they are launched, and their derivatives; `triton_programs` has what a program does,
`geometry` the sizes.
"""

import functools
import math
import warnings

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.export import is_symbolic_dim
from jax.typing import DTypeLike

from msitf_jax.ops.deform_conv import reference, triton_programs
from msitf_jax.ops.deform_conv.geometry import SMALLEST_DOT, Blocks, Geometry, Options, blocks_for
from msitf_jax.ops.deform_conv.triton_programs import triton

MOST_GROUP_CHANNELS, MOST_FEATURES = 64, 128  # more would spill registers
LARGEST_INDEX = 2**31 - 1
MOST_IMAGES = 65535  # programs along a CUDA grid's second and third axis
OLDEST_GPU = 8.0  # compute capability; the first with TF32 and bfloat16
# JAX's settings of matrix-product precision at which float32 is rounded to TF32.
SHORT_PRECISIONS = (None, "default", "high", "bfloat16", "tensorfloat32", "TF32_TF32_F32", "BF16_BF16_F32")
WEIGHT_PROGRAMS = 32  # parts, over all images, that a tap's gradient is summed up in


def unsupported(
    x: jax.Array | jax.ShapeDtypeStruct,
    offset: jax.Array | jax.ShapeDtypeStruct,
    weight: jax.Array | jax.ShapeDtypeStruct,
) -> str | None:
    """Why the kernels can't take these arrays, or None if they can.

    Args:
      x, offset, weight: as `msitf_jax.ops.deform_conv2d` takes them, or their shapes and types.

    Returns:
      None or a clause such as "`x` is float64".
    """
    if any(map(is_symbolic_dim, x.shape)):
        return "`x` has sizes that are not known yet"
    batch, _, _, channels = x.shape
    group_channels = channels // offset.shape[3]
    blocks = Blocks(SMALLEST_DOT, MOST_GROUP_CHANNELS, 4, 1)
    geometry = Geometry.of(None, blocks, x, offset, weight)  # type: ignore[arg-type]  # sizes take no options
    shapes = x.shape, offset.shape, (*offset.shape[:3], weight.shape[3]), (batch + WEIGHT_PROGRAMS, geometry.block_size)
    largest = max(map(math.prod, shapes))
    if triton is None:
        return f"JAX {jax.__version__} has no Triton backend"
    if jax.devices()[0].platform == "gpu" and not runs_here():
        return f"{jax.devices()[0].device_kind} is no NVIDIA GPU of compute capability {OLDEST_GPU} or more"
    if x.dtype not in (jnp.float32, jnp.bfloat16):
        return f"`x` is {x.dtype}, not float32 or bfloat16"
    if group_channels > MOST_GROUP_CHANNELS:
        return f"`x` has {group_channels} channels a group, more than {MOST_GROUP_CHANNELS}"
    if weight.shape[3] > MOST_FEATURES:
        return f"`weight` has {weight.shape[3]} features, more than {MOST_FEATURES}"
    if largest > LARGEST_INDEX or batch > MOST_IMAGES:
        return f"there are {batch} images and up to {largest} elements, more than {MOST_IMAGES} or 2**31 - 1"
    return None


def runs_here() -> bool:
    """Whether JAX's default device is an NVIDIA GPU that the kernels are made for."""
    device = jax.devices()[0]
    capability = str(getattr(device, "compute_capability", None))
    return device.platform == "gpu" and "." in capability and float(capability) >= OLDEST_GPU


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
    interpret: bool = False,
) -> jax.Array:
    """See `msitf_jax.ops.deform_conv2d`, which checks the arguments; here strides and the like are pairs.

    Lowered for another platform than CUDA, it is the plain path. Gradients can be taken once, in reverse mode. Within
    `jax.shard_map`, which keeps a cut-up batch where it is, that needs `check_vma=False`.

    Args:
      interpret: run the kernels in Pallas's interpreter, on any platform.
    """
    _ignore_deprecation()
    if bias is None:
        bias = jnp.zeros(weight.shape[3], x.dtype)
    options = Options(stride, padding, dilation, product_type(x.dtype), interpret)
    return _deform_conv2d(options, x, offset, mask, weight, bias)


def product_type(dtype: DTypeLike) -> str:
    """What numbers of `dtype` are multiplied as, by JAX's present setting: "float32", "tf32" or "bfloat16"."""
    if dtype == jnp.float32:
        precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined, unused-ignore]
        return "tf32" if precision in SHORT_PRECISIONS else "float32"
    return jnp.dtype(dtype).name


def _ignore_deprecation():
    # Until it goes: see `unsupported`. JAX warns where a kernel is lowered, after this module has returned.
    warnings.filterwarnings("ignore", "The Pallas Triton backend is deprecated", DeprecationWarning)


def _choose(options, kernel, plain, *arrays):
    if options.interpret:
        return kernel(*arrays)
    return jax.lax.platform_dependent(*arrays, cuda=kernel, default=plain)


def _plain(options, *arrays):
    return reference.deform_conv2d(*arrays, stride=options.stride, padding=options.padding, dilation=options.dilation)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _deform_conv2d(options, x, offset, mask, weight, bias):
    kernel, plain = functools.partial(_forward_kernel, options), functools.partial(_plain, options)
    return _choose(options, kernel, plain, x, offset, mask, weight, bias)


def _forward(options, *arrays):
    return _deform_conv2d(options, *arrays), arrays


def _backward(options, arrays, cotangent):
    def plain(x, offset, mask, weight, bias, cotangent):
        return jax.vjp(functools.partial(_plain, options), x, offset, mask, weight, bias)[1](cotangent)

    def kernels(x, offset, mask, weight, bias, cotangent):
        gradients = (
            *_inputs_kernel(options, x, offset, mask, weight, cotangent),
            _weight_kernel(options, x, offset, mask, weight, cotangent),
            jnp.sum(cotangent, (0, 1, 2), jnp.float32),
        )
        return tuple(g.astype(a.dtype) for g, a in zip(gradients, (x, offset, mask, weight, bias), strict=True))

    return _choose(options, kernels, plain, *arrays, cotangent)


_deform_conv2d.defvjp(_forward, _backward)


def _call(name, body, geometry, grid, out_shape, *arrays, aliases=None):
    """Runs `body(geometry, *refs)` over the grid, under `name` in the lowered code, on flattened arrays."""

    def kernel(*refs):
        body(geometry, *refs)

    kernel.__name__ = f"deform_conv_{name}"
    call = pl.pallas_call(
        kernel,
        grid=grid,
        out_shape=[jax.ShapeDtypeStruct((math.prod(s.shape),), s.dtype) for s in out_shape],
        input_output_aliases=aliases or {},
        compiler_params=triton.CompilerParams(num_warps=geometry.blocks.warps, num_stages=geometry.blocks.stages),
        interpret=geometry.options.interpret,
        name=kernel.__name__,
    )
    return [flat.reshape(s.shape) for flat, s in zip(call(*(a.reshape(-1) for a in arrays)), out_shape, strict=True)]


def _geometry(kernel, options, x, offset, weight):
    blocks = blocks_for(kernel, options.product, math.prod(offset.shape[:3]))
    return Geometry.of(options, blocks, x, offset, weight)


def _forward_kernel(options, x, offset, mask, weight, bias):
    geometry = _geometry("forward", options, x, offset, weight)
    shape = jax.ShapeDtypeStruct((x.shape[0], *geometry.out, geometry.features), x.dtype)
    bias = jnp.pad(bias.astype(jnp.float32), (0, geometry.dot_features - geometry.features))
    grid = (geometry.pixel_blocks, x.shape[0])
    weight = geometry.blocked(weight.astype(x.dtype))
    (out,) = _call("forward", triton_programs.forward, geometry, grid, [shape], x, offset, mask, weight, bias)
    return out


def _inputs_kernel(options, x, offset, mask, weight, cotangent):
    """Gradients of x, offset and mask, float32."""
    geometry = _geometry("inputs", options, x, offset, weight)
    # Points of a tap in a row, as a program writes them; XLA brings them into order as it reads them.
    points = jax.ShapeDtypeStruct((geometry.taps, *offset.shape[:4]), jnp.float32)
    shapes = [jax.ShapeDtypeStruct(x.shape, jnp.float32), points, points, points]
    arrays = x, offset, mask, geometry.blocked(weight.astype(x.dtype)), cotangent.astype(x.dtype)
    zeros = jnp.zeros(x.shape, jnp.float32)
    grid = (geometry.pixel_blocks, x.shape[0])
    x, down, right, mask = _call(
        "inputs", triton_programs.inputs, geometry, grid, shapes, *arrays, zeros, aliases={5: 0}
    )
    return x, jnp.moveaxis(jnp.stack([down, right], -1), 0, 4), jnp.moveaxis(mask, 0, 4)


def _weight_kernel(options, x, offset, mask, weight, cotangent):
    """The gradient of the weights, float32, summed up in parts so that it is the same each time."""
    geometry = _geometry("weight", options, x, offset, weight)
    parts = min(pl.cdiv(WEIGHT_PROGRAMS, x.shape[0]), geometry.pixel_blocks)
    shape = (x.shape[0], parts, geometry.steps, geometry.dot_channels, geometry.dot_features)
    grid = (parts, geometry.steps, x.shape[0])
    arrays = x, offset, mask, cotangent.astype(x.dtype)
    (out,) = _call(
        "weight", triton_programs.weight, geometry, grid, [jax.ShapeDtypeStruct(shape, jnp.float32)], *arrays
    )
    return geometry.unblocked(jnp.sum(out, (0, 1)))
