"""The network at work on a stream of pictures; for files see `msitf_jax.video.job`."""

import contextlib
import math
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeAlias, get_args

import jax
import numpy as np
import numpy.typing as npt
import psutil

from msitf_jax import methods
from msitf_jax.atomic import FilePath
from msitf_jax.model.precision import ComputeDtype
from msitf_jax.video import scenes, tiles, windows
from msitf_jax.video.color import RGB, FloatRGB, Pixels
from msitf_jax.video.reader import Picture
from msitf_jax.video.windows import CutRule

DEFAULT_WEIGHTS = "msitf-small"
Scale: TypeAlias = Literal[4, 2]
SCALES: tuple[Scale, ...] = get_args(Scale)
_TYPES = (np.uint8, np.uint16, np.float32)
OVERHEAD = 192 << 20  # bytes that a run takes beside what the compiler plans, such as the threads' own


class Upscaler:
    """Four times the size and twice the frame rate, for frames in arrays.

    Compiled once for the size of frames it first sees, and again for another.

    Args:
      weights: "msitf-small", a weight file, "trilinear", "bicubic" or "flow"; see `msitf_jax.methods.method`.
      scale: 4, or 2: what the network gives, each 2x2 pixels averaged.
      interpolate: give frames between; False gives as many frames as there were.
      scenes: find scene cuts and show no mixture across them.
      cut: what is shown between the frames beside a cut: "repeat" the earlier one again, "hold" nothing.
      memory: bytes that the network may take, None for what is free on the device; frames that need more are cut into
        tiles that fade into one another.
      compute_dtype: "float32" or "bfloat16".

    Raises:
      ValueError: an argument that is none of these, or weights that can't be read; named.

    >>> import numpy as np
    >>> upscaler = Upscaler("trilinear")
    >>> upscaler(np.zeros((3, 6, 8, 3), np.uint8)).shape
    (5, 24, 32, 3)
    >>> frames = (np.full((6, 8, 3), level, np.uint8) for level in range(100))
    >>> sum(1 for frame in upscaler.stream(frames))
    199
    """

    def __init__(
        self,
        weights: FilePath = DEFAULT_WEIGHTS,
        *,
        scale: Scale = 4,
        interpolate: bool = True,
        scenes: bool = True,
        cut: CutRule = "repeat",
        memory: int | None = None,
        compute_dtype: ComputeDtype = "float32",
    ) -> None:
        if scale not in SCALES:
            raise ValueError(f"`scale` (={scale!r}) must be 4 or 2")
        if cut not in windows.CUT_RULES:
            raise ValueError(f"`cut` (={cut!r}) must be one of {', '.join(windows.CUT_RULES)}")
        if memory is not None and memory <= 0:
            raise ValueError(f"`memory` (={memory!r}) must be a number of bytes above 0, or None")
        self.scale, self.interpolate, self.scenes, self.cut, self.memory = scale, interpolate, scenes, cut, memory
        self._method = methods.method(weights, compute_dtype)
        self._engines: dict[Any, Engine] = {}  # by size, and what the integers mean

    def __call__(self, frames: Iterable[npt.ArrayLike]) -> npt.NDArray[Any]:
        """`[N, h, w, 3]` frames -> `[2N-1, 4h, 4w, 3]` of the same type; see `stream`."""
        return np.stack(list(self.stream(frames)))

    def stream(self, frames: Iterable[npt.ArrayLike]) -> Iterator[npt.NDArray[Any]]:
        """Upscales frame by frame, holding a few of them whatever their number.

        Args:
          frames: an iterable of `[h, w, 3]` RGB arrays of one size: uint8, uint16, or float32 in 0..1.

        Yields:
          `[4h, 4w, 3]` arrays of the same type, float32 clipped to 0..1.

        Raises:
          ValueError: no frames, or one of another shape or type; named.
        """
        checked = _checked(frames)
        first = next(checked, None)
        if first is None:
            raise ValueError("`frames` has no frame in it, expected at least one")
        kind = FloatRGB() if first.dtype == np.float32 else RGB(8 * first.dtype.itemsize)
        engine = self.engine(first.shape[:2], kind, kind)
        read, first = [first], None  # or it would be held to the end
        pictures = (Picture(frame, time) for time, frame in enumerate(_with(read, checked)))
        for window in self.plan(pictures, kind):
            for pixels, _ in engine.run(window):
                yield pixels.copy()

    def plan(self, pictures: Iterable[Picture], kind: Pixels) -> Iterator[windows.Window]:
        """The windows that the network is run on.

        Args:
          pictures: `reader.Picture`s.
          kind: what their integers mean, see `msitf_jax.video.color`.

        Returns:
          An iterator of `windows.Window`.
        """
        stills = windows.stills(pictures)
        if self.scenes:
            stills = scenes.mark_cuts(stills, kind)
        return windows.windows(stills, interpolate=self.interpolate, cut=self.cut)

    def engine(self, size: tuple[int, int], read: Pixels, write: Pixels) -> "Engine":
        """Compiles the network for frames of one size, the first time.

        Args:
          size: (height, width) of the input.
          read, write: what the integers of input and output mean, see `msitf_jax.video.color`.

        Returns:
          An `Engine`.

        Raises:
          ValueError: `memory` is too little for even the smallest tile.
        """
        key = *size, read, write
        if key not in self._engines:
            self._engines[key] = self._new_engine(size, read, write)
        return self._engines[key]

    def _new_engine(self, size, read, write):
        budget = free_memory() if self.memory is None else self.memory
        margin, step = self._method.margin, self._method.alignment
        per_pixel: float = self._method.bytes_per_pixel
        compiled: dict[tuple[int, int], jax.stages.Compiled] = {}
        taken: dict[tuple[int, ...], int] = {}

        def needs(*tile):
            height, width = (-(-side // step) * step for side in tile)
            return OVERHEAD + taken.get(tile, per_pixel * height * width)

        while True:
            grid = tiles.choose(size[0], size[1], lambda *tile: needs(*tile) <= budget, margin=margin, alignment=step)
            if grid is None:
                least = needs(*(tiles.smallest(side, margin, step) for side in size)) / 2**20
                raise ValueError(
                    f"`memory` (={budget // 2**20} MiB) must be at least about {math.ceil(least)} MiB for these weights"
                )
            tile = grid.tile_height, grid.tile_width
            if tile in compiled:
                return Engine(grid, compiled[tile], self._method.state, self.scale, write)
            compiled[tile] = self._compile(tile, read)
            plan: Any = compiled[tile].memory_analysis()
            guess = needs(*tile) - OVERHEAD
            taken[tile] = plan.temp_size_in_bytes + plan.output_size_in_bytes + plan.argument_size_in_bytes
            per_pixel *= taken[tile] / guess

    def _compile(self, tile, read):
        def run(state, clip):
            out = self._method.forward(state, read.to_rgb(clip)[None])[0]
            if self.scale == 2:
                length, height, width, _ = out.shape
                out = out.reshape(length, height // 2, 2, width // 2, 2, 3).mean((2, 4))
            return out

        clip = jax.ShapeDtypeStruct((windows.LENGTH, *tile, 3), read.dtype)
        return jax.jit(run).lower(self._method.state, clip).compile()


class Engine:
    """The compiled network and the tiles that it is run on; `Upscaler.engine` makes one.

    Attributes:
      grid: `tiles.Grid`.
    """

    def __init__(
        self, grid: tiles.Grid, compiled: jax.stages.Compiled, state: Any, scale: Scale, write: Pixels
    ) -> None:
        self.grid = grid
        self._compiled, self._state, self._scale = compiled, state, scale
        self._finish = jax.jit(write.from_rgb)

    def run(self, window: windows.Window) -> Iterator[tuple[npt.NDArray[Any], int]]:
        """`windows.Window` -> (`[h, w, 3]` array, time in half ticks) for every output that is shown, in order."""
        shown = sorted({index for index, _ in window.outputs})
        bands = self.grid.bands(np.stack(window.clip), lambda clip: self._compiled(self._state, clip), self._scale)
        parts = [[np.asarray(self._finish(band[index])) for index in shown] for band in bands]
        frames = dict(zip(shown, (np.concatenate(rows) for rows in zip(*parts, strict=True)), strict=True))
        for index, time in window.outputs:
            yield frames[index], time


def upscale(frames: Iterable[npt.ArrayLike], weights: FilePath = DEFAULT_WEIGHTS, **options: Any) -> npt.NDArray[Any]:
    """Upscales frames in one call; see `Upscaler` for the arguments.

    Args:
      frames: `[N, h, w, 3]` RGB, or an iterable of frames: uint8, uint16, or float32 in 0..1.

    Returns:
      `[2N-1, 4h, 4w, 3]` of the same type.

    >>> import numpy as np
    >>> upscale(np.zeros((4, 5, 7, 3), np.uint8), weights="bicubic").shape
    (7, 20, 28, 3)
    """
    return Upscaler(weights, **options)(frames)


def _with(read, frames):
    yield read.pop()
    yield from frames


def _checked(frames):
    expected = None
    for index, frame in enumerate(frames):
        frame = np.array(frame)  # a copy, since whoever yields it may fill it anew
        if frame.ndim != 3 or frame.shape[2] != 3 or not frame.size or frame.dtype not in _TYPES:
            raise ValueError(
                f"`frames[{index}]` is {frame.dtype} {list(frame.shape)}, expected uint8, uint16 or float32 [h, w, 3]"
            )
        if not np.isfinite(frame).all():
            raise ValueError(f"`frames[{index}]` holds NaN or infinite numbers, expected 0..1")
        found = f"{frame.dtype} {list(frame.shape)}"
        expected = expected or found
        if found != expected:
            raise ValueError(f"`frames[{index}]` is {found}, expected {expected} as the first")
        yield frame


def free_memory() -> int:
    """Bytes that the network may take: most of what the device has left, of a CPU its machine and control group."""
    stats = jax.local_devices()[0].memory_stats()
    if stats:
        return int(0.9 * (stats["bytes_limit"] - stats["bytes_in_use"]))
    free = [psutil.virtual_memory().available]
    group = pathlib.Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # no such limit, or the word max
        free.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return int(0.7 * min(free))
