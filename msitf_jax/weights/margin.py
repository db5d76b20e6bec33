"""The tile margin: how far beside a cut a network's output differs from that of the whole frame."""

import functools

import jax
import numpy as np
from flax import nnx

from msitf_jax.model.config import MSITFConfig
from msitf_jax.model.msitf import MSITF
from msitf_jax.model.swin import WINDOW

# Input pixels, of weights whose metadata have none. Without flow: random weights of the published size, which add 12
# and 32 of 255 and sample up to 10 pixels away at every level, have 34 and 63 (tests/test_margin.py, slow). With
# flow: the most that `measure` finds.
WITHOUT_FLOW = 64
WITH_FLOW = 120
MOST = 512
TOLERANCE = 0.05 / 255  # of the output; rounding to 8 bits moves a value by up to ten times as much

_FRAMES, _HEIGHT, _WIDTH = 4, 299, 304  # one axis is no multiple of the network's grid
_CUT = 4 * WINDOW  # where on each axis the part begins, and how far before the frame's end it ends


def default(config: MSITFConfig) -> int:
    """Input pixels, for weights whose metadata have none."""
    return WITH_FLOW if "flow" in (config.alignment, config.base) else WITHOUT_FLOW


def measure(model: MSITF) -> int:
    """Runs a network on drawn frames and on a part cut out of them, and compares.

    The part begins on the network's grid and is cut on all four sides. Frames are the same in every run: detail from
    coarse to fine, hard edges, and surfaces that move by up to 3 pixels a frame, one before another.

    Args:
      model: `MSITF`.

    Returns:
      Input pixels beside a cut where a value differs by more than `TOLERANCE`, rounded up to a multiple of 8. The
      middle of the part is 118 from a cut, so 120 is the most, which a network that sees farther gets as well.
    """
    graph, state = nnx.split(model)
    clip = _moving_texture()[None]
    rows, columns = (slice(_CUT, size - _CUT) for size in (_HEIGHT, _WIDTH))
    whole = np.asarray(_run(graph, state, clip)[0])
    part = np.asarray(_run(graph, state, clip[:, :, rows, columns])[0])
    scale = whole.shape[1] // _HEIGHT
    same = whole[:, scale * rows.start : scale * rows.stop, scale * columns.start : scale * columns.stop]
    differs = (np.abs(part - same) > TOLERANCE).any((0, 3))
    down, across = (np.minimum(np.arange(size), np.arange(size)[::-1]) // scale for size in differs.shape)
    to_cut = np.minimum(down[:, None], across[None])
    farthest = int(to_cut.max(where=differs, initial=-1)) + 1
    return -(-farthest // WINDOW) * WINDOW


@functools.partial(jax.jit, static_argnums=0)
def _run(graph, state, clip):
    return nnx.merge(graph, state)(clip)


def parse(text: str) -> int:
    """A margin as metadata hold it.

    Raises:
      ValueError: not an integer from 0 to `MOST`.
    """
    # int() alone also takes " +1_0", and isdecimal() digits of every script.
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(MOST)) and int(text) <= MOST):
        raise ValueError(f"`tile_margin` (={text!r}) must be an integer from 0 to {MOST}, in input pixels")
    return int(text)


def _moving_texture():
    """`[frames, height, width, 3]` float32 in 0..1: textured surfaces in front of one another, each on its way."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:_HEIGHT, :_WIDTH].astype(np.float32)
    clip = np.zeros((_FRAMES, _HEIGHT, _WIDTH, 3), np.float32)
    for depth in range(4):
        detail = _waves(rng, 24, 0.02, 0.4)
        outline = _waves(rng, 6, 0.01, 0.05)
        dark, bright = rng.uniform(0, 0.4, 3).astype(np.float32), rng.uniform(0.6, 1, 3).astype(np.float32)
        down, across = rng.uniform(-3, 3, 2).astype(np.float32)
        for time, frame in enumerate(clip):
            place = y - np.float32(time) * down, x - np.float32(time) * across
            tone = np.clip(0.5 + 0.7 * _sum(detail, *place), 0, 1)[..., None]
            cover = np.clip(0.5 + 4 * _sum(outline, *place), 0, 1)[..., None] if depth else 1
            frame += cover * (dark + tone * (bright - dark) - frame)
    return clip


def _waves(rng, count, lowest, highest):
    """Plane waves of frequencies between two, in cycles a pixel: `[count, 3]`, radians a pixel down, across; phase."""
    frequency = 2 * np.pi * lowest * (highest / lowest) ** rng.uniform(0, 1, count)
    angle, phase = rng.uniform(0, 2 * np.pi, (2, count))
    return np.stack([frequency * np.sin(angle), frequency * np.cos(angle), phase], 1).astype(np.float32)


def _sum(waves, y, x):
    """Of variance 1."""
    total = sum(np.sin(down * y + across * x + phase) for down, across, phase in waves)
    return np.float32(np.sqrt(2 / len(waves))) * total
