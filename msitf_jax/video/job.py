"""One video upscaled, from file to file, in pieces that outlast an interruption.

What is kept on disk meanwhile: `msitf_jax.video.job_folder`.
"""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import shutil
import signal
import sys
import threading
import time
from typing import Any, Final

import cv2
import numpy.typing as npt
from tqdm import tqdm

from msitf_jax import atomic, methods
from msitf_jax import weights as weight_files
from msitf_jax.atomic import FilePath
from msitf_jax.model.precision import ComputeDtype
from msitf_jax.video import compare as comparison
from msitf_jax.video import job_folder, reader, sinks, writer
from msitf_jax.video.color import to_8_bits
from msitf_jax.video.threads import WriteBehind, read_ahead
from msitf_jax.video.upscaler import DEFAULT_WEIGHTS, Scale, Upscaler
from msitf_jax.video.windows import CutRule

COMPARED = 6  # pictures on the comparison page
WINDOWS_AHEAD, FRAMES_BEHIND = 2, 8
DEFAULT_DEGRADATION: Final = "bi"  # what people's downscaled video is nearest to
_END_OF_WINDOW = object()


class Interrupted(KeyboardInterrupt):
    """The work was asked to stop, and can be gone on with."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """What was done.

    Attributes:
      frames_in, frames_out: how many.
      seconds: that this run took.
      text: all of it, for people.
    """

    frames_in: int
    frames_out: int
    seconds: float
    text: str


def run(
    source: FilePath,
    output: FilePath,
    *,
    weights: FilePath = DEFAULT_WEIGHTS,
    degradation: str = DEFAULT_DEGRADATION,
    compute_dtype: ComputeDtype = "float32",
    scale: Scale = 4,
    interpolate: bool = True,
    cut: CutRule = "repeat",
    memory: int | None = None,
    fps: reader.Number | None = None,
    start: reader.Number | None = None,
    end: reader.Number | None = None,
    codec: str | None = None,
    crf: float | None = None,
    pix_fmt: str | None = None,
    compare: FilePath | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Summary:
    """All of `upscale.py`: checks all that can be known before, then upscales, or goes on with what it began.

    Args:
      source: a video file or a folder of frames, see `reader.open_source`.
      output: a file (see `writer.CONTAINERS`), or a folder for PNG frames: a name without an ending.
      weights: "msitf-small", a weight file, "trilinear", "bicubic" or "flow"; see `msitf_jax.methods.method`.
      degradation: what weights must have been made for, if they say; see `input_pipeline.degradation`.
      compute_dtype, scale, interpolate, cut, memory: see `Upscaler`.
      fps, start, end: see `reader.open_source`.
      codec, crf, pix_fmt: see `writer.choose_encoding`.
      compare: an HTML file to write, with a slider between plain resize and result, or None.
      overwrite: replace an output that exists.
      progress: show a bar and what is going on, on standard error.

    Returns:
      A `Summary`.

    Raises:
      ValueError: whatever is wrong with the arguments and the files they name: before anything is computed, but for
        frames of a folder that turn out to be damaged, or unfinished work that holds more than there is.
      OSError: a file can't be read or written; what is finished stays, and the same call goes on.
      Interrupted: Ctrl-C or SIGTERM; likewise.
    """
    begun = time.monotonic()
    say = (lambda text: print(text, file=sys.stderr)) if progress else (lambda text: None)
    output = pathlib.Path(os.path.abspath(output))
    _check_paths(source, output, overwrite, compare)
    _check_degradation(weights, degradation)
    video = reader.open_source(source, fps=fps, start=start, end=end)
    sink = _sink(video, output, scale=scale, interpolate=interpolate, codec=codec, crf=crf, pix_fmt=pix_fmt)
    upscaler = Upscaler(
        weights, scale=scale, interpolate=interpolate, cut=cut, memory=memory, compute_dtype=compute_dtype
    )
    _check_space(video, output, scale)
    known = [*video.warnings, *sink.warnings]
    for sentence in known:
        say(f"warning: {sentence}")
    if weights in methods.BASELINES:
        say(f"{weights} only resizes: no network is used")
    else:
        say(f"preparing the network for frames of {video.width}x{video.height}")
    engine = upscaler.engine((video.height, video.width), video.pixels, sink.pixels)
    if len(engine.grid) > 1:
        say(f"{len(engine.grid)} tiles of {engine.grid.tile_width}x{engine.grid.tile_height} a frame, for the memory")

    settings = {
        "input": job_folder.identity(video),
        "weights": _weights_identity(weights),
        "fps": fps and str(fps),
        "start": start and str(start),
        "end": end and str(end),
        "compute_dtype": compute_dtype,
        "scale": scale,
        "interpolate": interpolate,
        "cut": cut,
        "memory": memory,
        "compare": compare is not None,
        "output": sink.settings,
    }
    with job_folder.opened(output, settings) as folder:
        work = _Work(video, upscaler, engine, sink, folder, compare is not None)
        work.upscale(progress)
        sink.assemble(2 * work.end)
        if compare is not None:
            # By names without folders: such a page is shown around.
            notes = [*_in_and_out(work, video.path.name, output.name), f"weights: {pathlib.Path(weights).name}"]
            comparison.write_page(compare, work.compared(), title=video.path.name, notes=notes)
        sink.place()
        shutil.rmtree(folder)
    seconds = time.monotonic() - begun
    speed = f"{seconds:.1f} s, {work.frames_out / seconds:.2f} frames/s{_peak_memory()}"
    for sentence in video.warnings:
        if sentence not in known:
            say(f"warning: {sentence}")
    text = "\n".join([*_in_and_out(work, video.path, output), speed])
    return Summary(work.frames_in, work.frames_out, seconds, text)


class _Work:
    """The middle of a job: from the source's pictures to the sink's frames."""

    def __init__(self, video, upscaler, engine, sink, folder, compare):
        self.video, self.upscaler, self.engine, self.sink, self.folder = video, upscaler, engine, sink, folder
        self.frames_in, self.frames_out, self.end = 0, 0, 0
        frames = video.frames
        self.expected = frames and (2 * frames - 1 if upscaler.interpolate else frames)
        self._compared = _spread(self.expected) if compare else ()

    def upscale(self, progress):
        done = self.sink.open(self.folder)
        with (
            _stop_on_signals() as stop,
            tqdm(total=self.expected, initial=done, unit="frame", disable=not progress, smoothing=0.1) as bar,
            contextlib.closing(
                read_ahead(self.upscaler.plan(self._counted(), self.video.pixels), WINDOWS_AHEAD)
            ) as plan,
        ):
            behind = WriteBehind(self._write, FRAMES_BEHIND)
            try:
                for window in plan:
                    if stop.is_set():
                        raise Interrupted(
                            f"stopped after {self.frames_out} of about {self.expected or 'unknown'} frames; "
                            "the same command goes on"
                        )
                    first, self.frames_out = self.frames_out, self.frames_out + len(window.outputs)
                    if self.frames_out <= done:
                        continue
                    for index, (pixels, when) in enumerate(self.engine.run(window), first):
                        if index >= done:
                            self._compare(index, window, index - first, pixels)
                            behind.put((pixels, when))
                            bar.update()
                    behind.put(_END_OF_WINDOW)
            except BaseException:
                with contextlib.suppress(Exception):
                    behind.close()
                    self.sink.flush()
                self.sink.abandon()
                raise
            behind.close()
            self.sink.flush()
        if done > self.frames_out:
            raise ValueError(
                f"{self.folder}: holds {done} frames, expected at most {self.frames_out}; delete it to start anew"
            )

    def _counted(self):
        previous, tick = None, max(1, round(1 / self.video.rate / self.video.time_base))
        for picture in self.video.pictures():
            self.frames_in += 1
            lasts = picture.duration or (tick if previous is None else picture.time - previous)
            self.end, previous = picture.time + lasts, picture.time
            yield picture

    def _write(self, item):
        if item is _END_OF_WINDOW:
            self.sink.end_window()
        else:
            self.sink.write(*item)

    def _compare(self, index, window, place, pixels):
        if index not in self._compared:
            return
        output, when = window.outputs[place]
        small = to_8_bits(window.clip[output // 2], self.video.pixels)
        result = to_8_bits(pixels, self.sink.pixels)
        plain: npt.NDArray[Any] = cv2.resize(small, result.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        (self.folder / "compare").mkdir(exist_ok=True)
        for name, picture in (("plain", plain), ("result", result)):
            path = self.folder / "compare" / f"{index:08}.{when}.{output % 2}.{name}.png"
            atomic.write_image(path, picture)

    def compared(self):
        """The pictures of the comparison page: [(caption, plain, result)]."""
        pictures = []
        for path in sorted((self.folder / "compare").glob("*.plain.png")):
            index, when, between, *_ = path.name.split(".")
            seconds = float(int(when) * self.video.time_base / 2)
            kind = "between two frames of the input, beside the earlier one" if int(between) else "a frame of the input"
            pair = [
                cv2.imread(str(path.with_name(path.name.replace("plain", name))))[..., ::-1]  # type: ignore[index]  # ours
                for name in ("plain", "result")
            ]
            pictures.append((f"Frame {int(index) + 1} at {seconds:.2f} s: {kind}", *pair))
        return pictures


def _sink(video, output, *, scale, interpolate, codec, crf, pix_fmt):
    if not output.suffix:
        for name, value in (("codec", codec), ("crf", crf), ("pix_fmt", pix_fmt)):
            if value is not None:
                raise ValueError(f"`{name}` (={value}) is for video files, and {output} is a folder of PNG frames")
        return sinks.FolderSink(video, output)
    rate = video.rate * (2 if interpolate else 1)
    encoding = writer.choose_encoding(output, video, scale=scale, rate=rate, codec=codec, crf=crf, pixel_format=pix_fmt)
    return sinks.VideoSink(video, output, encoding)


def _check_paths(source, output, overwrite, compare):
    if os.path.realpath(source) == os.path.realpath(output):
        raise ValueError(f"output {output}: is the input, expected another name")
    if output.exists():
        if bool(output.suffix) == output.is_dir():
            raise ValueError(
                f"output {output}: is {'a folder' if output.is_dir() else 'a file'}, expected another name"
            )
        if not overwrite and not (output.is_dir() and not any(output.iterdir())):
            raise ValueError(f"output {output}: exists already, expected a new name, or --overwrite")
    if output.is_dir() and pathlib.Path(os.path.realpath(source)).is_relative_to(os.path.realpath(output)):
        raise ValueError(f"output {output}: holds the input, expected another folder")
    for name, path in (("output", output), ("compare", compare and pathlib.Path(os.path.abspath(compare)))):
        if path and not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
            raise ValueError(f"{name} {path}: its folder must exist and be writable")
    if output.is_dir() and (others := [path.name for path in output.iterdir() if not sinks.is_frame(path)]):
        raise ValueError(f"output {output}: holds {min(others)}, expected nothing but frames of an earlier output")
    if compare is not None and pathlib.Path(compare).suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"`compare` (={str(compare)!r}) must be a name that ends in .html")
    if compare is not None and os.path.lexists(compare) and not overwrite:
        raise ValueError(f"`compare` (={str(compare)!r}): exists already, expected a new name, or --overwrite")


def _weights_identity(weights):
    if weights in methods.BASELINES:
        return weights
    return hashlib.sha256(weight_files.find(weights).read_bytes()).hexdigest()


def _check_degradation(weights, degradation):
    made_for = methods.made_for(weights)
    if made_for not in (None, degradation):
        raise ValueError(
            f"weights {weights}: made for frames degraded by {made_for}, expected {degradation}; "
            f"--degradation={made_for} takes them all the same"
        )


def _check_space(video, output, scale):
    """Refuses what can't succeed: an output is hardly smaller than the input, or than a byte a pixel as PNG frames."""
    if output.suffix:
        needed = 2 * sum(path.stat().st_size for path in video.files)  # segments, and the joined file
    else:
        needed = (video.frames or 1) * video.width * video.height * scale**2
    free = shutil.disk_usage(output.parent).free
    if free < needed:
        raise ValueError(
            f"output {output}: {free / 1e6:,.0f} MB are free there, expected at least {needed / 1e6:,.0f} MB"
        )


