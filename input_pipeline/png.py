"""PNG frames on disk: their order in a folder, a check that finds damage without decoding, and two ways to encode."""

import pathlib
import re
import struct
import zlib

import cv2
import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RGB = 2
# Measured on frames of 448x256: 345 kB, decoded in 0.25 ms, and 160 kB, decoded in 2.2 ms. Of all filters "average"
# gives the smallest files; higher levels take up to ten times as long for a tenth.
_UNCOMPRESSED = (cv2.IMWRITE_PNG_COMPRESSION, 0, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE)
_COMPRESSED = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_AVG)
_COLOURS = {0: "grey", _RGB: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}


def frame_order(path: pathlib.Path) -> tuple[list[int | str], str]:
    """A sort key by the numbers in a file's name: im2.png comes before im10.png, 1.png after 01.png."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)], path.name


def png_size(content: bytes, name: str) -> tuple[int, int]:
    """(height, width) in the first bytes of a PNG file; raises ValueError with `name` if they are not such bytes."""
    if len(content) < 24 or content[:8] != _SIGNATURE or content[12:16] != b"IHDR":
        raise ValueError(f"{name}: not a PNG image")
    width, height = struct.unpack_from(">II", content, 16)
    return height, width


def read_png(path: pathlib.Path, size: tuple[int, int] | None = None) -> tuple[bytes, tuple[int, int]]:
    """Reads a PNG file of 8-bit RGB and checks that it is whole.

    Every chunk's checksum is compared up to the end mark, so a file that was cut off or altered on its way is found at
    a twentieth of the time that decoding takes.

    Args:
      path: the file, a `pathlib.Path`.
      size: the (width, height) in pixels that it must have, or None.

    Returns:
      (content, (width, height)): the file's bytes as they are.

    Raises:
      ValueError: names a file that is missing, damaged, or of another size or kind.
      OSError: one that can't be read.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"frame {path}: is missing") from None
    width, height, depth, colour = _header(content, path)
    if (depth, colour) != (8, _RGB):
        raise ValueError(f"frame {path}: is {depth}-bit {_COLOURS.get(colour, colour)}, expected 8-bit RGB")
    if size is not None and (width, height) != size:
        raise ValueError(f"frame {path}: is {width}x{height}, expected {size[0]}x{size[1]}")
    return content, (width, height)


def encode_png(frame: np.ndarray, uncompressed: bool = False) -> bytes:
    """A PNG file of a `[H, W, 3]` uint8 RGB frame.

    Args:
      frame: the frame.
      uncompressed: store the pixels as they are: about twice the bytes, decoded in a ninth of the time.

    Returns:
      The file's bytes.
    """
    _, content = cv2.imencode(".png", frame[..., ::-1], _UNCOMPRESSED if uncompressed else _COMPRESSED)
    return content.tobytes()


def _header(content, path):
    """(width, height, bits, colour type), after a walk over all chunks: length, name, data, checksum."""
    if content[:8] != _SIGNATURE or content[12:16] != b"IHDR":
        raise ValueError(f"frame {path}: not a PNG image")
    view, start, kind = memoryview(content), 8, b""
    while kind != b"IEND":
        if start + 12 > len(content):
            raise ValueError(f"frame {path}: is cut off after {len(content)} bytes")
        length, kind = struct.unpack_from(">I4s", content, start)
        end = start + 8 + length
        if end + 4 > len(content):
            raise ValueError(f"frame {path}: is cut off after {len(content)} bytes")
        if zlib.crc32(view[start + 4 : end]) != struct.unpack_from(">I", content, end)[0]:
            raise ValueError(f"frame {path}: is damaged near byte {start}")
        start = end + 4
    return struct.unpack_from(">IIBB", content, 16)
