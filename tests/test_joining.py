"""Segments joined into one file, with the sound, subtitles, chapters and titles of the source."""

import fractions
import itertools

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition

from msitf_jax.video import joining, reader
from tests.rewriting import frame_times, moving, rewrite
from tests.video import H264, Sound, Text, noise, packets, write_video

Seconds = fractions.Fraction


def video_times(path):
    """(decoding and presentation times in seconds, in the file's order) of a file's video."""
    with av.open(str(path)) as container:
        found = [(packet.dts, packet.pts, packet.time_base) for packet in container.demux(video=0) if packet.size]
    return [dts and dts * base for dts, _, base in found], [pts * base for _, pts, base in found]


EVEN = range(0, 30 * 80, 80)
SLOWER = list(itertools.accumulate(range(20, 600, 20), initial=0))  # ever slower
RAGGED = list(itertools.accumulate(np.random.default_rng(1).integers(20, 600, 29).tolist(), initial=0))
LATE = range(1000, 1000 + 30 * 80, 80)


@pytest.mark.parametrize("times", [EVEN, SLOWER, RAGGED, LATE], ids=["even", "slower", "ragged", "late"])
@pytest.mark.parametrize("segments", [(), (10, 10), (1, 1, 1), (7, 3, 13), (29,)], ids=str)
@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_segments_join_to_the_frames_and_times_that_were_written(tmp_path, ending, segments, times):
    source = reader.open_source(write_video(tmp_path / "a.mkv", moving()))
    output = tmp_path / f"joined{ending}"
    end = times[-1] + 500
    rewrite(source, output, segments, times=times, end=end)

    expected = [Seconds(time, 2000) for time in times]
    tolerance = 0 if ending == ".mp4" else Seconds(1, 2000)  # Matroska counts milliseconds
    differences = [abs(time - wanted) for time, wanted in zip(frame_times(output), expected, strict=True)]
    assert max(differences) <= tolerance
    decoding, shown = video_times(output)
    assert shown != sorted(shown)  # there are frames that depend on later ones
    assert all(time <= later for time, later in zip(decoding, shown, strict=True) if time is not None)
    decoding = [time for time in decoding if time is not None]  # Matroska does not keep the first ones
    assert all(earlier < later for earlier, later in itertools.pairwise(decoding))
    with av.open(str(output)) as container:
        (stream,) = container.streams
        # To the millisecond, as Matroska and an MP4 file's list of edits count. Only in Matroska the time before the
        # first frame counts, too.
        shown = end - times[0]
        assert container.start_time == pytest.approx(times[0] * 500, abs=500)
        assert container.duration == pytest.approx((shown if ending == ".mp4" else end) * 500, abs=500)
        if ending == ".mp4":
            assert stream.frames == 30
            assert stream.duration * stream.time_base == pytest.approx(shown / 2000, abs=5e-4)


@pytest.mark.parametrize(
    ("output", "choices"),
    [
        ("a.webm", {}),
        ("a.mp4", {"codec": "libx265"}),
        ("a.mov", {}),
        ("a.mkv", {"codec": "ffv1"}),
        ("a.mp4", {"codec": "mpeg4"}),
        ("a.mkv", {"codec": "rawvideo"}),
    ],
)
def test_segments_of_other_codecs_join_as_well(tmp_path, output, choices):
    source = reader.open_source(write_video(tmp_path / "source.mkv", moving(12)))
    rewrite(source, tmp_path / output, (5, 6), **choices)
    assert frame_times(tmp_path / output) == [Seconds(index, 25) for index in range(12)]
    brightness = [pixels.pixels[..., 0].mean() for pixels in reader.open_source(tmp_path / output).pictures()]
    expected = [pixels[..., 0].mean() for pixels in moving(12)]
    np.testing.assert_allclose(brightness, expected, atol=2)  # in order: 1.0 measured, while they span 10


def test_frames_half_a_millisecond_apart_all_get_into_matroska(tmp_path):
    source = reader.open_source(write_video(tmp_path / "a.mkv", moving(10)))
    rewrite(source, tmp_path / "b.mkv", times=range(10))
    assert len(frame_times(tmp_path / "b.mkv")) == 10


# Sound, subtitles and the rest.

TRACKS = [
    Sound("flac", {"language": "eng", "title": "Original"}, Disposition.default, end=1.2),
    Sound("aac", {"language": "deu"}, Disposition.hearing_impaired, end=1.2),
    Text(
        ((100, 400, "one"), (500, 600, "two"), (900, 1100, "drei")),
        metadata={"language": "fra", "title": "Forced"},
        disposition=Disposition.forced,
    ),
]
CHAPTERS = [(0, 1, "First"), (1, 2, "Second")]
KINDS = [("audio", 0), ("audio", 1), ("subtitles", 0)]


