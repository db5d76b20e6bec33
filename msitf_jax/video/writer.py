"""Frames encoded into segments of video; `msitf_jax.video.joining` makes one file of them."""

import dataclasses
import fractions
import io
import os
import pathlib
from typing import Any

import av
import av.container
import av.video
import numpy as np
import numpy.typing as npt

from msitf_jax.atomic import FilePath
from msitf_jax.video import color
from msitf_jax.video.layout import planar_format, reformat
from msitf_jax.video.reader import Source

# Containers that keep each frame's own time; by the ending of the output's name.
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
DEFAULT_CODEC, WEBM_CODEC = "libx264", "libvpx-vp9"
DEFAULT_CRF = {"libx264": 18, "libx265": 20, "libvpx-vp9": 24, "libsvtav1": 24}
_CODEC_OPTIONS = {
    "libx265": {"x265-params": "log-level=error"},
    "libvpx-vp9": {"b": "0", "row-mt": "1", "cpu-used": "4"},
    "libsvtav1": {"svtav1-params": "enable-stat-report=0"},
}


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How video is encoded; `choose_encoding` makes one.

    Attributes:
      codec: FFmpeg's name of the encoder.
      options: of the encoder, such as crf.
      pixel_format: FFmpeg's name.
      width, height: in pixels.
      pixels: what the integers that are encoded mean.
      tags: `color.Tags` to write.
      sample_aspect_ratio: to write, a `Fraction`; 1 where none can be written.
      time_base: seconds a tick, a `Fraction`.
      rate: frames a second, for the encoder's planning; times may differ.
    """

    codec: str
    options: dict[str, str]
    pixel_format: str
    width: int
    height: int
    pixels: color.RGB | color.YCbCr
    tags: color.Tags
    sample_aspect_ratio: fractions.Fraction
    time_base: fractions.Fraction
    rate: fractions.Fraction

    def add_to(self, container: av.container.OutputContainer) -> av.video.VideoStream:
        """Adds a video stream with this encoding to an output container of PyAV and returns it."""
        stream = container.add_stream(self.codec, rate=self.rate, options=dict(self.options))
        assert isinstance(stream, av.VideoStream)  # or `choose_encoding` had refused the codec
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = self.width, self.height, self.pixel_format
        stream.time_base = context.time_base = self.time_base
        context.sample_aspect_ratio = self.sample_aspect_ratio
        context.color_range = color.FULL_RANGE if self.tags.full_range else color.LIMITED_RANGE
        context.colorspace = self.tags.matrix
        context.color_primaries, context.color_trc = self.tags.primaries, self.tags.transfer
        context.thread_type = "AUTO"
        # Parameter sets in the header, for whatever container the segments end in.
        context.flags |= av.codec.context.Flags.global_header
        if context.codec.canonical_name == "hevc" and container.format.name in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # what Apple's players ask for
        return stream


def container_of(output: FilePath) -> str:
    """FFmpeg's name of an output's container, by its ending; raises ValueError for others."""
    suffix = pathlib.Path(output).suffix.lower()
    if suffix not in CONTAINERS:
        raise ValueError(f"output {output}: expected a name that ends in {', '.join(CONTAINERS)}, or a folder")
    return CONTAINERS[suffix]


def choose_encoding(
    output: FilePath,
    source: Source,
    *,
    scale: int,
    rate: fractions.Fraction,
    codec: str | None = None,
    crf: float | None = None,
    pixel_format: str | None = None,
) -> Encoding:
    """Settles how an output is encoded, and tries it on one frame.

    Args:
      output: its name; the ending says the container.
      source: `reader.Source`; its colours and pixel aspect ratio are kept.
      scale: how much larger the output is.
      rate: frames a second, about.
      codec: FFmpeg's name of a codec or encoder; None is H.264, or VP9 in WebM.
      crf: constant rate factor, lower is better; None is what is hardly seen.
      pixel_format: FFmpeg's name; None is yuv420p, with more than 8 bits yuv420p10le, or what the encoder prefers.

    Returns:
      An `Encoding`.

    Raises:
      ValueError: a codec or pixel format that FFmpeg lacks or that do not go together or into the container, a crf for
        a codec that has none, or a name with another ending; named.
    """
    container = container_of(output)
    found = _encoder(codec or (WEBM_CODEC if container == "webm" else DEFAULT_CODEC))
    pixel_format = _pixel_format(found, pixel_format, source.pixels.bits)
    pixels, tags = _colours(pixel_format, source.tags)
    encoding = Encoding(
        codec=found.name,
        options=_options(found, crf),
        pixel_format=pixel_format,
        width=scale * source.width,
        height=scale * source.height,
        pixels=pixels,
        tags=tags,
        sample_aspect_ratio=source.sample_aspect_ratio,
        time_base=source.time_base / 2,
        rate=rate.limit_denominator(1001),
    )
    return _tried(encoding, container, output)


def _encoder(name):
    try:
        found = av.Codec(name, "w")
    except (av.error.FFmpegError, ValueError):
        raise ValueError(
            f"`codec` (={name!r}) is no encoder of this FFmpeg, expected such as libx264 or ffv1"
        ) from None
    if found.type != "video":
        raise ValueError(f"`codec` (={name!r}) encodes {found.type}, expected one for video")
    return found


def _pixel_format(encoder, asked, bits):
    """FFmpeg's name of the format asked for, or of the best that an encoder takes for so many bits a sample."""
    supported = [entry.name for entry in encoder.video_formats or ()]
    wanted = ["yuv420p10le", "yuv420p"] if bits > 8 else ["yuv420p", "yuv420p10le"]
    if asked is None:
        return next((entry for entry in wanted if entry in supported), supported[0] if supported else wanted[0])
    if asked not in (supported or [entry for entry in (asked,) if _is_pixel_format(entry)]):
        raise ValueError(
            f"`pix_fmt` (={asked!r}) does not go with {encoder.name}, expected one of {', '.join(supported or wanted)}"
        )
    return asked


