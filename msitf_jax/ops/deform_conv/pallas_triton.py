"""Modulated deformable convolution as Pallas kernels for NVIDIA GPUs, lowered by way of Triton.

A program takes some output pixels of one image. Tap by tap it gathers their four corners, interpolates, applies the
mask and multiplies by that tap's weights, so that samples, nine times the size of x, never leave its registers. Two
more kernels give the gradients, one of x, offsets and mask and one of the weights; they sample anew instead of keeping
anything. What pixels add to the gradient of x is added up atomically, in whatever order they come.

Coordinates and sums are float32 throughout; products follow JAX's setting of matrix-product precision: TF32 by
default, under "highest" three of TF32 for each, which together are as good as float32.

Triton blocks have powers of two as sizes. Channels are laid out as `[groups, channels of a group]`, each padded to one;
a program goes through all taps for some groups, a block of them, before it turns to the next, so that what they sample
stays in the cache. An index into an array is counted in the flattened array, in 32 bits.
"""

import dataclasses
import functools
import importlib.resources
import json
import math
import warnings

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from msitf_jax.ops.deform_conv import reference

try:
    from jax.experimental.pallas import triton
except ImportError:  # JAX has announced that it will drop this backend
    triton = None

SMALLEST_DOT = 16  # Triton's least size of one
MOST_GROUP_CHANNELS, MOST_FEATURES = 64, 128  # more would spill registers
LARGEST_INDEX = 2**31 - 1
MOST_IMAGES = 65535  # programs along a CUDA grid's second and third axis
OLDEST_GPU = 8.0  # compute capability; the first with TF32 and bfloat16
# JAX's settings of matrix-product precision at which float32 is rounded to TF32.
SHORT_PRECISIONS = (None, "default", "high", "bfloat16", "tensorfloat32", "TF32_TF32_F32", "BF16_BF16_F32")
WEIGHT_PROGRAMS = 32  # parts, over all images, that a tap's gradient is summed up in


def unsupported(x, offset, weight):
    """Why the kernels can't take these arrays, or None if they can.

    Args:
      x, offset, weight: as `msitf_jax.ops.deform_conv2d` takes them, or their shapes and types.

    Returns:
      None or a clause such as "`x` is float64".
    """
    batch, _, _, channels = x.shape
    group_channels = channels // offset.shape[3]
    geometry = _Geometry.of(None, Blocks(SMALLEST_DOT, MOST_GROUP_CHANNELS, 4, 1), x, offset, weight)
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


def runs_here():
    """Whether JAX's default device is an NVIDIA GPU that the kernels are made for."""
    device = jax.devices()[0]
    capability = getattr(device, "compute_capability", None)
    return device.platform == "gpu" and "." in str(capability) and float(capability) >= OLDEST_GPU


def deform_conv2d(x, offset, mask, weight, bias, *, stride, padding, dilation, interpret=False):
    """See `msitf_jax.ops.deform_conv2d`, which checks the arguments; here strides and the like are pairs.

    Lowered for another platform than CUDA, it is the plain path. Gradients can be taken once, in reverse mode. Within
    `jax.shard_map`, which keeps a cut-up batch where it is, that needs `check_vma=False`.

    Args:
      interpret: run the kernels in Pallas's interpreter, on any platform.
    """
    _ignore_deprecation()
    if bias is None:
        bias = jnp.zeros(weight.shape[3], x.dtype)
    options = _Options(stride, padding, dilation, product_type(x.dtype), interpret)
    return _deform_conv2d(options, x, offset, mask, weight, bias)


def product_type(dtype):
    """What numbers of `dtype` are multiplied as, by JAX's present setting: "float32", "tf32" or "bfloat16"."""
    if dtype == jnp.float32:
        return "tf32" if jax.config.jax_default_matmul_precision in SHORT_PRECISIONS else "float32"
    return jnp.dtype(dtype).name


def _ignore_deprecation():
    # Until it goes: see `unsupported`. JAX warns where a kernel is lowered, after this module has returned.
    warnings.filterwarnings("ignore", "The Pallas Triton backend is deprecated", DeprecationWarning)


