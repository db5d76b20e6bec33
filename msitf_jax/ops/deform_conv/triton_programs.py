"""What one program of each kernel of deformable convolution does, in Pallas's Triton dialect.

Arrays come flattened, as Triton takes them, and an index into one has 32 bits. A program goes through all taps for some
groups, a block of them, before it turns to the next, so that what they sample stays in the cache: each is a step.
"""

import dataclasses
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from msitf_jax.ops.deform_conv.geometry import Geometry

try:
    from jax.experimental.pallas import triton
except ImportError:  # JAX has announced that it will drop this backend
    triton = None  # type: ignore[assignment]

Ref: TypeAlias = Any  # of one array, flattened, as Pallas hands it to a program


def forward(geometry: Geometry, x: Ref, offset: Ref, mask: Ref, weight: Ref, bias: Ref, out: Ref) -> None:
    """The result at some pixels of an image. The weights come as `geometry.blocked` gives them."""
    image, pixel = pl.program_id(1), _pixels(geometry, pl.program_id(0))

    def add_tap(step, total):
        points = _points(geometry, offset, mask, image, pixel, step)
        return total + _dot(geometry, _samples(geometry, x, image, points), _weight_block(geometry, weight, step))

    total = jnp.zeros((geometry.blocks.pixels, geometry.dot_features), jnp.float32)
    total = jax.lax.fori_loop(0, geometry.steps, add_tap, total)
    total = total + bias[...][None, :]
    index, inside = _features(geometry, image, pixel)
    triton.store(out.at[index], total.astype(out.dtype), mask=inside)


def inputs(
    geometry: Geometry,
    x: Ref,
    offset: Ref,
    mask: Ref,
    weight: Ref,
    cotangent: Ref,
    _: Ref,
    x_out: Ref,
    down_out: Ref,
    right_out: Ref,
    mask_out: Ref,
) -> None:
    """What some pixels add to the gradient of x, which starts as zeros, and the gradients of their points by tap."""
    image, pixel = pl.program_id(1), _pixels(geometry, pl.program_id(0))
    index, inside = _features(geometry, image, pixel)
    cotangents = triton.load(cotangent.at[index], mask=inside, other=0)
    images = pl.num_programs(1)

    def add_tap(step, _):
        points = _points(geometry, offset, mask, image, pixel, step)
        samples = _dot(geometry, cotangents, _weight_block(geometry, weight, step), contracted=(1, 1))
        samples = samples.reshape(geometry.blocks.pixels, *geometry.block)
        # What a corner would add to the loss with a factor of one.
        corners = _corners(geometry, image, points)
        upper_left, upper_right, lower_left, lower_right = (
            jnp.sum(samples * corner, 2) for corner in _load_corners(x, corners)
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
        for factor, (index, wanted) in zip(points.factors, corners, strict=True):
            _add_atomically(geometry, x_out, index, factor[:, :, None] * samples, wanted)
        return 0

    jax.lax.fori_loop(0, geometry.steps, add_tap, 0)


def _add_atomically(geometry, ref, index, value, wanted):
    if geometry.options.interpret:  # where programs take turns, and the atomic addition has neither masks nor repeats
        ref[...] = ref[...].at[jnp.where(wanted, index, 0)].add(jnp.where(wanted, value, 0))
    else:
        triton.atomic_add(ref, (index,), value, mask=wanted)


def weight(geometry: Geometry, x: Ref, offset: Ref, mask: Ref, cotangent: Ref, out: Ref) -> None:
    """The gradient of one step's weights, summed up over a part of an image's pixels."""
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
    precision: jax.lax.Precision | jax.lax.DotAlgorithmPreset = jax.lax.Precision.DEFAULT
    if geometry.options.product == "float32":
        # Triton's own float32 is far slower than three products of TF32 parts, which interpreters don't know.
        three_tf32 = jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3
        precision = jax.lax.Precision.HIGHEST if geometry.options.interpret else three_tf32
    axes = ((contracted[0],), (contracted[1],)), ((), ())
    return jax.lax.dot_general(a, b, axes, precision=precision, preferred_element_type=jnp.float32)


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
    corners = _load_corners(x, _corners(geometry, image, points))
    samples = sum(factor[:, :, None] * corner for factor, corner in zip(points.factors, corners, strict=True))
    return samples.reshape(samples.shape[0], geometry.dot_channels).astype(x.dtype)


def _load_corners(x, corners):
    """x around the points, zero outside the frame: four `[pixels, groups, channels]`, row by row, float32."""
    return [triton.load(x.at[index], mask=wanted, other=0).astype(jnp.float32) for index, wanted in corners]


def _corners(geometry, image, points):
    """Where in x each of the four corners lies, row by row, and which of its pixels and channels exist."""
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