def full_source(path, **options):
    return write_video(path, moving(), **H264, tracks=TRACKS, chapters=CHAPTERS, metadata={"title": "Film"}, **options)


def chapters(path):
    """[(start, end, title)] of a file, in seconds."""
    with av.open(str(path)) as container:
        return [
            (entry["start"] * entry["time_base"], entry["end"] * entry["time_base"], entry["metadata"]["title"])
            for entry in container.chapters()
        ]


def descriptions(path):
    """[(kind, codec, language, title, disposition)] of a file's sound and subtitles."""
    with av.open(str(path)) as container:
        return [
            (
                stream.type,
                stream.codec_context.name,
                stream.metadata.get("language"),
                stream.metadata.get("title"),
                stream.disposition,
            )
            for stream in (*container.streams.audio, *container.streams.subtitles)
        ]


def test_matroska_keeps_everything_to_the_bit(tmp_path):
    font = ("font.ttf", "application/x-truetype-font", bytes(range(256)))
    path = full_source(tmp_path / "a.mkv", attachments=[font], video_metadata={"title": "Cut", "language": "ita"})
    output = tmp_path / "out.mkv"
    rewrite(reader.open_source(path), output, (10, 10))
    for kind, index in KINDS:
        assert packets(output, kind, index) == packets(path, kind, index)
    assert frame_times(output) == frame_times(path)
    assert descriptions(output) == descriptions(path)
    assert [entry[2:] for entry in descriptions(output)] == [
        ("eng", "Original", Disposition.default),
        ("deu", None, Disposition.hearing_impaired),
        ("fra", "Forced", Disposition.forced),
    ]
    assert chapters(output) == CHAPTERS
    with av.open(str(output)) as container:
        assert container.metadata["title"] == "Film"
        assert (container.streams.video[0].metadata["title"], container.streams.video[0].language) == ("Cut", "ita")
        (attachment,) = container.streams.attachments
        assert (attachment.name, attachment.mimetype, attachment.data) == font


def test_mp4_keeps_sound_chapters_and_languages_and_refuses_srt_by_name(tmp_path):
    path, output = full_source(tmp_path / "a.mkv"), tmp_path / "out.mp4"
    source = reader.open_source(path)
    copied = joining.choose_streams(source, output)
    assert copied == joining.Copied(
        (1, 2), ("subtitle stream 3 (srt, fra) is left out: .mp4 files can't hold it, .mkv can",)
    )
    rewrite(source, output, (10, 10))
    for index in (0, 1):
        assert packets(output, "audio", index) != []
        assert [data for _, _, data in packets(output, "audio", index)] == [
            data for _, _, data in packets(path, "audio", index)
        ]
        times = zip(packets(output, "audio", index), packets(path, "audio", index), strict=True)
        assert max(abs(ours[0] - theirs[0]) for ours, theirs in times) <= Seconds(1, 1000)  # of Matroska's rounding
    assert [entry[2] for entry in descriptions(output)] == ["eng", "deu"]
    assert chapters(output) == CHAPTERS
    with av.open(str(output)) as container:
        assert container.metadata["title"] == "Film"


@pytest.mark.parametrize("codec", ["aac", "ac3", "eac3", "mp2", "libmp3lame", "libopus", "alac", "flac", "pcm_s16le"])
def test_sound_goes_from_mp4_to_mp4(tmp_path, codec):
    path = write_video(tmp_path / "a.mp4", moving(5), **H264, tracks=[Sound(codec)])
    rewrite(reader.open_source(path), tmp_path / "b.mp4")
    assert packets(tmp_path / "b.mp4", "audio") == packets(path, "audio")


@pytest.mark.parametrize(
    ("codec", "ending", "output", "refused"),
    [
        (
            "aac",
            ".mkv",
            "a.webm",
            "audio stream 1 (aac) is left out: .webm files can't hold it, .mp4, .m4v, .mov, .mkv can",
        ),
        ("flac", ".mkv", "a.mov", "audio stream 1 (flac) is left out: .mov files can't hold it, .mp4, .m4v, .mkv can"),
        (
            "mov_text",
            ".mp4",
            "a.mkv",
            "subtitle stream 1 (mov_text, und) is left out: .mkv files can't hold it, .mp4, .m4v, .mov can",
        ),
        ("libopus", ".mkv", "a.webm", None),
        ("mov_text", ".mp4", "a.mp4", None),
        ("webvtt", ".mkv", "a.webm", None),
        ("ass", ".mkv", "a.mkv", None),
    ],
)
def test_streams_that_the_container_lacks_are_named_with_those_that_hold_them(tmp_path, codec, ending, output, refused):
    track = Text(((0, 100, "hi"),), codec) if codec in ("mov_text", "webvtt", "ass") else Sound(codec)
    source = reader.open_source(write_video(tmp_path / f"source{ending}", moving(3), **H264, tracks=[track]))
    copied = joining.choose_streams(source, output)
    assert copied == joining.Copied(() if refused else (1,), (refused,) if refused else ())


