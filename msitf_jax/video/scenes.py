"""Where a scene ends: PySceneDetect's adaptive detector, fed picture by picture."""

import collections

import cv2
import numpy as np
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

from msitf_jax.video.color import to_8_bits

WIDTH = 256  # pixels that a picture is reduced to before it is compared
HELD = 4  # frames for which a picture counts once; shown for longer, it counts again every frame
_REACH = 2  # neighbours on each side that a picture's change is compared with


def mark_cuts(pictures, kind):
    """Tells of each picture whether a new scene begins with it.

    A cut is a change of content at least three times the mean change around it (PySceneDetect's `AdaptiveDetector`), so
    fast motion is none. The first and the last picture are repeated for the detector, so cuts beside them count too.
    A picture that is shown for a few frames, as in drawn animation, counts once: else every change would stand alone.

    Args:
      pictures: an iterable of `reader.Picture`.
      kind: what their integers mean, see `msitf_jax.video.color`.

    Yields:
      (picture, whether it begins a scene that is not the first), in order, some pictures late.
    """
    detector = AdaptiveDetector(min_scene_len=1, window_width=_REACH)
    shown, cuts = 0, set()
    waiting = collections.deque()  # (picture, its number for the detector, None if it repeats the one before)
    previous, small, held = None, None, 0

    def show(times=1):
        nonlocal shown
        for _ in range(times):
            cuts.update(cut.frame_num for cut in detector.process_frame(FrameTimecode(shown, 25.0), small))
            shown += 1

    def decided():
        while waiting and (waiting[0][1] is None or waiting[0][1] + _REACH < shown):
            picture, number = waiting.popleft()
            yield picture, number in cuts
            cuts.discard(number)

    for picture in pictures:
        first, repeats = previous is None, previous is not None and np.array_equal(previous, picture.pixels)
        previous, held = picture.pixels, held + 1 if repeats else 1
        if not repeats:
            small = _reduce(picture.pixels, kind)
        if not repeats or held > HELD:
            show(1 + _REACH if first else 1)
        waiting.append((picture, None if repeats else shown - 1))
        yield from decided()
    if waiting:
        show(_REACH)
        yield from decided()


def _reduce(pixels, kind):
    height, width, _ = pixels.shape
    if width > WIDTH:
        pixels = cv2.resize(pixels, (WIDTH, max(1, round(height * WIDTH / width))), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(to_8_bits(pixels, kind)[..., ::-1])
