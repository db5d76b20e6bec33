"""Frames encoded: how is settled, what is refused, and the colours that are in the file."""

import fractions

import jax.numpy as jnp
import numpy as np
import pytest

from msitf_jax.video import joining, reader, sinks, writer
from msitf_jax.video.color import RGB, Tags, YCbCr
from tests.rewriting import frame_times, moving, rewrite
from tests.video import H264, flat, noise, write_video

LOSSLESS = {"codec": "ffv1", "pixel_format": "yuv444p"}
Seconds = fractions.Fraction


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
