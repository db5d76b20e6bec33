"""What happens to one clip between the disk and the batch: decoding, cropping, augmentation.

A clip is seven frames, im1 to im7 of a Vimeo-90K septuplet. The first, third, fifth and seventh are what a network is
given, at a fourth of the size; all seven are the truth. Low-resolution frames are made before augmentation, as the
published code does: `bd_duf` does not commute with flips, so afterwards they would be others.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from input_pipeline.degradation import SCALE, Degradation, degrade

Frame: TypeAlias = npt.NDArray[np.uint8]  # also several of them: [N, H, W, 3]
Window: TypeAlias = tuple[int, int, int, int]  # top, left, height, width
ReadInputs: TypeAlias = Callable[[str, tuple[int, int]], list[Frame]]
INPUTS = slice(None, None, 2)


def decode(content: bytes, name: str) -> Frame:
    """The bytes of an image file -> `[H, W, 3]` uint8 RGB; raises ValueError with `name` if they are none."""
    try:
        frame = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:  # such as no bytes at all, or sizes that no image has
        frame = None
    if frame is None:
        raise ValueError(f"{name}: not a readable image")
    return frame  # type: ignore[return-value]  # OpenCV's hints leave the type of the pixels open


def decode_clip(clip: Mapping[str, Any]) -> list[Frame]:
    """The seven frames of a source's clip.

    Args:
      clip: `{"key": str, "frames": seven image files as bytes}`; or arrays already, which are passed through.

    Returns:
      A list of seven `[H, W, 3]` uint8 RGB arrays of one size.

    Raises:
      ValueError: names the clip and the frame that is unreadable or of another size than the first.
    """
    frames = []
    for number, frame in enumerate(clip["frames"], start=1):
        name = f"clip {clip['key']}, frame {number}"
        frame = decode(frame, name) if isinstance(frame, bytes) else frame
        frames.append(frame)
        if frame.shape != frames[0].shape:
            (height, width, _), (first_height, first_width, _) = frame.shape, frames[0].shape
            raise ValueError(f"{name}: is {width}x{height}, expected {first_width}x{first_height} as the first")
    return frames


def random_window(rng: np.random.Generator, height: int, width: int, crop: int) -> Window:
    """(top, left, crop, crop), uniform over the positions within a low-resolution frame of `height` x `width`."""
    return int(rng.integers(height - crop + 1)), int(rng.integers(width - crop + 1)), crop, crop


def cut(frames: Sequence[Frame], window: Window, scale: int = 1) -> Frame:
    """The part of each `[H, W, 3]` frame in a window of (top, left, height, width) times `scale`: `[N, h, w, 3]`."""
    top, left, height, width = (scale * number for number in window)
    return np.stack([frame[top : top + height, left : left + width] for frame in frames])


def degrade_inputs(frames: Sequence[Frame], degradation: Degradation, window: Window | None = None) -> Frame:
    """The low-resolution inputs of seven `[H, W, 3]` frames, or a window of them: `[4, h, w, 3]`, see `degrade`."""
    return np.stack([degrade(frame, degradation, window=window) for frame in frames[INPUTS]])


def augment(clip: Frame, *, reverse: bool, mirror: bool, flip: bool, transpose: bool) -> Frame:
    """Turns a clip about, all frames alike; low- and high-resolution frames of the same clip stay aligned.

    Args:
      clip: `[N, H, W, C]`.
      reverse: the last frame first.
      mirror: left becomes right.
      flip: top becomes bottom.
      transpose: rows become columns, after the others.

    Returns:
      `[N, H, W, C]`, or `[N, W, H, C]` if transposed; a view.
    """
    clip = clip[:: -1 if reverse else 1, :: -1 if flip else 1, :: -1 if mirror else 1]
    return clip.swapaxes(1, 2) if transpose else clip


def training_example(
    clip: Mapping[str, Any],
    rng: np.random.Generator,
    *,
    crop: int,
    degradation: Degradation,
    read_inputs: ReadInputs | None = None,
) -> dict[str, Frame]:
    """Crops and augments a clip at random.

    Args:
      clip: see `decode_clip`.
      rng: NumPy generator; what is drawn depends on it alone.
      crop: side of the square crop in low-resolution pixels.
      degradation: see `degrade`.
      read_inputs: `(key, (width, height)) -> four [height, width, 3] uint8 frames` to use instead of degraded ones, or
        None.

    Returns:
      `{"low": [4, crop, crop, 3], "high": [7, 4 * crop, 4 * crop, 3]}`, uint8 RGB. "low" is, to the byte, a part of
      what whole frames give.

    Raises:
      ValueError: names a clip whose frames are unreadable, of different sizes or smaller than the crop.
    """
    frames = decode_clip(clip)
    height, width = (size // SCALE for size in frames[0].shape[:2])
    if min(height, width) < crop:
        shape = f"{frames[0].shape[1]}x{frames[0].shape[0]}"
        raise ValueError(f"clip {clip['key']}: is {shape}, expected at least {SCALE * crop} pixels each way, 4 `crop`")
    window = random_window(rng, height, width, crop)
    if read_inputs is None:
        low = degrade_inputs(frames, degradation, window)
    else:
        low = cut(read_inputs(clip["key"], (width, height)), window)
    names = ("reverse", "mirror", "flip", "transpose")
    turns = dict(zip(names, rng.random(4) < 0.5, strict=True))
    example = {"low": low, "high": cut(frames, window, SCALE)}
    # Stacking into a batch would keep a transposed layout.
    return {name: np.ascontiguousarray(augment(clip, **turns)) for name, clip in example.items()}
