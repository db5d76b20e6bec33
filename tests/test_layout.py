"""Decoded frames as arrays: every pixel format, colour tags and shapes of pixels, and which way is up."""

import fractions

import numpy as np
import pytest

from msitf_jax.video import reader
from msitf_jax.video.color import RGB, Tags, YCbCr
from tests.video import H264, LOSSLESS, flat, noise, read, write_video

SD = Tags(6, False)


def halved(pixels):
    """`[H, W, 3]` -> Y, and Cb and Cr of every other pixel and row."""
    return [pixels[..., 0], pixels[::2, ::2, 1], pixels[::2, ::2, 2]]


def packed(pixels):
    """`[H, W, 3]` RGB -> what FFmpeg calls bgr0 and bgra, opaque."""
    return [np.dstack([pixels[..., ::-1], np.full_like(pixels[..., :1], 255)])]


@pytest.mark.parametrize(
    ("pix_fmt", "kind"),
    [
        ("yuv444p", YCbCr(6, False)),
        ("yuv444p10le", YCbCr(6, False, 10)),
        ("yuv444p9le", YCbCr(6, False, 9)),
        ("yuv444p12le", YCbCr(6, False, 12)),
        ("gbrp10le", RGB(10)),
        ("gbrp16le", RGB(16)),
    ],
)
def test_pictures_of_full_chroma_and_rgb_come_out_as_stored(tmp_path, pix_fmt, kind):
    frames = noise(3, dtype=kind.dtype, largest=2**kind.bits - 1)
    path = write_video(tmp_path / "a.mkv", frames, pix_fmt=pix_fmt)
    source = reader.open_source(path)
    assert (source.width, source.height, source.pixels, source.frames, source.warnings) == (16, 12, kind, 3, [])
    pictures = list(source.pictures())
    assert [picture.pixels.dtype for picture in pictures] == 3 * [kind.dtype]
    np.testing.assert_array_equal([picture.pixels for picture in pictures], frames)
    np.testing.assert_array_equal(read(path), frames)  # once more, from the beginning


@pytest.mark.parametrize("pix_fmt", ["bgr0", "bgra"])
def test_packed_rgb_is_put_in_order(tmp_path, pix_fmt):
    (frame,) = noise(1)
    path = write_video(tmp_path / "a.mkv", [packed(frame)], pix_fmt=pix_fmt)
    assert reader.open_source(path).pixels == RGB()
    np.testing.assert_array_equal(read(path), [frame])


@pytest.mark.parametrize(("pix_fmt", "bits"), [("gray", 8), ("gray10le", 10), ("gray16le", 16)])
def test_grey_is_rgb_of_three_equal_channels(tmp_path, pix_fmt, bits):
    frames = noise(2, dtype=RGB(bits).dtype, largest=2**bits - 1)
    path = write_video(tmp_path / "a.mkv", frames, pix_fmt=pix_fmt)
    assert reader.open_source(path).pixels == RGB(bits)
    np.testing.assert_array_equal(read(path), np.repeat(frames[..., :1], 3, axis=-1))


def test_grey_that_says_that_its_range_is_limited_keeps_it(tmp_path):
    path = write_video(tmp_path / "a.mkv", noise(1), pix_fmt="gray", tags=SD)
    assert reader.open_source(path).pixels == YCbCr(6, False)
    (pixels,) = read(path)
    np.testing.assert_array_equal(pixels[..., 0], noise(1)[0, ..., 0])
    assert (pixels[..., 1:] == 128).all()


