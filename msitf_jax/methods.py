"""What turns low-resolution frames into a clip of four times the size and twice the rate: weights, or a baseline."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx

from msitf_jax import weights
from msitf_jax.atomic import FilePath
from msitf_jax.model.msitf import MSITF
from msitf_jax.model.precision import COMPUTE_DTYPES, ComputeDtype, narrow
from msitf_jax.model.swin import WINDOW
from msitf_jax.ops.resize import BASES as BASELINES
from msitf_jax.weights import margin

FLOW_MARGIN = 88  # of optical flow alone, as `msitf_jax.weights.margin.measure` defines it: 82 was found


@dataclasses.dataclass(frozen=True)
class Method:
    """A pure function and its parameters, to be compiled with whatever is done around it.

    Attributes:
      forward: (state, `[B, N, h, w, 3]` float32 in 0..1) -> `[B, 2N-1, 4h, 4w, 3]` float32, not clipped.
      state: a pytree of arrays, empty for a baseline.
      takes_time: `forward` has a third argument, the time of the frames between, see `MSITF.__call__`.
      alignment: input pixels on whose grid the network works; a part of a frame gives what the whole gives, away from
        its borders, if it begins at a multiple of it.
      margin: input pixels beside a border of such a part where its output differs from the whole's.
      bytes_per_pixel: about what a window of 4 frames takes in memory, for each pixel of a frame.
    """

    forward: Callable[..., jax.Array]
    state: Any
    takes_time: bool = False
    alignment: int = 8
    margin: int = 3
    bytes_per_pixel: int = 4_000

    def __call__(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """`[N, h, w, 3]` uint8 RGB -> `[2N-1, 4h, 4w, 3]` uint8 RGB; compiled once for each shape."""
        clip = jnp.asarray(frames, jnp.float32)[None] / 255
        values = np.asarray(self._compiled(self.state, clip)[0]) * 255
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)

    @functools.cached_property
    def _compiled(self):
        return jax.jit(self.forward)


def method(name: FilePath, compute_dtype: ComputeDtype = "float32") -> Method:
    """Looks a method up, or loads it.

    Args:
      name: "trilinear" (the network's resized input, without what it learned), "bicubic" (imresize x4, each missing
        frame the mean of its neighbors), "flow" (the same, its neighbors moved along the optical flow), or weights,
        see `msitf_jax.weights.find`.
      compute_dtype: what the network computes in, "float32" or "bfloat16"; see `msitf_jax.model.precision`.

    Returns:
      A `Method`.

    Raises:
      ValueError: another type, or any but float32 for a baseline; what `msitf_jax.weights.load` raises.
    """
    if compute_dtype not in COMPUTE_DTYPES:
        raise ValueError(f"`compute_dtype` (={compute_dtype!r}) must be one of {', '.join(COMPUTE_DTYPES)}")
    if name in BASELINES:
        if compute_dtype != "float32":
            raise ValueError(f"`compute_dtype` (={compute_dtype!r}) is for networks; {name} needs float32")
        seen = FLOW_MARGIN if name == "flow" else Method.margin
        return Method(lambda state, clip: BASELINES[name](clip), {}, margin=seen)
    return network(weights.load(name), compute_dtype, tile_margin=weights.tile_margin(name))


def made_for(name: FilePath) -> str | None:
    """The degradation that weights were made for, if they say; None for a baseline. Raises as `weights.load`."""
    return None if name in BASELINES else weights.read_metadata(name).get("degradation")


def network(model: MSITF, compute_dtype: ComputeDtype = "float32", *, tile_margin: int | None = None) -> Method:
    """The method that runs `MSITF`.

    Args:
      model: `MSITF`.
      compute_dtype: see `method`.
      tile_margin: the `margin` of `Method`, as `msitf_jax.weights.margin.measure` gives it; None is `margin.default`.

    Returns:
      A `Method`.
    """
    graph, state = nnx.split(model)
    return Method(
        lambda state, clip, time=None: nnx.merge(graph, state)(clip, time=time),
        narrow(state, jnp.dtype(compute_dtype)),
        takes_time=model.config.alignment == "flow",
        alignment=WINDOW,
        margin=margin.default(model.config) if tile_margin is None else tile_margin,
        bytes_per_pixel=2_000 + 350 * model.config.channels,
    )
