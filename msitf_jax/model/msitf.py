"""MSITF, top to bottom."""

import jax
import jax.numpy as jnp
from flax import nnx

from msitf_jax.model.alignment import PCDAlignment, Pyramid
from msitf_jax.model.config import MSITFConfig
from msitf_jax.model.flow import FlowInterpolation, FlowPropagation, estimate_motion
from msitf_jax.model.layers import Conv, ResidualBlock, leaky_relu, subpixel_upsample2x
from msitf_jax.model.swin import WINDOW, SwinTrunk
from msitf_jax.model.temporal import BidirectionalFusion, TemporalAttention
from msitf_jax.ops.chunks import map_chunks, on_cpu
from msitf_jax.ops.resize import BASES, bicubic4x, interleave

# The trunk and the reconstruction take this many low-resolution pixels at a time, or one frame: few enough to stay in a
# CPU's cache and to keep the full-size feature maps small, enough to keep the cores busy.
RENDER_PIXELS, DEVICE_RENDER_PIXELS = 2048, 1 << 15


class Reconstruction(nnx.Module):
    """Two sub-pixel upsamplings by 2 and two convolutions at full resolution."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs) -> None:
        self.upconv1 = Conv(channels, 4 * channels, rngs=rngs)
        self.upconv2 = Conv(channels, 4 * channels, rngs=rngs)
        self.conv_hr = Conv(channels, channels, rngs=rngs)
        self.conv_last = Conv(channels, 3, rngs=rngs)

    @jax.named_scope("reconstruction")
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` -> `[B, 4H, 4W, 3]`, to be added to the resized input."""
        x = subpixel_upsample2x(self.upconv2, subpixel_upsample2x(self.upconv1, x))
        return self.conv_last(leaky_relu(self.conv_hr(x)))


class SubpixelReconstruction(nnx.Module):
    """One sub-pixel upsampling by 4 (Shi et al., CVPR 2016): all convolutions at the small size."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs) -> None:
        self.conv_last = Conv(channels, 16 * 3, rngs=rngs)

    @jax.named_scope("reconstruction")
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` -> `[B, 4H, 4W, 3]`, to be added to the resized input."""
        batch, height, width, _ = x.shape
        x = self.conv_last(x).reshape(batch, height, width, 4, 4 * 3).swapaxes(2, 3)
        return x.reshape(batch, 4 * height, 4 * width, 3)


