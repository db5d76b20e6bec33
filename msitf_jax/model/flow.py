"""Alignment along optical flow: motion that need not be learned.

The published network learns from scratch where to sample. Here a flow found without parameters says where, and learned
offsets correct it. Features are carried along it from frame to frame, as in BasicVSR++ (Chan et al., CVPR 2022), and
frames between start from both neighbors moved to their time.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from msitf_jax.model.layers import Conv, ResidualBlock, leaky_relu
from msitf_jax.ops import deform_conv2d
from msitf_jax.ops.dtypes import at_least_float32
from msitf_jax.ops.optical_flow import bilinear_warp, cubic_warp, optical_flow, seen_from
from msitf_jax.ops.resize import interleave

MAX_CORRECTION = 10.0  # pixels that learned offsets may add to the flow


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Motion:
    """What moves between neighboring frames of a clip `[B, N, H, W, 3]`, and the frames moved along.

    Flows are (dy, dx) in pixels; no gradient passes through any of the arrays.

    Attributes:
      between: `[B, N-1, H, W, 2]`, from the earlier frame to the later, seen from the frame between.
      ahead: the same seen from the earlier frame, whatever the time.
      back: from the later frame to the earlier, seen from the later, likewise.
      earlier: `[B, N-1, H, W, 3]`, the earlier frame moved to the time between.
      later: the later frame, likewise.
      time: `[1 or B, 1, 1, 1, 1]`, of the frames between: 0 is the earlier frame's, 1 the later one's.
    """

    between: jax.Array
    ahead: jax.Array
    back: jax.Array
    earlier: jax.Array
    later: jax.Array
    time: jax.Array

    @property
    def middle(self) -> jax.Array:
        """`[B, N-1, H, W, 3]`: the frames between as the flow alone draws them, the nearer neighbor counting more."""
        return (1 - self.time) * self.earlier + self.time * self.later


@jax.named_scope("motion")
def estimate_motion(clip: jax.Array, time: jax.Array | float | None = None) -> Motion:
    """Finds the motion in a clip `[B, N, H, W, 3]`, RGB in 0..1, for frames at a time between each two of it.

    The time is a scalar or `[B]`, one for each clip, or None for halfway.
    """
    batch, frames = clip.shape[:2]
    clip = jax.lax.stop_gradient(clip).astype(at_least_float32(clip.dtype))
    times = jax.lax.stop_gradient(jnp.asarray(0.5 if time is None else time, clip.dtype)).reshape(-1, 1, 1, 1, 1)
    of_pairs = _of_pairs(times, frames - 1)
    earlier, later = (_flat(clip[:, first : first + frames - 1]) for first in (0, 1))
    halfway = optical_flow(earlier, later)
    between = halfway if time is None else seen_from(halfway, of_pairs - 0.5)
    arrays = {
        "between": between,
        "ahead": seen_from(halfway, -0.5),
        "back": -seen_from(halfway, 0.5),
        "earlier": cubic_warp(earlier, -of_pairs * between),
        "later": cubic_warp(later, (1 - of_pairs) * between),
    }
    return Motion(time=times, **{name: x.reshape(batch, frames - 1, *x.shape[1:]) for name, x in arrays.items()})


class FlowAlignment(nnx.Module):
    """Features where a flow points: a deformable convolution of one tap, which starts as the identity.

    Args:
      channels: of the features.
      groups: of channels, each of which is sampled where offsets of its own correct the flow, and weighed by a mask.
    """

    def __init__(self, channels: int, groups: int, *, rngs: nnx.Rngs) -> None:
        zeros = nnx.initializers.zeros
        self.conv_offset = Conv(channels, 3 * groups, kernel_init=zeros, bias_init=zeros, rngs=rngs)
        self.kernel = nnx.Param(jnp.eye(channels)[None, None])
        self.groups = groups

    def offsets(self, flow: jax.Array, guide: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Where to sample, and how much it counts.

        Args:
          flow: `[B, H, W, 2]`, (dy, dx) in pixels.
          guide: `[B, H, W, C]`, features that show where the flow is wrong.

        Returns:
          (offset `[B, H, W, G, 1, 2]`, mask `[B, H, W, G, 1]`), as `deform_conv2d` takes them; positions outside the
          frame are moved to its border.
        """
        precise = at_least_float32(guide.dtype)
        correction, mask = self.conv_offset.pieces([2 * self.groups, self.groups], guide, dtype=precise)
        correction = MAX_CORRECTION * jnp.tanh(correction / MAX_CORRECTION)
        flow = flow[:, :, :, None] + correction.reshape(*mask.shape, 2)
        grid = [jax.lax.broadcasted_iota(flow.dtype, flow.shape[:-1], axis) for axis in (1, 2)]
        inside = [jnp.clip(grid[axis] + flow[..., axis], 0, flow.shape[axis + 1] - 1) - grid[axis] for axis in (0, 1)]
        return jnp.stack(inside, -1)[..., None, :], 2 * jax.nn.sigmoid(mask)[..., None]

    def __call__(self, x: jax.Array, offset: jax.Array, mask: jax.Array) -> jax.Array:
        """x `[B, H, W, C]`, sampled as `offsets` says."""
        return deform_conv2d(x, offset, mask, self.kernel[...], padding=0)


