"""Frames too large for the memory, in overlapping parts of one shape."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

BLEND = 8  # input pixels over which one tile fades into the next


@dataclasses.dataclass(frozen=True)
class Grid:
    """How a frame is cut into tiles of one shape, in input pixels.

    Attributes:
      height, width: of the frame.
      tile_height, tile_width: of each tile.
      margin: pixels beside a cut that are computed and thrown away.
      alignment: tiles begin at multiples of it.
    """

    height: int
    width: int
    tile_height: int
    tile_width: int
    margin: int
    alignment: int

    @property
    def rows(self) -> list[int]:
        """Where tiles begin vertically."""
        return _starts(self.height, self.tile_height, self.margin, self.alignment)

    @property
    def columns(self) -> list[int]:
        """Where tiles begin horizontally."""
        return _starts(self.width, self.tile_width, self.margin, self.alignment)

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def bands(
        self, clip: npt.NDArray[Any], run: Callable[[npt.NDArray[Any]], npt.ArrayLike], scale: int
    ) -> Iterator[Any]:
        """Runs a function on every tile and blends the results, from top to bottom.

        In the middle of an overlap one tile fades into the next over `BLEND` pixels; elsewhere a pixel is of one tile.

        Args:
          clip: `[N, height, width, C]` array.
          run: `[N, tile_height, tile_width, C]` -> `[T, scale * tile_height, scale * tile_width, 3]` float32.
          scale: how much larger the output is.

        Yields:
          `[T, rows, scale * width, 3]` float32, as many rows as are done; together `scale * height`.
        """
        if len(self) == 1:
            yield run(clip)
            return
        down = _fades(self.rows, self.tile_height, scale)
        across = _fades(self.columns, self.tile_width, scale)
        unfinished = None
        for place, (top, vertical) in enumerate(zip(self.rows, down, strict=True)):
            band: Any = None  # until a part says how many frames it has
            for left, horizontal in zip(self.columns, across, strict=True):
                tile = clip[:, top : top + self.tile_height, left : left + self.tile_width]
                part = np.asarray(run(tile))[:, vertical.inside][:, :, horizontal.inside]
                if band is None:
                    band = np.zeros((*part.shape[:2], scale * self.width, 3), np.float32)
                band[:, :, horizontal.outside] += part * (vertical.weights[:, None, None] * horizontal.weights[:, None])
            if unfinished is not None:
                band[:, : unfinished.shape[1]] += unfinished
            done = band.shape[1]
            if place + 1 < len(down):
                done = down[place + 1].outside.start - vertical.outside.start
            yield band[:, :done]
            unfinished = band[:, done:].copy()


@dataclasses.dataclass(frozen=True)
class _Fade:
    """What counts of a tile on one axis: where it lies in the tile and in the frame, and its weights."""

    inside: slice
    outside: slice
    weights: np.ndarray


def choose(height: int, width: int, fits: Callable[[int, int], bool], *, margin: int, alignment: int) -> Grid | None:
    """The grid with the fewest pixels to compute whose tiles fit.

    Args:
      height, width: of the frame.
      fits: (tile height, tile width) -> whether a tile of this shape can be computed.
      margin, alignment: see `Grid`.

    Returns:
      A `Grid`, or None if even the smallest tile does not fit.
    """
    heights, widths = (_sizes(size, margin, alignment) for size in (height, width))
    grids = [
        Grid(height, width, tile_height, tile_width, margin, alignment)
        for tile_height in heights
        for tile_width in widths
    ]
    fitting = (grid for grid in grids if fits(grid.tile_height, grid.tile_width))
    return min(fitting, key=lambda grid: (len(grid) * grid.tile_height * grid.tile_width, len(grid)), default=None)


def smallest(size: int, margin: int, alignment: int) -> int:
    """The least side of a tile: two margins, what fades, one step and what is left over, or all of a small frame."""
    least = 2 * margin + BLEND + alignment
    return size if size < least else least + (size - least) % alignment


def _sizes(size, margin, alignment):
    """For every number of tiles the smallest that does it."""
    sizes = range(size, smallest(size, margin, alignment) - 1, -alignment)
    return list({len(_starts(size, tile, margin, alignment)): tile for tile in sizes}.values())


def _starts(size, tile, margin, alignment):
    """Tiles evenly spread, each beginning on the grid; `size - tile` is a multiple of `alignment`."""
    steps = (size - tile) // alignment
    if not steps:
        return [0]
    longest = max(1, (tile - 2 * margin - BLEND) // alignment)
    count = -(-steps // longest)
    return [alignment * (steps * place // count) for place in range(count + 1)]


def _fades(starts, tile, scale):
    fades = []
    for place, start in enumerate(starts):
        positions = scale * start + np.arange(scale * tile)
        weights = np.ones(scale * tile, np.float32)
        if place:
            weights *= _rise(positions, scale * (starts[place - 1] + tile + start) / 2, scale)
        if place + 1 < len(starts):
            weights *= 1 - _rise(positions, scale * (start + tile + starts[place + 1]) / 2, scale)
        first, last = np.flatnonzero(weights)[[0, -1]]
        outside = slice(int(positions[first]), int(positions[last]) + 1)
        fades.append(_Fade(slice(first, last + 1), outside, weights[first : last + 1]))
    return fades


def _rise(positions, middle, scale):
    return np.clip((positions + 0.5 - middle) / (scale * BLEND) + 0.5, 0, 1).astype(np.float32)
