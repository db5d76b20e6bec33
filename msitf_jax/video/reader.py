"""Video files, and folders of frames, as pictures with their times.

Everything that FFmpeg decodes comes out in one form: upright, chroma at every pixel, at its own bit depth, with what
its integers mean (`msitf_jax.video.color`) beside it. Nothing but local files is opened, whatever a file refers to.
"""

import abc
import contextlib
import dataclasses
import fractions
import io
import math
import pathlib
import re
from collections.abc import Iterator
from typing import TypeAlias

import av
import av.container
import av.video
import numpy as np

from input_pipeline.png import frame_order
from msitf_jax.atomic import FilePath
from msitf_jax.limits import MAX_PIXELS
from msitf_jax.video import color
from msitf_jax.video.layout import Layout

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
Number: TypeAlias = fractions.Fraction | float  # also an int
FOLDER_RATE = fractions.Fraction(24)
# What FFmpeg opens other files for, or takes text for a picture of it.
_REFUSED = {"avisynth", "concat", "dash", "hls", "image2", "imf", "mlv", "rtsp", "sdp", "tty", "vapoursynth", "vobsub"}
_DECODER = {"max_pixels": str(MAX_PIXELS)}
_ONE_FILE = {
    "protocol_whitelist": "file",
    "format_whitelist": ",".join(sorted(av.formats_available - _REFUSED)),
    **_DECODER,  # for what is decoded to find out what there is
}


@dataclasses.dataclass(frozen=True)
class Picture:
    """A frame.

    Attributes:
      pixels: `[H, W, 3]` uint8 or uint16; the source's `pixels` says what they mean.
      time: when it appears, in the source's ticks, counted from its beginning (or from `start`).
      duration: how long the file says that it is shown, in ticks, or None.
    """

    pixels: np.ndarray
    time: int
    duration: int | None = None


class Source(abc.ABC):
    """What a video file and a folder of frames have in common; `open_source` makes one.

    Attributes:
      path: where it is.
      files: the paths of all that is read.
      width, height: of the upright pictures.
      pixels: `color.RGB` or `color.YCbCr`.
      tags: `color.Tags`, the matrix and range never unspecified.
      sample_aspect_ratio: a pixel's width over its height, a `Fraction`.
      time_base: seconds a tick, a `Fraction`.
      rate: frames a second on average, a `Fraction`.
      frames: how many there are about, or None.
      zero: seconds of the file's own clock at tick 0, a `Fraction`.
      start, end: the part that is read, in seconds from the file's beginning, `Fraction`s; end may be None.
      warnings: sentences on what is not taken as it is; grows while pictures are read.
    """

    path: pathlib.Path
    files: list[pathlib.Path]
    width: int
    height: int
    pixels: color.RGB | color.YCbCr
    tags: color.Tags
    sample_aspect_ratio: fractions.Fraction
    time_base: fractions.Fraction
    rate: fractions.Fraction
    frames: int | None
    zero: fractions.Fraction
    start: fractions.Fraction
    end: fractions.Fraction | None
    warnings: list[str]

    @abc.abstractmethod
    def pictures(self) -> Iterator[Picture]:
        """The pictures in order; each call starts from the beginning."""


def open_source(
    path: FilePath, *, fps: Number | None = None, start: Number | None = None, end: Number | None = None
) -> Source:
    """Opens a video file or a folder of frames and decodes its first picture.

    Args:
      path: a file that FFmpeg can decode, or a folder of images (see `IMAGE_SUFFIXES`) in the order of the numbers in
        their names.
      fps: frames a second of a folder; None is 24.
      start, end: seconds from the beginning; pictures that appear at or after `start` and before `end` are read.

    Returns:
      A `Source`.

    Raises:
      ValueError: no such file, not a video, no picture in it, HDR, or arguments that do not fit; one sentence.
    """
    path = pathlib.Path(path)
    start = fractions.Fraction(start or 0)
    end = None if end is None else fractions.Fraction(end)
    if start < 0 or (end is not None and end <= start):
        raise ValueError(f"`start` and `end` ask for the part {_part(start, end)}, expected 0 <= start < end")
    if path.is_dir():
        return ImageFolder(path, FOLDER_RATE if fps is None else fractions.Fraction(fps), start, end)
    if fps is not None:
        raise ValueError(f"`fps` (={float(fps):g}) is the rate of a folder of frames, and {path} is none")
    if not path.is_file():
        raise ValueError(f"input {path}: no such file or folder")
    return VideoFile(path, start, end)


