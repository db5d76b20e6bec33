"""The network, weights included, as one StableHLO program that runs wherever JAX does, without this package."""

import functools
import os
from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp

from msitf_jax import atomic, methods
from msitf_jax.atomic import FilePath
from msitf_jax.model.precision import ComputeDtype
from msitf_jax.ops.chunks import traced_for

Platform: TypeAlias = Literal["cpu", "cuda", "rocm", "tpu"]
PLATFORMS: tuple[Platform, ...] = get_args(Platform)
# Sizes that a call chooses. Heights and widths of 1 are left out: to mirror two pixels, as the bicubic base does, JAX
# must know that there are two. The last constraint follows from the first, which JAX does not see by itself.
CLIP = "batch, frames, height, width, 3"
CONSTRAINTS = ("frames >= 2", "height >= 2", "width >= 2", "batch*frames >= 2*batch")


def export(
    weights: FilePath,
    path: FilePath,
    *,
    platform: Platform = "cpu",
    compute_dtype: ComputeDtype = "float32",
    time: bool = False,
) -> None:
    """Writes weights and the network around them as a serialized `jax.export.Exported`.

    What it holds maps `[batch, frames, height, width, 3]` float32 RGB in 0..1 to `[batch, 2 * frames - 1, 4 * height,
    4 * width, 3]` float32, not clipped; frames, height and width are at least 2.

    Args:
      weights: "trilinear", "bicubic", "flow", or weights, see `msitf_jax.weights.find`.
      path: the file; what was there is replaced once the new one is whole.
      platform: where it will run; any machine can write for any.
      compute_dtype: what the network computes in, see `msitf_jax.model.precision`.
      time: the program takes a second argument, the time of the frames between: a float32 scalar, see
        `MSITF.__call__`.

    Raises:
      ValueError: another platform or type; `path` is the weights' own file; `time` for weights that draw frames halfway
        only; what `msitf_jax.weights.load` raises.
      OSError: the file can't be written.
    """
    if os.path.realpath(weights) == os.path.realpath(path):
        raise ValueError(f"`path` (={str(path)!r}): these are the weights, expected another name")
    method = methods.method(weights, compute_dtype)
    if time and not method.takes_time:
        raise ValueError(f"`time` (=True) is for networks along the flow, and {weights} draws frames halfway only")
    content = exported(method, platform, time=time).serialize()
    atomic.write(path, lambda file: file.write(content))


def exported(method: methods.Method, platform: Platform, *, time: bool = False) -> jax.export.Exported:
    """A method as a program of symbolic sizes; see `export`.

    Deformable convolution is the plain one on every platform: sizes that are not known yet rule its kernels out.

    Raises:
      ValueError: another platform.
    """
    if platform not in PLATFORMS:
        raise ValueError(f"`platform` (={platform!r}) must be one of {', '.join(PLATFORMS)}")
    clip = jax.ShapeDtypeStruct(jax.export.symbolic_shape(CLIP, constraints=CONSTRAINTS), jnp.float32)
    arguments = [clip, jax.ShapeDtypeStruct((), jnp.float32)] if time else [clip]
    upscale = jax.jit(functools.partial(method.forward, method.state))
    with traced_for(platform):
        return jax.export.export(upscale, platforms=[platform])(*arguments)
