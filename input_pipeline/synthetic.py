"""Moving test patterns whose true in-between frames are known, drawn from a seed alone.

Every clip puts in one picture what space-time super-resolution finds hard:

* detail at every scale (noise in octaves) and detail that aliases when the frame is shrunk four times (gratings,
  checks, brickwork and ring patterns, with periods on both sides of the small frame's Nyquist limit of 8 pixels);
* camera motion by fractions of a pixel: a panning background that also zooms and rotates slowly;
* large and non-linear motion with occlusion: textured objects that rotate, speed up or slow down, and cross in
  front of one another and of the background in a fixed depth order;
* text, which the eye judges at once: words from about 8 to 30 pixels high, some on plates that tilt as they move.

The scene is fixed before the first frame is drawn and every pose is a smooth function of a real-valued time, so the
frame at time 1 truly lies between those at 0 and 2, and a longer clip begins with the shorter clip of its seed.
Paths swing about a point, hence a clip may be of any length without its content leaving the frame.
"""

from collections.abc import Callable

import cv2
import numpy as np

Pose = Callable[[float], tuple[float, float, float, float]]

# Textures are held at twice the frame's resolution: a bilinear look-up then blurs nearly alike at every sub-pixel
# phase, where one at frame resolution would make moving detail flicker between sharp and soft.
_OVERSAMPLE = 2
# Objects come in pairs that meet at this time, so that even the customary seven frames show them crossing.
_MEETING_TIME = 3.0
_LARGEST_SPEED = 6.0
_SMALLEST_SIDE = 16
_WORDS = ("Space", "Time", "FRAME", "Motion", "detail", "EXIT 24", "60 km/h", "No. 1738", "Rue 9", "Kyoto", "1/250 s")
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_COMPLEX)


def clip(seed: int, *, frames: int = 7, height: int = 256, width: int = 448) -> np.ndarray:
    """Draws a clip of moving test patterns.

    The same arguments always give the same bytes, and a clip is a prefix of any longer clip of the same seed and
    size. Objects scale with the shorter side of the frame; no point of one moves much faster than 6 pixels a frame,
    nor than a twentieth of the shorter side, and the background moves at less than half of that.

    Args:
        seed: What to draw; an integer of 0 or more.
        frames: Number of frames, at least 1, taken at times 0, 1, 2 and so on.
        height: Frame height in pixels, at least 16.
        width: Frame width in pixels, at least 16.

    Returns:
        A uint8 array of shape [frames, height, width, 3]: display-referred RGB, 0 to 255.

    Raises:
        ValueError: If `seed` is negative, `frames` is below 1, or `height` or `width` is below 16.
    """
    limits = (("seed", seed, 0), ("frames", frames, 1), ("height", height, 16), ("width", width, 16))
    for name, value, least in limits:
        if value < least:
            raise ValueError(f"{name} is {value}, but it must be an integer of at least {least}.")
    rng = np.random.default_rng(seed)
    scene = _scene(rng, height, width)
    light = _light(rng, height, width)
    return np.stack([_render(scene, light, float(t)) for t in range(frames)])
