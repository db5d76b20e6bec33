"""Small videos that the tests read, made here to the sample: frames, times, colour tags, sound, text and chapters."""

import dataclasses
import fractions

import av
import numpy as np
from av.subtitles.subtitle import SubtitleSet

from msitf_jax.video import reader

SAMPLE_RATE = 48000
# For `write_video`.
H264 = {"codec": "libx264", "pix_fmt": "yuv420p"}
LOSSLESS = H264 | {"options": {"qp": "0"}}


@dataclasses.dataclass(frozen=True)
class Sound:
    """A track with a tone, mono, from `start` to `end`, in seconds."""

    codec: str = "pcm_s16le"
    metadata: dict = dataclasses.field(default_factory=dict)
    disposition: int = 0
    start: float = 0
    end: float = 1


@dataclasses.dataclass(frozen=True)
class Text:
    """A track of subtitles: `lines` are (start, end, text), in milliseconds."""

    lines: tuple
    codec: str = "subrip"
    metadata: dict = dataclasses.field(default_factory=dict)
    disposition: int = 0


def write_video(
    path,
    frames,
    *,
    codec="ffv1",
    options=(),
    pix_fmt="yuv444p",
    rate=25,
    times=None,
    time_base=None,
    sar=1,
    tags=None,
    matrix=None,
    tracks=(),
    chapters=(),
    attachments=(),
    metadata=(),
    video_metadata=(),
    format=None,
):
    """Writes a video file and returns its path.

    Args:
      path: its ending says the container, unless `format` does.
      frames: see `av_frame`.
      codec, options: of FFmpeg's encoder.
      pix_fmt: FFmpeg's name.
      rate: frames a second.
      times: of the frames, in ticks of `time_base`; None is one tick after the other.
      time_base: seconds a tick; None is a frame.
      sar: a pixel's width over its height; in Matroska only for codecs that hold it themselves, such as libx264.
      tags: `color.Tags`; None leaves them out.
      matrix: the display matrix: nine integers.
      tracks: `Sound` and `Text`.
      chapters: (start, end, title), in seconds.
      attachments: (name, MIME type, bytes), for Matroska.
      metadata, video_metadata: of the whole file, and of its video stream.
      format: FFmpeg's name of the container.
    """
    with av.open(f"file:{path}", "w", format=format) as container:
        container.metadata.update(metadata)
        stream = container.add_stream(codec, rate=fractions.Fraction(rate), options=dict(options))
        stream.metadata.update(video_metadata)
        context, first = stream.codec_context, av_frame(frames[0], pix_fmt)
        context.width, context.height, context.pix_fmt = first.width, first.height, pix_fmt
        time_base = fractions.Fraction(time_base or 1 / fractions.Fraction(rate))
        stream.time_base = context.time_base = time_base
        context.sample_aspect_ratio = fractions.Fraction(sar)
        if tags is not None:
            context.color_range, context.colorspace = 2 if tags.full_range else 1, tags.matrix
            context.color_primaries, context.color_trc = tags.primaries, tags.transfer
        if matrix is not None:
            stream.set_display_matrix(matrix)
        added = [_add_track(container, track) for track in tracks]
        for attachment in attachments:
            container.add_attachment(*attachment)
        second = fractions.Fraction(1)
        container.set_chapters(
            [
                {"id": number, "start": start, "end": end, "time_base": second, "metadata": {"title": title}}
                for number, (start, end, title) in enumerate(chapters, 1)
            ]
        )
        container.start_encoding()
        packets = []
        for frame, time in zip(frames, range(len(frames)) if times is None else times, strict=True):
            frame = av_frame(frame, pix_fmt)
            frame.pts, frame.time_base = time, time_base
            packets += stream.encode(frame)
        packets += stream.encode()
        for track, target in zip(tracks, added, strict=True):
            packets += (_tone if isinstance(track, Sound) else _lines)(track, target)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def av_frame(frame, pix_fmt="yuv444p"):
    """An `av.VideoFrame` with just these samples.

    Args:
      frame: a list of what FFmpeg calls planes, each `[h, w]` or, several samples together, `[h, w, n]`. Or one array
        `[H, W, 3]`, of which planar formats take every channel, at every pixel or every other.
      pix_fmt: FFmpeg's name.
    """
    planar = isinstance(frame, np.ndarray)
    height, width = (frame if planar else frame[0]).shape[:2]
    result = av.VideoFrame(width, height, pix_fmt)
    for index, plane in enumerate(result.planes):
        if planar:
            samples = frame[..., index if not pix_fmt.startswith("gbr") else (1, 2, 0)[index]]
            samples = samples[:: -(-height // plane.height), :: -(-width // plane.width)]
        else:
            samples = frame[index].reshape(len(frame[index]), -1)
        rows = np.frombuffer(plane, samples.dtype).reshape(len(samples), -1)
        rows[:, : samples.shape[1]] = samples
    return result


def flat(color, height=12, width=16, dtype=np.uint8):
    """`[height, width, 3]` of one colour."""
    return np.full((height, width, 3), color, dtype)


def noise(frames, height=12, width=16, seed=0, dtype=np.uint8, largest=255):
    """`[frames, height, width, 3]` integers in 0..largest."""
    return np.random.default_rng(seed).integers(0, largest + 1, (frames, height, width, 3), dtype)


def packets(path, kind, index=0):
    """[(pts in seconds, duration in seconds, bytes)] of a file's `index`-th stream of a kind, such as "audio"."""
    with av.open(f"file:{path}") as container:
        stream = getattr(container.streams, kind)[index]
        return [
            (packet.pts * packet.time_base, packet.duration * packet.time_base, bytes(packet))
            for packet in container.demux(stream)
            if packet.size
        ]


def _add_track(container, track):
    stream = container.add_stream(track.codec, **({"rate": SAMPLE_RATE} if isinstance(track, Sound) else {}))
    if isinstance(track, Sound):
        stream.codec_context.layout = "mono"
    else:
        stream.codec_context.subtitle_header = b"[Script Info]\n"
        stream.time_base = stream.codec_context.time_base = fractions.Fraction(1, 1000)
    stream.metadata.update(track.metadata)
    stream.disposition = track.disposition
    return stream


def _tone(track, stream):
    samples = np.arange(round(track.start * SAMPLE_RATE), round(track.end * SAMPLE_RATE))
    wave = np.rint(8000 * np.sin(samples / 17)).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(wave[None], "s16", "mono")
    frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, int(samples[0]), fractions.Fraction(1, SAMPLE_RATE)
    return [*stream.encode(frame), *stream.encode()]


def _lines(track, stream):
    found = []
    for start, end, text in track.lines:
        line = SubtitleSet.create(text=f"0,0,Default,,0,0,0,,{text}".encode(), start=0, end=end - start, pts=start)
        packet = stream.codec_context.encode_subtitle(line)
        packet.stream, packet.time_base = stream, fractions.Fraction(1, 1000)
        found.append(packet)
    return found


def read(path, **part):
    """[pixels] of all pictures."""
    return [picture.pixels for picture in reader.open_source(path, **part).pictures()]


def seconds(path, **part):
    """When all pictures appear, exactly."""
    source = reader.open_source(path, **part)
    return [picture.time * source.time_base for picture in source.pictures()]
