"""Sizes that the kernels of deformable convolution are compiled for, and how they cut up their work.

Triton blocks have powers of two as sizes. Channels are laid out as `[groups, channels of a group]`, each padded to one.
"""

import dataclasses
import functools
import importlib.resources
import json
import math
from typing import Literal, Self

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

SMALLEST_DOT = 16  # Triton's least size of a matrix product


@dataclasses.dataclass(frozen=True)
class Options:
    """What a call asks for besides its arrays."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    product: str  # see `pallas_triton.product_type`
    interpret: bool


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
class Geometry:
    """Sizes that a kernel is compiled for."""

    options: Options
    blocks: Blocks
    frame: tuple[int, int]  # (height, width) of x
    out: tuple[int, int]  # (height, width) of the result
    channels: int
    groups: int
    kernel: tuple[int, int]  # (rows, columns) of taps
    features: int

    @classmethod
    def of(
        cls,
        options: Options,
        blocks: Blocks,
        x: jax.Array | jax.ShapeDtypeStruct,
        offset: jax.Array | jax.ShapeDtypeStruct,
        weight: jax.Array | jax.ShapeDtypeStruct,
    ) -> Self:
        """Of a call's arrays, or of their shapes; see `msitf_jax.ops.deform_conv2d`."""
        shapes = x.shape[1:3], offset.shape[1:3], x.shape[3], offset.shape[3], weight.shape[:2], weight.shape[3]
        return cls(options, blocks, *shapes)  # type: ignore[arg-type]  # JAX's shapes may have any length

    pixels = property(lambda self: math.prod(self.out))  # of an image of the result
    taps = property(lambda self: math.prod(self.kernel))
    group_channels = property(lambda self: self.channels // self.groups)
    dot_features = property(lambda self: _padded(self.features, SMALLEST_DOT))
    pixel_blocks = property(lambda self: pl.cdiv(self.pixels, self.blocks.pixels))
    steps = property(lambda self: self.group_blocks * self.taps)  # each a block of groups and a tap
    block_size = property(lambda self: self.steps * self.dot_channels * self.dot_features)  # of blocked weights

    @property
    def block(self) -> tuple[int, int]:
        """(groups, channels of a group) of a block, padded."""
        channels = _padded(self.group_channels)
        groups = min(_padded(self.groups), max(1, self.blocks.channels // channels))
        return groups, max(channels, SMALLEST_DOT // groups)

    @property
    def dot_channels(self) -> int:
        """Input channels in one matrix product, padding included."""
        return math.prod(self.block)

    @property
    def group_blocks(self) -> int:
        """How many blocks the groups are taken in."""
        return pl.cdiv(self.groups, self.block[0])

    def blocked(self, weight: jax.Array) -> jax.Array:
        """`[kh, kw, C, Co]` -> flat `[steps, dot_channels, dot_features]`, zeros as padding."""
        groups, channels = self.block
        weight = weight.reshape(self.taps, self.groups, self.group_channels, self.features)
        missing = self.group_blocks * groups - self.groups
        sizes = missing, channels - self.group_channels, self.dot_features - self.features
        weight = jnp.pad(weight, ((0, 0), *((0, size) for size in sizes)))
        return weight.reshape(self.taps, self.group_blocks, -1).swapaxes(0, 1).reshape(-1)

    def unblocked(self, weight: jax.Array) -> jax.Array:
        """The inverse of `blocked`."""
        groups, channels = self.block
        weight = weight.reshape(self.group_blocks, self.taps, -1).swapaxes(0, 1)
        weight = weight.reshape(self.taps, self.group_blocks * groups, channels, self.dot_features)
        weight = weight[:, : self.groups, : self.group_channels, : self.features]
        return weight.reshape(*self.kernel, self.channels, self.features)


def blocks_for(kernel: Literal["forward", "inputs", "weight"], product: str, pixels: int) -> Blocks:
    """From `blocks.json`, which `python -m benchmarks.tune` makes.

    Args:
      kernel: "forward", "inputs" or "weight".
      product: see `pallas_triton.product_type`.
      pixels: of the results of a whole batch.
    """
    rows = _table()[kernel][product]
    return next(Blocks(*row["blocks"]) for row in rows if row["up_to_pixels"] is None or pixels <= row["up_to_pixels"])


@functools.cache
def _table():
    return json.loads(importlib.resources.files(__package__).joinpath("blocks.json").read_text())["kernels"]


def _padded(size, least=1):
    """The next power of two."""
    return max(least, pl.next_power_of_2(size))
