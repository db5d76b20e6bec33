"""Modulated deformable convolution as Pallas kernels for NVIDIA GPUs, lowered by way of Triton.

A program takes some output pixels of one image. Tap by tap it gathers their four corners, interpolates, applies the
mask and multiplies by that tap's weights, so that samples, nine times the size of x, never leave its registers. Two
more kernels give the gradients of offsets and mask and of the weights; they sample anew instead of keeping anything.
The gradient of x is left to the plain path, where XLA adds it up atomically.

Coordinates and sums are float32 throughout; products follow JAX's setting of matrix-product precision: TF32 by
default, float32 under "highest".

Triton blocks have powers of two as sizes. Channels are laid out as `[groups, channels of a group]`, each padded to one,
as many groups at a time as fill `DOT_CHANNELS`: a block of groups. An index into an array is counted in the flattened
array, in 32 bits.
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

DOT_CHANNELS = 64  # input channels that go into one matrix product
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
    geometry = _Geometry.of(None, x, offset, weight)
    shapes = x.shape, offset.shape, (*offset.shape[:3], weight.shape[3]), (batch + WEIGHT_PROGRAMS, geometry.block_size)
    largest = max(map(math.prod, shapes))
    if triton is None:
        return f"JAX {jax.__version__} has no Triton backend"
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
        # In float32, which GPUs add to atomically.
        wide = [a.astype(jnp.float32) for a in (x, offset, mask, weight)]
        _, input_gradient = jax.vjp(lambda x: options.plain(x, *wide[1:], None), wide[0])
        gradients = (
            *input_gradient(cotangent.astype(jnp.float32)),
            *_points_kernel(options, x, offset, mask, weight, cotangent),
            _weight_kernel(options, x, offset, mask, weight, cotangent),
            jnp.sum(cotangent, (0, 1, 2), jnp.float32),
        )
        return tuple(g.astype(a.dtype) for g, a in zip(gradients, (x, offset, mask, weight, bias), strict=True))

    return options.choose(kernels, plain, *arrays, cotangent)


_deform_conv2d.defvjp(_forward, _backward)


@dataclasses.dataclass(frozen=True)
class _Geometry:
    """Sizes that a kernel is compiled for."""

    options: _Options
    frame: tuple  # (height, width) of x
    out: tuple  # (height, width) of the result
    channels: int
    groups: int
    kernel: tuple  # (rows, columns) of taps
    features: int

    @classmethod
    def of(cls, options, x, offset, weight):
        return cls(
            options, x.shape[1:3], offset.shape[1:3], x.shape[3], offset.shape[3], weight.shape[:2], weight.shape[3]
        )

    pixels = property(lambda self: math.prod(self.out))  # of an image of the result
    taps = property(lambda self: math.prod(self.kernel))
    group_channels = property(lambda self: self.channels // self.groups)
    dot_features = property(lambda self: _padded(self.features, SMALLEST_DOT))
    steps = property(lambda self: self.taps * self.group_blocks)  # each a tap and a block of groups
    block_size = property(lambda self: self.steps * self.dot_channels * self.dot_features)  # of blocked weights

    @property
    def block(self):
        """(groups, channels of a group) of a block, padded."""
        channels = _padded(self.group_channels)
        groups = min(_padded(self.groups), max(1, DOT_CHANNELS // channels))
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
        padded_groups = self.group_blocks * groups
        weight = weight.reshape(self.taps, self.groups, self.group_channels, self.features)
        sizes = padded_groups - self.groups, channels - self.group_channels, self.dot_features - self.features
        return jnp.pad(weight, ((0, 0), *((0, size) for size in sizes))).reshape(-1)

    def unblocked(self, weight):
        """The inverse of `blocked`."""
        groups, channels = self.block
        weight = weight.reshape(self.taps, self.group_blocks * groups, channels, self.dot_features)
        weight = weight[:, : self.groups, : self.group_channels, : self.features]
        return weight.reshape(*self.kernel, self.channels, self.features)


def _padded(size, least=1):
    """The next power of two."""
    return max(least, pl.next_power_of_2(size))


@dataclasses.dataclass(frozen=True)
class Blocks:
    """How a kernel is cut up: output pixels a program takes at a time, warps of a program, stages of its pipeline."""

    pixels: int
    warps: int
    stages: int


def blocks_for(kernel, product, pixels):
    """From `blocks.json`, which `python -m benchmarks.tune` makes.

    Args:
      kernel: "forward", "points" or "weight".
      product: see `product_type`.
      pixels: of the results of a whole batch.
    """
    rows = _table()[kernel][product]
    return next(Blocks(*row["blocks"]) for row in rows if row["up_to_pixels"] is None or pixels <= row["up_to_pixels"])


@functools.cache
def _table():
    return json.loads(importlib.resources.files(__package__).joinpath("blocks.json").read_text())["kernels"]


def _call(name, body, geometry, blocks, grid, out_shape, *arrays):
    """Runs `body(geometry, blocks, *refs)` over the grid, under `name` in the lowered code, on flattened arrays."""

    def kernel(*refs):
        body(geometry, blocks, *refs)

    kernel.__name__ = f"deform_conv_{name}"
    call = pl.pallas_call(
        kernel,
        grid=grid,
        out_shape=[jax.ShapeDtypeStruct((math.prod(s.shape),), s.dtype) for s in out_shape],
        compiler_params=triton.CompilerParams(num_warps=blocks.warps, num_stages=blocks.stages),
        interpret=geometry.options.interpret,
        name=kernel.__name__,
    )
    return [flat.reshape(s.shape) for flat, s in zip(call(*(a.reshape(-1) for a in arrays)), out_shape, strict=True)]


def _forward_kernel(options, x, offset, mask, weight, bias):
    geometry = _Geometry.of(options, x, offset, weight)
    blocks = blocks_for("forward", options.product, x.shape[0] * geometry.pixels)
    shape = jax.ShapeDtypeStruct((x.shape[0], *geometry.out, geometry.features), x.dtype)
    bias = jnp.pad(bias.astype(jnp.float32), (0, geometry.dot_features - geometry.features))
    grid = (pl.cdiv(geometry.pixels, blocks.pixels), x.shape[0])
    weight = geometry.blocked(weight.astype(x.dtype))
    (out,) = _call("forward", _forward_body, geometry, blocks, grid, [shape], x, offset, mask, weight, bias)
    return out


def _forward_body(geometry, blocks, x, offset, mask, weight, bias, out):
    image, pixel = pl.program_id(1), _pixels(pl.program_id(0), blocks)

    def add_tap(step, total):
        points = _points(geometry, offset, mask, image, pixel, step)
        return total + _dot(geometry, _samples(geometry, x, image, points), _weight_block(geometry, weight, step))

    total = jnp.zeros((blocks.pixels, geometry.dot_features), jnp.float32)
    total = jax.lax.fori_loop(0, geometry.steps, add_tap, total)
    total = total + bias[...][None, :]
    index, inside = _features(geometry, image, pixel)
    triton.store(out.at[index], total.astype(out.dtype), mask=inside)


def _points_kernel(options, x, offset, mask, weight, cotangent):
    """Gradients of offset and mask, float32."""
    geometry = _Geometry.of(options, x, offset, weight)
    blocks = blocks_for("points", options.product, x.shape[0] * geometry.pixels)
    # Pixels of a tap in a row, as a program writes them; XLA brings them into order as it reads them.
    shape = jax.ShapeDtypeStruct((geometry.taps, *offset.shape[:4]), jnp.float32)
    grid = (pl.cdiv(geometry.pixels, blocks.pixels), x.shape[0])
    arrays = x, offset, mask, geometry.blocked(weight.astype(x.dtype)), cotangent.astype(x.dtype)
    down, right, mask = _call("points", _points_body, geometry, blocks, grid, [shape] * 3, *arrays)
    return jnp.moveaxis(jnp.stack([down, right], -1), 0, 4), jnp.moveaxis(mask, 0, 4)


def _points_body(geometry, blocks, x, offset, mask, weight, cotangent, down_out, right_out, mask_out):
    image, pixel = pl.program_id(1), _pixels(pl.program_id(0), blocks)
    index, inside = _features(geometry, image, pixel)
    cotangents = triton.load(cotangent.at[index], mask=inside, other=0)
    images = pl.num_programs(1)

    def write_tap(step, _):
        points = _points(geometry, offset, mask, image, pixel, step)
        samples = _dot(geometry, cotangents, _weight_block(geometry, weight, step), contracted=(1, 1))
        samples = samples.reshape(blocks.pixels, *geometry.block)
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
        return 0

    jax.lax.fori_loop(0, geometry.steps, write_tap, 0)


def _weight_kernel(options, x, offset, mask, weight, cotangent):
    """The gradient of the weights, float32, summed up in parts so that it is the same each time."""
    geometry = _Geometry.of(options, x, offset, weight)
    blocks = blocks_for("weight", options.product, x.shape[0] * geometry.pixels)
    parts = min(pl.cdiv(WEIGHT_PROGRAMS, x.shape[0]), pl.cdiv(geometry.pixels, blocks.pixels))
    shape = (x.shape[0], parts, geometry.steps, geometry.dot_channels, geometry.dot_features)
    grid = (parts, geometry.steps, x.shape[0])
    arrays = x, offset, mask, cotangent.astype(x.dtype)
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32)]
    (out,) = _call("weight", _weight_body, geometry, blocks, grid, shapes, *arrays)
    return geometry.unblocked(jnp.sum(out, (0, 1)))


def _weight_body(geometry, blocks, x, offset, mask, cotangent, out):
    part, step, image = (pl.program_id(axis) for axis in range(3))
    parts = pl.num_programs(0)

    def add_pixels(i, total):
        pixel = _pixels(part + i.astype(jnp.int32) * parts, blocks)
        points = _points(geometry, offset, mask, image, pixel, step)
        samples = _samples(geometry, x, image, points)
        index, inside = _features(geometry, image, pixel)
        cotangents = triton.load(cotangent.at[index], mask=inside, other=0)
        return total + _dot(geometry, samples, cotangents, contracted=(0, 0))

    size = geometry.dot_channels, geometry.dot_features
    pixel_blocks = pl.cdiv(geometry.pixels, blocks.pixels)
    total = jax.lax.fori_loop(0, pl.cdiv(pixel_blocks, parts), add_pixels, jnp.zeros(size, jnp.float32))
    row = ((image * parts + part) * geometry.steps + step) * size[0] + _arange(size[0])
    triton.store(out.at[row[:, None] * size[1] + _arange(size[1])[None, :]], total)


def _arange(size):
    return jnp.arange(size, dtype=jnp.int32)


def _pixels(block, blocks):
    """Output pixels of a block, counted within an image; the last ones may not exist."""
    return block * blocks.pixels + _arange(blocks.pixels)


def _dot(geometry, a, b, contracted=(1, 0)):
    """Matrix product over the given axes of a and b."""
    precision = jax.lax.Precision.HIGHEST if geometry.options.product == "float32" else jax.lax.Precision.DEFAULT
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
    groups, blocks = geometry.block[0], jnp.int32(geometry.group_blocks)
    step = step.astype(jnp.int32)  # a loop's counter has 64 bits where those are enabled
    return jax.lax.div(step, blocks), jax.lax.rem(step, blocks) * groups + _arange(groups)


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
    rows, columns = (1 - points.down, points.down), (1 - points.right, points.right)
    factors = [row * column * points.mask for row in rows for column in columns]
    corners = _corners(geometry, x, image, points)
    samples = sum(factor[:, :, None] * corner for factor, corner in zip(factors, corners, strict=True))
    return samples.reshape(samples.shape[0], geometry.dot_channels).astype(x.dtype)


def _corners(geometry, x, image, points):
    """x around the points, zero outside the frame: four `[pixels, groups, channels]`, row by row, float32."""
    height, width = geometry.frame
    channel = _arange(geometry.block[1])[None, None, :]
    first_channel = points.group[None, :] * geometry.group_channels
    corners = []
    for row in (points.top, points.top + 1):
        for column in (points.left, points.left + 1):
            inside = points.exists & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            index = ((image * height + row) * width + column) * geometry.channels + first_channel
            wanted = inside[:, :, None] & (channel < geometry.group_channels)
            corner = triton.load(x.at[index[:, :, None] + channel], mask=wanted, other=0)
            corners.append(corner.astype(jnp.float32))
    return corners
