"""A page on which one draws a line over pictures: left of it they are plainly resized, right of it ours."""

import base64
import html
import string
from collections.abc import Iterable, Sequence
from importlib import resources

import cv2
import numpy as np
import numpy.typing as npt

from msitf_jax import atomic
from msitf_jax.atomic import FilePath

_JPEG = (
    *(cv2.IMWRITE_JPEG_QUALITY, 92),
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
)
_LARGEST = 65500  # libjpeg's JPEG_MAX_DIMENSION


def write_page(
    path: FilePath,
    pictures: Sequence[tuple[str, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]],
    *,
    title: str,
    notes: Iterable[str],
) -> None:
    """Writes one HTML file that needs nothing else: a before/after slider for every picture, fitted or at 100 %.

    `#position=20&size=full` after its address opens it with the line at 20 % and the pictures at 100 %.

    Args:
      path: the file; its folder must exist. It is there whole or not at all.
      pictures: list of at least one (caption, plain, result), a string and two `[H, W, 3]` uint8 RGB of equal size:
        resized by plain means and by the network. They are stored as JPEG.
      title: what is compared, such as "holiday.mp4".
      notes: list of short strings for below the title.

    Raises:
      ValueError: no pictures, or one that is not two uint8 arrays of one shape.
      OSError: the file can't be written; see `atomic.write`.
    """
    if not pictures:
        raise ValueError("`pictures` is empty, expected at least one (caption, plain, result)")
    for i, (_, plain, result) in enumerate(pictures):
        _check(i, plain, result)
    page = resources.files(__package__).joinpath("compare.html").read_text("utf-8")
    head, rest = page.split("<!-- each picture -->\n")
    figure, tail = rest.split("<!-- end of each picture -->\n")
    listed = "\n".join(f"  <li>{html.escape(note)}</li>" for note in notes)

    def write_to(file):
        file.write(_fill(head, title=html.escape(title), notes=listed))
        for caption, plain, result in pictures:
            height, width, _ = result.shape
            texts = {"caption": html.escape(caption), "plain": _jpeg(plain), "result": _jpeg(result)}
            file.write(_fill(figure, width=width, height=height, **texts))
        file.write(tail.encode())

    atomic.write(path, write_to)


def _check(i, plain, result):
    if plain.shape != result.shape:
        raise ValueError(f"`pictures[{i}]` has shapes {plain.shape} and {result.shape}, expected two equal ones")
    if plain.ndim != 3 or plain.shape[2] != 3 or not 0 < min(plain.shape) <= max(plain.shape) <= _LARGEST:
        raise ValueError(
            f"`pictures[{i}]` has shape {plain.shape}, expected [H, W, 3] of 1 to {_LARGEST} pixels a side"
        )
    if not plain.dtype == result.dtype == np.uint8:
        raise ValueError(f"`pictures[{i}]` has dtypes {plain.dtype} and {result.dtype}, expected uint8")


def _fill(template, **values):
    # Names of files may hold what is no UTF-8.
    return string.Template(template).substitute(values).encode(errors="replace")


def _jpeg(frame):
    """`[H, W, 3]` uint8 RGB as a data URI."""
    _, content = cv2.imencode(".jpg", frame[..., ::-1], _JPEG)
    return "data:image/jpeg;base64," + base64.b64encode(content.tobytes()).decode()
