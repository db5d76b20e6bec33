"""Alignment by optical flow: motion that need not be learned.

The published network learns where to sample from scratch. Here a flow found without parameters says where, features are
carried along it from frame to frame, as in BasicVSR (Chan et al., CVPR 2021), by deformable convolutions of a single tap,
and frames between start from both neighbours moved to their time.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from msitf_jax.model.layers import Conv, ResidualBlock, leaky_relu
from msitf_jax.ops import deform_conv2d
from msitf_jax.ops.dtypes import at_least_float32
from msitf_jax.ops.optical_flow import bilinear_warp, optical_flow, seen_from

MAX_RESIDUAL = 10.0  # pixels that learned offsets may add to the flow


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Motion:
    """The motion between neighbouring frames, on three grids: `[B, N-1, H, W, 2]` each, (dy, dx) in pixels.

    Attributes:
      between: from the earlier frame to the later, seen from the frame between.
      ahead: the same seen from the earlier frame.
      back: from the later frame to the earlier, seen from the later.
      time: scalar, of the frames between: 0 is the earlier frame's, 1 the later one's.
    """

    between: jax.Array
    ahead: jax.Array
    back: jax.Array
    time: jax.Array


def estimate_motion(clip: jax.Array, time: jax.Array | float = 0.5) -> Motion:
    """The motion in a clip `[B, N, H, W, 3]`, RGB in 0..1; no gradient passes through it."""
    batch, frames, *frame = clip.shape
    time = jnp.asarray(time, jnp.float32)
    earlier, later = (clip[:, first : first + frames - 1].reshape(-1, *frame) for first in (0, 1))
    between = optical_flow(earlier, later, time)
    fields = between, seen_from(between, -time), -seen_from(between, 1 - time)
    return Motion(*(flow.reshape(batch, frames - 1, *flow.shape[1:]) for flow in fields), time)


class FlowAlignment(nnx.Module):
    """Features where a flow points, moved on by learned offsets: flow-guided deformable alignment.

    As in BasicVSR++ (Chan et al., CVPR 2022), but with one tap: every group of channels is sampled once, and weighed by
    a mask. It starts as the flow alone.
    """

    def __init__(self, channels: int, groups: int, *, rngs: nnx.Rngs) -> None:
        zeros = nnx.initializers.zeros
        if groups:
            self.conv_offset = Conv(channels, 3 * groups, kernel_init=zeros, bias_init=zeros, rngs=rngs)
        self.kernel = nnx.Param(jnp.eye(channels)[None, None])
        self.groups = groups

    def offsets(self, flow: jax.Array, guide: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Where to sample, and how much it counts.

        Args:
          flow: `[B, H, W, 2]`, (dy, dx) in pixels.
          guide: `[B, H, W, C]`, features that show what the flow does not get right.

        Returns:
          (offset `[B, H, W, groups, 1, 2]`, mask `[B, H, W, groups, 1]`), as `deform_conv2d` takes them; positions
          outside are moved to the border.
        """
        if not self.groups:
            size = jnp.asarray(flow.shape[1:3], flow.dtype)
            grid = jnp.stack(jnp.meshgrid(*(jnp.arange(n, dtype=flow.dtype) for n in flow.shape[1:3]), indexing="ij"), -1)
            offset = jnp.clip(grid + flow, 0, size - 1) - grid
            offset = offset[:, :, :, None, None]
            return offset, jnp.ones(offset.shape[:-1], flow.dtype)
        precise = at_least_float32(guide.dtype)
        residual, mask = self.conv_offset.pieces([2 * self.groups, self.groups], guide, dtype=precise)
        residual = MAX_RESIDUAL * jnp.tanh(residual / MAX_RESIDUAL).reshape(*flow.shape[:3], self.groups, 2)
        size = jnp.asarray(flow.shape[1:3], flow.dtype)
        grid = jnp.stack(jnp.meshgrid(*(jnp.arange(n, dtype=flow.dtype) for n in flow.shape[1:3]), indexing="ij"), -1)
        grid = grid[:, :, None]
        offset = jnp.clip(grid + flow[:, :, :, None] + residual, 0, size - 1) - grid
        return offset[..., None, :], 2 * jax.nn.sigmoid(mask)[..., None]

    def __call__(self, x: jax.Array, offset: jax.Array, mask: jax.Array) -> jax.Array:
        """x `[B, H, W, C]` sampled as `offsets` says."""
        return deform_conv2d(x, offset, mask, self.kernel[...], padding=0)