@dataclasses.dataclass(frozen=True)
class _Options:
    stride: tuple
    padding: tuple
    dilation: tuple
    product: str  # see `product_type`
    interpret: bool

    def choose(self, kernel, plain, *arrays):
        if self.interpret:
            return kernel(*arrays)
        return jax.lax.platform_dependent(*arrays, cuda=kernel, default=plain)

    def plain(self, *arrays):
        return reference.deform_conv2d(*arrays, stride=self.stride, padding=self.padding, dilation=self.dilation)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _deform_conv2d(options, x, offset, mask, weight, bias):
    return options.choose(functools.partial(_forward_kernel, options), options.plain, x, offset, mask, weight, bias)


def _forward(options, *arrays):
    return _deform_conv2d(options, *arrays), arrays


def _backward(options, arrays, cotangent):
    def plain(x, offset, mask, weight, bias, cotangent):
        return jax.vjp(options.plain, x, offset, mask, weight, bias)[1](cotangent)

    def kernels(x, offset, mask, weight, bias, cotangent):
        gradients = (
            *_inputs_kernel(options, x, offset, mask, weight, cotangent),
            _weight_kernel(options, x, offset, mask, weight, cotangent),
            jnp.sum(cotangent, (0, 1, 2), jnp.float32),
        )
        return tuple(g.astype(a.dtype) for g, a in zip(gradients, (x, offset, mask, weight, bias), strict=True))

    return options.choose(kernels, plain, *arrays, cotangent)


_deform_conv2d.defvjp(_forward, _backward)


@dataclasses.dataclass(frozen=True)
class Blocks:
    """How a kernel is cut up.

    Args:
      pixels: output pixels that a program takes at a time.
      channels: input channels in one matrix product, if groups are that narrow.
      warps: of a program.
      stages: of its pipeline.
    """

    pixels: int
    channels: int
    warps: int
    stages: int


