"""A decoded frame as an array: which planes are read, which way is up, what the integers mean."""

import dataclasses
import fractions
from typing import Any, Self

import av.filter
import numpy as np
import numpy.typing as npt

from msitf_jax.atomic import FilePath
from msitf_jax.video import color

_HDR = {16: "PQ", 18: "HLG"}  # transfer characteristics of BT.2100
_UNKNOWN = (0, color.UNSPECIFIED)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a decoded frame becomes an array."""

    size: tuple[int, int]  # width and height as coded
    planar: str  # the pixel format that is read off plane by plane
    pixels: color.RGB | color.YCbCr
    tags: color.Tags
    chroma: str  # where chroma lies, FFmpeg's name
    alpha: bool
    matrix: tuple[int, int, int, int]  # of the display matrix: a, b, c, d

    @classmethod
    def of(cls, frame: av.VideoFrame, path: FilePath, still: bool = False) -> Self:
        """The layout of a frame and what follows it.

        Args:
          frame: `av.VideoFrame`.
          path: of its file, for messages.
          still: whether it is an image, which if it does not say is BT.601 at any size.

        Raises:
          ValueError: HDR, or a colour matrix that is none of `color.LUMA_WEIGHTS`.
        """
        pixel_format, size = frame.format, (frame.width, frame.height)
        transfer = int(frame.color_trc)
        if transfer in _HDR:
            raise ValueError(
                f"input {path}: is HDR ({_HDR[transfer]}), expected standard dynamic range; tone-map it first"
            )
        bits = max(8, min(16, max(component.bits for component in pixel_format.components)))
        bits += bits in (11, 13, 15)
        alpha = any(component.is_alpha for component in pixel_format.components)
        matrix = int(frame.colorspace)
        shared = {"size": size, "alpha": alpha, "matrix": _display_matrix(frame)}
        primaries, levels = int(frame.color_primaries), int(frame.color_range)
        jpeg = pixel_format.name.startswith("yuvj")
        grey = len(pixel_format.components) - alpha == 1 and pixel_format.name != "pal8"
        # Grey that does not say is full range, as FFmpeg takes it.
        full = jpeg or levels == color.FULL_RANGE or (grey and levels != color.LIMITED_RANGE)
        if pixel_format.is_rgb or pixel_format.name == "pal8" or (grey and full):
            tags = color.Tags(color.RGB_MATRIX, True, primaries, transfer)
            planar = planar_format("gray" if grey else "gbrp", bits)
            return cls(planar=planar, pixels=color.RGB(bits), tags=tags, chroma="left", **shared)
        if matrix in _UNKNOWN:
            matrix = color.BT601 if jpeg or still else color.guess_matrix(*size)
        if matrix not in color.LUMA_WEIGHTS:
            raise ValueError(f"input {path}: has colour matrix {matrix} (H.273), expected BT.601, BT.709 or BT.2020")
        return cls(
            planar=planar_format("gray" if grey else "yuv444p", bits),
            pixels=color.YCbCr(matrix, full, bits),
            tags=color.Tags(matrix, full, primaries, transfer),
            chroma="center" if jpeg else "left",
            **shared,
        )

    @property
    def turned(self) -> bool:
        """Whether width and height change places."""
        return self.matrix[0] == 0 and self.matrix[1] != 0

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height after turning."""
        return self.size[::-1] if self.turned else self.size

    def __str__(self) -> str:
        width, height = self.upright_size
        return f"{width}x{height} {self.planar}"

    def read(self, frame: av.VideoFrame) -> npt.NDArray[Any]:
        """A frame of a file, whose later frames may have another size or format -> `[H, W, 3]`, upright."""
        frame = reformat(frame, self.planar, self.size, full_range=self.tags.full_range, chroma=(self.chroma, "left"))
        planes = [_plane(plane, self) for plane in frame.planes]
        if self.planar.startswith("gbr"):
            planes = [planes[2], planes[0], planes[1]]
        elif self.tags.matrix == color.RGB_MATRIX:
            planes = 3 * planes
        elif len(planes) == 1:
            neutral = np.full_like(planes[0], 1 << (self.pixels.bits - 1))
            planes = [planes[0], neutral, neutral]
        return self._upright(np.stack(planes, axis=-1))

    def _upright(self, pixels):
        a, b, c, d = self.matrix
        if self.turned:
            pixels, a, d = pixels.swapaxes(0, 1), c, b
        return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def planar_format(base: str, bits: int) -> str:
    """FFmpeg's name of a planar format, such as yuv444p, with so many bits, little-endian."""
    return base if bits == 8 else f"{base}{bits}le"


def reformat(
    frame: av.VideoFrame, pixel_format: str, size: tuple[int, int], *, full_range: bool, chroma: tuple[str, str]
) -> av.VideoFrame:
    """A frame in another pixel format, sampled anew where chroma or the size differ; neither matrix nor range change.

    Args:
      frame: `av.VideoFrame`.
      pixel_format: FFmpeg's name.
      size: (width, height).
      full_range: of the values, before and after.
      chroma: where the chroma samples lie before and after, FFmpeg's names, such as "left".
    """
    if (frame.format.name, (frame.width, frame.height)) == (pixel_format, size):
        return frame
    graph = av.filter.Graph()
    level = "full" if full_range else "limited"
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=fractions.Fraction(1)
    )
    scale = graph.add(
        "scale",
        f"{size[0]}:{size[1]}:flags=bicubic+accurate_rnd+full_chroma_inp+full_chroma_int:in_range={level}:"
        f"out_range={level}:in_color_matrix=bt709:out_color_matrix=bt709:"  # some, the same, whatever the frame's tags
        f"in_chroma_loc={chroma[0]}:out_chroma_loc={chroma[1]}",
    )
    target, sink = graph.add("format", pixel_format), graph.add("buffersink")
    source.link_to(scale)
    scale.link_to(target)
    target.link_to(sink)
    graph.configure()
    graph.vpush(frame)
    return graph.vpull()


def _display_matrix(frame):
    try:
        side_data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # beside it is a kind that PyAV has no name for, such as EXIF: then without mirroring
        return {90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), 270: (0, 1, -1, 0)}.get(frame.rotation % 360, (1, 0, 0, 1))
    if side_data is None:
        return 1, 0, 0, 1
    values = np.sign(np.frombuffer(side_data, np.int32))
    a, b, c, d = (int(values[index]) for index in (0, 1, 3, 4))
    return (a, b, c, d) if (a and d and not (b or c)) or (b and c and not (a or d)) else (1, 0, 0, 1)


def _plane(plane, layout):
    rows = np.frombuffer(plane, layout.pixels.dtype).reshape(plane.height, -1)
    return rows[:, : layout.size[0]]