@contextlib.contextmanager
def _stop_on_signals():
    """An event that Ctrl-C and SIGTERM set; a second one ends the program at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before: dict[int, Any] = {}

    def ask(number, frame):
        stop.set()
        print("\nstopping after this window; once more to stop at once", file=sys.stderr)
        for number, handler in before.items():
            signal.signal(number, handler)

    for which in (signal.SIGINT, signal.SIGTERM):
        before[which] = signal.signal(which, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _spread(expected):
    """Which frames the comparison page shows, in turn at and between the input's times; the first, if any, is there."""
    if not expected:
        return {0, 25, 100, 401, 1600, 6401}
    return {min(expected - 1, int(i * expected / COMPARED) // 2 * 2 + i % 2) for i in range(COMPARED)}


def _in_and_out(work, source, output):
    """Two lines on what was read and written, under these names."""
    video, scale = work.video, work.upscaler.scale
    rate = float(video.rate)
    return [
        f"in:  {work.frames_in} frames, {video.width}x{video.height}, {rate:.4g} frames/s, {source}",
        f"out: {work.frames_out} frames, {scale * video.width}x{scale * video.height}, "
        f"{(2 if work.upscaler.interpolate else 1) * rate:.4g} frames/s, {output}",
    ]


def _peak_memory():
    try:
        import resource
    except ImportError:  # Windows
        return ""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f", at most {peak / 1e6:,.0f} MB of memory"