class VideoFile(Source):
    """The first video stream of a file that is not a cover picture; see `Source`.

    Attributes:
      has_sound_or_text: whether it has an audio or a subtitle stream.
    """

    _trouble: str | None

    def __init__(self, path: pathlib.Path, start: fractions.Fraction, end: fractions.Fraction | None) -> None:
        self.path, self.files, self.start, self.end, self.warnings = path, [path], start, end, []
        with self.open() as container:
            stream = video_stream(container, path)
            first = next(self._decode(container, stream), None)
            if first is None:
                raise ValueError(f"input {path}: no frame of at most {MAX_PIXELS:,} pixels can be decoded")
            self._layout = Layout.of(first, path)
            self.time_base = stream.time_base  # type: ignore[assignment]  # FFmpeg gives every stream one
            self.rate = stream.average_rate or stream.guessed_rate or FOLDER_RATE
            self._tick = max(1, round(1 / self.rate / self.time_base))
            self._origin = round(fractions.Fraction(container.start_time or 0, av.time_base) / self.time_base)
            self._begin = self._origin + math.ceil(start / self.time_base)
            self.zero = self._begin * self.time_base
            self._length = duration = _length(stream)
            if not duration and container.duration:
                duration = fractions.Fraction(container.duration, av.time_base)
            self.frames = stream.frames or (round(duration * self.rate) if duration else None)
            if self.frames and duration and (start or end is not None):
                part = min(duration, duration if end is None else end) - start
                self.frames = max(1, round(self.frames * part / duration))
            self.has_sound_or_text = any(other.type in ("audio", "subtitle") for other in container.streams)
            self._note(container, stream, first)
            ratio = stream.sample_aspect_ratio or fractions.Fraction(1)
        self.width, self.height = self._layout.upright_size
        self.pixels, self.tags = self._layout.pixels, self._layout.tags
        self.sample_aspect_ratio = 1 / ratio if self._layout.turned else ratio
        if (start or end is not None) and next(self.pictures(), None) is None:
            raise ValueError(f"input {path}: no frames {_part(start, end)}")

    def open(self) -> av.container.InputContainer:
        """The file as PyAV's container, for its other streams, chapters and titles; close it.

        Raises:
          ValueError: FFmpeg finds no format that it could be.
        """
        try:
            return av.open(f"file:{self.path}", options=_ONE_FILE, metadata_errors="replace")
        except (av.error.FFmpegError, OSError) as error:
            raise ValueError(f"input {self.path}: not a video that FFmpeg can read ({_reason(error)})") from None

    def pictures(self) -> Iterator[Picture]:
        """See `Source`. A damaged file gives what decodes, and a warning."""
        previous, until, longest = None, self._origin, self._tick
        stop = None if self.end is None else self._origin + math.ceil(self.end / self.time_base)
        for frame in self._frames():
            time = frame.pts
            if time is None:
                time = self._origin if previous is None else previous + self._tick
            elif previous is not None and time <= previous:
                time = previous + 1
            if stop is not None and time >= stop:
                break
            if previous is not None:
                longest = max(longest, time - previous)
            previous, until = time, time + (frame.duration or self._tick)
            if time >= self._begin or not self.start:
                yield Picture(self._layout.read(frame), time - self._begin, frame.duration or None)
        else:
            if self._length and self._length - until * self.time_base > 2 * longest * self.time_base:
                end, length = float(until * self.time_base), float(self._length)
                self._trouble = f"its video ends after {end:.2f} of {length:.2f} s"
        if self._trouble:
            self._warn(f"{self.path} is damaged or cut off: {self._trouble}; what can be decoded is taken")

    def _frames(self):
        """All decoded frames from a key frame at or before the beginning on."""
        # Where a file has no index FFmpeg may land between key frames, and lose what comes before the next one.
        ten_seconds = round(10 / self.time_base)
        for target in (self._begin, self._begin - ten_seconds) if self.start else ():
            with self.open() as container, contextlib.suppress(av.error.FFmpegError):
                stream = video_stream(container, self.path)
                container.seek(target, stream=stream)
                frames = self._decode(container, stream)
                first = next(frames, None)
                if first is not None and first.key_frame and first.pts is not None and first.pts <= self._begin:
                    yield first
                    yield from frames
                    return
        with self.open() as container:
            yield from self._decode(container, video_stream(container, self.path))

    def _decode(self, container, stream):
        self._trouble, stream.thread_type, stream.codec_context.options = None, "AUTO", _DECODER
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                for frame in packet.decode():
                    if frame.is_corrupt:
                        self._trouble = "parts of frames are missing"
                    yield frame
            except av.error.EOFError:
                return
            except av.error.FFmpegError as error:
                self._trouble = _reason(error)
                if not isinstance(error, av.error.InvalidDataError):
                    return

    def _warn(self, sentence):
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def _note(self, container, stream, first):
        others = [other for other in container.streams.video if other is not stream and not _is_cover(other)]
        if others:
            self._warn(f"{self.path} has {1 + len(others)} video streams: the first is taken")
        if first.interlaced_frame:
            self._warn(f"{self.path} is interlaced: its frames are upscaled as they are, deinterlace it first")
        if self._layout.alpha or stream.metadata.get("alpha_mode") == "1":
            self._warn(f"{self.path} has an alpha channel, which is left out")


