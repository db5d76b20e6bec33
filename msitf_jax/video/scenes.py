"""Where a scene ends: PySceneDetect's adaptive detector, fed picture by picture."""

import cv2
import numpy as np
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

from msitf_jax.video.color import to_8_bits

WIDTH = 256  # pixels that a picture is reduced to before it is compared
_REACH = 2  # neighbours on each side that a picture's change is compared with


def mark_cuts(pictures, kind):
    """Tells of each picture whether a new scene begins with it.

    A cut is a change of content at least three times the mean change around it (PySceneDetect's `AdaptiveDetector`), so
    fast motion is none. The first and the last picture are repeated for the detector, so cuts beside them count too.

    Args:
      pictures: an iterable of `reader.Picture`.
      kind: what their integers mean, see `msitf_jax.video.color`.

    Yields:
      (picture, whether it begins a scene that is not the first), two pictures late.
    """
    detector = AdaptiveDetector(min_scene_len=1, window_width=_REACH)
    shown, emitted = 0, 0
    waiting, cuts, small = [], set(), None

    def show(small):
        nonlocal shown
        cuts.update(cut.frame_num - _REACH for cut in detector.process_frame(FrameTimecode(shown, 25.0), small))
        shown += 1

    for picture in pictures:
        begins = small is None
        small = _reduce(picture.pixels, kind)
        for _ in range(1 + _REACH if begins else 1):
            show(small)
        waiting.append(picture)
        if len(waiting) > _REACH:
            yield waiting.pop(0), emitted in cuts
            cuts.discard(emitted)
            emitted += 1
    for picture in waiting:
        show(small)
        yield picture, emitted in cuts
        emitted += 1


def _reduce(pixels, kind):
    height, width, _ = pixels.shape
    if width > WIDTH:
        pixels = cv2.resize(pixels, (WIDTH, max(1, round(height * WIDTH / width))), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(to_8_bits(pixels, kind)[..., ::-1])
