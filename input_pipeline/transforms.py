"""What happens to one clip between the disk and the batch: decoding, cropping, augmentation.

A clip is seven frames, im1 to im7 of a Vimeo-90K septuplet. The first, third, fifth and seventh are what a network is
given, at a fourth of the size; all seven are the truth. Training may take a part that begins and ends with an input,
such as the third to the fifth; or give the first, fourth and seventh, and one of the two frames between each as truth.
Of any part, every other frame is an input. Low-resolution frames are made before augmentation, as the published code
does: `bd_duf` does not commute with flips, so afterwards they would be others.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from input_pipeline.degradation import SCALE, Degradation, degrade

Frame: TypeAlias = npt.NDArray[np.uint8]  # also several of them: [N, H, W, 3]
Window: TypeAlias = tuple[int, int, int, int]  # top, left, height, width
Part: TypeAlias = Sequence[int]  # numbers of frames, from 0
ReadInputs: TypeAlias = Callable[[str, tuple[int, int], Part], list[Frame]]
INPUTS = slice(None, None, 2)
MAX_INPUTS = 4
MAX_INPUTS_OF_THIRDS = 3
WHOLE = range(2 * MAX_INPUTS - 1)


def decode(content: bytes, name: str) -> Frame:
    """The bytes of an image file -> `[H, W, 3]` uint8 RGB; raises ValueError with `name` if they are none."""
    try:
        frame = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:  # such as no bytes at all, or sizes that no image has
        frame = None
    if frame is None:
        raise ValueError(f"{name}: not a readable image")
    return frame  # type: ignore[return-value]  # OpenCV's hints leave the type of the pixels open


def decode_clip(clip: Mapping[str, Any], part: Part = WHOLE) -> list[Frame]:
    """The seven frames of a source's clip, or some of them.

    Args:
      clip: `{"key": str, "frames": seven image files as bytes}`; or arrays already, which are passed through.
      part: which frames; the others are not decoded.

    Returns:
      A list of seven `[H, W, 3]` uint8 RGB arrays of one size, or of those of `part`.

    Raises:
      ValueError: names the clip and the frame that is unreadable or of another size than the first.
    """
    frames: list[Frame] = []
    for number in part:
        name = f"clip {clip['key']}, frame {number + 1}"
        frame = clip["frames"][number]
        frame = decode(frame, name) if isinstance(frame, bytes) else frame
        frames.append(frame)
        if frame.shape != frames[0].shape:
            (height, width, _), (first_height, first_width, _) = frame.shape, frames[0].shape
            raise ValueError(f"{name}: is {width}x{height}, expected {first_width}x{first_height} as the first")
    return frames


def random_window(rng: np.random.Generator, height: int, width: int, crop: int) -> Window:
    """(top, left, crop, crop), uniform over the positions within a low-resolution frame of `height` x `width`."""
    return int(rng.integers(height - crop + 1)), int(rng.integers(width - crop + 1)), crop, crop


def random_part(rng: np.random.Generator, inputs: int) -> Part:
    """The frames of a clip that so many inputs in a row span, 2 to 4: any such part is as likely. Four draw nothing."""
    starts = MAX_INPUTS - inputs + 1
    start = 2 * int(rng.integers(starts)) if starts > 1 else 0
    return range(start, start + 2 * inputs - 1)


def random_thirds(rng: np.random.Generator, inputs: int) -> tuple[Part, float]:
    """Every third frame of a clip, 2 or 3, and those a third or two thirds of the way from one to the next.

    Returns:
      (2 * inputs - 1 frames, the time of those between: 1/3 or 2/3).
    """
    starts = MAX_INPUTS_OF_THIRDS - inputs + 1
    start = 3 * int(rng.integers(starts)) if starts > 1 else 0
    between = 1 + int(rng.integers(2))
    part = [start + 3 * (number // 2) + between * (number % 2) for number in range(2 * inputs - 1)]
    return part, between / 3


def activity(frames: Sequence[Frame], window: Window) -> float:
    """How much there is to learn from a window: detail and motion, in levels of 255.

    The mean absolute difference between pixels two apart, down and across, plus that between two frames. The former is
    large in detail, which the downscaling takes away; the latter only where something with detail moves. Their sum
    needs no weights, and a part with much of only one counts, too. Of every other row and column, the green channel.

    Args:
      frames: `[H, W, 3]` uint8, at least two; the middle one and the next are looked at.
      window: (top, left, height, width) in low-resolution pixels, at least 2x2.

    Returns:
      At least 0.
    """
    top, left, height, width = (SCALE * number for number in window)
    middle, after = (
        frame[top : top + height : 2, left : left + width : 2, 1].astype(np.int16)
        for frame in frames[len(frames) // 2 : len(frames) // 2 + 2]
    )
    differences = middle[1:] - middle[:-1], middle[:, 1:] - middle[:, :-1], after - middle
    return float(sum(np.abs(difference).mean() for difference in differences))


def cut(frames: Sequence[Frame], window: Window, scale: int = 1) -> Frame:
    """The part of each `[H, W, 3]` frame in a window of (top, left, height, width) times `scale`: `[N, h, w, 3]`."""
    top, left, height, width = (scale * number for number in window)
    return np.stack([frame[top : top + height, left : left + width] for frame in frames])


def degrade_inputs(frames: Sequence[Frame], degradation: Degradation, window: Window | None = None) -> Frame:
    """The low-resolution inputs of seven `[H, W, 3]` frames, or a window of them: `[4, h, w, 3]`, see `degrade`.

    Of a part of a clip that begins and ends with an input, likewise.
    """
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
    inputs: int = MAX_INPUTS,
    candidates: int = 1,
    thirds: float = 0.0,
    read_inputs: ReadInputs | None = None,
) -> dict[str, Any]:
    """Crops and augments a clip at random.

    Args:
      clip: see `decode_clip`.
      rng: NumPy generator; what is drawn depends on it alone.
      crop: side of the square crop in low-resolution pixels.
      degradation: see `degrade`.
      inputs: N, how many frames go in, 2 to 4: all, or some in a row, of which any are as likely.
      candidates: how many windows are drawn, of which the one with the most `activity` is taken.
      thirds: how likely `random_thirds` is to choose the frames, of which N must be 2 or 3.
      read_inputs: `(key, (width, height), part) -> N [height, width, 3] uint8 frames` to use instead of degraded ones,
        where `part` are the frames of the clip that are used; or None.

    Returns:
      `{"low": [N, crop, crop, 3], "high": [2N-1, 4 * crop, 4 * crop, 3]}`, uint8 RGB. "low" is, to the byte, a part of
      what whole frames give. Where `thirds` is above 0 also "time", a float32 scalar: that of the frames between, 0 the
      earlier neighbor's and 1 the later one's.

    Raises:
      ValueError: names a clip whose frames are unreadable, of different sizes or smaller than the crop.
    """
    part, time = random_thirds(rng, inputs) if thirds and rng.random() < thirds else (random_part(rng, inputs), 0.5)
    frames = decode_clip(clip, part)
    height, width = (size // SCALE for size in frames[0].shape[:2])
    if min(height, width) < crop:
        shape = f"{frames[0].shape[1]}x{frames[0].shape[0]}"
        raise ValueError(f"clip {clip['key']}: is {shape}, expected at least {SCALE * crop} pixels each way, 4 `crop`")
    windows = [random_window(rng, height, width, crop) for _ in range(candidates)]
    window = max(windows, key=lambda window: activity(frames, window)) if candidates > 1 else windows[0]
    if read_inputs is None:
        low = degrade_inputs(frames, degradation, window)
    else:
        low = cut(read_inputs(clip["key"], (width, height), part), window)
    names = ("reverse", "mirror", "flip", "transpose")
    turns = dict(zip(names, rng.random(4) < 0.5, strict=True))
    clips = {"low": low, "high": cut(frames, window, SCALE)}
    # Stacking into a batch would keep a transposed layout.
    example: dict[str, Any] = {name: np.ascontiguousarray(augment(clip, **turns)) for name, clip in clips.items()}
    if thirds:
        example["time"] = np.float32(1 - time if turns["reverse"] else time)
    return example