@pytest.mark.parametrize("tags", [None, Tags(1, False, 1, 1), Tags(6, True, 6, 6), Tags(9, False, 9, 14)], ids=str)
@pytest.mark.parametrize(
    ("pix_fmt", "bits", "options"),
    [
        ("yuv420p", 8, {}),
        ("yuv422p", 8, {}),
        ("yuv420p10le", 10, {}),
        ("yuv420p", 8, LOSSLESS),
        ("yuv420p10le", 10, LOSSLESS),
        ("nv12", 8, LOSSLESS),
    ],
    ids=str,
)
def test_luma_and_flat_chroma_are_exact_whatever_the_tags(tmp_path, pix_fmt, bits, options, tags):
    scale = 1 << (bits - 8)
    frame = flat(np.multiply([120, 30, 220], scale), dtype=RGB(bits).dtype)
    frame[..., 0] = noise(1, dtype=frame.dtype, largest=2**bits - 1)[0, ..., 0]
    planes = [frame[..., 0], frame[::2, ::2, 1:]] if pix_fmt == "nv12" else frame
    path = write_video(tmp_path / "a.mkv", [planes], **({"codec": "ffv1"} | options | {"pix_fmt": pix_fmt}), tags=tags)
    assert reader.open_source(path).pixels.bits == bits
    np.testing.assert_array_equal(read(path), [frame])


def test_jpeg_is_full_range_bt601(tmp_path):
    path = write_video(tmp_path / "a.avi", [flat((100, 60, 200), 16, 32)], codec="mjpeg", pix_fmt="yuvj420p")
    source = reader.open_source(path)
    assert source.pixels == YCbCr(5, True)
    np.testing.assert_array_equal(read(path), [flat((100, 60, 200), 16, 32)])


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "first"),
    # Left: sample i lies at pixel 2i. Between two pixels in JPEG: at 2i + 1/2.
    [("ffv1", "yuv420p", 0.0), ("ffv1", "yuv422p", 0.0), ("ffv1", "yuv420p10le", 0.0), ("mjpeg", "yuvj420p", 0.5)],
)
def test_chroma_lies_where_the_format_says(tmp_path, codec, pix_fmt, first):
    scale = 4 if "10" in pix_fmt else 1
    dtype = np.uint16 if scale == 4 else np.uint8
    rows = 12 if "422" in pix_fmt else 6
    ramp = np.tile(np.arange(60, 188, 8, dtype=dtype) * scale, (rows, 1))  # 8 a sample, so 4 a pixel
    path = write_video(
        tmp_path / "a.avi", [[np.full((12, 32), 100 * scale, dtype), ramp, ramp]], codec=codec, pix_fmt=pix_fmt
    )
    (pixels,) = read(path)
    expected = scale * (60 + 4 * (np.arange(32) - first))
    inside = slice(4, -4)  # the ends of a ramp are bent
    tolerance = 1 if codec == "mjpeg" else 0.5  # rounding of one conversion, and of JPEG: 0.0 and 1.0 measured
    for channel in (1, 2):
        error = np.abs(pixels[:, inside, channel] - expected[inside])
        assert error.max() <= tolerance


def test_palette_and_transparency_of_gif_become_rgb(tmp_path):
    indices = np.array([[0, 255, 0b111_000_00, 0b000_111_00, 0b000_000_11] * 4] * 12, np.uint8)  # 3, 3 and 2 bits
    path = write_video(tmp_path / "a.gif", [[indices]], codec="gif", pix_fmt="rgb8")
    assert reader.open_source(path).pixels == RGB()
    (pixels,) = read(path)
    expected = [[0, 0, 0], [252, 252, 255], [252, 0, 0], [0, 252, 0], [0, 0, 255]]  # as FFmpeg has them
    np.testing.assert_array_equal(pixels[5, :5], expected)


@pytest.mark.parametrize("pix_fmt", ["bgra", "yuva420p"])
def test_alpha_is_left_out_with_a_warning(tmp_path, pix_fmt):
    (frame,) = noise(1)
    planes = packed(frame) if pix_fmt == "bgra" else [*halved(frame), frame[..., 0]]
    source = reader.open_source(write_video(tmp_path / "a.mkv", [planes], pix_fmt=pix_fmt))
    assert source.warnings == [f"{tmp_path}/a.mkv has an alpha channel, which is left out"]


@pytest.mark.parametrize(("height", "width"), [(7, 13), (12, 5), (1, 16), (1, 1)])
@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv420p", "gbrp10le"])
def test_odd_sizes(tmp_path, pix_fmt, height, width):
    frame = flat((50, 90, 200), height, width, np.uint16 if "10" in pix_fmt else np.uint8)
    frame[-1, -1] = 250, 90, 200
    path = write_video(tmp_path / "a.mkv", [frame], pix_fmt=pix_fmt)
    np.testing.assert_array_equal(read(path), [frame])


