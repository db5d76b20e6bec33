"""Where upscaled frames go while a job is unfinished, and what becomes of them: a video file or a folder of PNG frames.

Both keep what is finished in the job's folder, where `open` counts it.
"""

import hashlib
import json
import os
import pathlib
import re
import shutil
from typing import Any

import numpy.typing as npt

from msitf_jax import atomic
from msitf_jax.atomic import FilePath
from msitf_jax.video import joining, writer
from msitf_jax.video.color import RGB, YCbCr
from msitf_jax.video.reader import Source, VideoFile

SEGMENT = 96  # frames after which a segment ends, with the window


class VideoSink:
    """Encodes into segments: `00000.nut`, and `00000.json` once it is whole, and so on.

    Attributes:
      pixels: what the integers that it is given mean.
      settings: what its output depends on, for JSON.
      warnings: sentences on what the output lacks.
    """

    pixels: RGB | YCbCr
    settings: dict[str, str]
    warnings: list[str]
    _folder: pathlib.Path  # from `open` on

    def __init__(self, source: Source, output: pathlib.Path, encoding: writer.Encoding) -> None:
        self.pixels = encoding.pixels
        self._output, self._encoding = output, encoding
        self._source = source if isinstance(source, VideoFile) else None  # of streams to copy
        self._copied = None if self._source is None else joining.choose_streams(self._source, output)
        self.warnings = list(self._copied.refused) if self._copied else []
        ratio = source.sample_aspect_ratio
        if ratio != 1 and encoding.sample_aspect_ratio == 1:
            self.warnings.append(f"{output}: pixels stay {ratio} as wide as high, unmarked, as with {encoding.codec}")
        self.settings = {"codec": encoding.codec, "pix_fmt": encoding.pixel_format, **encoding.options}
        self._segment: writer.SegmentWriter | None = None
        self._finished: list[pathlib.Path] = []

    def open(self, folder: FilePath) -> int:
        """Counts the frames in finished segments in a folder, and removes what was not finished or is damaged."""
        self._folder, frames = pathlib.Path(folder), 0
        while (held := _frames_of_segment(self._next)) is not None:
            frames += held
            self._finished.append(self._next)
        for path in self._folder.glob("[0-9]*"):
            if path.with_suffix(".nut") not in self._finished:
                path.unlink()
        return frames

    def write(self, pixels: npt.NDArray[Any], time: int) -> None:
        """Encodes `[H, W, 3]` integers, to be shown at `time`, in half ticks of the source."""
        if self._segment is None:
            self._segment = writer.SegmentWriter(self._next, self._encoding)
        self._segment.write(pixels, time)

    def end_window(self) -> None:
        """Says that work can be gone on with here."""
        if self._segment is not None and self._segment.frames >= SEGMENT:
            self.flush()

    def flush(self) -> None:
        """Finishes what there is."""
        if self._segment is None:
            return
        segment, self._segment = self._segment, None
        path = segment.close()
        note = json.dumps({"frames": segment.frames, "sha256": _digest(segment.frames, path)}).encode()
        atomic.write(path.with_suffix(".json"), lambda file: file.write(note))
        self._finished.append(path)

    def abandon(self) -> None:
        """Drops what is not finished."""
        if self._segment is not None:
            self._segment.abandon()
            self._segment = None

    def assemble(self, end: int) -> None:
        """Makes the output, still in the folder; the last frame ends at `end`, in half ticks."""
        joining.join(self._joined, self._output, self._finished, end, self._encoding, self._source, self._copied)

    def place(self) -> None:
        """Gives the output its name, in place of what has it."""
        os.replace(self._joined, self._output)

    @property
    def _next(self):
        return self._folder / f"{len(self._finished):05}.nut"

    @property
    def _joined(self):
        return self._folder / f"joined{self._output.suffix}"


def _frames_of_segment(path):
    """How many frames a segment holds; None if it is missing, unfinished or damaged."""
    try:
        note = json.loads(path.with_suffix(".json").read_bytes())
        return note["frames"] if note["sha256"] == _digest(note["frames"], path) else None
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _digest(frames, path):
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(str(frames).encode())
    return digest.hexdigest()


class FolderSink:
    """Writes `00000001.png` and so on, 8 bits a channel, or 16 where the source has more; see `VideoSink`."""

    pixels: RGB
    settings: dict[str, int]
    warnings: list[str]
    _frames: pathlib.Path  # from `open` on

    def __init__(self, source: Source, output: pathlib.Path) -> None:
        self.pixels = RGB(8 if source.pixels.bits == 8 else 16)
        self.settings = {"bits": self.pixels.bits}
        self.warnings = []
        if isinstance(source, VideoFile) and source.has_sound_or_text:
            self.warnings.append(f"{output} is a folder of frames: sound, subtitles and times are left out")
        if source.sample_aspect_ratio != 1:
            ratio = source.sample_aspect_ratio
            self.warnings.append(f"{output} is a folder of frames: pixels stay {ratio} as wide as high, unmarked")
        self._output, self._count = output, 0

    def open(self, folder: FilePath) -> int:
        """See `VideoSink`."""
        self._frames = pathlib.Path(folder) / "frames"
        self._frames.mkdir(exist_ok=True)
        names = {path.name for path in self._frames.iterdir()}
        while self._name(self._count) in names:
            self._count += 1
        for name in names - {self._name(index) for index in range(self._count)}:
            (self._frames / name).unlink()
        return self._count

    def write(self, pixels: npt.NDArray[Any], time: int) -> None:
        """See `VideoSink`; the time is not kept."""
        atomic.write_image(self._frames / self._name(self._count), pixels)
        self._count += 1

    def end_window(self) -> None:
        """See `VideoSink`; every frame is whole here."""

    flush = abandon = end_window

    def assemble(self, end: int) -> None:
        """See `VideoSink`; the frames lie there already."""

    def place(self) -> None:
        """See `VideoSink`."""
        if self._output.exists():
            shutil.rmtree(self._output)
        os.replace(self._frames, self._output)

    def _name(self, index):
        return f"{index + 1:08}.png"


def is_frame(path: pathlib.Path) -> bool:
    """Whether a file has such a name as `FolderSink` gives."""
    return re.fullmatch(r"\d{8}\.png", path.name) is not None
