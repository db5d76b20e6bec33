"""What a training run tells: metrics.jsonl, TensorBoard events, and the line of progress that people read."""

import collections
import contextlib
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self, SupportsFloat, TextIO

import cv2
import numpy as np
import numpy.typing as npt
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

from msitf_jax import atomic
from msitf_jax.atomic import FilePath

_EVENTS = "events.out.tfevents."  # TensorBoard finds files by this name and reads them in alphabetical order
_RECENT = 10  # intervals between updates that count for the speed


class RunLog:
    """Everything logged of a run: `workdir/metrics.jsonl` and TensorBoard events beside it.

    A run that was killed and goes on from its checkpoint leaves the metrics.jsonl that it would have left
    uninterrupted: what was logged beyond the checkpoint is dropped, because those steps are done again. To TensorBoard
    it is hidden in the same way.

    Attributes:
      path: of metrics.jsonl.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as workdir, RunLog(workdir) as log:
    ...     log.scalars(120, {"train/loss": 4321.5, "train/psnr": float("inf")})
    ...     read_metrics(log.path)
    [{'step': 120, 'train/loss': 4321.5, 'train/psnr': None}]
    """

    def __init__(self, workdir: FilePath, *, step: int = 0) -> None:
        """Opens the log, making the folder where it is absent.

        Args:
          workdir: the run's folder.
          step: the last step that is done. Logged lines beyond it are dropped, and a last line that a kill cut off; at
            0 nothing is done yet, so all are.

        Raises:
          OSError: the folder or a file in it can't be written to; named.
          ValueError: metrics.jsonl holds something else; named.
        """
        workdir = pathlib.Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        self.path = workdir / "metrics.jsonl"
        _drop_beyond(self.path, step)
        # A number, not the time as usual: runs restarted within a second, or after the clock was set back, stay apart.
        numbers = [path.name.removeprefix(_EVENTS) for path in workdir.glob(f"{_EVENTS}*")]
        last = max((int(number) for number in numbers if number.isdecimal()), default=0)
        self._events_path = workdir / f"{_EVENTS}{last + 1:06d}"
        # Not tensorboardX's SummaryWriter: its thread dies on a full disk, and the run then waits for it for ever.
        self._events = RecordWriter(str(self._events_path))
        restart = SessionLog(status=SessionLog.START)  # hides what earlier files hold from this step on
        try:
            self._write_events(Event(file_version="brain.Event:2"), Event(step=step and step + 1, session_log=restart))
        except OSError:
            with contextlib.suppress(OSError):
                self.close()
            raise

    def scalars(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Logs numbers: a line of metrics.jsonl, on disk when this returns, and TensorBoard scalars.

        Args:
          step: how many steps are done.
          values: `{"train/loss": number, ...}`, numbers or arrays of one; NaN and infinities become null. Equal values
            give equal lines: no time is added, and names are sorted.

        Raises:
          OSError: the file can't be written to or the disk is full; named, and no half line is left.
          ValueError: a value that is no number.
        """
        step, numbers = int(step), {}
        for name in sorted(values):
            try:
                numbers[name] = float(values[name])
            except (TypeError, ValueError):
                raise ValueError(f"`values[{name!r}]` (={values[name]!r}) must be a number") from None
        if "step" in numbers:
            raise ValueError(f"`values['step']` (={values['step']!r}): `step` is an argument of its own")
        finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        _append(self.path, json.dumps({"step": step} | finite, allow_nan=False).encode() + b"\n")
        summary = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        self._write_events(Event(step=step, summary=Summary(value=summary)))

    def images(self, step: int, pictures: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        """Shows pictures in TensorBoard.

        Args:
          step: how many steps are done.
          pictures: `{"eval/output": [H, W, 3] uint8 RGB, ...}`.

        Raises:
          OSError: the file can't be written to or the disk is full; named.
          ValueError: a picture of another shape or type.
        """
        summary = []
        for name, picture in sorted(pictures.items()):
            picture = checked_picture(name, picture)
            height, width, channels = picture.shape
            content = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
            image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=content)
            summary.append(Summary.Value(tag=name, image=image))
        self._write_events(Event(step=int(step), summary=Summary(value=summary)))

    def close(self) -> None:
        """Writes what is still held back and closes the file of events; raises OSError, which names it."""
        with naming(self._events_path):
            self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write_events(self, *events):
        with naming(self._events_path):
            for event in events:
                event.wall_time = time.time()
                self._events.write(event.SerializeToString())
            self._events.flush()


def read_metrics(path: FilePath) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, whether its run is finished, killed or under way.

    Args:
      path: the file.

    Returns:
      `[{"step": int, name: float or None, ...}, ...]` in the order logged; a last line that is cut off is left out.

    Raises:
      OSError: the file can't be read.
      ValueError: a line that is something else; named.
    """
    return [record for _, record in _lines(pathlib.Path(path))]


def checked_picture(name: str, picture: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """A picture as an array; raises ValueError, which names it, unless it is `[H, W, 3]` uint8."""
    picture = np.asarray(picture)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ValueError(f"picture {name!r}: is {picture.dtype} {picture.shape}, expected uint8 [H, W, 3]")
    return picture


@contextlib.contextmanager
def naming(path: FilePath) -> Iterator[None]:
    """Within it, an OSError that names no file, such as that of a full disk, names `path`."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from error


def _lines(path):
    """Pairs of a line as it stands and as it reads."""
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            yield line, record
        elif number < len(lines):  # else it is empty, or what a kill has left of a line
            raise ValueError(f"{path}, line {number}: is {line[:60]!r}, expected a JSON object with a step")


def _drop_beyond(path, step):
    if not path.exists():
        return
    kept = b"".join(line + b"\n" for line, record in _lines(path) if step and record["step"] <= step)
    if kept != path.read_bytes():
        with naming(path):
            atomic.write(path, lambda file: file.write(kept))


def _append(path, line):
    with naming(path), open(path, "ab", buffering=0) as file:
        start = file.seek(0, os.SEEK_END)
        try:
            while line:  # what a nearly full disk has room for is written before the error comes
                line = line[file.write(line) :]
        except OSError:
            file.truncate(start)
            raise


class ProgressLine:
    """A line on how far training is: rewritten in place on a terminal, printed line by line elsewhere.

    Speed is that of the last updates. What comes before the first update, compilation above all, is not counted, and
    time spent inside `paused()` counts only for the time left, in proportion. JAX runs ahead of the program: wait for
    the last step's results before `update` and `paused`, or its time is put down to what comes next. The speed itself
    is the attribute `clips_per_second`, None before the second update.

    >>> seconds = iter([0, 100])
    >>> with ProgressLine(150_000, clips_per_step=24, clock=lambda: next(seconds)) as progress:
    ...     progress.update(1, {"train/loss": 9876.54})
    ...     progress.update(101, {"train/loss": 4321, "train/psnr": 27.308, "train/learning_rate": 2e-4})
         1/150000  loss 9876.5
       101/150000  loss 4321.0  psnr 27.31 dB  lr 2.0e-04  24.0 clips/s  1 d 18 h left
    """

    def __init__(
        self,
        total: int,
        clips_per_step: int,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
          total: the step at which training ends.
          clips_per_step: the batch size.
          stream: a text file; None is standard output.
          clock: gives the time in seconds.
        """
        self.clips_per_second: float | None = None
        self._total, self._clips_per_step, self._clock = total, clips_per_step, clock
        self._stream = sys.stdout if stream is None else stream
        self._in_place = self._stream.isatty()
        self._shown = ""
        self._last: tuple[int, float] | None = None  # step and time of the last update
        # Steps and seconds between updates, pauses left out.
        self._recent: collections.deque[tuple[int, float]] = collections.deque(maxlen=_RECENT)
        self._pause, self._all_pauses, self._all_steps = 0.0, 0.0, 0

    def update(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Shows a step.

        Args:
          step: how many steps are done.
          values: numbers by name, of which "train/loss", "train/psnr" and "train/learning_rate" are shown.
        """
        now = self._clock()
        if self._last is None:
            self._last, self._pause = (step, now), 0.0
        elif step > self._last[0]:
            steps = step - self._last[0]
            self._recent.append((steps, now - self._last[1] - self._pause))
            self._all_steps += steps
            self._all_pauses += self._pause
            self._last, self._pause = (step, now), 0.0
        self._show(self._line(step, values))

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Around what is no training: evaluation, checkpoints, pictures."""
        start = self._clock()
        try:
            yield
        finally:
            self._pause += self._clock() - start

    def say(self, text: str) -> None:
        """Prints something else, above the line of progress where that stays in place."""
        shown = self._shown
        if self._in_place:
            self._stream.write("\r" + " " * len(shown) + "\r")
            self._shown = ""
        print(text, file=self._stream, flush=True)
        if self._in_place and shown:
            self._show(shown)

    def close(self) -> None:
        """Ends the line."""
        if self._shown:
            print(file=self._stream, flush=True)
            self._shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _show(self, line):
        if not self._in_place:
            print(line, file=self._stream, flush=True)
            return
        line = line[: max(_columns(self._stream) - 1, 0)]  # a line that wraps could not be written over
        self._stream.write("\r" + line.ljust(len(self._shown)))
        self._stream.flush()
        self._shown = line

    def _line(self, step, values):
        parts = [f"{step:>{len(str(self._total))}}/{self._total}"]
        if (loss := values.get("train/loss")) is not None:
            loss = float(loss)
            parts.append(f"loss {loss:.1f}" if loss >= 100 else f"loss {loss:#.4g}")
        if (psnr := values.get("train/psnr")) is not None:
            parts.append(f"psnr {float(psnr):.2f} dB")
        if (rate := values.get("train/learning_rate")) is not None:
            parts.append(f"lr {float(rate):.1e}")
        steps, seconds = map(sum, zip(*self._recent, strict=True)) if self._recent else (0, 0)
        if seconds > 0:
            self.clips_per_second = steps * self._clips_per_step / seconds
            parts.append(f"{_three_digits(self.clips_per_second)} clips/s")
            if step < self._total:
                per_step = seconds / steps + self._all_pauses / self._all_steps
                parts.append(f"{_duration((self._total - step) * per_step)} left")
        return "  ".join(parts)


def _columns(stream):
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):  # a terminal that has no size, such as a notebook's
        return 80


def _three_digits(number):
    return f"{number:.0f}" if number >= 100 else f"{number:#.3g}".rstrip(".")


def _duration(seconds):
    """The two largest units: 40 s, 12 min, 2 h 05 min, 3 d 04 h."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24:02} h"