# Tags.


@pytest.mark.parametrize("tags", [Tags(1, False, 1, 1), Tags(5, True, 5, 6), Tags(6, False), Tags(9, False, 9, 14)])
@pytest.mark.parametrize("ending", [".mkv", ".mp4"])
def test_tags_are_read(tmp_path, ending, tags):
    source = reader.open_source(write_video(tmp_path / f"a{ending}", noise(1), **H264, tags=tags))
    assert source.tags == tags
    assert source.pixels == YCbCr(tags.matrix, tags.full_range)


@pytest.mark.parametrize(("size", "matrix"), [((480, 720), 6), ((576, 720), 6), ((720, 1280), 1), ((1280, 720), 1)])
def test_untagged_is_taken_by_its_size(tmp_path, size, matrix):
    path = write_video(tmp_path / "a.mkv", [flat((100, 100, 100), *size)], codec="libx264", pix_fmt="yuv420p")
    assert reader.open_source(path).tags == Tags(matrix, False)


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused(tmp_path, transfer, name):
    path = write_video(tmp_path / "a.mkv", noise(1), tags=Tags(9, False, 9, transfer))
    with pytest.raises(ValueError, match=rf"^input \S+a.mkv: is HDR \({name}\), expected standard .*; tone-map it"):
        reader.open_source(path)


def test_matrix_that_is_not_known_is_refused(tmp_path):
    path = write_video(tmp_path / "a.mkv", noise(1), tags=Tags(10, False))
    with pytest.raises(ValueError, match=r"^input \S+a.mkv: has colour matrix 10 \(H.273\), expected BT.601, BT.709"):
        reader.open_source(path)


@pytest.mark.parametrize("ending", [".mkv", ".mp4"])
def test_sample_aspect_ratio(tmp_path, ending):
    path = write_video(tmp_path / f"a{ending}", noise(1), **H264, sar="16/11")
    assert reader.open_source(path).sample_aspect_ratio == fractions.Fraction(16, 11)
    path = write_video(tmp_path / f"b{ending}", noise(1), **H264)
    assert reader.open_source(path).sample_aspect_ratio == 1


# A display matrix's a, b, c, d, and where the upper left corner of what is coded goes to: (row, column).
TURNS = {
    "upright": ((1, 0, 0, 1), (0, 0)),
    "a quarter clockwise": ((0, 1, -1, 0), (0, -1)),
    "a half": ((-1, 0, 0, -1), (-1, -1)),
    "a quarter counter-clockwise": ((0, -1, 1, 0), (-1, 0)),
    "left to right": ((-1, 0, 0, 1), (0, -1)),
    "upside down": ((1, 0, 0, -1), (-1, 0)),
    "rows for columns": ((0, 1, 1, 0), (0, 0)),
    "rows for columns, both reversed": ((0, -1, -1, 0), (-1, -1)),
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("ending", [".mkv", ".mp4"])
def test_pictures_are_turned_upright(tmp_path, ending, turn):
    (a, b, c, d), corner = TURNS[turn]
    frame = flat((50, 128, 128), 12, 16)
    frame[:2, :4] = 200, 100, 150  # broader than high
    matrix = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    path = write_video(tmp_path / f"a{ending}", [frame], **LOSSLESS, sar="4/3", matrix=matrix)
    source = reader.open_source(path)
    (pixels,) = read(path)
    turned = b != 0
    assert (source.height, source.width) == pixels.shape[:2] == ((16, 12) if turned else (12, 16))
    assert source.sample_aspect_ratio == (fractions.Fraction(3, 4) if turned else fractions.Fraction(4, 3))
    bright = pixels[..., 0] == 200
    rows, columns = (4, 2) if turned else (2, 4)
    assert bright.sum() == 8
    assert bright[slice(rows) if corner[0] == 0 else slice(-rows, None)][
        :, slice(columns) if corner[1] == 0 else slice(-columns, None)
    ].all()