class FlowPropagation(nnx.Module):
    """Recurrence over a sequence in both directions, whose state is carried along the flow.

    `h_i = blocks(conv([x_i, align(h_before)]))`. The directions share weights and go through one `lax.scan` as one
    batch; a 1x1 convolution merges both with the frame's own features.
    """

    def __init__(self, channels: int, blocks: int, groups: int, *, rngs: nnx.Rngs) -> None:
        self.conv_images = Conv(6, channels, rngs=rngs)
        self.align = FlowAlignment(channels, groups, rngs=rngs)
        self.conv = Conv(2 * channels, channels, rngs=rngs)
        self.blocks = nnx.List(ResidualBlock(channels, rngs=rngs) for _ in range(blocks))
        self.merge = Conv(3 * channels, channels, kernel_size=1, rngs=rngs)

    @jax.named_scope("propagation")
    def __call__(
        self, features: jax.Array, images: jax.Array, ahead: jax.Array, back: jax.Array, *, remat: bool = False
    ) -> jax.Array:
        """Lets every frame see all others.

        Args:
          features: `[B, N, H, W, C]`.
          images: `[B, N, H, W, 3]`, of which the features are.
          ahead, back: `[B, N-1, H, W, 2]`: from each frame but the last to the next, and from each but the first to the
            one before, on the grid of the frame that it starts from.
          remat: for gradients, keep states and offsets only, see `MSITF.forward`.

        Returns:
          `[B, N, H, W, C]`.
        """
        batch, frames, *frame = features.shape
        # This part of the convolution does not depend on the state.
        own = self.conv.partial(_flat(features), first=0, with_bias=True).reshape(features.shape)
        # The first step of either direction has nothing before it.
        offsets = jax.checkpoint(self._offsets) if remat else self._offsets
        forward = [_after_nothing(x) for x in offsets(images[:, 1:], images[:, :-1], back)]
        backward = [_before_nothing(x) for x in offsets(images[:, :-1], images[:, 1:], ahead)]

        def both_directions(forward, backward, i):
            pair = (forward, i), (backward, frames - 1 - i)
            return jnp.concatenate([jax.lax.dynamic_index_in_dim(x, at, axis=1, keepdims=False) for x, at in pair])

        def step(state, i):
            moved = self.align(state, *(both_directions(*pair, i) for pair in zip(forward, backward, strict=True)))
            state = leaky_relu(both_directions(own, own, i) + self.conv.partial(moved, first=frame[-1]))
            for block in self.blocks:
                state = block(state)
            return state, state

        if remat:
            step = jax.checkpoint(step)
        zeros = jnp.zeros((2 * batch, *frame), features.dtype)
        _, states = jax.lax.scan(step, zeros, jnp.arange(frames))
        directions = (_flat(x.swapaxes(0, 1)) for x in (states[:, :batch], states[::-1, batch:]))
        return leaky_relu(self.merge(_flat(features), *directions)).reshape(features.shape)

    def _offsets(self, here, there, flow):
        """`FlowAlignment.offsets` from images `[B, N-1, H, W, 3]` and the flow from one to the other."""
        dtype = self.conv.kernel.dtype
        moved = bilinear_warp(_flat(there), _flat(flow))
        guide = leaky_relu(self.conv_images(_flat(here).astype(dtype), moved.astype(dtype)))
        return [x.reshape(*flow.shape[:2], *x.shape[1:]) for x in self.align.offsets(_flat(flow), guide)]


class FlowInterpolation(nnx.Module):
    """Features of the frames between, from both neighbors' features and images moved to their time."""

    def __init__(self, channels: int, blocks: int, groups: int, *, rngs: nnx.Rngs) -> None:
        self.conv_images = Conv(7, channels, rngs=rngs)  # two images, and the time
        self.align_earlier = FlowAlignment(channels, groups, rngs=rngs)
        self.align_later = FlowAlignment(channels, groups, rngs=rngs)
        self.conv = Conv(3 * channels, channels, rngs=rngs)
        self.blocks = nnx.List(ResidualBlock(channels, rngs=rngs) for _ in range(blocks))

    @jax.named_scope("interpolation")
    def __call__(self, features: jax.Array, motion: Motion) -> jax.Array:
        """`[B, N, H, W, C]` -> `[B, 2N-1, H, W, C]`: features of the frames between, among those of the others."""
        pairs = features.shape[1] - 1
        flow, time = _flat(motion.between), _of_pairs(motion.time, pairs)
        images = [_flat(x).astype(features.dtype) for x in (motion.earlier, motion.later)]
        constant = jnp.broadcast_to(time.astype(features.dtype), (*images[0].shape[:-1], 1))
        guide = leaky_relu(self.conv_images(*images, constant))
        earlier = self.align_earlier(_flat(features[:, :pairs]), *self.align_earlier.offsets(-time * flow, guide))
        later = self.align_later(_flat(features[:, 1:]), *self.align_later.offsets((1 - time) * flow, guide))
        x = leaky_relu(self.conv(earlier, later, guide))
        for block in self.blocks:
            x = block(x)
        return interleave(features, x.reshape(features.shape[0], pairs, *x.shape[1:]))


def _flat(x):
    """`[B, N, ...]` -> `[B * N, ...]`."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _of_pairs(time, pairs):
    """`Motion.time` for each of so many pairs of a clip: `[1 or B * pairs, 1, 1, 1]`."""
    return time[0] if time.shape[0] == 1 else _flat(jnp.repeat(time, pairs, 1))


def _after_nothing(x):
    return jnp.concatenate([jnp.zeros_like(x[:, :1]), x], 1)


def _before_nothing(x):
    return jnp.concatenate([x, jnp.zeros_like(x[:, :1])], 1)
