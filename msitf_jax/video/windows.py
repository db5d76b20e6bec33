"""A stream of pictures cut into what the network is given at once, and when what it gives is shown.

Windows never reach across a cut. Pictures that repeat the one before them are not given twice: all of them show the
same output, so what stands still stays still.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias, get_args

import numpy as np

from msitf_jax.video.reader import Picture

LENGTH = 4  # pictures in a window; 7 come out
STRIDE = LENGTH - 1  # windows share the picture where they meet
CutRule: TypeAlias = Literal["repeat", "hold"]
CUT_RULES: tuple[CutRule, ...] = get_args(CutRule)


@dataclasses.dataclass
class Still:
    """Equal pictures in a row.

    Attributes:
      pixels: of all of them.
      times: when each appears, in ticks.
      next_time: when the next picture appears, or None at the end.
      last: whether its scene ends with it.
    """

    pixels: np.ndarray
    times: list[int]
    next_time: int | None = None
    last: bool = False


@dataclasses.dataclass(frozen=True)
class Window:
    """One run of the network.

    Attributes:
      clip: `LENGTH` arrays of pixels; the last one repeated where a scene is shorter.
      outputs: (index into the 7 outputs, time in half ticks) in order of time; an output may be shown more than once.
    """

    clip: list[np.ndarray]
    outputs: list[tuple[int, int]]


def stills(pictures: Iterable[Picture]) -> Iterator[Still]:
    """Gathers equal pictures: `reader.Picture`s -> `Still`s, each one picture late; only the last one is `last`."""
    still = None
    for picture in pictures:
        if still is not None:
            if np.array_equal(still.pixels, picture.pixels):
                still.times.append(picture.time)
                continue
            still.next_time = picture.time
            yield still
        still = Still(picture.pixels, [picture.time])
    if still is not None:
        still.last = True
        yield still


def windows(stills: Iterable[Still], *, interpolate: bool = True, cut: CutRule = "repeat") -> Iterator[Window]:
    """Cuts a stream into windows: within a scene every 3 pictures, the last one ending with the scene.

    Of n pictures 2n-1 are shown, one between every two: from the network within a scene, the earlier one once more
    between equal pictures and before a cut.

    Args:
      stills: see the function of that name, and `scenes.mark_cuts`.
      interpolate: show pictures between; False shows n.
      cut: "repeat" shows the picture before a cut once more where one between would be, "hold" leaves that out, so the
        picture stays twice as long.

    Yields:
      `Window`s.

    Raises:
      ValueError: an unknown rule.
    """
    if cut not in CUT_RULES:
        raise ValueError(f"`cut` (={cut!r}) must be one of {', '.join(CUT_RULES)}")
    scene: list[Still] = []  # its last pictures
    new = 0  # how many of them have not been shown
    for still in stills:
        scene, new = [*scene[-STRIDE:], still], new + 1
        if still.last or new == (LENGTH if len(scene) == new else STRIDE):
            yield Window(_pad([entry.pixels for entry in scene]), list(_outputs(scene, new, interpolate, cut)))
            new = 0
        if still.last:
            scene = []


def _outputs(scene, new, interpolate, cut):
    for place in range(len(scene) - new, len(scene)):
        still, index = scene[place], 2 * place
        if interpolate and place:
            yield index - 1, scene[place - 1].times[-1] + still.times[0]
        for time, later in zip(still.times, [*still.times[1:], None], strict=True):
            yield index, 2 * time
            if interpolate and later is not None:
                yield index, time + later
        if still.last and still.next_time is not None and interpolate and cut == "repeat":
            yield index, still.times[-1] + still.next_time


def _pad(clip):
    return clip + [clip[-1]] * (LENGTH - len(clip))