@dataclasses.dataclass(frozen=True)
class _Geometry:
    """Sizes that a kernel is compiled for."""

    options: _Options
    blocks: Blocks
    frame: tuple  # (height, width) of x
    out: tuple  # (height, width) of the result
    channels: int
    groups: int
    kernel: tuple  # (rows, columns) of taps
    features: int

    @classmethod
    def of(cls, options, blocks, x, offset, weight):
        shapes = x.shape[1:3], offset.shape[1:3], x.shape[3], offset.shape[3], weight.shape[:2], weight.shape[3]
        return cls(options, blocks, *shapes)

    pixels = property(lambda self: math.prod(self.out))  # of an image of the result
    taps = property(lambda self: math.prod(self.kernel))
    group_channels = property(lambda self: self.channels // self.groups)
    dot_features = property(lambda self: _padded(self.features, SMALLEST_DOT))
    pixel_blocks = property(lambda self: pl.cdiv(self.pixels, self.blocks.pixels))
    steps = property(lambda self: self.group_blocks * self.taps)  # each a block of groups and a tap
    block_size = property(lambda self: self.steps * self.dot_channels * self.dot_features)  # of blocked weights

    @property
    def block(self):
        """(groups, channels of a group) of a block, padded."""
        channels = _padded(self.group_channels)
        groups = min(_padded(self.groups), max(1, self.blocks.channels // channels))
        return groups, max(channels, SMALLEST_DOT // groups)

    @property
    def dot_channels(self):
        return math.prod(self.block)

    @property
    def group_blocks(self):
        return pl.cdiv(self.groups, self.block[0])

    def blocked(self, weight):
        """`[kh, kw, C, Co]` -> flat `[steps, dot_channels, dot_features]`, zeros as padding."""
        groups, channels = self.block
        weight = weight.reshape(self.taps, self.groups, self.group_channels, self.features)
        missing = self.group_blocks * groups - self.groups
        sizes = missing, channels - self.group_channels, self.dot_features - self.features
        weight = jnp.pad(weight, ((0, 0), *((0, size) for size in sizes)))
        return weight.reshape(self.taps, self.group_blocks, -1).swapaxes(0, 1).reshape(-1)

    def unblocked(self, weight):
        """The inverse of `blocked`."""
        groups, channels = self.block
        weight = weight.reshape(self.group_blocks, self.taps, -1).swapaxes(0, 1)
        weight = weight.reshape(self.taps, self.group_blocks * groups, channels, self.dot_features)
        weight = weight[:, : self.groups, : self.group_channels, : self.features]
        return weight.reshape(*self.kernel, self.channels, self.features)


def _padded(size, least=1):
    """The next power of two."""
    return max(least, pl.next_power_of_2(size))


def blocks_for(kernel, product, pixels):
    """From `blocks.json`, which `python -m benchmarks.tune` makes.

    Args:
      kernel: "forward", "inputs" or "weight".
      product: see `product_type`.
      pixels: of the results of a whole batch.
    """
    rows = _table()[kernel][product]
    return next(Blocks(*row["blocks"]) for row in rows if row["up_to_pixels"] is None or pixels <= row["up_to_pixels"])


@functools.cache
def _table():
    return json.loads(importlib.resources.files(__package__).joinpath("blocks.json").read_text())["kernels"]


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
    return _Geometry.of(options, blocks, x, offset, weight)


def _forward_kernel(options, x, offset, mask, weight, bias):
    geometry = _geometry("forward", options, x, offset, weight)
    shape = jax.ShapeDtypeStruct((x.shape[0], *geometry.out, geometry.features), x.dtype)
    bias = jnp.pad(bias.astype(jnp.float32), (0, geometry.dot_features - geometry.features))
    grid = (geometry.pixel_blocks, x.shape[0])
    weight = geometry.blocked(weight.astype(x.dtype))
    (out,) = _call("forward", _forward_body, geometry, grid, [shape], x, offset, mask, weight, bias)
    return out


def _forward_body(geometry, x, offset, mask, weight, bias, out):
    image, pixel = pl.program_id(1), _pixels(geometry, pl.program_id(0))

    def add_tap(step, total):
        points = _points(geometry, offset, mask, image, pixel, step)
        return total + _dot(geometry, _samples(geometry, x, image, points), _weight_block(geometry, weight, step))

    total = jnp.zeros((geometry.blocks.pixels, geometry.dot_features), jnp.float32)
    total = jax.lax.fori_loop(0, geometry.steps, add_tap, total)
    total = total + bias[...][None, :]
    index, inside = _features(geometry, image, pixel)
    triton.store(out.at[index], total.astype(out.dtype), mask=inside)


def _inputs_kernel(options, x, offset, mask, weight, cotangent):
    """Gradients of x, offset and mask, float32."""
    geometry = _geometry("inputs", options, x, offset, weight)
    # Points of a tap in a row, as a program writes them; XLA brings them into order as it reads them.
    points = jax.ShapeDtypeStruct((geometry.taps, *offset.shape[:4]), jnp.float32)
    shapes = [jax.ShapeDtypeStruct(x.shape, jnp.float32), points, points, points]
    arrays = x, offset, mask, geometry.blocked(weight.astype(x.dtype)), cotangent.astype(x.dtype)
    zeros = jnp.zeros(x.shape, jnp.float32)
    grid = (geometry.pixel_blocks, x.shape[0])
    x, down, right, mask = _call("inputs", _inputs_body, geometry, grid, shapes, *arrays, zeros, aliases={5: 0})
    return x, jnp.moveaxis(jnp.stack([down, right], -1), 0, 4), jnp.moveaxis(mask, 0, 4)


def _inputs_body(geometry, x, offset, mask, weight, cotangent, _, x_out, down_out, right_out, mask_out):
    image, pixel = pl.program_id(1), _pixels(geometry, pl.program_id(0))
    index, inside = _features(geometry, image, pixel)
    cotangents = triton.load(cotangent.at[index], mask=inside, other=0)
    images = pl.num_programs(1)

    def add_tap(step, _):
        points = _points(geometry, offset, mask, image, pixel, step)
        samples = _dot(geometry, cotangents, _weight_block(geometry, weight, step), contracted=(1, 1))
        samples = samples.reshape(geometry.blocks.pixels, *geometry.block)
        # What a corner would add to the loss with a factor of one.
        upper_left, upper_right, lower_left, lower_right = (
            jnp.sum(samples * corner, 2) for corner in _corners(geometry, x, image, points)
        )
        down, right = points.down, points.right
        upper = (1 - right) * upper_left + right * upper_right
        lower = (1 - right) * lower_left + right * lower_right
        left = (1 - down) * upper_left + down * lower_left
        along_right = (1 - down) * upper_right + down * lower_right
        tap, _ = _tap_and_groups(geometry, step)
        index = ((tap * images + image) * geometry.pixels + pixel[:, None]) * geometry.groups + points.group[None, :]
        for ref, value in (
            (down_out, points.mask * (lower - upper)),
            (right_out, points.mask * (along_right - left)),
            (mask_out, (1 - down) * upper + down * lower),
        ):
            triton.store(ref.at[index], value, mask=points.exists)
        for factor, (index, wanted) in zip(points.factors, _corner_indices(geometry, image, points), strict=True):
            _add_atomically(geometry, x_out, index, factor[:, :, None] * samples, wanted)
        return 0

    jax.lax.fori_loop(0, geometry.steps, add_tap, 0)


def _add_atomically(geometry, ref, index, value, wanted):
    if geometry.options.interpret:  # where programs take turns, and the atomic addition has neither masks nor repeats
        ref[...] = ref[...].at[jnp.where(wanted, index, 0)].add(jnp.where(wanted, value, 0))
    else:
        triton.atomic_add(ref, (index,), value, mask=wanted)


def _weight_kernel(options, x, offset, mask, weight, cotangent):
    """The gradient of the weights, float32, summed up in parts so that it is the same each time."""
    geometry = _geometry("weight", options, x, offset, weight)
    parts = min(pl.cdiv(WEIGHT_PROGRAMS, x.shape[0]), geometry.pixel_blocks)
    shape = (x.shape[0], parts, geometry.steps, geometry.dot_channels, geometry.dot_features)
    grid = (parts, geometry.steps, x.shape[0])
    arrays = x, offset, mask, cotangent.astype(x.dtype)
    (out,) = _call("weight", _weight_body, geometry, grid, [jax.ShapeDtypeStruct(shape, jnp.float32)], *arrays)
    return geometry.unblocked(jnp.sum(out, (0, 1)))


def _weight_body(geometry, x, offset, mask, cotangent, out):
    part, step, image = (pl.program_id(axis) for axis in range(3))
    parts = pl.num_programs(0)

    def add_pixels(i, total):
        pixel = _pixels(geometry, part + i.astype(jnp.int32) * parts)
        points = _points(geometry, offset, mask, image, pixel, step)
        samples = _samples(geometry, x, image, points)
        index, inside = _features(geometry, image, pixel)
        cotangents = triton.load(cotangent.at[index], mask=inside, other=0)
        return total + _dot(geometry, samples, cotangents, contracted=(0, 0))

    size = geometry.dot_channels, geometry.dot_features
    turns = pl.cdiv(geometry.pixel_blocks, parts)
    total = jax.lax.fori_loop(0, turns, add_pixels, jnp.zeros(size, jnp.float32))
    row = ((image * parts + part) * geometry.steps + step) * size[0] + _arange(size[0])
    triton.store(out.at[row[:, None] * size[1] + _arange(size[1])[None, :]], total)


def _arange(size):
    return jnp.arange(size, dtype=jnp.int32)


def _pixels(geometry, block):
    """Output pixels of a block, counted within an image; the last ones may not exist."""
    return block * geometry.blocks.pixels + _arange(geometry.blocks.pixels)


def _dot(geometry, a, b, contracted=(1, 0)):
    """Matrix product over the given axes of a and b."""
    precision = jax.lax.Precision.DEFAULT
    if geometry.options.product == "float32":
        # Triton's own float32 is far slower than three products of TF32 parts, which interpreters don't know.
        three_tf32 = jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3
        precision = jax.lax.Precision.HIGHEST if geometry.options.interpret else three_tf32
    axes = tuple((axis,) for axis in contracted)
    return jax.lax.dot_general(a, b, (axes, ((), ())), precision=precision, preferred_element_type=jnp.float32)


def _features(geometry, image, pixel):
    """Where pixels' features lie in the result, and which of them exist: `[pixels, dot_features]` each."""
    feature = _arange(geometry.dot_features)
    index = (image * geometry.pixels + pixel)[:, None] * geometry.features + feature[None, :]
    return index, (pixel < geometry.pixels)[:, None] & (feature < geometry.features)[None, :]


def _weight_block(geometry, weight, step):
    """`[dot_channels, dot_features]`."""
    row = step.astype(jnp.int32) * geometry.dot_channels + _arange(geometry.dot_channels)
    return weight[row[:, None] * geometry.dot_features + _arange(geometry.dot_features)[None, :]]


def _tap_and_groups(geometry, step):
    """The tap of a step, and its groups, of which the last may not exist."""
    groups, taps = geometry.block[0], jnp.int32(geometry.taps)
    step = step.astype(jnp.int32)  # a loop's counter has 64 bits where those are enabled
    return jax.lax.rem(step, taps), jax.lax.div(step, taps) * groups + _arange(groups)


@dataclasses.dataclass(frozen=True)
class _Points:
    """Where one tap samples: arrays `[pixels, groups]`, but for the groups themselves."""

    group: jax.Array
    exists: jax.Array  # pixel and group are none of the padding
    top: jax.Array  # row of the upper corners; may lie outside the frame
    left: jax.Array
    down: jax.Array  # how far below them the point lies, 0..1
    right: jax.Array
    mask: jax.Array

    @property
    def factors(self):
        """Of the four corners, row by row."""
        rows, columns = (1 - self.down, self.down), (1 - self.right, self.right)
        return [row * column * self.mask for row in rows for column in columns]


def _points(geometry, offset, mask, image, pixel, step):
    tap, group = _tap_and_groups(geometry, step)
    exists = (pixel < geometry.pixels)[:, None] & (group < geometry.groups)[None, :]
    point = (image * geometry.pixels + pixel)[:, None] * geometry.groups + group[None, :]
    point = point * geometry.taps + tap
    corners = []
    for axis, part in enumerate((jax.lax.div, jax.lax.rem)):
        options = geometry.options
        start = part(pixel, jnp.int32(geometry.out[1])) * options.stride[axis] - options.padding[axis]
        start = start + part(tap, jnp.int32(geometry.kernel[1])) * options.dilation[axis]
        moved = triton.load(offset.at[2 * point + axis], mask=exists, other=0).astype(jnp.float32)
        position = start.astype(jnp.float32)[:, None] + moved
        lower = jnp.floor(position)
        # Before it becomes an integer, as only so much fits; from -2 on and from the size on nothing is in the frame.
        corners.append((jnp.clip(lower, -2, geometry.frame[axis]).astype(jnp.int32), position - lower))
    (top, down), (left, right) = corners
    factor = triton.load(mask.at[point], mask=exists, other=0).astype(jnp.float32)
    return _Points(group, exists, top, left, down, right, factor)


def _samples(geometry, x, image, points):
    """`[pixels, dot_channels]` in x's type: interpolated and masked."""
    corners = _corners(geometry, x, image, points)
    samples = sum(factor[:, :, None] * corner for factor, corner in zip(points.factors, corners, strict=True))
    return samples.reshape(samples.shape[0], geometry.dot_channels).astype(x.dtype)


def _corners(geometry, x, image, points):
    """x around the points, zero outside the frame: four `[pixels, groups, channels]`, row by row, float32."""
    indices = _corner_indices(geometry, image, points)
    return [triton.load(x.at[index], mask=wanted, other=0).astype(jnp.float32) for index, wanted in indices]


def _corner_indices(geometry, image, points):
    """Where in x each of the four lies, and which of its pixels and channels exist."""
    height, width = geometry.frame
    channel = _arange(geometry.block[1])[None, None, :]
    first_channel = points.group[None, :] * geometry.group_channels
    indices = []
    for row in (points.top, points.top + 1):
        for column in (points.left, points.left + 1):
            inside = points.exists & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            index = ((image * height + row) * width + column) * geometry.channels + first_channel
            indices.append((index[:, :, None] + channel, inside[:, :, None] & (channel < geometry.group_channels)))
    return indices
