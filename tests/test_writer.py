"""Encodings that are chosen or refused, segments joined into files, and what they keep of their source."""

import fractions
import itertools

import av
import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from av.stream import Disposition

from msitf_jax.video import joining, reader, sinks, writer
from msitf_jax.video.color import RGB, Tags, YCbCr
from tests.video import Sound, Text, flat, noise, packets, write_video

H264 = {"codec": "libx264", "pix_fmt": "yuv420p"}
LOSSLESS = {"codec": "ffv1", "pixel_format": "yuv444p"}
Seconds = fractions.Fraction


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


def video_times(path):
    """(decoding and presentation times in seconds, in the file's order) of a file's video."""
    with av.open(str(path)) as container:
        found = [(packet.dts, packet.pts, packet.time_base) for packet in container.demux(video=0) if packet.size]
    return [dts and dts * base for dts, _, base in found], [pts * base for _, pts, base in found]


def frame_times(path):
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


# Encodings.


@pytest.mark.parametrize(
    ("output", "codec", "crf"),
    [
        ("a.mp4", "libx264", "18"),
        ("a.M4V", "libx264", "18"),
        ("a.mov", "libx264", "18"),
        ("a.mkv", "libx264", "18"),
        ("a.webm", "libvpx-vp9", "24"),
    ],
)
def test_defaults_go_by_the_container(tmp_path, output, codec, crf):
    source = reader.open_source(write_video(tmp_path / "a.mkv", moving(2), rate="24000/1001"))
    encoding = writer.choose_encoding(output, source, scale=4, rate=2 * source.rate)
    assert (encoding.codec, encoding.options["crf"], encoding.pixel_format) == (codec, crf, "yuv420p")
    assert (encoding.width, encoding.height, encoding.rate) == (256, 192, Seconds(48000, 1001))
    assert encoding.time_base == Seconds(1, 2000)  # half a tick of Matroska


@pytest.mark.parametrize(
    ("pix_fmt", "choices", "pixel_format", "pixels"),
    [
        ("yuv444p", {}, "yuv420p", YCbCr(6, False)),
        ("yuv444p10le", {}, "yuv420p10le", YCbCr(6, False, 10)),
        ("yuv444p12le", {}, "yuv420p10le", YCbCr(6, False, 10)),
        ("gbrp10le", {}, "yuv420p10le", YCbCr(1, False, 10)),
        ("gray", {}, "yuv420p", YCbCr(1, False)),
        ("yuv444p", {"codec": "hevc"}, "yuv420p", YCbCr(6, False)),
        ("yuv444p", {"codec": "ffv1", "pixel_format": "gbrp10le"}, "gbrp10le", RGB(10)),
        ("yuv444p", {"pixel_format": "yuvj444p"}, "yuvj444p", YCbCr(6, True)),
        ("yuv444p10le", {"codec": "libvpx"}, "yuv420p", YCbCr(6, False)),
    ],
)
def test_pixel_formats_go_by_the_source_and_what_is_asked_for(tmp_path, pix_fmt, choices, pixel_format, pixels):
    frame = flat((50, 100, 150), dtype=np.uint8 if pix_fmt in ("yuv444p", "gray") else np.uint16)
    source = reader.open_source(write_video(tmp_path / "a.mkv", [frame], pix_fmt=pix_fmt))
    encoding = writer.choose_encoding("a.mkv", source, scale=4, rate=source.rate, **choices)
    assert (encoding.pixel_format, encoding.pixels) == (pixel_format, pixels)