def _options(encoder, crf):
    options = dict(_CODEC_OPTIONS.get(encoder.name, {}))
    if encoder.name == "libx264" and _has_avx512():
        options["x264-params"] = "asm=AVX2"  # its AVX-512 code gives other bits each time
    if crf is not None and encoder.name not in DEFAULT_CRF:
        raise ValueError(f"`crf` (={crf:g}) goes with {', '.join(DEFAULT_CRF)}, not with {encoder.name}")
    if encoder.name in DEFAULT_CRF:
        options["crf"] = f"{DEFAULT_CRF[encoder.name] if crf is None else crf:g}"
    return options


def _colours(pixel_format, tags):
    """What the integers of such frames mean, and the source's tags as far as they can be kept with that."""
    bits = min(16, max(8, max(component.bits for component in av.VideoFormat(pixel_format).components)))
    if av.VideoFormat(pixel_format).is_rgb:
        return color.RGB(bits), dataclasses.replace(tags, matrix=color.RGB_MATRIX, full_range=True)
    if tags.matrix == color.RGB_MATRIX:
        tags = dataclasses.replace(tags, matrix=color.BT709, full_range=False)
    if pixel_format.startswith("yuvj"):
        tags = dataclasses.replace(tags, full_range=True)
    return color.YCbCr(tags.matrix, tags.full_range, bits), tags


def _tried(encoding, container, output):
    """The encoding, with the pixel aspect ratio that a file written with it has: not all codecs and files hold one."""
    file = io.BytesIO()
    frame = np.zeros((encoding.height, encoding.width, 3), encoding.pixels.dtype)
    try:
        with av.open(io.BytesIO(), "w", format="nut") as trial:  # of segments
            encoding.add_to(trial)
        with av.open(file, "w", format=container) as trial:
            stream = encoding.add_to(trial)
            trial.mux([*stream.encode(_frame(frame, 0, encoding)), *_last_packets(stream, frames=1)])
    except (av.error.FFmpegError, ValueError) as error:
        raise ValueError(
            f"output {output}: {encoding.codec} with {encoding.pixel_format}, {encoding.width}x{encoding.height} and "
            f"{', '.join(f'{key}={value}' for key, value in encoding.options.items()) or 'no options'} "
            f"can't be written into it ({error})"
        ) from None
    if encoding.sample_aspect_ratio == 1:
        return encoding
    file.seek(0)
    with av.open(file) as trial:
        ratio = trial.streams.video[0].sample_aspect_ratio or fractions.Fraction(1)
    return dataclasses.replace(encoding, sample_aspect_ratio=ratio)


def _has_avx512():
    facts = pathlib.Path("/proc/cpuinfo")
    return facts.exists() and "avx512" in facts.read_text()


def _is_pixel_format(name):
    try:
        av.VideoFormat(name)
    except ValueError:
        return False
    return True


class SegmentWriter:
    """Encodes frames into a file of its own, which is there whole or not at all.

    Attributes:
      frames: how many it was given.
    """

    def __init__(self, path: FilePath, encoding: Encoding) -> None:
        self.frames = 0
        self._path, self._encoding = pathlib.Path(path), encoding
        self._temporary = self._path.with_name(f"{self._path.name}.part")
        # NUT holds any codec and any time base.
        self._container = av.open(
            f"file:{self._temporary}", "w", format="nut", container_options={"avoid_negative_ts": "disabled"}
        )
        self._stream = encoding.add_to(self._container)

    def write(self, pixels: npt.NDArray[Any], time: int) -> None:
        """Encodes `[H, W, 3]` integers to be shown at `time`, in ticks of the encoding."""
        self._container.mux(self._stream.encode(_frame(pixels, time, self._encoding)))
        self.frames += 1

    def close(self) -> pathlib.Path:
        """Finishes the file, gives it its name and returns that."""
        self._container.mux(_last_packets(self._stream, self.frames))
        self._container.close()
        os.replace(self._temporary, self._path)
        return self._path

    def abandon(self) -> None:
        """Leaves no file."""
        self._container.close()
        self._temporary.unlink(missing_ok=True)


def _last_packets(stream, frames):
    packets = stream.encode()
    if frames == 1:
        for packet in packets:
            packet.dts = packet.pts  # which libx265 leaves to chance
    return packets


def _frame(pixels, time, encoding):
    grey = encoding.pixel_format.startswith(("gray", "ya"))
    base = "gbrp" if isinstance(encoding.pixels, color.RGB) else "gray" if grey else "yuv444p"
    planar = planar_format(base, encoding.pixels.bits)
    height, width, _ = pixels.shape
    frame = av.VideoFrame(width, height, planar)
    order = (1, 2, 0) if planar.startswith("gbr") else (0, 1, 2)
    for plane, channel in zip(frame.planes, order, strict=not grey):
        rows = np.frombuffer(plane, pixels.dtype).reshape(height, -1)  # type: ignore[call-overload, unused-ignore]
        rows[:, :width] = pixels[..., channel]
    size = (width, height)
    chroma = ("left", "center" if encoding.pixel_format.startswith("yuvj") else "left")
    frame = reformat(frame, encoding.pixel_format, size, full_range=encoding.tags.full_range, chroma=chroma)
    frame.pts, frame.time_base = time, encoding.time_base
    return frame
