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
# Hues of the objects, in degrees from that of the background.
_CONTRASTS = (-60, 60, 130, 165, 200, 230)
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
    render = _scene(np.random.default_rng(seed), height, width)
    return np.stack([render(float(t)) for t in range(frames)])


def _scene(rng: np.random.Generator, height: int, width: int) -> Callable[[float], np.ndarray]:
    """Returns the function that draws the frame, uint8 RGB of shape [height, width, 3], at a given time."""
    short = min(height, width)
    speed = min(_LARGEST_SPEED, short / 20)
    hue = rng.uniform(0, 360)
    light = _light(rng, height, width)
    backdrop = _backdrop(rng, height, width, hue)
    camera = _path(rng, (width / 2, height / 2), 0.12 * short, 0.4 * speed, tilt=0.05)
    layers = _objects(rng, height, width, speed, hue) + _captions(rng, height, width, speed, hue)
    # A shuffled depth order lets some words pass behind objects and others in front.
    layers = [layers[i] for i in rng.permutation(len(layers))]

    def render(t: float) -> np.ndarray:
        view = _inverse_map(backdrop, *camera(t))
        frame = cv2.warpAffine(
            backdrop, view, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
        )
        for sprite, pose in layers:
            _paste(frame, sprite, *pose(t))
        return cv2.multiply(frame, light, dtype=cv2.CV_8U)

    return render


def _backdrop(rng: np.random.Generator, height: int, width: int, hue: float) -> np.ndarray:
    """Returns the background: one texture with large panels of others on it, larger than the frame."""
    short = min(height, width)
    # The camera may look past this margin, where the texture goes on mirrored: still, and so moving as one with it.
    rows, columns = (int(_OVERSAMPLE * (side + 0.3 * short)) for side in (height, width))
    canvas = _texture(rng, rows, columns, _ramp(rng, hue, 0.3), _GROUNDS).astype(np.float32)
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
        spin = rng.choice((-1, 1)) * rng.uniform(0.1, 0.3) * speed / radius
        layers.append((sprite, _path(rng, place, 0.25 * short, 0.7 * speed, spin=spin)))
    return layers


def _captions(rng: np.random.Generator, height: int, width: int, speed: float, hue: float) -> list:
    """Returns the moving words as (sprite, pose) pairs, spread from top to bottom."""
    short = min(height, width)
    layers = []
    sizes = rng.permutation((0.035, 0.05, 0.075, 0.11))
    words = rng.permutation(_WORDS)
    for index, size in enumerate(sizes):
        sprite = _caption(rng, str(words[index]), max(size * short, min(8, short / 4)), hue, plate=index % 2 == 0)
        place = rng.uniform(0.3, 0.7) * width, (index + rng.uniform(0.3, 0.7)) / len(sizes) * height
        layers.append((sprite, _path(rng, place, 0.15 * short, 0.6 * speed, tilt=0.15)))
    return layers


def _path(
    rng: np.random.Generator,
    place: tuple[float, float],
    reach: float,
    speed: float,
    *,
    spin: float = 0.0,
    tilt: float = 0.0,
) -> Pose:
    """Returns a smooth, slightly curved and accelerated motion.

    Args:
        rng: Source of the path's direction and phases.
        place: Position (x, y) in pixels at the meeting time.
        reach: Length of the swing along the path, in pixels from its middle.
        speed: Highest speed along the path, in pixels a frame.
        spin: Steady rotation, in radians a frame.
        tilt: Largest angle of a slow rotation to and fro, in radians.

    Returns:
        A function from time to (x, y, angle, zoom), as `_paste` takes them.
    """
    heading = rng.uniform(0, 2 * np.pi)
    rate = rng.uniform(0.6, 1.0) * speed / reach
    # Phases near the middle of a swing: at its ends an object would stand still for most of a short clip.
    phase = rng.choice((0, np.pi)) + rng.uniform(-0.8, 0.8) - rate * _MEETING_TIME
    bend, sway, breath, start = rng.uniform(0, 2 * np.pi, 4)
    if not spin:
        start = 0.0

    def swing(t: float) -> complex:
        return reach * complex(np.sin(rate * t + phase), 0.3 * np.sin(0.8 * rate * t + bend))

    def pose(t: float) -> tuple[float, float, float, float]:
        moved = (swing(t) - swing(_MEETING_TIME)) * np.exp(1j * heading)
        angle = start + spin * t + tilt * np.sin(0.07 * t + sway)
        zoom = (1 + 0.06 * np.sin(0.08 * t + breath)) / _OVERSAMPLE
        return place[0] + moved.real, place[1] + moved.imag, angle, zoom

    return pose


def _inverse_map(image: np.ndarray, x: float, y: float, angle: float, zoom: float) -> np.ndarray:
    """Returns the affine map from a destination pixel to `image`, whose centre is to land on (x, y)."""
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    linear = np.array([[cos, sin], [-sin, cos]])
    centre = np.array([image.shape[1] - 1, image.shape[0] - 1]) / 2
    return np.column_stack((linear, centre - linear @ (x, y)))


