"""A video read and written again, as jobs do it but without a network."""

import av
import cv2
import jax.numpy as jnp
import numpy as np

from msitf_jax.video import joining, reader, writer
from tests.video import noise


def moving(count=30):
    """A picture that slides to the left, of which x264 makes frames that depend on later ones."""
    picture = cv2.GaussianBlur(noise(1, 48, 64 + 2 * count)[0], (0, 0), 3)
    return [np.ascontiguousarray(picture[:, 2 * index :][:, :64]) for index in range(count)]


def rewrite(source, output, segments=(), *, times=None, end=None, **choices):
    """Writes a source's pictures into segments of so many frames, a last one for the rest, and joins them.

    Args:
      source: of pictures, and of what else there is in it.
      output: path.
      segments: numbers of frames.
      times, end: in half ticks; by default as the source says.
      choices: for `writer.choose_encoding`.

    Returns:
      The encoding.
    """
    encoding = writer.choose_encoding(output, source, scale=1, rate=source.rate, **choices)
    pictures = list(source.pictures())
    frames = zip(pictures, [2 * picture.time for picture in pictures] if times is None else times, strict=True)
    paths = []
    for number, count in enumerate([*segments, None]):
        frames = list(frames)
        if frames:
            segment = writer.SegmentWriter(output.with_name(f"{number}.nut"), encoding)
            for picture, time in frames[:count]:
                pixels = picture.pixels
                if encoding.pixels != source.pixels:
                    pixels = np.asarray(encoding.pixels.from_rgb(source.pixels.to_rgb(jnp.asarray(pixels))))
                segment.write(pixels, time)
            paths.append(segment.close())
            frames = frames[len(frames) if count is None else count :]
    end = 2 * (pictures[-1].time + (pictures[-1].duration or 1)) if end is None else end
    file = isinstance(source, reader.VideoFile)
    copied = joining.choose_streams(source, output) if file else None
    joining.join(output, output, paths, end, encoding, source if file else None, copied)
    return encoding


def frame_times(path):
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]
