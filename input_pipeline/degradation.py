"""The three ways in which this field makes low-resolution frames, each a fourth of the size.

| name        | blur                                                     | border    | LR pixel i lies in HR at |
|-------------|----------------------------------------------------------|-----------|--------------------------|
| `bi`        | MATLAB `imresize(1/4, "bicubic")`: Keys a = -0.5, stretched 4 times | symmetric | 4i + 1.5      |
| `bd_matlab` | Gaussian 12x12, sigma 1.6                                | replicate | 4i + 1.5                 |
| `bd_duf`    | Gaussian 13x13, sigma 1.6                                | reflect   | 4i                       |

Scores move by more than a decibel between them, so a degradation goes by its name and is noted beside every score. All
three are separable and linear: a matrix for the rows and one for the columns, borders included.
"""

import functools

import numpy as np

SCALE = 4
DEGRADATIONS = ("bi", "bd_matlab", "bd_duf")
_SIGMA = 1.6


def degrade(frame, degradation):
    """A high-resolution frame -> the low-resolution one that a network is given.

    Args:
      frame: `[H, W, C]`; cropped at the bottom and right to multiples of 4 first.
      degradation: "bi", "bd_matlab" or "bd_duf".

    Returns:
      `[H // 4, W // 4, C]`: uint8, rounded and clipped, for a uint8 frame; of the frame's type for floats.

    Raises:
      ValueError: an unknown degradation, another shape or integer type, or a frame under 4 pixels.
    """
    if degradation not in DEGRADATIONS:
        raise ValueError(f"`degradation` (={degradation!r}) must be one of {', '.join(DEGRADATIONS)}")
    if frame.ndim != 3 or min(frame.shape[:2]) < SCALE:
        raise ValueError(f"`frame` has shape {frame.shape}, expected [height, width, channels], at least 4x4")
    if frame.dtype != np.uint8 and not np.issubdtype(frame.dtype, np.floating):
        raise ValueError(f"`frame` has dtype {frame.dtype}, expected uint8 or floating point")
    height, width = (size // SCALE * SCALE for size in frame.shape[:2])
    frame = frame[:height, :width]
    return _separable(frame, _downscaling(degradation, height), _downscaling(degradation, width))


def upscale_bicubic(frame):
    """MATLAB `imresize(4, "bicubic")`, the baseline of the field: `[H, W, C]` -> `[4H, 4W, C]`, types as `degrade`."""
    return _separable(frame, _upscaling(frame.shape[0]), _upscaling(frame.shape[1]))


def _separable(frame, rows, columns):
    out = np.tensordot(rows, frame, axes=(1, 0))
    out = np.einsum("wx,hxc->hwc", columns, out, optimize=True)
    if frame.dtype == np.uint8:
        return np.clip(np.floor(out + 0.5), 0, 255).astype(np.uint8)
    return out.astype(frame.dtype)


def _keys_cubic(x):
    """The bicubic kernel (Keys, 1981) with a = -0.5, at distances x in pixels."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


@functools.lru_cache(maxsize=64)
def _downscaling(degradation, size):
    """`[size // 4, size]` float64."""
    start = SCALE * np.arange(size // SCALE)[:, None]
    if degradation == "bi":
        taps = np.arange(-6, 10)
        return _matrix(size, start + taps, _keys_cubic((taps - 1.5) / SCALE), "symmetric")
    if degradation == "bd_matlab":
        taps = np.arange(-4, 8)
        return _matrix(size, start + taps, np.exp(-((taps - 1.5) ** 2) / (2 * _SIGMA**2)), "edge")
    taps = np.arange(-6, 7)
    return _matrix(size, start + taps, np.exp(-(taps**2) / (2 * _SIGMA**2)), "reflect")


@functools.lru_cache(maxsize=64)
def _upscaling(size):
    """`[4 * size, size]` float64."""
    position = (np.arange(SCALE * size)[:, None] + 0.5) / SCALE - 0.5
    taps = np.floor(position).astype(int) + np.arange(-1, 3)
    return _matrix(size, taps, _keys_cubic(position - taps), "symmetric")


def _matrix(size, pixels, weights, border):
    """Rows that weigh the input pixels (`[out, taps]`, some beyond the border), their weights scaled to sum 1."""
    reach = max(-pixels.min(), pixels.max() - size + 1, 0)
    folded = np.pad(np.arange(size), reach, mode=border)[pixels + reach]
    weights = np.broadcast_to(weights / weights.sum(-1, keepdims=True), pixels.shape)
    matrix = np.zeros((len(pixels), size))
    np.add.at(matrix, (np.arange(len(pixels))[:, None], folded), weights)
    return matrix
