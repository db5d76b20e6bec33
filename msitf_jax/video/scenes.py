"""Where a scene ends: PySceneDetect's adaptive detector, fed still by still."""

import collections
from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

from msitf_jax.video.color import Pixels, to_8_bits
from msitf_jax.video.windows import Still

WIDTH = 256  # pixels that a picture is reduced to before it is compared
HELD = 4  # frames for which a picture counts once; shown for longer, it counts again every frame
_REACH = 2  # neighbors on each side that a picture's change is compared with


def mark_cuts(stills: Iterable[Still], kind: Pixels) -> Iterator[Still]:
    """Finds where scenes end and marks the stills before as `last`.

    A cut is a change of content at least three times the mean change around it (PySceneDetect's `AdaptiveDetector`), so
    fast motion is none. The first and the last picture are repeated for the detector, so cuts beside them count too.
    A picture that is shown for a few frames, as in drawn animation, counts once: else every change would stand alone.

    Args:
      stills: an iterable of `windows.Still`.
      kind: what their integers mean, see `msitf_jax.video.color`.

    Yields:
      The stills, each three late.
    """
    detector = AdaptiveDetector(min_scene_len=1, window_width=_REACH)
    shown = 0
    cuts: set[int] = set()
    waiting: collections.deque[tuple[Still, int]] = collections.deque()  # and their numbers for the detector

    def show(small, times):
        nonlocal shown
        for _ in range(times):
            cuts.update(cut.frame_num for cut in detector.process_frame(FrameTimecode(shown, 25.0), small))
            shown += 1

    def leave():
        still, _ = waiting.popleft()
        if waiting:
            still.last = waiting[0][1] in cuts
            cuts.discard(waiting[0][1])
        return still

    for still in stills:
        small = _reduce(still.pixels, kind)
        if not shown:
            show(small, _REACH)
        waiting.append((still, shown))
        # What a picture is compared with reaches no further, however long it is shown.
        show(small, 1 + min(max(0, len(still.times) - HELD), 2 * _REACH))
        while len(waiting) > 1 and waiting[1][1] + _REACH < shown:
            yield leave()
    if waiting:
        show(small, _REACH)
    while waiting:
        yield leave()


def _reduce(pixels, kind):
    height, width, _ = pixels.shape
    if width > WIDTH:
        pixels = cv2.resize(pixels, (WIDTH, max(1, round(height * WIDTH / width))), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(to_8_bits(pixels, kind)[..., ::-1])