class ConvTrunk(nnx.Module):
    """Residual blocks of 3x3 convolutions, for every frame by itself."""

    def __init__(self, config: MSITFConfig, *, rngs: nnx.Rngs) -> None:
        count = config.trunk_groups * config.trunk_blocks
        self.blocks = nnx.List(ResidualBlock(config.channels, rngs=rngs) for _ in range(count))

    @jax.named_scope("trunk")
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` -> the same shape."""
        for block in self.blocks:
            x = block(x)
        return x


class MSITF(nnx.Module):
    """Space-time video super-resolution: four times the size, twice the frame rate.

    Args:
      config: `MSITFConfig`, None for the published network.
      rngs: `nnx.Rngs`; stream `params` draws the initial weights.

    >>> from msitf_jax import MSITF, MSITFConfig
    >>> tiny = MSITFConfig(channels=8, residual_blocks=1, trunk_groups=1, offset_groups=2)
    >>> model = MSITF(tiny, rngs=nnx.Rngs(0))
    >>> nnx.jit(lambda model, clip: model(clip))(model, jnp.zeros((1, 2, 9, 7, 3))).shape
    (1, 3, 36, 28, 3)
    """

    def __init__(self, config: MSITFConfig | None = None, *, rngs: nnx.Rngs) -> None:
        self.config = config = config or MSITFConfig()
        channels = config.channels
        self.conv_first = Conv(3, channels, rngs=rngs)
        self.feature_extraction = nnx.List(ResidualBlock(channels, rngs=rngs) for _ in range(config.residual_blocks))
        if config.alignment == "pcd":
            self.pyramid = Pyramid(channels, rngs=rngs)
            self.align = PCDAlignment(channels, config.offset_groups, rngs=rngs)
            aligned = 2 if config.interpolation == "both" else 1
            self.fusion = Conv(aligned * channels, channels, kernel_size=1, rngs=rngs)
            self.temporal_fusion = BidirectionalFusion(channels, config.offset_groups, rngs=rngs)
        else:
            groups = config.offset_groups
            self.propagation = FlowPropagation(channels, config.propagation_blocks, groups, rngs=rngs)
            self.flow_interpolation = FlowInterpolation(channels, config.interpolation_blocks, groups, rngs=rngs)
        if config.context:
            self.context = TemporalAttention(channels, config.temporal_heads, rngs=rngs)
        self.trunk = SwinTrunk(config, rngs=rngs) if config.trunk == "swin" else ConvTrunk(config, rngs=rngs)
        make = Reconstruction if config.upsampling == "two_steps" else SubpixelReconstruction
        self.reconstruction = make(channels, rngs=rngs)

    def __call__(
        self,
        clip: jax.Array,
        *,
        time: jax.Array | float | None = None,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> jax.Array:
        """Upscales a clip.

        Args:
          clip: `[B, N, H, W, 3]`, RGB in 0..1; B, H, W at least 1, N at least 2. Of the parameters' type, or float32
            where they were narrowed by `msitf_jax.model.precision.narrow`.
          time: of the frames between, a scalar or `[B]`, one for each clip: 0 is the earlier neighbor's, 1 the later
            one's, None halfway. Networks of `alignment="pcd"` know only that. Frames at the inputs' times do not
            depend on it.
          train: draws stochastic depth, with which every frame skips some trunk blocks.
          rngs: `nnx.Rngs` with a stream `dropout` (or a default one); needed if `train`.

        Returns:
          `[B, 2N-1, 4H, 4W, 3]` in the clip's type; even indices are at the input frames' times, odd ones between. Not
          clipped to 0..1.

        Raises:
          ValueError: a clip of another shape or type, a `time` of another shape or for a network that takes none, or
            `train` without `rngs`.
        """
        if not train:
            return self.forward(clip, time=time)
        if rngs is None:
            raise ValueError("`rngs` (=None) must be an nnx.Rngs when `train` is True: stochastic depth draws from it")
        _check_clip(clip, self.conv_first.kernel.dtype)
        survival = self.draw_survival(clip.shape[0], clip.shape[1], rngs.dropout())
        return self.forward(clip, survival, time=time)

    def draw_survival(self, batch: int, frames: int, key: jax.Array) -> jax.Array | None:
        """Stochastic depth for clips of so many input frames: `[B, 2N-1, groups, blocks, 2]`, see `SwinTrunk`.

        None for a trunk of convolutions, which has none.
        """
        if not isinstance(self.trunk, SwinTrunk):
            return None
        length = 2 * frames - 1
        drawn = self.trunk.draw_survival(batch * length, key, self.conv_first.kernel.dtype)
        return drawn.reshape(batch, length, *drawn.shape[1:])

    def forward(
        self,
        clip: jax.Array,
        survival: jax.Array | None = None,
        *,
        time: jax.Array | float | None = None,
        remat: bool = False,
    ) -> jax.Array:
        """`__call__` with stochastic depth that is already drawn.

        Args:
          clip: see `__call__`.
          survival: what `draw_survival` gives, or None for none.
          time: see `__call__`.
          remat: for gradients, keep only what goes from one part, time step or group of frames to the next, and
            compute the rest again: about a third more time for a fraction of the memory.

        Returns:
          See `__call__`.

        Raises:
          ValueError: a clip of another shape or type, or a `time` of another shape or for a network that takes none.
        """
        dtype = self.conv_first.kernel.dtype
        _check_clip(clip, dtype)
        if time is not None and self.config.alignment == "pcd":
            raise ValueError('`time` must be None with `alignment` "pcd", whose frames between are halfway')
        if time is not None and jnp.shape(time) not in ((), clip.shape[:1]):
            raise ValueError(f"`time` has shape {jnp.shape(time)}, expected a scalar or [{clip.shape[0]}]")
        recomputed = jax.checkpoint if remat else lambda part: part
        features = recomputed(self.shallow_features)(clip.astype(dtype))
        if self.config.alignment == "pcd":
            features = recomputed(self.interpolate)(features)
            features = self.temporal_fusion(features, remat=remat)
            base = BASES[self.config.base](clip)
        else:
            motion = estimate_motion(clip, time)
            features = self.propagation(features, clip, motion.ahead, motion.back, remat=remat)
            features = recomputed(self.flow_interpolation)(features, motion)
            base = bicubic4x(interleave(clip, motion.middle.astype(clip.dtype)))
        if self.config.context:
            features = features + recomputed(self.context)(features)
        residual = self.render(features, (clip.shape[2], clip.shape[3]), survival, remat=remat)
        return base + residual.astype(clip.dtype)

    @jax.named_scope("shallow_features")
    def shallow_features(self, clip: jax.Array) -> jax.Array:
        """`[B, N, H, W, 3]` -> `[B, N, H', W', C]`.

        For the pyramids of "pcd", H' and W' are the next multiples of 8, zero below and to the right; else H and W.
        """
        batch, frames, height, width, _ = clip.shape
        x = leaky_relu(self.conv_first(clip.reshape(batch * frames, height, width, 3)))
        if self.config.alignment == "pcd":
            x = _pad_to_windows(x)
        for block in self.feature_extraction:
            x = block(x)
        return x.reshape(batch, frames, *x.shape[1:])

    @jax.named_scope("interpolation")
    def interpolate(self, features: jax.Array) -> jax.Array:
        """Puts features between those of every two neighbors: `[B, N, H, W, C]` -> `[B, 2N-1, H, W, C]`."""
        batch, frames, *frame = features.shape

        def pairs(x, first):
            x = x.reshape(batch, frames, *x.shape[1:])[:, first : first + frames - 1]
            return x.reshape(batch * (frames - 1), *x.shape[2:])

        levels = self.pyramid(features.reshape(batch * frames, *frame))
        earlier, later = ([pairs(x, first) for x in levels] for first in (0, 1))
        sampled = earlier
        if self.config.interpolation == "mean":
            sampled = [(a + b) / 2 for a, b in zip(earlier, later, strict=True)]
        aligned = [self.align(sampled, self.align.prepare(earlier), later)]
        if self.config.interpolation == "both":
            aligned.append(self.align(later, self.align.prepare(later), earlier))
        middle = self.fusion(*aligned)

        out = jnp.zeros((batch, 2 * frames - 1, *frame), features.dtype)
        return out.at[:, ::2].set(features).at[:, 1::2].set(middle.reshape(batch, frames - 1, *frame))

    def render(
        self, features: jax.Array, size: tuple[int, int], survival: jax.Array | None = None, *, remat: bool = False
    ) -> jax.Array:
        """Trunk and reconstruction, some frames at a time.

        Args:
          features: `[B, T, H', W', C]`.
          size: (H, W) of the input frames, what remains after cropping the padding.
          survival: what `draw_survival` gives, or None.
          remat: see `forward`.

        Returns:
          `[B, T, 4H, 4W, 3]`: what the network adds to the resized clip.
        """
        batch, length, *frame = features.shape
        height, width = size

        def render_frames(chunk):
            x, survival = chunk
            if isinstance(self.trunk, ConvTrunk):
                x = self.trunk(x)
            else:
                x = self.trunk(x if self.config.alignment == "pcd" else _pad_to_windows(x), survival)
            return self.reconstruction(x[:, :height, :width])

        if remat:
            render_frames = jax.checkpoint(render_frames)
        frames = features.reshape(batch * length, *frame)
        survival = (
            None if survival is None else survival.reshape(batch * length, *survival.shape[2:]).astype(features.dtype)
        )
        pixels = on_cpu(RENDER_PIXELS, DEVICE_RENDER_PIXELS)
        out = map_chunks(render_frames, (frames, survival), pixels // (frame[0] * frame[1]))
        return out.reshape(batch, length, 4 * height, 4 * width, 3)


def _pad_to_windows(x):
    """`[B, H, W, C]` with zeros below and to the right, up to the trunk's windows of 8x8."""
    # Written so that JAX sees that a padded symbolic size is a multiple of 8.
    below, right = (-(-size // WINDOW) * WINDOW - size for size in x.shape[1:3])
    return jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0)))


def _check_clip(clip, dtype):
    shape = clip.shape
    if len(shape) != 5 or shape[-1] != 3 or 0 in shape:
        raise ValueError(f"`clip` has shape {shape}, expected [batch, frames, height, width, 3], none of them 0")
    if shape[1] < 2:
        raise ValueError(f"`clip` has {shape[1]} frame, expected at least 2: there is nothing to interpolate between")
    narrowed = dtype.itemsize < 4 and clip.dtype == jnp.float32
    if clip.dtype != dtype and not narrowed:
        raise ValueError(f"`clip` has dtype {clip.dtype}, expected {dtype} in 0..1, as the parameters are")
