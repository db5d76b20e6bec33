"""Segments of video joined into one file with everything else that the source holds."""

import dataclasses
import fractions
import heapq
import io
import itertools
import pathlib
from collections.abc import Sequence

import av

from msitf_jax.atomic import FilePath
from msitf_jax.video.reader import VideoFile, video_stream
from msitf_jax.video.writer import CONTAINERS, Encoding, container_of

# The same input gives the same bytes: without this Matroska files get a random number.
_CONTAINER_OPTIONS = {"fflags": "+bitexact"}
_MP4_OPTIONS = {"movflags": "+faststart"}
_OWN_METADATA = ("major_brand", "minor_version", "compatible_brands", "encoder", "duration")


@dataclasses.dataclass(frozen=True)
class Copied:
    """Streams of a source that an output takes over as they are.

    Attributes:
      indices: of the streams in the source.
      refused: sentences on the audio and subtitle streams that the output's container can't hold.
    """

    indices: tuple[int, ...]
    refused: tuple[str, ...]


def choose_streams(source: VideoFile, output: FilePath) -> Copied:
    """Which of a `reader.VideoFile`'s audio and subtitle streams and attachments an output can hold: `Copied`."""
    container_name = container_of(output)
    indices, refused = [], []
    with source.open() as container:
        for stream in container.streams:
            if stream.type not in ("audio", "subtitle", "attachment"):
                continue
            if _holds(container_name, stream):
                indices.append(stream.index)
            elif stream.type != "attachment":
                codec = stream.codec_context.name if stream.codec_context else "an unknown codec"
                language = stream.metadata.get("language")
                others = ", ".join(ending for ending, other in CONTAINERS.items() if _holds(other, stream))
                refused.append(
                    f"{stream.type} stream {stream.index} ({codec}{f', {language}' if language else ''}) is left out: "
                    f"{pathlib.Path(output).suffix} files can't hold it{f', {others} can' if others else ''}"
                )
    return Copied(tuple(indices), tuple(refused))


def _holds(container_name, stream):
    try:
        with av.open(io.BytesIO(), "w", format=container_name) as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (av.error.FFmpegError, ValueError):
        return False
    return True


def join(
    path: FilePath,
    output: FilePath,
    segments: Sequence[FilePath],
    end: int,
    encoding: Encoding,
    source: VideoFile | None = None,
    copied: Copied | None = None,
) -> None:
    """Joins segments into one file, with the source's other streams, chapters and titles.

    Packets are copied as they are. Decoding times are made anew, since those of segments overlap; memory grows by a few
    bytes a frame.

    Args:
      path: the file to write.
      output: its final name, for the container.
      segments: paths of what `SegmentWriter` wrote, in order.
      end: when the last frame ends, in ticks of the encoding.
      encoding: the one they were written with.
      source: `reader.VideoFile` whose streams are copied, or None.
      copied: `Copied`, or None with no source.

    Raises:
      ValueError: the output's ending says no container, or the source is gone or altered.
      OSError: the file can't be written.
    """
    name = container_of(output)
    options = _CONTAINER_OPTIONS | (_MP4_OPTIONS if name in ("mp4", "mov") else {})
    with av.open(f"file:{path}", "w", format=name, container_options=options) as target:
        stream = encoding.add_to(target)
        packets = [_video_packets(segments, end, encoding, stream)]
        if source is None or copied is None:
            target.start_encoding()
            for packet in packets[0]:
                target.mux(packet)
            return
        with source.open() as container:
            streams = {index: _add_copy(target, container.streams[index]) for index in copied.indices}
            _copy_titles(container, target, source, stream)
            target.start_encoding()
            if any(template.type != "attachment" for template in (container.streams[i] for i in copied.indices)):
                packets.append(_copied_packets(container, source, streams))
            for packet in heapq.merge(*packets, key=lambda packet: packet.dts * packet.time_base):
                target.mux(packet)


def _add_copy(target, template):
    stream = target.add_stream_from_template(template)
    stream.metadata.update(template.metadata)
    stream.disposition = template.disposition
    return stream


def _copy_titles(container, target, source, stream):
    target.metadata.update({key: value for key, value in container.metadata.items() if key not in _OWN_METADATA})
    original = video_stream(container, source.path)
    stream.metadata.update({key: original.metadata[key] for key in ("language", "title") if key in original.metadata})
    length = None if source.end is None else source.end - source.start
    chapters = []
    for chapter in container.chapters():
        base = chapter["time_base"]
        start, end = (chapter[key] * base - source.zero for key in ("start", "end"))
        start, end = max(start, fractions.Fraction(0)), end if length is None else min(end, length)
        if end > start:
            chapters.append(chapter | {"start": round(start / base), "end": round(end / base)})
    if chapters:
        target.set_chapters(chapters)


def _video_packets(segments, end, encoding, stream):
    times = list(itertools.chain.from_iterable(_segment_times(path, encoding) for path in segments))
    shown = sorted(times)
    place = {time: index for index, time in enumerate(shown)}
    # How many frames an encoder that reorders must be ahead.
    delay = max(index - place[time] for index, time in enumerate(times))
    step = shown[1] - shown[0] if len(shown) > 1 else 1
    until = [*shown[1:], max(end, shown[-1] + 1)]
    # FFmpeg takes an MP4 to be no longer than its decoding times and the last packet say, so they begin early enough;
    # not by more than a second, since players may wait.
    lead = max(delay * step, min(times[-1] - shown[-1 - delay], round(1 / encoding.time_base)))
    decoded = [shown[0] - lead + ahead * lead // delay for ahead in range(delay)] + shown[: len(shown) - delay]
    position = 0
    for path in segments:
        for packet in _segment_packets(path):
            time = times[position]
            packet.pts, packet.dts, packet.time_base = time, decoded[position], encoding.time_base
            packet.duration = until[place[time]] - time
            if position + 1 == len(times) and stream.container.format.name in ("mp4", "mov"):
                packet.duration = until[-1] - time
            packet.stream = stream
            position += 1
            yield packet


def _segment_times(path, encoding):
    for packet in _segment_packets(path):
        yield round(packet.pts * packet.time_base / encoding.time_base)


def _segment_packets(path):
    with av.open(f"file:{path}", options={"protocol_whitelist": "file"}) as container:
        for packet in container.demux(video=0):
            if packet.size:
                yield packet


def _copied_packets(container, source, streams):
    length = None if source.end is None else source.end - source.start
    for packet in container.demux([container.streams[index] for index in streams]):
        if packet.dts is None or packet.stream.type == "attachment":
            continue
        shift = round(source.zero / packet.time_base)
        time = (packet.pts if packet.pts is not None else packet.dts) - shift
        if (source.start and time < 0) or (length is not None and time * packet.time_base >= length):
            continue
        packet.dts -= shift
        if packet.pts is not None:
            packet.pts -= shift
        packet.stream = streams[packet.stream.index]
        yield packet