@pytest.mark.parametrize(
    ("output", "choices", "message"),
    [
        ("a.avi", {}, r"output a.avi: expected a name that ends in .mp4, .m4v, .mov, .mkv, .webm, or a folder$"),
        ("a.mp4", {"codec": "h265"}, r"`codec` \(='h265'\) is no encoder of this FFmpeg, expected such as libx264"),
        ("a.mp4", {"codec": "aac"}, r"`codec` \(='aac'\) encodes audio, expected one for video$"),
        (
            "a.mp4",
            {"pixel_format": "gbrp"},
            r"`pix_fmt` \(='gbrp'\) does not go with libx264, expected one of yuv420p,",
        ),
        (
            "a.mkv",
            {"codec": "rawvideo", "pixel_format": "yuv"},
            r"`pix_fmt` \(='yuv'\) does not go with rawvideo, expected one of yuv420p, yuv420p10le$",
        ),
        ("a.mkv", {"codec": "ffv1", "crf": 3}, r"`crf` \(=3\) goes with libx264, .*, not with ffv1$"),
        ("a.mp4", {"crf": -3}, r"output a.mp4: libx264 with yuv420p, 15x11 and .*crf=-3 can't be written into it \("),
        ("a.webm", {"codec": "libx264"}, r"output a.webm: libx264 with .* can't be written into it \(.*webm"),
        ("a.mov", {"codec": "prores_ks"}, r"output a.mov: prores_ks with .* can't be written into it \(.*nut"),
        ("a.mkv", {}, r"output a.mkv: libx264 with yuv420p, 15x11 and .* can't be written into it \("),  # odd
    ],
)
def test_what_does_not_go_together_is_refused_in_one_sentence(tmp_path, output, choices, message):
    source = reader.open_source(write_video(tmp_path / "a.mkv", noise(1, 11, 15)))
    with pytest.raises(ValueError, match=f"^{message}") as error:
        writer.choose_encoding(output, source, scale=1, rate=source.rate, **choices)
    assert "\n" not in str(error.value)


def test_what_a_single_frame_lacks_is_no_refusal(tmp_path):
    source = reader.open_source(write_video(tmp_path / "a.mkv", moving(1)))
    for _ in range(8):  # libx265 leaves its decoding time undefined: half of the time it could not be written
        assert writer.choose_encoding("a.mp4", source, scale=1, rate=source.rate, codec="libx265").codec == "libx265"
    rewrite(source, tmp_path / "b.mp4", codec="libx265")
    assert frame_times(tmp_path / "b.mp4") == [0]


# Segments.


def test_a_segment_is_there_when_it_is_whole(tmp_path):
    source = reader.open_source(write_video(tmp_path / "a.mkv", moving(3)))
    encoding = writer.choose_encoding("a.mp4", source, scale=1, rate=source.rate)
    path = tmp_path / "segments" / "0.nut"
    path.parent.mkdir()
    segment = writer.SegmentWriter(path, encoding)
    segment.write(moving(1)[0], 0)
    assert not path.exists()
    segment.abandon()
    assert not list(path.parent.iterdir())
    segment = writer.SegmentWriter(path, encoding)
    segment.write(moving(1)[0], 0)
    assert segment.close() == path
    assert segment.frames == 1
    assert list(path.parent.iterdir()) == [path]


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


# Colours.


