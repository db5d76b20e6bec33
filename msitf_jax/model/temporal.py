"""Fusion over time: a bidirectional deformable ConvLSTM, then attention over time at every pixel."""

from typing import TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx

from msitf_jax.model.alignment import Levels, PCDAlignment, Pyramid
from msitf_jax.model.layers import Conv, Linear, torch_uniform
from msitf_jax.ops.dtypes import at_least_float32

# A feature pyramid, and its half of the offset convolutions.
PreparedAlignment: TypeAlias = tuple[Levels, Levels]


class StateAlignment(nnx.Module):
    """Moves the input's features as a recurrent state says: `fusion(align(pyramid(x), pyramid(state)))`."""

    def __init__(self, channels: int, groups: int, *, rngs: nnx.Rngs) -> None:
        self.pyramid = Pyramid(channels, rngs=rngs)
        self.align = PCDAlignment(channels, groups, rngs=rngs)
        self.fusion = Conv(channels, channels, kernel_size=1, rngs=rngs)

    def prepare(self, x: jax.Array) -> PreparedAlignment:
        """`[B, H, W, C]` -> (x's pyramid, its half of the offset convolutions): all that needs no state."""
        pyramid = self.pyramid(x)
        return pyramid, self.align.prepare(pyramid)

    def __call__(self, prepared: PreparedAlignment, state: jax.Array) -> jax.Array:
        """`prepare(x)` and a state `[B, H, W, C]` -> `[B, H, W, C]`."""
        return self.fusion(self.align(*prepared, self.pyramid(state)))


class DeformableLSTMCell(nnx.Module):
    """One ConvLSTM step in which aligned input features take the place of the hidden and the cell state.

    `h' = align_h(x, h)`, `c' = align_c(x, c)`; gates `i, f, o, g = conv([x, h'])`;
    `c = sigmoid(f) c' + sigmoid(i) tanh(g)`; `h = sigmoid(o) tanh(c)`.
    """

    def __init__(self, channels: int, groups: int, *, rngs: nnx.Rngs) -> None:
        self.align_h = StateAlignment(channels, groups, rngs=rngs)
        self.align_c = StateAlignment(channels, groups, rngs=rngs)
        self.gates = Conv(2 * channels, 4 * channels, rngs=rngs)

    def prepare(self, x: jax.Array) -> tuple[jax.Array, PreparedAlignment, PreparedAlignment]:
        """`[B, H, W, C]` -> what a step needs of x, with B still the first axis of every array."""
        return x, self.align_h.prepare(x), self.align_c.prepare(x)

    def __call__(
        self, prepared: tuple[jax.Array, PreparedAlignment, PreparedAlignment], state: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        """`prepare(x)` and state (h, c), `[B, H, W, C]` each -> the next state."""
        x, for_h, for_c = prepared
        h, c = state
        h = self.align_h(for_h, h)
        c = self.align_c(for_c, c)
        i, f, o, g = jnp.split(self.gates(x, h), 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c


class BidirectionalFusion(nnx.Module):
    """The cell run forwards and backwards over the sequence, both results merged by a 1x1 convolution.

    The directions share weights and go through one `lax.scan` as one batch.
    """

    def __init__(self, channels: int, groups: int, *, rngs: nnx.Rngs) -> None:
        self.cell = DeformableLSTMCell(channels, groups, rngs=rngs)
        self.merge = Conv(2 * channels, channels, kernel_size=1, rngs=rngs)

    @jax.named_scope("temporal_fusion")
    def __call__(self, features: jax.Array, *, remat: bool = False) -> jax.Array:
        """`[B, T, H, W, C]` -> the same; `remat` keeps only the states for the gradients, see `MSITF.forward`."""
        batch, length, *frame = features.shape
        recomputed = jax.checkpoint if remat else lambda part: part
        prepared = recomputed(self.cell.prepare)(features.reshape(batch * length, *frame))
        prepared = jax.tree.map(lambda a: a.reshape(batch, length, *a.shape[1:]), prepared)

        def both_directions(sequence, t):
            ahead, back = (
                jax.lax.dynamic_index_in_dim(sequence, index, axis=1, keepdims=False) for index in (t, length - 1 - t)
            )
            return jnp.concatenate([ahead, back])

        def step(state, t):
            h, c = self.cell(jax.tree.map(lambda a: both_directions(a, t), prepared), state)
            return (h, c), h

        zeros = jnp.zeros((2 * batch, *frame), features.dtype)
        _, hidden = jax.lax.scan(recomputed(step), (zeros, zeros), jnp.arange(length))
        forward, backward = hidden[:, :batch], hidden[::-1, batch:]
        fused = self.merge(*(h.swapaxes(0, 1).reshape(batch * length, *frame) for h in (forward, backward)))
        return fused.reshape(features.shape)


class TemporalAttention(nnx.Module):
    """Global context: at every pixel, multi-head attention over its features at all times."""

    def __init__(self, channels: int, heads: int, *, rngs: nnx.Rngs) -> None:
        uniform = torch_uniform(channels)
        self.qkv = Linear(channels, 3 * channels, kernel_init=uniform, bias_init=uniform, rngs=rngs)
        self.proj = Linear(channels, channels, kernel_init=uniform, bias_init=uniform, rngs=rngs)
        self.heads = heads

    @jax.named_scope("context")
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, T, H, W, C]` -> the same shape."""
        batch, length, height, width, channels = x.shape
        head_dim = channels // self.heads
        q, k, v = jnp.split(self.qkv(x).reshape(batch, length, height, width, 3 * self.heads, head_dim), 3, axis=-2)
        # The scale goes on q: XLA's CPU backend has miscompiled a scaled sum of products here.
        precise = at_least_float32(x.dtype)
        logits = jnp.einsum("bthwnd,bshwnd->bhwnts", q * head_dim**-0.5, k, preferred_element_type=precise)
        context = jnp.einsum("bhwnts,bshwnd->bthwnd", jax.nn.softmax(logits).astype(x.dtype), v)
        return self.proj(context.reshape(x.shape))
