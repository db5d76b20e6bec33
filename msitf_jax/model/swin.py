"""The trunk: Swin Transformer V2 blocks (Liu et al., CVPR 2022) in residual groups (Swin2SR, Conde et al., 2022)."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx
from jax.typing import DTypeLike

from msitf_jax.model.config import MSITFConfig
from msitf_jax.model.layers import Conv, LayerNorm, Linear
from msitf_jax.ops.chunks import map_chunks, on_cpu
from msitf_jax.ops.convolution import add_bias
from msitf_jax.ops.dtypes import at_least_float32

WINDOW = 8
SHIFT = WINDOW // 2
MAX_LOGIT_SCALE = math.log(100.0)
NORM_EPSILON = 1e-12
STRIP_PIXELS = 3072  # at a time on a CPU: their attention weights fill about 3 MB
BIAS_HIDDEN = 512  # units in the network that gives the position bias


def relative_coordinates() -> npt.NDArray[np.float64]:
    """`[225, 2]` float64: offsets (rows, columns) -7..7 between two tokens of a window, on Swin V2's log scale."""
    steps = 8 * np.arange(1 - WINDOW, WINDOW) / (WINDOW - 1)
    steps = np.sign(steps) * np.log2(np.abs(steps) + 1) / np.log2(8)
    return np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)


def relative_index() -> npt.NDArray[np.int64]:
    """`[64, 64]` int: row of `relative_coordinates` for (query, key), tokens counted row by row."""
    token = np.stack(np.divmod(np.arange(WINDOW**2), WINDOW), -1)
    delta = token[:, None] - token[None, :] + WINDOW - 1
    return delta[..., 0] * (2 * WINDOW - 1) + delta[..., 1]


