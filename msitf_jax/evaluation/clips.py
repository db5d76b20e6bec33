"""Clips of frames on disk."""

import pathlib
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from input_pipeline import septuplets
from input_pipeline.png import frame_order, read_png
from msitf_jax.atomic import FilePath
from msitf_jax.limits import MAX_PIXELS

VID4 = ("calendar", "city", "foliage", "walk")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
VIMEO90K = {f"vimeo90k_{split.removeprefix('test_')}": split for split in septuplets.LISTS if split != "train"}
SMALLEST = 12  # pixels; SSIM's window is 11


class Frames(Protocol):
    """A sequence of `[H, W, 3]` uint8 RGB frames, such as a list, an array, or a `FrameFolder`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> npt.NDArray[np.uint8]: ...


class FrameFolder:
    """The frames of one clip, in the order of the numbers in their names, read when asked for.

    `len(clip)` is how many there are, `clip[i]` one of them, `[H, W, 3]` uint8 RGB.

    Attributes:
      folder: where they are.
      name: of the clip.
      paths: of the frames, in order.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.name = folder.name
        files = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        self.paths = sorted((path for path in files if path.suffix.lower() in IMAGE_SUFFIXES), key=frame_order)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> npt.NDArray[np.uint8]:
        return read_frame(self.paths[index])

    def check(self) -> None:
        """Reads every frame once.

        Raises:
          ValueError: names a frame that is unreadable, too small, of another size than the first, or there twice.
        """
        shape = None
        stems: dict[str, pathlib.Path] = {}
        for path in self.paths:
            if path.stem in stems:
                raise ValueError(f"frame {path}: there is {stems[path.stem].name} too, expected one file a frame")
            stems[path.stem] = path
            height, width, _ = frame_shape = read_frame(path).shape
            shape = shape or frame_shape
            if frame_shape != shape:
                first = self.paths[0].name
                raise ValueError(f"frame {path}: is {width}x{height}, expected {shape[1]}x{shape[0]} as {first}")
            if min(height, width) < SMALLEST:
                raise ValueError(f"frame {path}: is {width}x{height}, expected at least {SMALLEST}x{SMALLEST}")


class Septuplet(FrameFolder):
    """A clip of Vimeo-90K: im1.png to im7.png, 448x256, whatever else is in the folder."""

    def __init__(self, root: FilePath, key: str) -> None:
        self.name = key
        self.paths = septuplets.frame_paths(root, key)
        self.folder = self.paths[0].parent

    def check(self) -> None:
        """Reads every frame once.

        Raises:
          ValueError: names a frame that is missing, damaged, not 448x256 or not 8-bit RGB.
        """
        for path in self.paths:
            read_png(path, septuplets.SIZE)


def read_frame(path: FilePath) -> npt.NDArray[np.uint8]:
    """An image file -> `[H, W, 3]` uint8 RGB; raises ValueError if it is not an opaque 8-bit image."""
    content = np.fromfile(path, np.uint8)
    try:
        frame = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    except cv2.error:  # such as sizes that no image has
        frame = None
    if frame is None:
        raise ValueError(f"frame {path}: not a readable image of at most {MAX_PIXELS:,} pixels")
    if frame.dtype != np.uint8:
        raise ValueError(f"frame {path}: is {frame.dtype}, expected 8 bits a channel")
    if frame.ndim == 2:
        return np.repeat(frame[..., None], 3, axis=2)
    if frame.shape[2] == 4 and (frame[..., 3] < 255).any():
        raise ValueError(f"frame {path}: has transparent pixels, expected an opaque image")
    return np.ascontiguousarray(frame[..., 2::-1])


def find_clips(dataset: FilePath, data_dir: FilePath | None = None) -> tuple[list[FrameFolder], list[str]]:
    """Finds a data set's clips.

    Args:
      dataset: "vid4", whose clips are `data_dir/GT/CLIP/*.png`; "vimeo90k_test", "vimeo90k_fast", "vimeo90k_medium" or
        "vimeo90k_slow", whose clips are the septuplets of that list in `data_dir` (see `input_pipeline.septuplets`); or
        a folder with one folder of frames a clip.
      data_dir: for the named data sets only.

    Returns:
      (clips, absent): `FrameFolder`s in order of their names or of the list, and the names of Vid4 clips that have no
      frames there.

    Raises:
      ValueError: no such folder, no clips in it, or a list that is missing or malformed.
    """
    if dataset in VIMEO90K:
        if data_dir is None:
            raise ValueError(f"`data_dir` (=None) must be the folder that holds sequences and its lists, for {dataset}")
        return [Septuplet(data_dir, key) for key in septuplets.read_list(data_dir, VIMEO90K[dataset])], []
    if dataset == "vid4":
        if data_dir is None:
            raise ValueError("`data_dir` (=None) must be the folder that holds GT/calendar/*.png and so on, for vid4")
        root = pathlib.Path(data_dir) / "GT"
        found = {name: FrameFolder(root / name) for name in VID4 if (root / name).is_dir()}
        clips = [clip for clip in found.values() if len(clip)]
        absent = [name for name in VID4 if name not in found or not len(found[name])]
    elif data_dir is not None:
        raise ValueError(f"`data_dir` (={str(data_dir)!r}) goes with vid4 or vimeo90k_*, not a folder of clips")
    else:
        root, absent = pathlib.Path(dataset), []
        if not root.is_dir():
            raise ValueError(
                f"`dataset` (={str(dataset)!r}) must be {', '.join(['vid4', *VIMEO90K])} or a folder of clips"
            )
        folders = (path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        clips = [FrameFolder(folder) for folder in sorted(folders)]
    if not clips:
        raise ValueError(f"no clips in {root}: expected one folder a clip with frames ({', '.join(IMAGE_SUFFIXES)})")
    return clips, absent