class FlowPropagation(nnx.Module):
    """Recurrence over the frames in both directions; its state is carried along the flow.

    `h_i = blocks(conv([x_i, align(h_before)]))`. The directions share weights and go through one `lax.scan` as one
    batch; a 1x1 convolution merges both with the frame's own features.
    """

    def __init__(self, channels: int, blocks: int, groups: int, *, rngs: nnx.Rngs) -> None:
        self.conv_images = Conv(6, channels, rngs=rngs)
        self.align = FlowAlignment(channels, groups, rngs=rngs)
        self.conv = Conv(2 * channels, channels, rngs=rngs)
        self.blocks = nnx.List(ResidualBlock(channels, rngs=rngs) for _ in range(blocks))
        self.merge = Conv(3 * channels, channels, kernel_size=1, rngs=rngs)

    def __call__(self, features: jax.Array, clip: jax.Array, motion: Motion, *, remat: bool = False) -> jax.Array:
        """`[B, N, H, W, C]`, clip `[B, N, H, W, 3]` -> the same; `remat` keeps only the states for the gradients, see `MSITF.forward`."""
        batch, frames, *frame = features.shape
        # What the frames see of themselves needs no state.
        own = self.conv.partial(features.reshape(-1, *frame), first=0, with_bias=True).reshape(features.shape)
        forward = self._offsets(clip[:, 1:], clip[:, :-1], motion.back)
        backward = self._offsets(clip[:, :-1], clip[:, 1:], motion.ahead)

        def pad(x, place):
            none = jnp.zeros_like(x[:, :1])
            return jnp.concatenate([none, x] if place == 0 else [x, none], 1)

        forward, backward = (tuple(pad(x, place) for x in pair) for place, pair in enumerate((forward, backward)))

        def both_directions(forward, backward, i):
            return jnp.concatenate(
                [
                    jax.lax.dynamic_index_in_dim(sequence, index, axis=1, keepdims=False)
                    for sequence, index in ((forward, i), (backward, frames - 1 - i))
                ]
            )

        def step(state, i):
            moved = self.align(state, *(both_directions(a, b, i) for a, b in zip(forward, backward, strict=True)))
            state = leaky_relu(both_directions(own, own, i) + self.conv.partial(moved, first=frame[-1]))
            for block in self.blocks:
                state = block(state)
            return state, state

        if remat:
            step = jax.checkpoint(step)
        zeros = jnp.zeros((2 * batch, *frame), features.dtype)
        _, states = jax.lax.scan(step, zeros, jnp.arange(frames))
        directions = states[:, :batch], states[::-1, batch:]
        directions = (h.swapaxes(0, 1).reshape(-1, *frame) for h in directions)
        return leaky_relu(self.merge(features.reshape(-1, *frame), *directions)).reshape(features.shape)

    def _offsets(self, here, there, flow):
        """`FlowAlignment.offsets` from images `[B, N-1, H, W, 3]` and the flow from one to the other."""
        batch, pairs = here.shape[:2]
        here, there, flow = (x.reshape(-1, *x.shape[2:]) for x in (here, there, flow))
        dtype = self.conv.kernel.dtype
        guide = leaky_relu(self.conv_images(here.astype(dtype), bilinear_warp(there, flow).astype(dtype)))
        return tuple(x.reshape(batch, pairs, *x.shape[1:]) for x in self.align.offsets(flow, guide))


class FlowInterpolation(nnx.Module):
    """Features of the frames between, from both neighbours' features and images moved to their time."""

    def __init__(self, channels: int, blocks: int, groups: int, *, rngs: nnx.Rngs) -> None:
        self.align_earlier = FlowAlignment(channels, groups, rngs=rngs)
        self.align_later = FlowAlignment(channels, groups, rngs=rngs)
        self.conv_images = Conv(7, channels, rngs=rngs)  # two images and the time
        self.conv = Conv(3 * channels, channels, rngs=rngs)
        self.blocks = nnx.List(ResidualBlock(channels, rngs=rngs) for _ in range(blocks))

    def __call__(self, features: jax.Array, images: tuple[jax.Array, jax.Array], motion: Motion) -> jax.Array:
        """Puts features between those of every two neighbours.

        Args:
          features: `[B, N, H, W, C]`.
          images: the earlier and the later frames, moved to the time between: `[B, N-1, H, W, 3]` each.
          motion: `Motion`.

        Returns:
          `[B, 2N-1, H, W, C]`.
        """
        batch, frames, *frame = features.shape
        flow = motion.between.reshape(-1, *motion.between.shape[2:])
        earlier, later = (image.reshape(-1, *image.shape[2:]).astype(features.dtype) for image in images)
        time = jnp.full((*earlier.shape[:-1], 1), motion.time.astype(features.dtype))
        guide = leaky_relu(self.conv_images(earlier, later, time))
        sides = [
            align(features[:, first : first + frames - 1].reshape(-1, *frame), *align.offsets(step * flow, guide))
            for align, first, step in (
                (self.align_earlier, 0, -motion.time),
                (self.align_later, 1, 1 - motion.time),
            )
        ]
        x = leaky_relu(self.conv(*sides, guide))
        for block in self.blocks:
            x = block(x)
        out = jnp.zeros((batch, 2 * frames - 1, *frame), features.dtype)
        return out.at[:, ::2].set(features).at[:, 1::2].set(x.reshape(batch, frames - 1, *frame))