def shift_regions(height: int, width: int) -> jax.Array:
    """`[height // 8, width // 8, 64]` int32: which of nine regions each token of a shifted frame's windows comes from.

    Rolling the frame by -4 brings its first rows and columns behind its last ones: cuts lie 8 and 4 from the end.
    """

    def parts(size):
        position = jnp.arange(size)
        return jnp.where(position < size - WINDOW, 0, jnp.where(position < size - SHIFT, 1, 2))

    rows, columns = parts(height), parts(width)
    regions = 3 * rows[:, None] + columns[None, :]
    regions = regions.reshape(height // WINDOW, WINDOW, width // WINDOW, WINDOW).swapaxes(1, 2)
    return regions.reshape(*regions.shape[:2], WINDOW**2)


def shift_mask(regions: jax.Array) -> jax.Array:
    """`[..., 64]` regions -> `[..., 64, 64]`: -100 where query and key are of different regions, else 0."""
    return jnp.where(regions[..., :, None] == regions[..., None, :], 0.0, -100.0)


def to_windows(x: jax.Array) -> jax.Array:
    """`[B, 8, W, C]` strips -> `[B * W // 8, 64, C]` windows, windows and tokens row by row."""
    strips, _, width, channels = x.shape
    x = x.reshape(strips, WINDOW, width // WINDOW, WINDOW, channels).swapaxes(1, 2)
    return x.reshape(-1, WINDOW**2, channels)


def from_windows(windows: jax.Array, width: int) -> jax.Array:
    """The inverse of `to_windows`: `[B * W // 8, 64, C]` -> `[B, 8, W, C]`."""
    x = windows.reshape(-1, width // WINDOW, WINDOW, WINDOW, windows.shape[-1]).swapaxes(1, 2)
    return x.reshape(-1, WINDOW, width, windows.shape[-1])


# PyTorch's trunc_normal_ cuts at +-2 in absolute terms, a hundred standard deviations out.
_trunk_linear = functools.partial(
    Linear, kernel_init=nnx.initializers.truncated_normal(0.02, lower=-100.0, upper=100.0)
)


class WindowAttention(nnx.Module):
    """Scaled cosine attention within windows, with a continuous position bias (Swin V2, equations 2 to 4)."""

    def __init__(self, channels: int, heads: int, *, rngs: nnx.Rngs) -> None:
        self.qkv = _trunk_linear(channels, 3 * channels, bias_init=None, rngs=rngs)
        self.q_bias = nnx.Param(jnp.zeros((channels,)))
        self.v_bias = nnx.Param(jnp.zeros((channels,)))
        self.logit_scale = nnx.Param(jnp.full((heads,), jnp.log(10.0)))
        self.bias_fc1 = _trunk_linear(2, BIAS_HIDDEN, rngs=rngs)
        self.bias_fc2 = _trunk_linear(BIAS_HIDDEN, heads, bias_init=None, rngs=rngs)
        self.proj = _trunk_linear(channels, channels, rngs=rngs)
        self.heads = heads

    def position_bias(self) -> jax.Array:
        """`[heads, 64, 64]`, added to the logits of every window."""
        table = jnp.asarray(relative_coordinates(), self.bias_fc1.kernel.dtype)
        table = 16 * jax.nn.sigmoid(self.bias_fc2(jax.nn.relu(self.bias_fc1(table))))
        return table[relative_index()].transpose(2, 0, 1)

    def __call__(self, windows: jax.Array, regions: jax.Array | None = None) -> jax.Array:
        """`[windows, 64, C]`, and for shifted windows the regions `[windows, 64]` -> `[windows, 64, C]`."""
        count, tokens, channels = windows.shape
        bias = jnp.concatenate([self.q_bias[...], jnp.zeros_like(self.q_bias[...]), self.v_bias[...]])
        # From here to the softmax in float32: logits reach 100, where bfloat16 rounds to a half.
        precise = at_least_float32(windows.dtype)
        qkv = add_bias(self.qkv(windows).astype(precise), bias)
        q, k, v = jnp.split(qkv.reshape(count, tokens, 3 * self.heads, channels // self.heads), 3, axis=2)
        scale = jnp.exp(jnp.minimum(self.logit_scale[...], MAX_LOGIT_SCALE))
        q = unit_length(q) * scale[None, None, :, None]
        logits = jnp.einsum("wqnd,wknd->wnqk", q, unit_length(k)) + self.position_bias()[None]
        if regions is not None:
            logits = logits + shift_mask(regions).astype(logits.dtype)[:, None]
        # Softmax, divided after the product with v: 16 numbers a row instead of 64.
        weights = jnp.exp(logits - jax.lax.stop_gradient(jnp.max(logits, -1, keepdims=True)))
        total = jnp.sum(weights, -1).swapaxes(1, 2)[..., None]
        out = jnp.einsum("wnqk,wknd->wqnd", weights, v) / total
        return self.proj(out.reshape(windows.shape).astype(windows.dtype))


def unit_length(x: jax.Array) -> jax.Array:
    """x divided by its Euclidean length over the last axis, or by 1e-12 where that is shorter (not for float16)."""
    length = jnp.sqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), NORM_EPSILON**2))
    return x / length


class SwinBlock(nnx.Module):
    """Window attention and an MLP, each normalised after it and added: `x + norm1(attn(x))`, `x + norm2(mlp(x))`."""

    def __init__(self, channels: int, heads: int, mlp_ratio: int, shifted: bool, *, rngs: nnx.Rngs) -> None:
        self.attn = WindowAttention(channels, heads, rngs=rngs)
        self.norm1 = LayerNorm(channels, rngs=rngs)
        self.fc1 = _trunk_linear(channels, mlp_ratio * channels, rngs=rngs)
        self.fc2 = _trunk_linear(mlp_ratio * channels, channels, rngs=rngs)
        self.norm2 = LayerNorm(channels, rngs=rngs)
        self.shifted = shifted

    def __call__(self, x: jax.Array, survival: jax.Array | None) -> jax.Array:
        """`[B, H, W, C]` -> the same; `survival` `[B, 2]` scales the two branches of each frame, None leaves them."""
        batch, height, width, channels = x.shape
        rows = height // WINDOW
        regions = None
        if self.shifted:
            x = jnp.roll(x, (-SHIFT, -SHIFT), (1, 2))
            regions = jnp.tile(shift_regions(height, width), (batch, 1, 1))
        if survival is not None:
            survival = jnp.repeat(survival, rows, axis=0)
        strips = x.reshape(batch * rows, WINDOW, width, channels)
        limit = on_cpu(STRIP_PIXELS // (WINDOW * width), strips.shape[0])
        x = map_chunks(self._strips, (strips, regions, survival), limit).reshape(x.shape)
        return jnp.roll(x, (SHIFT, SHIFT), (1, 2)) if self.shifted else x

    def _strips(self, chunk):
        """A block needs nothing from beyond a row of windows: strips `[B, 8, W, C]` -> the same."""
        x, regions, survival = chunk
        if regions is not None:
            regions = regions.reshape(-1, WINDOW**2)
        attended = from_windows(self.attn(to_windows(x), regions), x.shape[2])
        x = x + _scaled(self.norm1(attended), survival, 0)
        mlp = self.fc2(jax.nn.gelu(self.fc1(x), approximate=False))
        return x + _scaled(self.norm2(mlp), survival, 1)


def _scaled(branch, survival, which):
    return branch if survival is None else branch * survival[:, which, None, None, None]


class ResidualGroup(nnx.Module):
    """RSTB: Swin blocks, a 3x3 and a 1x1 convolution, added to the input."""

    def __init__(self, config: MSITFConfig, *, rngs: nnx.Rngs) -> None:
        self.blocks = nnx.List(
            SwinBlock(config.channels, config.window_heads, config.mlp_ratio, shifted=i % 2 == 1, rngs=rngs)
            for i in range(config.trunk_blocks)
        )
        self.conv = Conv(config.channels, config.channels, rngs=rngs)
        self.embed = Conv(config.channels, config.channels, kernel_size=1, rngs=rngs)

    def __call__(self, x: jax.Array, survival: jax.Array | None) -> jax.Array:
        """`[B, H, W, C]` and survival `[B, blocks, 2]` or None -> `[B, H, W, C]`."""
        out = x
        for i, block in enumerate(self.blocks):
            out = block(out, None if survival is None else survival[:, i])
        return x + self.embed(self.conv(out))


class SwinTrunk(nnx.Module):
    """The deep part that every frame goes through by itself: a Swin2SR body without upsampling."""

    def __init__(self, config: MSITFConfig, *, rngs: nnx.Rngs) -> None:
        self.conv_first = Conv(config.channels, config.channels, rngs=rngs)
        self.embed = Conv(config.channels, config.channels, kernel_size=1, rngs=rngs)
        self.embed_norm = LayerNorm(config.channels, rngs=rngs)
        self.groups = nnx.List(ResidualGroup(config, rngs=rngs) for _ in range(config.trunk_groups))
        self.norm = LayerNorm(config.channels, rngs=rngs)
        self.conv_after_body = Conv(config.channels, config.channels, rngs=rngs)
        blocks = config.trunk_groups * config.trunk_blocks
        self.survival_shape = (config.trunk_groups, config.trunk_blocks, 2)
        self.drop_rates = tuple(np.linspace(0, config.stochastic_depth, blocks).tolist())

    def draw_survival(self, frames: int, key: jax.Array, dtype: DTypeLike) -> jax.Array:
        """Stochastic depth (Huang et al., ECCV 2016): `[frames, groups, blocks, 2]`, 0 or 1 / P(kept).

        Each frame keeps or drops the two branches of each block on its own.
        """
        kept = 1 - jnp.repeat(jnp.asarray(self.drop_rates, dtype), 2).reshape(1, *self.survival_shape)
        drawn = jax.random.bernoulli(key, kept, (frames, *self.survival_shape))
        return drawn.astype(dtype) / kept

    @jax.named_scope("trunk")
    def __call__(self, x: jax.Array, survival: jax.Array | None = None) -> jax.Array:
        """`[B, H, W, C]`, H and W multiples of 8; survival as drawn, None in evaluation -> `[B, H, W, C]`."""
        shallow = self.conv_first(x)
        tokens = self.embed_norm(self.embed(shallow))
        for i, group in enumerate(self.groups):
            tokens = group(tokens, None if survival is None else survival[:, i])
        return self.conv_after_body(self.norm(tokens)) + shallow
