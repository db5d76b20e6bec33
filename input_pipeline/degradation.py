"""The three ways in which this field makes low-resolution frames, each a fourth of the size.

| name        | blur                                                     | border    | LR pixel i lies in HR at |
|-------------|----------------------------------------------------------|-----------|--------------------------|
| `bi`        | MATLAB `imresize(1/4, "bicubic")`: Keys a = -0.5, stretched 4 times | symmetric | 4i + 1.5      |
| `bd_matlab` | Gaussian 12x12, sigma 1.6                                | replicate | 4i + 1.5                 |
| `bd_duf`    | Gaussian 13x13, sigma 1.6                                | reflect   | 4i                       |

Scores move by more than a decibel between them, so a degradation goes by its name and is noted beside every score. All
three are separable and linear. Their products are added tap by tap, always in the same order, since exact halves do
occur (at a straight edge, say): so a part of a frame comes out as it does in the whole. A matrix product promises no
order, and its threads fight those that read frames.
"""

import functools
from typing import Literal, TypeAlias, TypeVar, get_args

import numpy as np
import numpy.typing as npt

SCALE = 4
Degradation: TypeAlias = Literal["bi", "bd_matlab", "bd_duf"]
DEGRADATIONS: tuple[Degradation, ...] = get_args(Degradation)
_Pixel = TypeVar("_Pixel", bound=np.number)  # uint8 or floating point
_SIGMA = 1.6
_REACH = 6  # pixels that a kernel goes beyond the frame at most


def degrade(
    frame: npt.NDArray[_Pixel], degradation: Degradation, *, window: tuple[int, int, int, int] | None = None
) -> npt.NDArray[_Pixel]:
    """A high-resolution frame -> the low-resolution one that a network is given.

    Args:
      frame: `[H, W, C]`; cropped at the bottom and right to multiples of 4 first.
      degradation: "bi", "bd_matlab" or "bd_duf".
      window: (top, left, height, width) in low-resolution pixels: computes only that part of the low-resolution frame,
        which is what it is in the whole, to the byte.

    Returns:
      `[H // 4, W // 4, C]`, or `[height, width, C]` of a window: uint8, rounded and clipped, for a uint8 frame; of the
      frame's type for floats.

    Raises:
      ValueError: an unknown degradation, another shape or integer type, a frame under 4 pixels, or a window beyond it.
    """
    if degradation not in DEGRADATIONS:
        raise ValueError(f"`degradation` (={degradation!r}) must be one of {', '.join(DEGRADATIONS)}")
    if frame.ndim != 3 or min(frame.shape[:2]) < SCALE:
        raise ValueError(f"`frame` has shape {frame.shape}, expected [height, width, channels], at least 4x4")
    if frame.dtype != np.uint8 and not np.issubdtype(frame.dtype, np.floating):
        raise ValueError(f"`frame` has dtype {frame.dtype}, expected uint8 or floating point")
    height, width = (size // SCALE for size in frame.shape[:2])
    top, left, rows, columns = window or (0, 0, height, width)
    if not (0 <= top < top + rows <= height and 0 <= left < left + columns <= width):
        raise ValueError(f"`window` (={window!r}) must lie within the low-resolution frame of {height}x{width}")
    part = frame[_read_pixels(degradation, SCALE * height, top, rows)]
    part = part[:, _read_pixels(degradation, SCALE * width, left, columns)]
    _, weights, _ = _kernel(degradation)
    part = np.ascontiguousarray(_every_fourth(part, weights).swapaxes(0, 1))
    return _as_type(frame.dtype, _every_fourth(part, weights).swapaxes(0, 1))


def _as_type(dtype, out):
    if dtype == np.uint8:
        out = np.clip(np.floor(out + 0.5), 0, 255)
    return out.astype(dtype, order="C")


def _keys_cubic(x):
    """The bicubic kernel (Keys, 1981) with a = -0.5, at distances x in pixels."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


@functools.cache
def _kernel(degradation):
    """First tap, counted from pixel 4i for low-resolution pixel i; weights of the taps, float64, of sum 1; border."""
    if degradation == "bi":
        taps, border = np.arange(-6, 10), "symmetric"
        weights = _keys_cubic((taps - 1.5) / SCALE)
    elif degradation == "bd_matlab":
        taps, border = np.arange(-4, 8), "edge"
        weights = np.exp(-((taps - 1.5) ** 2) / (2 * _SIGMA**2))
    else:
        taps, border = np.arange(-6, 7), "reflect"
        weights = np.exp(-(taps**2) / (2 * _SIGMA**2))
    return taps[0], weights / weights.sum(), border


def _read_pixels(degradation, size, start, count):
    """Which pixels of a line of `size` the low-resolution ones from `start` are made of, border folded back inside."""
    first, weights, _ = _kernel(degradation)
    start = SCALE * start + first + _REACH
    return _folded_line(degradation, size)[start : start + SCALE * (count - 1) + len(weights)]


@functools.lru_cache(maxsize=64)
def _folded_line(degradation, size):
    return np.pad(np.arange(size), _REACH, mode=_kernel(degradation)[2])


def _every_fourth(lines, weights):
    """Filters along the first axis, every fourth position: float64."""
    count = (len(lines) - len(weights)) // SCALE + 1
    out, term = (np.empty((count, *lines.shape[1:])) for _ in range(2))
    for tap, weight in enumerate(weights):
        np.multiply(lines[tap : tap + SCALE * count : SCALE], weight, out=out if tap == 0 else term)
        if tap:
            out += term
    return out