@pytest.mark.parametrize("matrix", [6, 1], ids=["BT.601", "BT.709"])
@pytest.mark.parametrize("full_range", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("ending", [".mkv", ".mp4"])
def test_colour_bars_go_through_unchanged(tmp_path, ending, matrix, full_range):
    kind = YCbCr(matrix, full_range)
    bars = np.array([[255, 255, 255], [255, 255, 0], [0, 255, 255], [0, 255, 0], [255, 0, 255], [255, 0, 0]], np.uint8)
    bars = np.concatenate([bars, [[0, 0, 255], [0, 0, 0], [128, 128, 128], [191, 64, 30]]]).astype(np.uint8)
    rgb = np.tile(bars.repeat(4, axis=0), (12, 1, 1))
    pixels = np.asarray(kind.from_rgb(RGB().to_rgb(jnp.asarray(rgb))))
    path = write_video(tmp_path / "source.mkv", [pixels], tags=Tags(matrix, full_range, matrix, matrix))
    source = reader.open_source(path)
    (picture,) = source.pictures()
    np.testing.assert_array_equal(picture.pixels, pixels)

    output = tmp_path / f"out{ending}"
    encoding = writer.choose_encoding(output, source, scale=1, rate=source.rate, **LOSSLESS)
    through = np.asarray(encoding.pixels.from_rgb(source.pixels.to_rgb(jnp.asarray(picture.pixels))))
    segment = writer.SegmentWriter(tmp_path / "0.nut", encoding)
    segment.write(through, 0)
    joining.join(output, output, [segment.close()], 2, encoding)

    back = reader.open_source(output)
    (picture,) = back.pictures()
    assert back.tags == source.tags
    np.testing.assert_array_equal(picture.pixels, pixels)
    shown = np.asarray(RGB().from_rgb(back.pixels.to_rgb(jnp.asarray(picture.pixels)))).astype(int)
    assert np.abs(shown - rgb).max() <= 1  # 8 bits of Y'CbCr: 1 measured


@pytest.mark.parametrize("tags", [Tags(1, False, 1, 1), Tags(6, True, 6, 6), Tags(5, False), Tags(9, False, 9, 14)])
@pytest.mark.parametrize("output", ["a.mp4", "a.mkv", "a.webm", "a.mov"])
def test_tags_and_flat_colours_are_kept(tmp_path, output, tags):
    color = (120, 70, 200)
    source = reader.open_source(write_video(tmp_path / "source.mkv", [flat(color, 48, 64)], tags=tags))
    rewrite(source, tmp_path / output)
    back = reader.open_source(tmp_path / output)
    assert back.tags == tags
    (picture,) = back.pictures()
    assert np.abs(picture.pixels.astype(int) - color).max() <= 1  # compression: 1 measured


def test_rgb_is_written_as_bt709_or_as_it_is(tmp_path):
    (frame,) = noise(1, dtype=np.uint16, largest=1023)
    source = reader.open_source(
        write_video(tmp_path / "source.mkv", [frame], pix_fmt="gbrp10le", tags=Tags(0, True, 9, 14))
    )
    rewrite(source, tmp_path / "a.mp4")
    assert reader.open_source(tmp_path / "a.mp4").tags == Tags(1, False, 9, 14)
    rewrite(source, tmp_path / "b.mkv", codec="ffv1", pixel_format="gbrp10le")
    back = reader.open_source(tmp_path / "b.mkv")
    assert back.tags == source.tags
    np.testing.assert_array_equal(next(back.pictures()).pixels, frame)


@pytest.mark.parametrize("pixel_format", ["gray", "gray10le", "ya8"])
@pytest.mark.parametrize("full_range", [False, True])
def test_grey_output_has_the_luma_as_it_is(tmp_path, pixel_format, full_range):
    (frame,) = noise(1)
    source = reader.open_source(write_video(tmp_path / "source.mkv", [frame], tags=Tags(6, full_range)))
    encoding = writer.choose_encoding(
        "a.mkv", source, scale=1, rate=source.rate, codec="ffv1", pixel_format=pixel_format
    )
    assert encoding.pixels.bits == (10 if "10" in pixel_format else 8)
    frame = frame.astype(encoding.pixels.dtype)
    segment = writer.SegmentWriter(tmp_path / "0.nut", encoding)
    segment.write(frame, 0)
    joining.join(tmp_path / "a.mkv", "a.mkv", [segment.close()], 2, encoding)
    (picture,) = reader.open_source(tmp_path / "a.mkv").pictures()
    np.testing.assert_array_equal(picture.pixels[..., 0], frame[..., 0])


@pytest.mark.parametrize(
    ("output", "codec"),
    [("a.mp4", None), ("a.mkv", None), ("a.mov", None), ("a.mp4", "libvpx-vp9"), ("a.mkv", "libx265")],
)
def test_sample_aspect_ratio_is_kept(tmp_path, output, codec):
    source = reader.open_source(write_video(tmp_path / "source.mp4", moving(2), **H264, sar="16/11"))
    encoding = rewrite(source, tmp_path / output, codec=codec)
    assert encoding.sample_aspect_ratio == Seconds(16, 11)
    assert reader.open_source(tmp_path / output).sample_aspect_ratio == Seconds(16, 11)
    assert sinks.VideoSink(source, tmp_path / output, encoding).warnings == []


@pytest.mark.parametrize(("output", "codec"), [("a.webm", "libvpx-vp9"), ("a.mkv", "ffv1")])
def test_sample_aspect_ratio_that_is_lost_is_warned_of(tmp_path, output, codec):
    source = reader.open_source(write_video(tmp_path / "source.mp4", moving(2), **H264, sar="16/11"))
    encoding = rewrite(source, tmp_path / output, codec=codec)
    assert encoding.sample_aspect_ratio == reader.open_source(tmp_path / output).sample_aspect_ratio == 1
    (warning,) = sinks.VideoSink(source, tmp_path / output, encoding).warnings
    assert warning == f"{tmp_path}/{output}: pixels stay 16/11 as wide as high, unmarked, as with {codec}"


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
