"""Pixel values as files hold them <-> RGB in 0..1.

Matrices, primaries and transfer characteristics go by their code points in ITU-T H.273, as in every video file. The
matrix is applied here, in floating point, because FFmpeg's scaler either rounds RGB to 8 bits or puts white at 65280 of
65535; the network sees R'G'B' as coded, since it was trained on that.
"""

import dataclasses
import functools
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

# Code point -> (Kr, Kb) of ITU-T H.273, table 4.
LUMA_WEIGHTS = {
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.601, 625 lines
    6: (0.299, 0.114),  # BT.601, 525 lines
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020, non-constant luminance
}
RGB_MATRIX, BT709, UNSPECIFIED, BT601 = 0, 1, 2, 6
LIMITED_RANGE, FULL_RANGE = 1, 2  # FFmpeg's AVCOL_RANGE_MPEG and _JPEG


@dataclasses.dataclass(frozen=True)
class RGB:
    """Integers that are R, G and B, full range.

    Attributes:
      bits: of each; arrays are uint8 for 8, uint16 above.
    """

    bits: int = 8

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """NumPy's type for them."""
        return np.uint8 if self.bits == 8 else np.uint16

    def to_rgb(self, pixels: jax.Array) -> jax.Array:
        """`[..., 3]` integers -> `[..., 3]` float32 RGB in 0..1."""
        return pixels.astype(jnp.float32) / (2**self.bits - 1)

    def from_rgb(self, rgb: jax.Array) -> jax.Array:
        """`[..., 3]` float32 RGB -> `[..., 3]` integers, rounded and clipped."""
        return _quantise(rgb * (2**self.bits - 1), self)


@dataclasses.dataclass(frozen=True)
class FloatRGB:
    """Float32 that is R, G and B in 0..1."""

    dtype = np.float32

    def to_rgb(self, pixels: jax.Array) -> jax.Array:
        """`[..., 3]`, as it is."""
        return pixels

    def from_rgb(self, rgb: jax.Array) -> jax.Array:
        """`[..., 3]` -> `[..., 3]`, clipped."""
        return jnp.clip(rgb, 0, 1)


@dataclasses.dataclass(frozen=True)
class YCbCr:
    """Integers that are Y', Cb and Cr, chroma at every pixel.

    Attributes:
      matrix: a key of `LUMA_WEIGHTS`.
      full_range: 0..255 instead of 16..235 and 16..240 (for 8 bits).
      bits: of each; arrays are uint8 for 8, uint16 above.
    """

    matrix: int
    full_range: bool
    bits: int = 8

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """NumPy's type for them."""
        return np.uint8 if self.bits == 8 else np.uint16

    def to_rgb(self, pixels: jax.Array) -> jax.Array:
        """`[..., 3]` integers -> `[..., 3]` float32 R'G'B'; below 0 or above 1 for colours that RGB lacks."""
        red, blue = LUMA_WEIGHTS[self.matrix]
        black, luma, neutral, chroma = self._scales()
        y, cb, cr = (pixels[..., channel].astype(jnp.float32) for channel in range(3))
        y, cb, cr = (y - black) / luma, (cb - neutral) / chroma, (cr - neutral) / chroma
        r, b = y + 2 * (1 - red) * cr, y + 2 * (1 - blue) * cb
        return jnp.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], axis=-1)

    def from_rgb(self, rgb: jax.Array) -> jax.Array:
        """`[..., 3]` float32 R'G'B' -> `[..., 3]` integers, rounded and clipped to what the bits hold."""
        red, blue = LUMA_WEIGHTS[self.matrix]
        black, luma, neutral, chroma = self._scales()
        r, g, b = (rgb[..., channel] for channel in range(3))
        y = red * r + (1 - red - blue) * g + blue * b
        cb, cr = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
        return _quantise(jnp.stack([black + luma * y, neutral + chroma * cb, neutral + chroma * cr], axis=-1), self)

    def _scales(self):
        """Black, white - black, neutral chroma and the range of chroma, H.273 equations 20 to 28."""
        neutral, step = 1 << (self.bits - 1), 1 << (self.bits - 8)
        if self.full_range:
            return 0, 2**self.bits - 1, neutral, 2**self.bits - 1
        return 16 * step, 219 * step, neutral, 224 * step


# How integers, or floats, become the RGB in 0..1 that the network takes, and back.
Pixels: TypeAlias = RGB | YCbCr | FloatRGB


@dataclasses.dataclass(frozen=True)
class Tags:
    """What a video file says of its colours, H.273's code points.

    Attributes:
      matrix: a key of `LUMA_WEIGHTS`, or 0 for RGB.
      full_range: see `YCbCr`.
      primaries, transfer: 2 where unspecified.
    """

    matrix: int
    full_range: bool
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED


def guess_matrix(width: int, height: int) -> int:
    """The matrix of untagged video: BT.709 for high definition, else BT.601, as players do it."""
    return BT709 if width >= 1280 or height > 576 else BT601


def to_8_bits(pixels: npt.NDArray[Any], kind: RGB | YCbCr) -> npt.NDArray[np.uint8]:
    """`[H, W, 3]` integers of a kind, such as `YCbCr` -> `[H, W, 3]` uint8 RGB, to look at; on the CPU."""
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return np.asarray(_to_8_bits(pixels, kind))


@functools.partial(jax.jit, static_argnums=1)
def _to_8_bits(pixels, kind):
    return RGB().from_rgb(kind.to_rgb(pixels))


def _quantise(values, pixels):
    return jnp.clip(jnp.rint(values), 0, 2**pixels.bits - 1).astype(pixels.dtype)