def _paste(target: np.ndarray, sprite: np.ndarray, x: float, y: float, angle: float, zoom: float) -> None:
    """Lays a sprite over `target` in place.

    Args:
        target: float32 RGB of shape [height, width, 3].
        sprite: float32 of shape [rows, columns, 4], RGB premultiplied by the alpha that follows it.
        x: Column, in target pixels, of the sprite's centre.
        y: Row, in target pixels, of the sprite's centre.
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
    view = _inverse_map(sprite, x - left, y - top, angle, zoom)
    patch = cv2.warpAffine(sprite, view, (right - left, bottom - top), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
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
    stroke = max(round(_OVERSAMPLE * size / 10), 1)
    (columns, rows), _ = cv2.getTextSize(word, font, scale, stroke)
    margin = int(_OVERSAMPLE * size)
    shape = (rows + 2 * margin, columns + 2 * margin)
    ink = np.zeros(shape, np.uint8)
    cv2.putText(ink, word, (margin, margin + rows), font, scale, 255, stroke, cv2.LINE_AA)
    dark, bright = _ramp(rng, hue + 180, 0.6)[[10, 250], 0].astype(np.float32)
    if not plate:
        return _cut_out(np.full((*shape, 3), bright), ink, size / 4)
    if rng.random() < 0.5:
        dark, bright = bright, dark
    cover = ink[..., None] / np.float32(255)
    colour = dark + (bright - dark) * cover
    gap = margin // 2
    mask = np.zeros(shape, np.uint8)
    mask[gap:-gap, gap:-gap] = 255
    return _cut_out(colour, mask, size / 4)


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
    return cv2.applyColorMap(cv2.convertScaleAbs(np.maximum(127 + 80 * value + 24 * noise, 0)), ramp)


def _noise(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Returns float32 noise of about zero mean and unit variance, in octaves from the frame's pixel to its size."""
    octaves = int(np.log2(max(rows, columns) / _OVERSAMPLE))
    roughness = rng.uniform(0.6, 0.85)
    field = np.zeros((1, 1), np.float32)
    for octave in range(octaves, -1, -1):
        cell = _OVERSAMPLE * 2**octave
        shape = (-(-rows // cell), -(-columns // cell))
        field = cv2.resize(field, shape[::-1], interpolation=cv2.INTER_CUBIC)
        field += roughness ** (octaves - octave) * rng.standard_normal(shape, np.float32)
    field = cv2.resize(field, (columns, rows), interpolation=cv2.INTER_CUBIC)
    return (field - field.mean()) / field.std()


def _clouds(rng, x, y, period, noise):
    return 0.8 * noise


def _marble(rng, x, y, period, noise):
    return np.sin(x * (1.2 / period) + 2 * noise)


def _grating(rng, x, y, period, noise):
    return np.sin(x * (2 * np.pi / period) + 0.3 * np.sin(y * (1 / period)))


def _checks(rng, x, y, period, noise):
    return _square(x, 2 * period) * _square(y, 2 * period)


def _dots(rng, x, y, period, noise):
    return np.clip((np.sin(x * (4 / period)) * np.sin(y * (4 / period)) - 0.2) * (period / 5), -1, 1)


def _rings(rng, x, y, period, noise):
    x, y = x - x.mean(), y - y.mean()
    squared = x * x + y * y
    # The phase grows with the square of the radius: periods fall from very long to the given one at the corners.
    return np.sin(squared * (np.pi / period / np.sqrt(squared.max())))


def _bricks(rng, x, y, period, noise):
    tall, wide = 2 * period, 4.4 * period
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
_REGULAR = (_bricks, _grating, _checks, _dots, _rings)


def _ramp(rng: np.random.Generator, hue: float, saturation: float) -> np.ndarray:
    """Returns a uint8 RGB colour map of shape [256, 1, 3], dark to bright about a hue in degrees."""
    level = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    # As outdoors, shadows and lights differ in hue as well as in value, and lights are paler.
    hues = (hue + rng.normal(0, 12) + rng.uniform(-50, 50) * (level - 0.5)) % 360
    saturations = np.clip(saturation * rng.uniform(0.6, 1.3) * (1.1 - 0.6 * level**2), 0, 1)
    hsv = np.stack((hues, saturations, 0.08 + 0.92 * level**0.8), -1).astype(np.float32)
    return cv2.convertScaleAbs(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), alpha=255)


def _light(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Returns the gain, float32 of shape [height, width, 3], of light that falls from one side of the frame."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    side = x * np.cos(angle) + y * np.sin(angle)
    return cv2.cvtColor((0.95 + 0.16 * side - 0.08 * (x * x + y * y)).astype(np.float32), cv2.COLOR_GRAY2RGB)
