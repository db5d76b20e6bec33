"""Septuplets cut out of a folder of videos.

Seven frames in a row teach the network what lies between two frames only if they show one scene, at even times, each
its own moment. What does not is left out:

| left out   | because                                                                                       |
|------------|-----------------------------------------------------------------------------------------------|
| cuts       | there is nothing between two scenes                                                           |
| stills     | a repeated frame, or none that moves, teaches that nothing happens in between                 |
| blends     | a mixture of its neighbors, as conversions of frame rates make, would be taken for the truth  |
| uneven     | where frames were dropped the middle one is not in the middle                                 |

Frames go by one at a time: memory holds eight of them, however long a video is.
"""

import collections
import dataclasses
import hashlib
import itertools
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import av
import av.container
import av.video
import cv2
import numpy as np
import numpy.typing as npt

from input_pipeline.png import encode_png
from input_pipeline.septuplets import LENGTH

SPLITS = ("train", "val", "test")
MIN_SIDE = 128  # full-size pixels of the published crops: 4 * 32
MAX_PIXELS = 1 << 26  # a file of some kB can declare frames for which there is no memory
REASONS = ("cuts", "stills", "blends", "uneven times")  # what septuplets are left out for
_SHARE = 20  # one clip in so many is kept for validation, and one for testing
# Mean absolute changes from one frame to the next, in levels of 255.
_STILL = 0.5
_CUT = 40.0  # always a cut
_MAYBE_CUT = 20.0  # a cut if it is also so many times the mean change of the others:
_CUT_RATIO = 3.0
_MOVED = 20  # levels between the frame before and the one after, from where on a pixel tells blends from motion
_MIN_MOVED = 0.005  # share of such pixels below which there is nothing to tell by
_BLEND_SHARE = 0.15  # of either neighbor at least
# A mixture of the neighbors leaves so little of their difference unexplained, and is so much less sharp than both.
# Over blends of real footage after H.264 (CRF 23) the medians are 0.01 to 0.10 and 0.8; over filmed frames 0.45 and
# 1.0. What is as sharp as its neighbors lies between soft or close ones, and is as good as filmed.
_BLEND_REST = 0.15
_BLEND_SHARPNESS = 0.9
_AROUND = np.ones((9, 9), np.uint8)  # sharpness is compared this far around what moved
_JUDGED_PIXELS = 100_000  # of a larger frame only some rows and columns are looked at for blends
# What FFmpeg opens other files for, or takes text or a picture for a video of.
_REFUSED = {"avisynth", "concat", "dash", "hls", "image2", "imf", "mlv", "rtsp", "sdp", "tty", "vapoursynth", "vobsub"}
_DECODER = {"max_pixels": str(MAX_PIXELS)}
_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": ",".join(
        sorted(name for name in av.formats_available if name not in _REFUSED and not name.endswith("_pipe"))
    ),
    **_DECODER,
}
_HDR = {16: "PQ", 18: "HLG"}  # transfer characteristics of BT.2100
_UNSPECIFIED = 2
_HD = 720  # rows from which on video that does not say is BT.709


@dataclasses.dataclass(frozen=True)
class Video:
    """A video that septuplets can be cut from.

    Attributes:
      name: of the clip: its path in the folder, without the suffix.
      path: of the file.
      frames: how many it says that there are, 0 if it does not.
    """

    name: str
    path: pathlib.Path
    frames: int


def find_videos(folder: str | os.PathLike[str], say: Callable[[str], object]) -> list[Video]:
    """The videos of a folder and of those in it, by name.

    Args:
      folder: its path.
      say: is given a line for each other file: what it is skipped for.

    Returns:
      At least one `Video`, sorted by name.

    Raises:
      ValueError: no such folder, no video in it, or two of one name.
    """
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder, expected one with videos")
    found: dict[str, Video] = {}
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if not path.is_file() or any(part.startswith(".") for part in relative.parts):
            continue
        try:
            frames = _probe(path)
        except ValueError as error:
            say(f"skipped {path}: {error}")
            continue
        name = os.fsencode(relative.with_suffix("").as_posix()).decode(errors="replace")
        if name in found:
            raise ValueError(f"{path}: has the name of {found[name].path}, expected one video named {name}")
        found[name] = Video(name, path, frames)
    if not found:
        raise ValueError(f"{root}: holds no video that can be used, expected files that FFmpeg decodes")
    return [found[name] for name in sorted(found)]


