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
from typing import Any

import cv2
import numpy as np

Pose = Callable[[float], tuple[float, float, float, float]]

# Textures are held at twice the frame's resolution: a bilinear look-up then blurs nearly alike at every sub-pixel
# phase, where one at frame resolution would make moving detail flicker between sharp and soft. It also halves the
# rounding of positions in OpenCV 4, to 1/32 of a texture pixel; OpenCV 5 does not round.
_OVERSAMPLE = 2
# Objects come in pairs that meet at this time, so that even the customary seven frames show them crossing.
_MEETING_TIME = 3.0
# Hues in degrees: of earth, foliage, sea and sky for the background, and of the objects as steps from there.
_GROUND_HUES = (25, 45, 100, 180, 210)
_CONTRASTS = (-60, 60, 130, 165, 200, 230)
_WORDS = ("Space", "Time", "FRAME", "Motion", "detail", "EXIT 24", "60 km/h", "No. 1738", "Rue 9", "Kyoto", "1/250 s")
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_COMPLEX)


def clip(seed: int, *, frames: int = 7, height: int = 256, width: int = 448) -> np.ndarray:
    """Draws a clip of moving test patterns.

    The same arguments always give the same bytes, and a clip is a prefix of any longer clip of the same seed and
    size. Objects scale with the shorter side of the frame. No point of one moves by more than about 6 pixels a
    frame, nor by more than a twentieth of the shorter side; the background moves at less than half of that.

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
    for name, value, least in (("seed", seed, 0), ("frames", frames, 1), ("height", height, 16), ("width", width, 16)):
        if value < least:
            raise ValueError(f"`{name}` (={value!r}) must be an integer of at least {least}")
    render = _scene(np.random.default_rng(seed), height, width)
    return np.stack([render(float(t)) for t in range(frames)])


def _scene(rng: np.random.Generator, height: int, width: int) -> Callable[[float], np.ndarray]:
    """Returns the function that draws the frame, uint8 RGB of shape [height, width, 3], at a given time."""
    short = min(height, width)
    speed = min(6.0, short / 20)
    hue = rng.choice(_GROUND_HUES) + rng.normal(0, 12)
    light = _light(rng, height, width)
    backdrop = _backdrop(rng, height, width, hue)
    radius = np.hypot(width, height) / 2
    camera = _path(rng, (width / 2, height / 2), 0.12 * short, 0.45 * speed, radius, spins=False)
    layers = _objects(rng, height, width, speed, hue) + _captions(rng, height, width, speed, hue)
    # A shuffled depth order lets some words pass behind objects and others in front.
    layers = [layers[i] for i in rng.permutation(len(layers))]

    def render(t: float) -> np.ndarray:
        frame = _warp(backdrop, (width, height), *camera(t), border=cv2.BORDER_REFLECT)
        for sprite, pose in layers:
            _paste(frame, sprite, *pose(t))
        return cv2.multiply(frame, light, dtype=cv2.CV_8U)

    return render


def _backdrop(rng: np.random.Generator, height: int, width: int, hue: float) -> np.ndarray:
    """Returns the background: one texture with large panels of others on it, larger than the frame."""
    short = min(height, width)
    # The camera may look past this margin, where the texture goes on mirrored: still, and so moving as one with it.
    rows, columns = (int(_OVERSAMPLE * (side + 0.3 * short)) for side in (height, width))
    canvas = _texture(rng, rows, columns, _ramp(rng, hue, 0.28), _GROUNDS).astype(np.float32)
    for _ in range(5):
        panel = _shape(rng, rng.uniform(0.15, 0.35) * short, _ramp(rng, hue + rng.normal(0, 30), 0.35), _REGULAR)
        _paste(canvas, panel, rng.uniform(0, columns), rng.uniform(0, rows), rng.uniform(0, 6.3), 1.0)
    return canvas


def _objects(rng: np.random.Generator, height: int, width: int, speed: float, hue: float) -> list:
    """Returns the moving objects as (sprite, pose) pairs."""
    short, long = sorted((height, width))
    pairs = min(round(1 + long / short), 5)
    layers = []
    for index in range(2 * pairs):
        if index % 2 == 0:
            along, aside = (index // 2 + rng.uniform(0.2, 0.8)) / pairs * long, rng.uniform(0.15, 0.85) * short
            meeting = np.array((along, aside) if width >= height else (aside, along))
        radius = short * rng.uniform(0.1, 0.2)
        place = meeting + rng.uniform(-0.8, 0.8, 2) * radius
        sprite = _shape(rng, radius, _ramp(rng, hue + rng.choice(_CONTRASTS), 0.6), _GROUNDS + _REGULAR)
        layers.append((sprite, _path(rng, place, 0.25 * short, speed, radius, spins=True)))
    return layers


def _captions(rng: np.random.Generator, height: int, width: int, speed: float, hue: float) -> list:
    """Returns the moving words as (sprite, pose) pairs, spread from top to bottom."""
    short = min(height, width)
    layers = []
    # Words keep a size in pixels that can be read, so that a small frame has room for fewer of them.
    sizes = rng.permutation((0.035, 0.05, 0.075, 0.11))[: max(short // 20, 1)]
    words = rng.permutation(_WORDS)
    for index, size in enumerate(sizes):
        sprite = _caption(rng, str(words[index]), max(size * short, min(8, short / 4)), hue, plate=index % 2 == 0)
        radius = np.hypot(*sprite.shape[:2]) / 2 / _OVERSAMPLE
        place = rng.uniform(0.3, 0.7) * width, (0.1 + 0.8 * (index + rng.uniform(0.2, 0.8)) / len(sizes)) * height
        layers.append((sprite, _path(rng, place, 0.15 * short, 0.8 * speed, radius, spins=False)))
    return layers


def _path(
    rng: np.random.Generator,
    place: tuple[float, float] | np.ndarray,
    reach: float,
    speed: float,
    radius: float,
    *,
    spins: bool,
) -> Pose:
    """Returns a smooth, slightly curved and accelerated motion.

    Args:
        rng: Source of the path's direction, rates and phases.
        place: Position (x, y) in pixels at the meeting time.
        reach: Length of the swing along the path, in pixels from its middle.
        speed: Speed that no point of what moves exceeds by more than a few hundredths, in pixels a frame.
        radius: Distance in pixels from the centre of what moves to its farthest point.
        spins: Whether it turns steadily from a random angle, rather than tilting to and fro about upright.

    Returns:
        A function from time to (x, y, angle, zoom), as `_paste` takes them.
    """
    # The budget of speed: 0.75 along the path (and a little across), 0.2 at the rim from turning, 0.05 from zooming.
    rate = rng.uniform(0.7, 1.0) * 0.75 * speed / reach
    turn = rng.choice((-1, 1)) * rng.uniform(0.6, 1.0) * 0.2 * speed / radius
    growth = min(0.05 * speed / radius, 0.005)
    tilt = np.clip(turn, -0.01, 0.01)
    # Phases near the middle of a swing: at its ends an object would stand still for most of a short clip.
    phase = rng.choice((0, np.pi)) + rng.uniform(-0.8, 0.8) - rate * _MEETING_TIME
    heading, bend, sway, breath, start = rng.uniform(0, 2 * np.pi, 5)

    def swing(t: float) -> complex:
        return reach * complex(np.sin(rate * t + phase), 0.3 * np.sin(0.8 * rate * t + bend))

    def pose(t: float) -> tuple[float, float, float, float]:
        moved = (swing(t) - swing(_MEETING_TIME)) * np.exp(1j * heading)
        angle = start + turn * t if spins else tilt / 0.07 * np.sin(0.07 * t + sway)
        zoom = (1 + growth / 0.08 * np.sin(0.08 * t + breath)) / _OVERSAMPLE
        return place[0] + moved.real, place[1] + moved.imag, angle, zoom

    return pose


def _warp(
    image: np.ndarray, size: tuple[int, int], x: float, y: float, angle: float, zoom: float, border: int
) -> np.ndarray:
    """Returns a view of `image`, of `size` (width, height), in which its centre lies at (x, y)."""
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    inverse = np.array([[cos, sin], [-sin, cos]])
    centre = np.array([image.shape[1] - 1, image.shape[0] - 1]) / 2
    inverse = np.column_stack((inverse, centre - inverse @ (x, y)))
    return cv2.warpAffine(image, inverse, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=border)


def _paste(target: np.ndarray, sprite: np.ndarray, x: float, y: float, angle: float, zoom: float) -> None:
    """Lays a sprite over `target` in place.

    Args:
        target: float32 RGB of shape [height, width, 3].
        sprite: float32 of shape [rows, columns, 4], RGB premultiplied by the alpha that follows it.
        x: Column of the sprite's centre, in target pixels from the centre of the first.
        y: Row of the same.
        angle: Rotation in radians, clockwise as seen.
        zoom: Target pixels per sprite pixel.
    """
    rows, columns = sprite.shape[:2]
    cos, sin = abs(np.cos(angle)) * zoom / 2, abs(np.sin(angle)) * zoom / 2
    wide, tall = cos * columns + sin * rows, cos * rows + sin * columns
    left, top = max(int(x - wide), 0), max(int(y - tall), 0)
    right, bottom = min(int(x + wide) + 2, target.shape[1]), min(int(y + tall) + 2, target.shape[0])
    if right <= left or bottom <= top:
        return
    patch = _warp(sprite, (right - left, bottom - top), x - left, y - top, angle, zoom, cv2.BORDER_CONSTANT)
    # OpenCV's own three-channel arithmetic: broadcasting alpha in NumPy would take most of a frame's time.
    through = cv2.cvtColor(1 - patch[..., 3], cv2.COLOR_GRAY2RGB)
    region = target[top:bottom, left:right]
    cv2.add(cv2.multiply(region, through), cv2.cvtColor(patch, cv2.COLOR_RGBA2RGB), dst=region)


def _shape(rng: np.random.Generator, radius: float, ramp: np.ndarray, patterns: tuple) -> np.ndarray:
    """Returns the sprite of a textured polygon, ellipse, star or flower; `radius` is in frame pixels."""
    corners = int(rng.integers(3, 8))
    kind = rng.choice(("polygon", "ellipse", "star", "flower"))
    if kind == "polygon":
        radii = rng.uniform(0.8, 1.0, corners)
    elif kind == "star":
        radii = np.tile((1.0, rng.uniform(0.4, 0.6)), corners)
    else:
        depth = 0.2 if kind == "flower" else 0.0
        radii = 1 - depth * (1 + np.cos(np.linspace(0, 2 * np.pi * corners, 128, endpoint=False)))
    angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    rim = radius / 6 + 2
    side = int(2 * _OVERSAMPLE * (radius + rim))
    stretch = rng.uniform(0.65, 1.0)
    points = np.stack((np.cos(angles), stretch * np.sin(angles)), -1) * radii[:, None] * radius * _OVERSAMPLE
    points = np.round((points + (side - 1) / 2) * 16).astype(np.int32)
    colour = _texture(rng, side, side, ramp, patterns)
    edge = ramp[rng.choice((20, 235)), 0].tolist()
    cv2.polylines(colour, [points], True, edge, max(int(radius / 8), 2), cv2.LINE_AA, 4)
    mask = cv2.fillPoly(np.zeros((side, side), np.uint8), [points], 255, cv2.LINE_AA, 4)
    return _cut_out(colour, mask, rim)


def _caption(rng: np.random.Generator, word: str, size: float, hue: float, *, plate: bool) -> np.ndarray:
    """Returns the sprite of a word whose capitals are about `size` frame pixels high, on a plate or on its own."""
    font = int(rng.choice(_FONTS))
    scale = _OVERSAMPLE * size / cv2.getTextSize("H", font, 1.0, 1)[0][1]
    stroke = max(round(_OVERSAMPLE * size / 13), 1)
    (columns, rows), _ = cv2.getTextSize(word, font, scale, stroke)
    margin = int(_OVERSAMPLE * size)
    shape = (rows + 2 * margin, columns + 2 * margin)
    ink = np.zeros(shape, np.uint8)
    cv2.putText(ink, word, (margin, margin + rows), font, scale, 255, stroke, cv2.LINE_AA)
    dark, bright = _ramp(rng, hue + 180, 0.4)[[10, 250], 0].astype(np.float32)
    if not plate:
        return _cut_out(np.full((*shape, 3), bright), ink, size / 3)
    if rng.random() < 0.5:
        dark, bright = bright, dark
    colour = dark + (bright - dark) * (ink[..., None] / np.float32(255))
    gap = margin // 2
    mask = np.zeros(shape, np.uint8)
    mask[gap:-gap, gap:-gap] = 255
    return _cut_out(colour, mask, size / 3)


def _cut_out(colour: np.ndarray, mask: np.ndarray, halo: float) -> np.ndarray:
    """Returns `colour` within a uint8 `mask` as a sprite, with a soft shadow that sets it off what lies behind."""
    cover = cv2.GaussianBlur(mask, (0, 0), 0.5).astype(np.float32) / 255
    span = 2 * int(halo) + 1
    shadow = 0.5 * cv2.blur(cv2.blur(cover, (span, span)), (span, span))
    lit = cv2.multiply(colour, cv2.cvtColor(cover, cv2.COLOR_GRAY2RGB), dtype=cv2.CV_32F)
    return cv2.merge((*cv2.split(lit), cover + (1 - cover) * shadow))


def _texture(rng: np.random.Generator, rows: int, columns: int, ramp: np.ndarray, patterns: tuple) -> np.ndarray:
    """Returns uint8 RGB of shape [rows, columns, 3]: a pattern weathered by noise, coloured by a ramp."""
    noise = _noise(rng, rows, columns)
    angle = rng.uniform(0, 2 * np.pi)
    across = np.arange(columns, dtype=np.float32)
    down = np.arange(rows, dtype=np.float32)[:, None]
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x, y = cos * across + sin * down, cos * down - sin * across
    pattern = patterns[rng.integers(len(patterns))]
    period = _OVERSAMPLE * 3.0 * 5.0 ** rng.random()
    value = pattern(rng, x, y, period, noise)
    return cv2.applyColorMap(cv2.convertScaleAbs(np.maximum(127 + 78 * value + 28 * noise, 0)), ramp)


def _noise(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Returns float32 noise of about zero mean and unit variance, in octaves from the frame's pixel to its size."""
    octaves = int(np.log2(max(rows, columns) / _OVERSAMPLE))
    roughness = rng.uniform(0.6, 0.85)
    field: Any = np.zeros((1, 1), np.float32)
    for octave in range(octaves, -1, -1):
        cell = _OVERSAMPLE * 2**octave
        shape = (-(-rows // cell), -(-columns // cell))
        field = cv2.resize(field, shape[::-1], interpolation=cv2.INTER_CUBIC)
        field += roughness ** (octaves - octave) * rng.standard_normal(shape, np.float32)
    field = cv2.resize(field, (columns, rows), interpolation=cv2.INTER_CUBIC)
    return (field - field.mean()) / field.std()


# Patterns return values of about -1 to 1, float32 of the shape of the coordinates x and y, which count texture pixels
# along turned axes. Hard edges are a frame pixel wide, so that drawing a texture adds no aliasing of its own.
def _clouds(rng, x, y, period, noise):
    return 0.45 * noise


def _marble(rng, x, y, period, noise):
    return 0.65 * np.sin(x / period + 2.0 * noise)


def _grating(rng, x, y, period, noise):
    return np.sin(x * (2 * np.pi / period) + 0.3 * np.sin(y / period))


def _checks(rng, x, y, period, noise):
    return _square(x, 2 * period) * _square(y, 2 * period)


def _rings(rng, x, y, period, noise):
    x, y = x - x.mean(), y - y.mean()
    squared = x * x + y * y
    # The phase grows with the square of the radius: periods fall from very long to the given one at the corners.
    return np.sin(squared * (np.pi / period / np.sqrt(squared.max())))


def _bricks(rng, x, y, period, noise):
    tall = 2 * period
    wide = tall * rng.choice((1.0, 2.2, 7.0))
    course = np.floor(y / tall)
    along = x / wide + 0.5 * (course % 2)
    brick = np.floor(along)
    tones = rng.uniform(-0.3, 1.0, (16, 16)).astype(np.float32)
    tone = tones[course.astype(np.int32) % 16, brick.astype(np.int32) % 16]
    to_joint = np.minimum((0.5 - np.abs(y / tall - course - 0.5)) * tall, (0.5 - np.abs(along - brick - 0.5)) * wide)
    face = np.clip((to_joint - 0.07 * tall) / _OVERSAMPLE, 0, 1)
    return face * (tone + 1) - 1


def _square(position, period):
    """Returns a square wave from -1 to 1 whose flanks are one frame pixel wide."""
    return np.clip(np.sin(position * (2 * np.pi / period)) * (period / np.pi / _OVERSAMPLE), -1, 1)


_GROUNDS = (_clouds, _marble, _bricks)
_REGULAR = (_bricks, _grating, _checks, _rings)


def _ramp(rng: np.random.Generator, hue: float, saturation: float) -> np.ndarray:
    """Returns a uint8 RGB colour map of shape [256, 1, 3], dark to bright about a hue in degrees."""
    level = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    # As outdoors, shadows and lights differ in hue as well as in value, and lights are paler.
    hues = (hue + rng.normal(0, 12) + rng.uniform(-50, 50) * (level - 0.5)) % 360
    saturations = np.clip(saturation * rng.uniform(0.6, 1.3) * (1.1 - 0.6 * level**2), 0, 1)
    hsv = np.stack((hues, saturations, 0.06 + 0.91 * level**0.8), -1).astype(np.float32)
    return cv2.convertScaleAbs(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), alpha=255)


def _light(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Returns the gain, float32 of shape [height, width, 3], of light that falls from one side of the frame."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    side = x * np.cos(angle) + y * np.sin(angle)
    return cv2.cvtColor((0.95 + 0.16 * side - 0.08 * (x * x + y * y)).astype(np.float32), cv2.COLOR_GRAY2RGB)
