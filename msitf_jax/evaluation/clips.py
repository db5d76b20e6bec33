"""Clips of frames on disk."""

import pathlib
import re

import cv2
import numpy as np

VID4 = ("calendar", "city", "foliage", "walk")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
SMALLEST = 12  # pixels; SSIM's window is 11


class FrameFolder:
    """The frames of one clip, in the order of the numbers in their names, read when asked for.

    `len(clip)` is how many there are, `clip[i]` one of them, `[H, W, 3]` uint8 RGB.
    """

    def __init__(self, folder):
        self.folder = folder
        self.name = folder.name
        files = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        self.paths = sorted((path for path in files if path.suffix.lower() in IMAGE_SUFFIXES), key=_frame_order)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return read_frame(self.paths[index])

    def check(self):
        """Reads every frame once.

        Raises:
          ValueError: names a frame that is unreadable, too small, of another size than the first, or there twice.
        """
        shape, stems = None, {}
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


def _frame_order(path):
    """im2 comes before im10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]


def read_frame(path):
    """An image file -> `[H, W, 3]` uint8 RGB; raises ValueError if it is not an opaque 8-bit image."""
    content = np.fromfile(path, np.uint8)
    try:
        frame = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    except cv2.error:  # such as sizes that no image has
        frame = None
    if frame is None:
        raise ValueError(f"frame {path}: not a readable image")
    if frame.dtype != np.uint8:
        raise ValueError(f"frame {path}: is {frame.dtype}, expected 8 bits a channel")
    if frame.ndim == 2:
        return np.repeat(frame[..., None], 3, axis=2)
    if frame.shape[2] == 4 and frame[..., 3].min() < 255:
        raise ValueError(f"frame {path}: has transparent pixels, expected an opaque image")
    return np.ascontiguousarray(frame[..., 2::-1])


def find_clips(dataset, data_dir=None):
    """Finds a data set's clips.

    Args:
      dataset: "vid4", whose clips are `data_dir/GT/CLIP/*.png`, or a folder with one folder of frames a clip.
      data_dir: for "vid4" only.

    Returns:
      (clips, absent): `FrameFolder`s in order of their names, and the names of Vid4 clips that have no frames there.

    Raises:
      ValueError: no such folder, or no clips in it.
    """
    if dataset == "vid4":
        if data_dir is None:
            raise ValueError("`data_dir` (=None) must be the folder that holds GT/calendar/*.png and so on, for vid4")
        root = pathlib.Path(data_dir) / "GT"
        found = {name: FrameFolder(root / name) for name in VID4 if (root / name).is_dir()}
        clips = [clip for clip in found.values() if len(clip)]
        absent = [name for name in VID4 if name not in found or not len(found[name])]
    elif data_dir is not None:
        raise ValueError(f"`data_dir` (={str(data_dir)!r}) goes with vid4; a folder of clips is itself the dataset")
    else:
        root, absent = pathlib.Path(dataset), []
        if not root.is_dir():
            raise ValueError(f"`dataset` (={str(dataset)!r}) must be vid4 or a folder with one folder of frames a clip")
        folders = (path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        clips = [FrameFolder(folder) for folder in sorted(folders)]
    if not clips:
        raise ValueError(f"no clips in {root}: expected one folder a clip with frames ({', '.join(IMAGE_SUFFIXES)})")
    return clips, absent
