"""The small layers that the parts of the network share."""

import itertools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from msitf_jax.ops.convolution import add_bias, conv2d
from msitf_jax.ops.dtypes import at_least_float32

# (key, shape) -> array
Initializer: TypeAlias = Callable[[jax.Array, tuple[int, ...]], jax.Array]


def torch_uniform(fan_in: int) -> Initializer:
    """Uniform in +-1/sqrt(fan_in): PyTorch's default for convolutions and linears, weight and bias alike."""
    bound = fan_in**-0.5

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def leaky_relu(x: jax.Array) -> jax.Array:
    """The network's activation: slope 0.1 below zero."""
    return jax.nn.leaky_relu(x, 0.1)


class Conv(nnx.Module):
    """Square 2-D convolution with bias, zero padding `kernel_size // 2` on every side.

    Several inputs are taken as if concatenated over channels.

    Args:
      in_features, out_features: channels.
      kernel_size: odd.
      stride: the same on both axes.
      kernel_init, bias_init: initialisers; None is PyTorch's default.

    >>> conv = Conv(3, 8, stride=2, rngs=nnx.Rngs(0))
    >>> conv(jnp.ones((1, 5, 6, 3))).shape
    (1, 3, 3, 8)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int = 3,
        stride: int = 1,
        *,
        kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        default = torch_uniform(in_features * kernel_size**2)
        shape = (kernel_size, kernel_size, in_features, out_features)
        self.kernel = nnx.Param((kernel_init or default)(rngs.params(), shape))
        self.bias = nnx.Param((bias_init or default)(rngs.params(), (out_features,)))
        self.stride = stride

    def __call__(self, *inputs: jax.Array) -> jax.Array:
        """`[B, H, W, C]` each -> `[B, ceil(H / stride), ceil(W / stride), out_features]`."""
        (out,) = self.pieces([self.bias.shape[0]], *inputs)
        return out

    def pieces(self, sizes: Sequence[int], *inputs: jax.Array, dtype: DTypeLike | None = None) -> list[jax.Array]:
        """The result cut over channels into pieces of `sizes`, each convolved by itself.

        XLA's CPU convolution of a whole frame is up to 1.4 times as fast on 64 to 144 output channels as on over 200.
        `dtype` is the result's, not narrower than the inputs', which are the default.
        """
        x = inputs[0] if len(inputs) == 1 else jnp.concatenate(inputs, -1)
        dtype = dtype or x.dtype
        ends = list(itertools.accumulate(sizes, initial=0))
        kernel, bias = self.kernel[...], self.bias[...]
        return [
            add_bias(conv2d(x, kernel[..., a:b], self.stride, dtype), bias[a:b]) for a, b in itertools.pairwise(ends)
        ]

    def partial(self, x: jax.Array, first: int, *, with_bias: bool = False) -> jax.Array:
        """What some input channels add to the result, for an input that is known before or after the others.

        Args:
          x: `[B, H, W, C]`, the input's channels `first ... first + C - 1`.
          first: where they lie among the input channels.
          with_bias: add the bias too, once among all parts.

        Returns:
          `[B, H', W', out_features]`; the parts of all channels sum to the whole.
        """
        out = conv2d(x, self.kernel[...][:, :, first : first + x.shape[-1], :], self.stride)
        return add_bias(out, self.bias[...]) if with_bias else out


class Linear(nnx.Module):
    """Affine map of the last axis: `[..., in_features]` -> `[..., out_features]`.

    Args:
      in_features, out_features: sizes.
      kernel_init, bias_init: initialisers; a bias_init of None leaves the bias out.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        kernel_init: Initializer,
        bias_init: Initializer | None = nnx.initializers.zeros,
        rngs: nnx.Rngs,
    ) -> None:
        self.kernel = nnx.Param(kernel_init(rngs.params(), (in_features, out_features)))
        self.bias = None if bias_init is None else nnx.Param(bias_init(rngs.params(), (out_features,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        out = x @ self.kernel[...]
        return out if self.bias is None else add_bias(out, self.bias[...])


class LayerNorm(nnx.Module):
    """Layer normalisation over channels (Ba et al., 2016), at least in float32."""

    EPSILON = 1e-5

    def __init__(self, channels: int, *, rngs: nnx.Rngs) -> None:
        # Each takes its turn in the stream although it needs no random number, as everywhere in Flax.
        self.scale = nnx.Param(nnx.initializers.ones(rngs.params(), (channels,)))
        self.bias = nnx.Param(nnx.initializers.zeros(rngs.params(), (channels,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., C]` -> the same shape and type."""
        centred = x.astype(at_least_float32(x.dtype))
        centred = centred - jnp.mean(centred, -1, keepdims=True)
        factor = jax.lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + self.EPSILON)
        scale = jnp.expand_dims(self.scale[...].astype(factor.dtype), range(x.ndim - 1))
        return add_bias(centred * (factor * scale), self.bias[...]).astype(x.dtype)


class ResidualBlock(nnx.Module):
    """`x + conv2(relu(conv1(x)))`, initialised to a tenth of He's normal so that it starts near the identity."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs) -> None:
        he_tenth = nnx.initializers.variance_scaling(2 * 0.1**2, "fan_in", "normal")
        zeros = nnx.initializers.zeros
        self.conv1 = Conv(channels, channels, kernel_init=he_tenth, bias_init=zeros, rngs=rngs)
        self.conv2 = Conv(channels, channels, kernel_init=he_tenth, bias_init=zeros, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` -> the same shape."""
        return x + self.conv2(jax.nn.relu(self.conv1(x)))


def subpixel_upsample2x(conv: Conv, x: jax.Array) -> jax.Array:
    """Sub-pixel upsampling (Shi et al., CVPR 2016): convolution, leaky ReLU and pixel shuffle by 2.

    The convolution's 4C output channels count (i, j, c) for the pixels (2y + i, 2x + j), c fastest. PyTorch counts
    (c, i, j): `msitf_jax.weights.torch_format` reorders the kernels once, and here whole rows of pixels move.

    Args:
      conv: `Conv` from C to 4C channels.
      x: `[B, H, W, C]`.

    Returns:
      `[B, 2H, 2W, C]`.
    """
    batch, height, width, channels = x.shape
    rows = [leaky_relu(half).reshape(batch, height, 2 * width, channels) for half in conv.pieces([2 * channels] * 2, x)]
    return jnp.stack(rows, 2).reshape(batch, 2 * height, 2 * width, channels)
