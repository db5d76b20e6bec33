"""The small layers that the parts of the network share, with PyTorch's default initial weights."""

import jax
import jax.numpy as jnp
from flax import nnx


def torch_uniform(fan_in):
    """Uniform in +-1/sqrt(fan_in): PyTorch's default for convolutions and linears, weight and bias alike."""
    bound = fan_in**-0.5

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def leaky_relu(x):
    """The network's activation: slope 0.1 below zero."""
    return jax.nn.leaky_relu(x, 0.1)


class Conv(nnx.Module):
    """Square 2-D convolution with bias, zero padding `kernel_size // 2` on every side.

    Several inputs are taken as if concatenated over channels. `share` is the part that some of the input channels
    have in the result, for inputs that become known at different times.

    Args:
      in_features, out_features: channels.
      kernel_size: odd.
      stride: the same on both axes.
      kernel_init, bias_init: initialisers; None is PyTorch's default.

    >>> conv = Conv(3, 8, stride=2, rngs=nnx.Rngs(0))
    >>> conv(jnp.ones((1, 5, 6, 3))).shape
    (1, 3, 3, 8)
    """

    def __init__(self, in_features, out_features, kernel_size=3, stride=1, *, kernel_init=None, bias_init=None, rngs):
        default = torch_uniform(in_features * kernel_size**2)
        shape = (kernel_size, kernel_size, in_features, out_features)
        self.kernel = nnx.Param((kernel_init or default)(rngs.params(), shape))
        self.bias = nnx.Param((bias_init or default)(rngs.params(), (out_features,)))
        self.stride = stride

    def __call__(self, *inputs):
        """`[B, H, W, C]` each -> `[B, ceil(H / stride), ceil(W / stride), out_features]`."""
        x = inputs[0] if len(inputs) == 1 else jnp.concatenate(inputs, -1)
        return self.share(x) + self.bias[...][None, None, None, :]

    def share(self, x, first=0):
        """The result's share that comes from input channels `first ... first + C - 1`; the bias is not in it."""
        kernel = self.kernel[...][:, :, first : first + x.shape[-1], :]
        pad = kernel.shape[0] // 2
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (self.stride, self.stride),
            ((pad, pad), (pad, pad)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class ResidualBlock(nnx.Module):
    """`x + conv2(relu(conv1(x)))`, initialised to a tenth of He's normal so that it starts near the identity."""

    def __init__(self, channels, *, rngs):
        he_tenth = nnx.initializers.variance_scaling(2 * 0.1**2, "fan_in", "normal")
        zeros = nnx.initializers.zeros
        self.conv1 = Conv(channels, channels, kernel_init=he_tenth, bias_init=zeros, rngs=rngs)
        self.conv2 = Conv(channels, channels, kernel_init=he_tenth, bias_init=zeros, rngs=rngs)

    def __call__(self, x):
        """`[B, H, W, C]` -> the same shape."""
        return x + self.conv2(jax.nn.relu(self.conv1(x)))


def pixel_shuffle(x, factor=2):
    """`[B, H, W, factor^2 * C]` -> `[B, factor * H, factor * W, C]`: `out[f*y+i, f*x+j, c] = in[y, x, i, j, c]`.

    Channels count (i, j, c), c fastest, so that whole pixels move. PyTorch counts (c, i, j): see
    `msitf_jax.weights.torch_format`, which reorders the kernels once.
    """
    batch, height, width, channels = x.shape
    out = channels // factor**2
    x = x.reshape(batch, height, width, factor, factor, out).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, height * factor, width * factor, out)
