"""What turns low-resolution frames into a clip of four times the size and twice the rate: weights, or a baseline."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from input_pipeline.degradation import upscale_bicubic
from msitf_jax import weights
from msitf_jax.model.precision import narrow
from msitf_jax.ops.resize import trilinear_base

BASELINES = ("trilinear", "bicubic")


def method(name, compute_dtype="float32"):
    """Looks a method up, or loads it.

    Args:
      name: "trilinear" (the network's resized input, without what it learned), "bicubic" (imresize x4, each missing
        frame the mean of its neighbours), or a weight file.
      compute_dtype: what the network computes in, "float32" or "bfloat16"; see `msitf_jax.model.precision`.

    Returns:
      A function of frames `[N, h, w, 3]` uint8 RGB that gives `[2N-1, 4h, 4w, 3]` uint8 RGB.

    Raises:
      ValueError: another type than float32 for a baseline; what `msitf_jax.weights.load` raises.
    """
    if name in BASELINES and compute_dtype != "float32":
        raise ValueError(f"`compute_dtype` (={compute_dtype!r}) is for networks; {name} needs float32")
    if name == "bicubic":
        return bicubic
    if name == "trilinear":
        return _on_8_bits(jax.jit(trilinear_base))
    return network(weights.load(name), compute_dtype)


def network(model, compute_dtype="float32"):
    """A method that runs `MSITF`; compiled once for each shape of frames."""
    graph, state = nnx.split(model)
    state = narrow(state, jnp.dtype(compute_dtype))
    forward = jax.jit(lambda state, clip: nnx.merge(graph, state)(clip))
    return _on_8_bits(lambda clip: forward(state, clip))


def bicubic(frames):
    """The bicubic baseline; see `method`."""
    large = np.stack([upscale_bicubic(frame.astype(np.float64)) for frame in frames])
    out = np.empty((2 * len(frames) - 1, *large.shape[1:]))
    out[::2], out[1::2] = large, (large[:-1] + large[1:]) / 2
    return _to_8_bits(out)


def _on_8_bits(forward):
    def run(frames):
        clip = jnp.asarray(frames, jnp.float32)[None] / 255
        return _to_8_bits(np.asarray(forward(clip)[0]) * 255)

    return run


def _to_8_bits(values):
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