class ImageFolder(Source):
    """A folder with one image a frame, at a constant rate; see `Source`."""

    def __init__(
        self, path: pathlib.Path, fps: fractions.Fraction, start: fractions.Fraction, end: fractions.Fraction | None
    ) -> None:
        if fps <= 0:
            raise ValueError(f"`fps` (={float(fps):g}) must be above 0")
        self.path, self.start, self.end, self.rate, self.warnings = path, start, end, fps, []
        found = (file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
        images = sorted((file for file in found if not file.name.startswith(".")), key=frame_order)
        last = len(images) if end is None else -(-end * fps // 1)
        self.files = images[-(-start * fps // 1) : last]
        if not self.files:
            where = f" {_part(start, end)}" if images else ""
            raise ValueError(f"input {path}: no frames in this folder{where} ({', '.join(IMAGE_SUFFIXES)})")
        self.time_base, self.frames, self.zero = 1 / fps, len(self.files), start
        first = self._decode(self.files[0])
        self._layout = Layout.of(first, self.files[0], still=True)
        if self._layout.alpha:
            self.warnings.append(f"{path} has an alpha channel, which is left out")
        self.width, self.height = self._layout.upright_size
        self.pixels, self.tags = self._layout.pixels, self._layout.tags
        self.sample_aspect_ratio = fractions.Fraction(1)

    def pictures(self) -> Iterator[Picture]:
        """See `Source`; raises ValueError for an image that can't be read or differs from the first in size."""
        for time, path in enumerate(self.files):
            frame = self._decode(path)
            layout = Layout.of(frame, path, still=True)
            if (layout.upright_size, layout.pixels) != (self._layout.upright_size, self._layout.pixels):
                raise ValueError(f"frame {path}: is {layout}, expected {self._layout} as {self.files[0].name}")
            yield Picture(layout.read(frame), time, 1)

    def _decode(self, path):
        try:
            # By bytes and not by name, in which FFmpeg would take %d for a number.
            with av.open(io.BytesIO(path.read_bytes()), "r", options=_ONE_FILE) as container:
                container.streams.video[0].codec_context.options = _DECODER
                return next(container.decode(video=0))
        except (av.error.FFmpegError, OSError, IndexError, StopIteration) as error:
            raise ValueError(
                f"frame {path}: not a readable image of at most {MAX_PIXELS:,} pixels ({_reason(error)})"
            ) from None


def video_stream(container: av.container.InputContainer, path: FilePath) -> av.video.VideoStream:
    """The first video stream that is no cover picture; raises ValueError if there is none."""
    stream = next((stream for stream in container.streams.video if not _is_cover(stream)), None)
    if stream is None:
        raise ValueError(f"input {path}: no video in it")
    return stream


def _is_cover(stream):
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _part(start, end):
    return f"from {float(start):g} s to {'the end' if end is None else f'{float(end):g} s'}"


def _length(stream):
    """When a stream ends, in seconds, as its file says; None where it does not."""
    if "matroska" not in stream.container.format.name:
        return stream.duration and stream.duration * stream.time_base
    tag = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))
    return tag and 3600 * int(tag[1]) + 60 * int(tag[2]) + fractions.Fraction(tag[3])


def _reason(error):
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
