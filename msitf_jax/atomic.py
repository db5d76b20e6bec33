"""Files that are there whole or not at all."""

import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import BinaryIO, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

# How callers give the path of a file or a folder.
FilePath: TypeAlias = str | os.PathLike[str]


def write(path: FilePath, write_to: Callable[[BinaryIO], object]) -> None:
    """Writes under a temporary name beside `path` and renames; on failure what was at `path` stays.

    Args:
      path: the file; its folder must exist.
      write_to: called with the open binary file.

    Raises:
      OSError: the folder is missing or can't be written to, the disk is full, or `path` is a folder.
    """
    path = pathlib.Path(os.path.realpath(path))  # what a link points to is replaced, not the link
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as file:
                write_to(file)
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        if error.errno is None:
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from None


def write_image(path: FilePath, frame: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> None:
    """Writes `[H, W, 3]` RGB, uint8 or uint16, as PNG; raises what `write` raises."""
    _, content = cv2.imencode(".png", frame[..., ::-1])
    write(path, lambda file: file.write(content.tobytes()))


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
