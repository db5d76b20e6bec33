"""Pyramid, cascading and deformable alignment (PCD; EDVR, Wang et al., CVPRW 2019), as MSITF uses it.

Features of one moment are moved onto another's, coarse to fine, by deformable convolutions whose offsets come from
both. Feature pyramids are tuples (L1, L2, L3), each level half the size of the one before.
"""

from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx

from msitf_jax.model.layers import Conv, leaky_relu, torch_uniform
from msitf_jax.ops import deform_conv2d
from msitf_jax.ops.dtypes import at_least_float32
from msitf_jax.ops.resize import upsample2x

Levels: TypeAlias = Sequence[jax.Array]  # L1, L2, L3
MAX_OFFSET = 10.0  # pixels of the level at hand
TAPS = 9  # of a 3x3 deformable convolution


class Pyramid(nnx.Module):
    """Levels L1, L2, L3 of a feature map; each further level is a strided convolution and a plain one."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs) -> None:
        self.l2_conv1 = Conv(channels, channels, stride=2, rngs=rngs)
        self.l2_conv2 = Conv(channels, channels, rngs=rngs)
        self.l3_conv1 = Conv(channels, channels, stride=2, rngs=rngs)
        self.l3_conv2 = Conv(channels, channels, rngs=rngs)

    def __call__(self, l1: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """`[B, H, W, C]`, H and W multiples of 4 -> (L1, L2, L3), L1 the input itself."""
        l2 = leaky_relu(self.l2_conv2(leaky_relu(self.l2_conv1(l1))))
        l3 = leaky_relu(self.l3_conv2(leaky_relu(self.l3_conv1(l2))))
        return l1, l2, l3


class DeformableConv(nnx.Module):
    """3x3 modulated deformable convolution that reads its offsets and mask from a second feature map."""

    def __init__(self, channels: int, groups: int, *, rngs: nnx.Rngs) -> None:
        zeros = nnx.initializers.zeros
        shape = (3, 3, channels, channels)
        self.conv_offset = Conv(channels, 3 * groups * TAPS, kernel_init=zeros, bias_init=zeros, rngs=rngs)
        self.kernel = nnx.Param(torch_uniform(TAPS * channels)(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros((channels,)))
        self.groups = groups

    def __call__(self, x: jax.Array, features: jax.Array) -> jax.Array:
        """x `[B, H, W, C]` is sampled where `features`, of the same shape, say; returns the same shape."""
        points = self.groups * TAPS
        # Offsets of up to 10 pixels would be rounded to a sixteenth of one in bfloat16.
        precise = at_least_float32(features.dtype)
        offset, mask = self.conv_offset.pieces([2 * points, points], features, dtype=precise)
        offset = MAX_OFFSET * jnp.tanh(offset).reshape(*x.shape[:3], self.groups, TAPS, 2)
        mask = jax.nn.sigmoid(mask).reshape(*x.shape[:3], self.groups, TAPS)
        return deform_conv2d(x, offset, mask, self.kernel[...], self.bias[...])


class CoarsestLevel(nnx.Module):
    """L3 of the alignment: nothing below it to start from."""

    def __init__(self, channels: int, groups: int, *, rngs: nnx.Rngs) -> None:
        self.offset_conv1 = Conv(2 * channels, channels, rngs=rngs)
        self.offset_conv2 = Conv(channels, channels, rngs=rngs)
        self.deform = DeformableConv(channels, groups, rngs=rngs)

    def __call__(self, sampled: jax.Array, offset: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Sampled features and the response of `offset_conv1` -> (aligned, offset features), all one shape."""
        offset = leaky_relu(self.offset_conv2(leaky_relu(offset)))
        return leaky_relu(self.deform(sampled, offset)), offset


class FinerLevel(nnx.Module):
    """L2 or L1 of the alignment: refines the offset features and the aligned ones from the level below."""

    def __init__(self, channels: int, groups: int, *, rngs: nnx.Rngs) -> None:
        self.offset_conv1 = Conv(2 * channels, channels, rngs=rngs)
        self.offset_conv2 = Conv(2 * channels, channels, rngs=rngs)
        self.offset_conv3 = Conv(channels, channels, rngs=rngs)
        self.deform = DeformableConv(channels, groups, rngs=rngs)
        self.fea_conv = Conv(2 * channels, channels, rngs=rngs)

    def __call__(
        self, sampled: jax.Array, offset: jax.Array, below: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        """As `CoarsestLevel`, with `below` that level's result; the aligned features have no activation yet."""
        aligned_below, offset_below = below
        offset = self.offset_conv2(leaky_relu(offset), 2 * upsample2x(offset_below))
        offset = leaky_relu(self.offset_conv3(leaky_relu(offset)))
        aligned = self.deform(sampled, offset)
        return self.fea_conv(aligned, upsample2x(aligned_below)), offset


class PCDAlignment(nnx.Module):
    """Aligns one feature pyramid to another.

    The first offset convolution of each level sees [fea1, fea2]. Convolution is linear, so fea1's half of it, which
    `prepare` gives, may be computed long before fea2 is known.
    """

    def __init__(self, channels: int, groups: int, *, rngs: nnx.Rngs) -> None:
        self.l1 = FinerLevel(channels, groups, rngs=rngs)
        self.l2 = FinerLevel(channels, groups, rngs=rngs)
        self.l3 = CoarsestLevel(channels, groups, rngs=rngs)

    def _offset_convs(self):
        return [level.offset_conv1 for level in (self.l1, self.l2, self.l3)]

    def prepare(self, fea1: Levels) -> Levels:
        """Pyramid of fea1 -> its half of the first offset convolutions with their bias, level by level."""
        return tuple(
            conv.partial(x, first=0, with_bias=True) for conv, x in zip(self._offset_convs(), fea1, strict=True)
        )

    def __call__(self, sampled: Levels, prepared: Levels, fea2: Levels) -> jax.Array:
        """Moves `sampled`.

        Args:
          sampled: the pyramid whose features are sampled, usually fea1's; `[B, H, W, C]` at L1.
          prepared: `prepare(fea1)`.
          fea2: the pyramid to align to; it gives offsets only.

        Returns:
          `[B, H, W, C]`.
        """
        offset1, offset2, offset3 = (
            half + conv.partial(x, first=x.shape[-1])
            for half, conv, x in zip(prepared, self._offset_convs(), fea2, strict=True)
        )
        l3 = self.l3(sampled[2], offset3)
        aligned, offset = self.l2(sampled[1], offset2, l3)
        aligned, _ = self.l1(sampled[0], offset1, (leaky_relu(aligned), offset))
        return aligned