def assign_splits(
    names: Sequence[str], val: Sequence[str] | None = None, test: Sequence[str] | None = None
) -> dict[str, list[str]]:
    """Which clips are trained with, validated with and tested with.

    Args:
      names: of all clips.
      val: of those for validation; none of them is trained with. None picks every twentieth, at least one, by the
        SHA-256 of the names: the same whenever the names are the same.
      test: of those for testing, likewise; none is picked of two clips.

    Returns:
      `{"train": names, "val": names, "test": names}` in the order of `names`.

    Raises:
      ValueError: a name that is none of `names`, one that is in both, or nothing left to train with.
    """
    for argument, chosen in (("val", val or ()), ("test", test or ())):
        for name in chosen:
            if name not in names:
                shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
                raise ValueError(f"`{argument}` (={name!r}) must name videos of the folder: {shown}")
    both = sorted(set(val or ()) & set(test or ()))
    if both:
        raise ValueError(f"`val` and `test` (={both[0]!r}) must have no video in common")
    order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    free = [name for name in order if name not in (*(val or ()), *(test or ()))]
    share = max(1, len(names) // _SHARE)
    if val is None:
        val, free = free[:share], free[share:]
    if test is None:
        test, free = (free[:share], free[share:]) if len(names) > 2 else ((), free)
    if not free:
        raise ValueError(
            f"of {len(names)} videos none is left to train with, expected one more than `val` and `test` take; "
            "a single video can be cut in two"
        )
    chosen_of = {"train": free, "val": val, "test": test}
    return {split: [name for name in names if name in chosen_of[split]] for split in SPLITS}


def cut_videos(
    videos: Sequence[Video],
    splits: Mapping[str, Sequence[str]],
    out: str | os.PathLike[str],
    *,
    step: int,
    short_side: int,
    uncompressed: bool,
    say: Callable[[str], object],
    on_frame: Callable[[], object],
) -> tuple[dict[str, list[str]], collections.Counter[str]]:
    """Writes the frames of all fit septuplets, each once: OUT/NAME/000001.png.

    Args:
      videos: see `find_videos`.
      splits: see `assign_splits`.
      out: a folder that does not exist.
      step: frames from the start of a septuplet to that of the next in clips to train with; in the others they follow
        one another without overlap.
      short_side: pixels; larger frames are reduced to it by averaging areas.
      uncompressed: see `encode_png`.
      say: is given a sentence for each video with something amiss.
      on_frame: called after each frame.

    Returns:
      (keys, left out): `{split: ["NAME/000001", ...]}` with the number of each septuplet's first frame, without splits
      that have none; and how many septuplets were left out by reason, see `REASONS`.

    Raises:
      ValueError: there is no septuplet to train with.
      OSError: a file that can't be written.
    """
    split_of = {name: split for split, names in splits.items() for name in names}
    keys: dict[str, list[str]] = {split: [] for split in SPLITS}
    left_out: collections.Counter[str] = collections.Counter()
    for video in videos:
        split = split_of[video.name]
        folder = pathlib.Path(out, video.name)
        folder.mkdir(parents=True)
        found: list[str] = []
        frames = _Frames(video.path, short_side, on_frame)
        for window in _septuplets(frames, step if split == "train" else LENGTH, left_out):
            for frame in window:
                if not frame.written:
                    (folder / f"{frame.number:06d}.png").write_bytes(encode_png(frame.pixels, uncompressed))
                    frame.written = True
            found.append(f"{video.name}/{window[0].number:06d}")
        if frames.trouble:
            say(f"{video.path}: is damaged ({frames.trouble}); septuplets are cut from its whole parts")
        if not found:
            say(f"{video.path}: gives no septuplet, it has cuts, stills, blends or too few frames everywhere")
        keys[split] += found
    if not keys["train"]:
        raise ValueError(
            f"no septuplet to train with in {len(splits['train'])} videos, expected seven frames in motion"
        )
    return {split: found for split, found in keys.items() if found}, left_out


def _open(path):
    try:
        return av.open(f"file:{path}", options=_OPTIONS, metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        raise ValueError(f"not a video that FFmpeg can read ({_reason(error)})") from None


def _stream(container):
    covers = av.stream.Disposition.attached_pic
    stream = next((stream for stream in container.streams.video if not stream.disposition & covers), None)
    if stream is None:
        raise ValueError("no video in it")
    stream.thread_type, stream.codec_context.options = "AUTO", _DECODER
    return stream


def _probe(path):
    """How many frames a file says it has; raises ValueError without its name for what is no use as a video."""
    with _open(path) as container:
        stream = _stream(container)
        try:
            first = next(container.decode(stream), None)
        except av.error.FFmpegError as error:
            raise ValueError(f"no frame of it can be decoded ({_reason(error)})") from None
        if first is None:
            raise ValueError(f"no frame of at most {MAX_PIXELS:,} pixels can be decoded")
        if first.color_trc in _HDR:
            raise ValueError(f"is HDR ({_HDR[first.color_trc]}), tone-map it first")
        if first.interlaced_frame:
            raise ValueError("is interlaced, deinterlace it first")
        if min(first.width, first.height) < MIN_SIDE:
            raise ValueError(f"is {first.width}x{first.height}, expected at least {MIN_SIDE} pixels each way")
        seconds = stream.duration * stream.time_base if stream.duration else (container.duration or 0) / av.time_base
        frames = stream.frames or round(seconds * (stream.average_rate or 0))
        if 0 < frames < LENGTH:
            raise ValueError(f"has {frames} frames, expected at least {LENGTH}")
        return frames


@dataclasses.dataclass
class _Frame:
    number: int  # from 1
    pixels: npt.NDArray[np.uint8]  # [H, W, 3] RGB
    time: int | None  # in the stream's ticks
    grey: npt.NDArray[np.float32]  # [h, w], some rows and columns
    change: float = 0.0  # from the frame before, mean over pixels and channels, levels of 255
    blended: bool = False
    written: bool = False


class _Frames:
    """The upright frames of a file, None where some are missing or the size changes.

    Attributes:
      trouble: what is wrong with the file, as far as it was read; or None.
    """

    def __init__(self, path: pathlib.Path, short_side: int, on_frame: Callable[[], object]) -> None:
        self._path, self._short_side, self._on_frame = path, short_side, on_frame
        self.trouble: str | None = None

    def __iter__(self) -> Iterator[_Frame | None]:
        number, shape = 0, None
        for frame in self._decoded():
            number += 1
            self._on_frame()
            if frame is None:
                yield None
                continue
            pixels = _reduce(_rgb(frame), self._short_side)
            if pixels.shape != shape is not None:
                yield None
            shape = pixels.shape
            stride = max(1, math.isqrt(pixels.shape[0] * pixels.shape[1] // _JUDGED_PIXELS))
            grey = cv2.cvtColor(pixels[::stride, ::stride], cv2.COLOR_RGB2GRAY).astype(np.float32)
            yield _Frame(number, pixels, frame.pts, grey)

    def _decoded(self):
        """Frames, None for those from damage on to the next key frame, which may be made of what is damaged."""
        with _open(self._path) as container:
            stream = _stream(container)
            packets = container.demux(stream)
            whole = True
            while True:
                try:
                    packet = next(packets, None)
                    if packet is None:
                        return
                    for frame in packet.decode():
                        if frame.is_corrupt:
                            self.trouble = "parts of frames are missing"
                        whole = not frame.is_corrupt and (whole or frame.key_frame)
                        yield frame if whole else None
                except av.error.EOFError:
                    return
                except av.error.FFmpegError as error:
                    self.trouble = _reason(error)
                    if not isinstance(error, av.error.InvalidDataError):
                        return
                    whole = False
                    yield None


def _rgb(frame):
    """`[H, W, 3]` uint8 RGB, upright."""
    guess = {}
    if frame.colorspace == _UNSPECIFIED and frame.height >= _HD:
        guess["src_colorspace"] = "ITU709"
    return np.rot90(frame.to_ndarray(format="rgb24", **guess), frame.rotation // 90)


def _reduce(pixels, short_side):
    height, width, _ = pixels.shape
    if min(height, width) <= short_side:
        return np.ascontiguousarray(pixels)
    scale = short_side / min(height, width)
    return cv2.resize(pixels, (round(scale * width), round(scale * height)), interpolation=cv2.INTER_AREA)


def _septuplets(
    frames: Iterable[_Frame | None], step: int, left_out: collections.Counter[str]
) -> Iterator[list[_Frame]]:
    """Seven fit frames in a row, starting at the first frame or a multiple of `step` after it; counts the others."""
    recent: collections.deque[_Frame | None] = collections.deque(maxlen=LENGTH + 1)
    for frame in itertools.chain(frames, [None]):
        before = recent[-1] if recent else None
        if frame is not None and before is not None:
            frame.change = float(np.mean(cv2.mean(cv2.absdiff(frame.pixels, before.pixels))[:3]))
            if len(recent) > 1 and recent[-2] is not None:
                before.blended = _is_blend(recent[-2].grey, before.grey, frame.grey)
        # One late, as a frame is known to be a blend only by what follows.
        window = [one for one in list(recent)[-LENGTH:] if one is not None]
        recent.append(frame)
        if len(window) < LENGTH or (window[0].number - 1) % step:
            continue
        reason = _unfit(window)
        if reason:
            left_out[reason] += 1
        else:
            yield window


def _unfit(window):
    """One of `REASONS`, or None."""
    changes = np.array([frame.change for frame in window[1:]])
    largest = changes.max()
    others = (changes.sum() - largest) / (len(changes) - 1)
    if largest > _CUT or (largest > _MAYBE_CUT and largest > _CUT_RATIO * others):
        return "cuts"
    if changes.min() < _STILL:
        return "stills"
    if any(frame.blended for frame in window):
        return "blends"
    times = [frame.time for frame in window]
    if None not in times:
        gaps = np.diff(times)
        if gaps.max() > 1.5 * gaps.min():
            return "uneven times"
    return None


def _is_blend(before, frame, after):
    """Whether `w * before + (1 - w) * after` is what a frame is where something moves, for some w; all `[h, w]`."""
    difference = before - after
    moved = np.abs(difference) > _MOVED
    if moved.mean() < _MIN_MOVED:
        return False
    difference, offset = difference[moved], (frame - after)[moved]
    energy = difference @ difference
    share = (difference @ offset) / energy
    rest = offset - share * difference
    if not _BLEND_SHARE < share < 1 - _BLEND_SHARE or rest @ rest > _BLEND_REST**2 * energy:
        return False
    around = cv2.dilate(moved.astype(np.uint8), _AROUND) > 0
    first, middle, last = (np.abs(cv2.Laplacian(each, cv2.CV_32F))[around].mean() for each in (before, frame, after))
    return bool(middle < _BLEND_SHARPNESS * min(first, last))


def _reason(error):
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