@pytest.mark.parametrize(
    ("name", "options", "sound", "start"),
    [
        ("a.ts", {}, "mp2", 0),  # begins at 1.4 s
        ("a.mkv", {"times": range(5000, 6200, 40), "time_base": "1/1000"}, "flac", 5),
        ("b.mkv", {"times": range(500, 1700, 40), "time_base": "1/1000"}, "flac", 0),  # sound half a second before
        ("a.mp4", {}, "aac", 0),  # sound 1024 samples before, as all of AAC's
        ("a.mpg", {"codec": "mpeg2video"}, "mp2", 0),
    ],
)
@pytest.mark.parametrize("ending", [".mkv", ".mp4"])
def test_wherever_the_source_begins_the_output_begins_at_0_with_sound_as_it_was(
    tmp_path, ending, name, options, sound, start
):
    tracks = [Sound(sound, start=start, end=start + 1.2)]
    path = write_video(tmp_path / name, moving(), **(H264 | options), tracks=tracks)
    output = tmp_path / f"out{ending}"
    source = reader.open_source(path)
    rewrite(source, output, (10, 10))
    with av.open(str(output)) as container:
        assert container.start_time == 0
    written, original = packets(output, "audio"), packets(path, "audio")
    assert [data for _, _, data in written] == [data for _, _, data in original]
    # Sound relative to video; Matroska counts milliseconds, and so does an MP4 file's list of edits.
    original_shift = next(source.pictures()).time * source.time_base + source.zero - original[0][0]
    assert abs(frame_times(output)[0] - written[0][0] - original_shift) <= Seconds(1, 1000)
    elapsed = zip(written, original, strict=True)
    assert max(abs(ours[0] - written[0][0] - (theirs[0] - original[0][0])) for ours, theirs in elapsed) <= Seconds(
        1, 1000
    )


@pytest.mark.parametrize(("start", "end"), [("0.3", "0.9"), ("0.5", None), (None, "0.7"), ("1", None)])
def test_a_part_has_the_sound_text_and_chapters_within_it(tmp_path, start, end):
    path, output = full_source(tmp_path / "a.mkv"), tmp_path / "out.mkv"
    source = reader.open_source(path, start=start, end=end)
    rewrite(source, output, (3,))
    begins, ends = Seconds(start or 0), Seconds(end or 100)
    for kind, index in KINDS:
        expected = [
            (pts - begins, duration, data)
            for pts, duration, data in packets(path, kind, index)
            if (pts >= begins or not begins) and pts < ends
        ]
        assert packets(output, kind, index) == expected
    assert chapters(output) == [
        (max(first, begins) - begins, min(last, ends) - begins, title)
        for first, last, title in CHAPTERS
        if max(first, begins) < min(last, ends)
    ]
    frames = [pts for pts in sorted(pts for pts, _, _ in packets(path, "video")) if begins <= pts < ends]
    assert frame_times(output) == [pts - begins for pts in frames]


def test_titles_that_are_no_utf8_do_not_stop_the_writing(tmp_path):
    path = full_source(tmp_path / "a.mkv")
    path.write_bytes(path.read_bytes().replace(b"Film", b"F\xfclm").replace(b"Original", b"Ori\xfcinal"))
    rewrite(reader.open_source(path), tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.metadata["title"] == "F\ufffdlm"


def test_a_folder_of_frames_becomes_video(tmp_path):
    frames = noise(3)
    for index, frame in enumerate(frames):
        (tmp_path / f"{index}.png").write_bytes(cv2.imencode(".png", frame)[1].tobytes())
    source = reader.open_source(tmp_path, fps="30000/1001")
    (tmp_path / "out").mkdir()
    encoding = rewrite(source, tmp_path / "out" / "a.mp4", codec="ffv1", pixel_format="bgr0")
    assert encoding.time_base == Seconds(1001, 60000)
    back = reader.open_source(tmp_path / "out" / "a.mp4")
    assert [picture.time * back.time_base for picture in back.pictures()] == [
        Seconds(1001 * i, 30000) for i in range(3)
    ]
    np.testing.assert_array_equal([picture.pixels for picture in back.pictures()], frames[..., ::-1])
