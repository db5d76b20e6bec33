"""Video files and folders of frames as pictures with their times, and what is refused."""

import fractions
import os
import struct

import av
import cv2
import numpy as np
import pytest

from msitf_jax.video import color, reader
from msitf_jax.video.color import RGB, Tags, YCbCr
from tests.video import Sound, Text, flat, noise, write_video

H264 = {"codec": "libx264", "pix_fmt": "yuv420p"}
LOSSLESS = H264 | {"options": {"qp": "0"}}
SD, SD_FULL = Tags(6, False), Tags(6, True)


def read(path, **part):
    """[pixels] of all pictures."""
    return [picture.pixels for picture in reader.open_source(path, **part).pictures()]


def seconds(path, **part):
    """When all pictures appear, exactly."""
    source = reader.open_source(path, **part)
    return [picture.time * source.time_base for picture in source.pictures()]


def halved(pixels):
    """`[H, W, 3]` -> Y, and Cb and Cr of every other pixel and row."""
    return [pixels[..., 0], pixels[::2, ::2, 1], pixels[::2, ::2, 2]]


def packed(pixels):
    """`[H, W, 3]` RGB -> what FFmpeg calls bgr0 and bgra, opaque."""
    return [np.dstack([pixels[..., ::-1], np.full_like(pixels[..., :1], 255)])]


# Pixels.


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


# Times.


@pytest.mark.parametrize(("ending", "time_base"), [(".mkv", "1/1000"), (".mp4", "1/90000"), (".nut", "1/1001")])
def test_times_of_a_variable_frame_rate_are_exact(tmp_path, ending, time_base):
    times = [0, 33, 34, 100, 1234, 1300, 5000, 5001]
    path = write_video(tmp_path / f"a{ending}", noise(8), **H264, times=times, time_base=time_base)
    assert seconds(path) == [time * fractions.Fraction(time_base) for time in times]


def test_rate_durations_and_count(tmp_path):
    path = write_video(tmp_path / "a.mp4", noise(6), **H264, rate="30000/1001", tracks=[Sound("aac", end=2)])
    source = reader.open_source(path)
    assert (source.rate, source.frames) == (fractions.Fraction(30000, 1001), 6)
    assert source.has_sound_or_text
    durations = [picture.duration * source.time_base for picture in source.pictures()]
    assert durations == 6 * [fractions.Fraction(1001, 30000)]


def test_count_is_of_the_video_where_the_sound_is_longer(tmp_path):
    assert reader.open_source(write_video(tmp_path / "a.mkv", noise(6), tracks=[Sound(end=2)])).frames == 6


def test_one_frame(tmp_path):
    for name, options in (("a.mkv", {}), ("a.mp4", H264), ("a.png", {"codec": "png", "pix_fmt": "gray"})):
        source = reader.open_source(
            write_video(tmp_path / name, noise(1), **options, format="image2" if "png" in name else None)
        )
        (picture,) = source.pictures()
        assert (picture.time, source.rate) == (0, 25)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("five.mkv", {"times": [5000 + 40 * index for index in range(10)], "time_base": "1/1000"}),
        ("a.ts", {}),  # begins at 1.4 s
        ("a.h264", {}),  # has no times at all
    ],
)
def test_times_begin_at_0_whatever_the_files_do(tmp_path, name, options):
    path = write_video(tmp_path / name, noise(10), **(H264 | options))
    assert seconds(path) == [fractions.Fraction(index, 25) for index in range(10)]


def test_video_that_begins_after_the_sound_stays_so(tmp_path):
    times = [500, 540, 580]
    path = write_video(tmp_path / "a.mkv", noise(3), times=times, time_base="1/1000", tracks=[Sound(end=1)])
    assert seconds(path) == [fractions.Fraction(time, 1000) for time in times]


def counted(path, **options):
    """A file of 50 frames at 25 a second, a key frame every 20; frame i is about as bright as 4i + 20."""
    frames = [flat((20 + 4 * index, 128, 128), 48, 64) for index in range(50)]
    return write_video(path, frames, **(H264 | {"options": {"g": "20"}} | options))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mkv", {}),
        ("a.mp4", {}),
        ("a.ts", {}),
        ("b.ts", {"codec": "mpeg2video", "options": {"g": "20", "bf": "2"}}),
        ("a.flv", {}),
        ("a.avi", {"codec": "mpeg4", "options": {"g": "20"}}),
        ("a.h264", {}),
    ],
)
@pytest.mark.parametrize(("start", "end"), [("0.5", "1.32"), ("0.8", None), ("1.9", "1.95"), (None, "0.08")])
def test_a_part_is_what_appears_at_its_start_or_later_and_before_its_end(tmp_path, name, options, start, end):
    path = counted(tmp_path / name, **options)
    whole = list(zip(seconds(path), read(path), strict=True))
    begins, ends = fractions.Fraction(start or 0), fractions.Fraction(end or 100)
    expected = [(time, pixels) for time, pixels in whole if begins <= time < ends]
    source = reader.open_source(path, start=start, end=end)
    found = read(path, start=start, end=end)
    np.testing.assert_array_equal(found, [pixels for _, pixels in expected])
    # Tick 0 is the first at or after the start: 0.52 s in an AVI file at 25 frames a second.
    zero = -(-begins // source.time_base) * source.time_base
    assert seconds(path, start=start, end=end) == [time - zero for time, _ in expected]
    assert source.zero - reader.open_source(path).zero == zero
    assert source.warnings == []
    if name not in ("a.flv", "a.h264"):  # which say how long they last by 2 frames too much, and not at all
        assert abs(source.frames - len(expected)) <= 1


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"start": "100"}, r"input \S+: no frames from 100 s to the end$"),
        ({"start": "0.041", "end": "0.079"}, r"input \S+: no frames from 0.041 s to 0.079 s$"),
        ({"start": "-1"}, "the part from -1 s to the end: expected 0 <= start < end$"),
        ({"start": "2", "end": "1"}, "the part from 2 s to 1 s: expected 0 <= start < end$"),
        ({"end": "0"}, "the part from 0 s to 0 s: expected 0 <= start < end$"),
        ({"fps": 25}, r"`fps` \(=25\) is the rate of a folder of frames, and \S+ is none$"),
    ],
)
def test_parts_without_frames_are_refused(tmp_path, part, message):
    path = write_video(tmp_path / "a.mkv", noise(3))
    with pytest.raises(ValueError, match=f"^{message}"):
        reader.open_source(path, **part)


# Damage.


def with_index_in_front(path):
    """An MP4 file whose index comes first, so that it can be cut off."""
    target = path.with_name("front.mp4")
    with (
        av.open(str(path)) as source,
        av.open(str(target), "w", container_options={"movflags": "+faststart"}) as container,
    ):
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    return target


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.mkv", {"codec": "ffv1"}), ("b.mkv", {}), ("a.mp4", {}), ("a.avi", {"codec": "mpeg4"})],
)
def test_a_file_that_is_cut_off_gives_what_decodes_and_one_warning(tmp_path, name, options):
    path = write_video(
        tmp_path / name, noise(30, 32, 32), **(H264 | options), tracks=[Sound("aac", end=3)][: name == "b.mkv"]
    )
    if name == "a.mp4":
        path = with_index_in_front(path)
    whole = read(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    source = reader.open_source(path)
    pictures = list(source.pictures())
    assert 8 <= len(pictures) < 30
    np.testing.assert_array_equal([picture.pixels for picture in pictures[:8]], whole[:8])
    (warning,) = source.warnings
    assert warning.startswith(f"{path} is damaged or cut off: its video ends after ")
    assert list(source.pictures())
    assert source.warnings == [warning]


def test_frames_that_are_damaged_are_warned_of(tmp_path):
    path = write_video(tmp_path / "a.avi", noise(30, 32, 32), codec="mpeg4", pix_fmt="yuv420p")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 40] = 40 * b"\xff"
    path.write_bytes(content)
    source = reader.open_source(path)
    assert len(list(source.pictures())) == 30
    (warning,) = source.warnings
    assert warning.startswith(f"{path} is damaged or cut off: ")


def test_a_file_that_is_whole_is_not_called_damaged(tmp_path):
    times = [0, 1, 2, 10, 40, 100, 101, 102, 103, 300]  # in which MP4's decoding times end long before the last frame
    path = write_video(tmp_path / "a.mp4", noise(10), **H264, times=times, time_base="1/100")
    trimmed = tmp_path / "trimmed.mp4"
    with av.open(str(counted(tmp_path / "b.mp4"))) as source, av.open(str(trimmed), "w") as container:
        # As a phone trims: what comes before 1.2 s stays in the file, marked as not to be shown.
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                shift = round(fractions.Fraction(6, 5) / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                container.mux(packet)
    for file, frames in ((path, 10), (trimmed, 20)):
        source = reader.open_source(file)
        assert len(list(source.pictures())) == frames
        assert source.warnings == []


def test_later_frames_of_another_size_or_format_come_out_as_the_first(tmp_path):
    parts = [
        write_video(tmp_path / "1.h264", 3 * [flat((60, 100, 150), 48, 64)], **LOSSLESS),
        write_video(tmp_path / "2.h264", 3 * [flat((180, 110, 140), 96, 80)], **LOSSLESS),
        write_video(
            tmp_path / "3.h264",
            3 * [flat((800, 480, 520), 32, 32, np.uint16)],
            **(LOSSLESS | {"pix_fmt": "yuv420p10le"}),
        ),
    ]
    path = tmp_path / "a.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    colors = [(60, 100, 150), (180, 110, 140), (200, 120, 130)]
    np.testing.assert_array_equal(read(path), [flat(each, 48, 64) for each in colors for _ in range(3)])
    assert seconds(path) == [fractions.Fraction(index, 25) for index in range(9)]


# What is not a video.


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b"Dear diary,\n" * 50),  # FFmpeg would draw it
        ("a.nfo", b"ripped by me\n" * 50),
        ("a.mkv", b"not a video" * 100),
        ("empty.mp4", b""),
        ("a.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:0.4,\nother.ts\n#EXT-X-ENDLIST\n"),
        ("a.ffconcat", b"ffconcat version 1.0\nfile other.mkv\n"),
        ("a.mp4", b"ffconcat version 1.0\nfile other.mkv\n"),
        (
            "a.sdp",
            b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=No Name\nt=0 0\nm=video 5000 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        ),
    ],
)
def test_text_and_playlists_are_refused_and_open_nothing_else(tmp_path, name, content):
    write_video(tmp_path / "other.mkv", noise(3))
    write_video(tmp_path / "other.ts", noise(10), **H264)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"^input \S+{name}: not a video that FFmpeg can read \([^\n]+\)$"):
        reader.open_source(tmp_path / name)


def silence():
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
    frame.sample_rate = 8000
    return frame


def test_sound_alone_and_text_alone_are_refused(tmp_path):
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        container.mux(container.add_stream("pcm_s16le", rate=8000, layout="mono").encode(silence()))
    (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
    for name in ("a.wav", "a.srt"):
        with pytest.raises(ValueError, match=rf"^input \S+{name}: no video in it$"):
            reader.open_source(tmp_path / name)


def test_a_name_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^input \S+none.mkv: no such file or folder$"):
        reader.open_source(tmp_path / "none.mkv")


def test_cover_pictures_are_skipped_and_further_video_streams_warned_of(tmp_path):
    cover = cv2.imencode(".jpg", flat((10, 20, 30), 20, 30))[1].tobytes()
    frames = noise(2)
    path = write_video(tmp_path / "a.mkv", frames, attachments=[("cover.jpg", "image/jpeg", cover)])
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 2
    source = reader.open_source(path)
    assert source.warnings == []
    assert not source.has_sound_or_text
    np.testing.assert_array_equal(read(path), frames)

    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("ffv1", rate=25, width=size, height=size, pix_fmt="gray") for size in (8, 16)]
        for stream in streams:
            frame = av.VideoFrame.from_ndarray(np.zeros(2 * [stream.width], np.uint8), "gray")
            frame.pts = 0
            container.mux([*stream.encode(frame), *stream.encode()])
    source = reader.open_source(path)
    assert source.width == 8
    assert source.warnings == [f"{path} has 2 video streams: the first is taken"]


def test_cover_picture_alone_is_no_video(tmp_path):
    cover = cv2.imencode(".jpg", flat((10, 20, 30), 20, 30))[1].tobytes()
    path = tmp_path / "a.mka"
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        container.add_attachment("cover.jpg", "image/jpeg", cover)
        container.mux(stream.encode(silence()))
    with pytest.raises(ValueError, match=r"^input \S+a.mka: no video in it$"):
        reader.open_source(path)


def test_interlaced_video_is_warned_of(tmp_path):
    path = write_video(tmp_path / "a.mkv", noise(2, 32, 32), **(H264 | {"options": {"x264-params": "tff=1"}}))
    (warning,) = reader.open_source(path).warnings
    assert warning == f"{path} is interlaced: its frames are upscaled as they are, deinterlace it first"


def test_subtitles_count_as_text(tmp_path):
    path = write_video(tmp_path / "a.mkv", noise(1), tracks=[Text(((0, 10, "hi"),))])
    assert reader.open_source(path).has_sound_or_text


@pytest.mark.parametrize(
    "name",
    [
        "a%d.mkv",
        "%03d b.mkv",
        "-x.mkv",
        "--overwrite",
        "ünï ☃.mkv",
        "concat:b.mkv|b.mkv",
        "http:a.mkv",
        "pipe:0",
        "subfile,,start,0,end,10,,:b.mkv",
        "new\nline.mkv",
        os.fsdecode(b"latin\xfcberschrift.mkv"),
        "[a]*.mkv",
    ],
    ids=ascii,
)
def test_names_are_taken_as_they_are(tmp_path, name, monkeypatch):
    frames = noise(2)
    write_video(tmp_path / "plain.mkv", frames)
    os.rename(tmp_path / "plain.mkv", tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path / name), frames)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(read(name), frames)


# Folders.


def write_images(folder, **images):
    """`write_images(folder, **{"1.png": array})`; colours are BGR, as OpenCV has them."""
    folder.mkdir(exist_ok=True)
    for name, pixels in images.items():
        (folder / name).write_bytes(cv2.imencode(os.path.splitext(name)[1], pixels)[1].tobytes())
    return folder


def grey(value, shape=(6, 8)):
    return np.full(shape, value, np.uint8)


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path):
    names = ["shot1_9.png", "shot1_010.png", "shot2_1.png", "shot10_1.png", "shot10_1a.png"]
    folder = write_images(tmp_path, **{name: grey(9 * index) for index, name in enumerate(names)})
    write_images(tmp_path, **{".hidden.png": grey(200)})
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path / "folder.png").mkdir()
    source = reader.open_source(folder)
    assert (source.frames, source.rate, source.time_base, source.sample_aspect_ratio) == (
        5,
        24,
        fractions.Fraction(1, 24),
        1,
    )
    pictures = list(source.pictures())
    assert [picture.pixels[0, 0].tolist() for picture in pictures] == [3 * [9 * index] for index in range(5)]
    assert [(picture.time, picture.duration) for picture in pictures] == [(index, 1) for index in range(5)]


def test_rate_and_part_of_a_folder(tmp_path):
    folder = write_images(tmp_path, **{f"{index}.png": grey(index) for index in range(12)})
    rate = fractions.Fraction(30000, 1001)
    assert reader.open_source(folder, fps="30000/1001").rate == rate
    assert seconds(folder, fps="30000/1001")[:3] == [0, 1 / rate, 2 / rate]
    assert [pixels[0, 0, 0] for pixels in read(folder, fps=10, start="0.15", end="0.5")] == [2, 3, 4]
    assert [pixels[0, 0, 0] for pixels in read(folder, fps=10, start="0.2", end="0.41")] == [2, 3, 4]
    assert len(read(folder, fps=10, start="1")) == 2


@pytest.mark.parametrize(
    ("name", "pixels", "kind"),
    [
        ("a.png", noise(1)[0], RGB()),
        ("a.png", noise(1, dtype=np.uint16, largest=65535)[0], RGB(16)),
        ("a.png", noise(1)[0, ..., 0], RGB()),
        ("a.png", noise(1, dtype=np.uint16, largest=65535)[0, ..., 0], RGB(16)),
        ("a.bmp", noise(1)[0], RGB()),
        ("a.tif", noise(1)[0], RGB()),
        ("a.TIFF", noise(1, dtype=np.uint16, largest=65535)[0], RGB(16)),
        ("a.webp", noise(1)[0], RGB()),
    ],
)
def test_images_without_loss_come_out_as_stored(tmp_path, name, pixels, kind):
    folder = write_images(tmp_path, **{name: pixels})
    assert reader.open_source(folder).pixels == kind
    expected = np.dstack([pixels] * 3) if pixels.ndim == 2 else pixels[..., ::-1]
    np.testing.assert_array_equal(read(folder), [expected])


@pytest.mark.parametrize(
    ("name", "options"), [("a.jpg", [cv2.IMWRITE_JPEG_QUALITY, 100]), ("a.webp", [cv2.IMWRITE_WEBP_QUALITY, 99])]
)
@pytest.mark.parametrize("size", [(16, 32), (16, 1280)])
def test_jpeg_and_webp_have_their_colours_at_every_size(tmp_path, name, options, size):
    color_ = (200, 120, 10)
    (tmp_path / name).write_bytes(cv2.imencode(name[1:], flat(color_[::-1], *size), options)[1].tobytes())
    source = reader.open_source(tmp_path)
    (picture,) = source.pictures()
    shown = color.to_8_bits(picture.pixels, source.pixels).astype(int)
    assert np.abs(shown - color_).max() <= 2  # 8 bits of Y'CbCr: 2 measured


def test_images_turned_by_their_camera_are_turned_upright(tmp_path):
    content = cv2.imencode(
        ".jpg", np.where(np.arange(32) < 16, np.uint8(20), np.uint8(220)) * np.ones((16, 1), np.uint8)
    )[1].tobytes()
    # Orientation (0x0112) 6: the first row is on the right.
    exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01" + struct.pack(">HHIHHI", 0x0112, 3, 1, 6, 0, 0)
    (tmp_path / "a.jpg").write_bytes(content[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + content[2:])
    source = reader.open_source(tmp_path)
    assert (source.width, source.height) == (16, 32)
    (pixels,) = read(tmp_path)
    assert pixels[:12].max() < 40
    assert pixels[-12:, :, 0].min() > 200


def test_grey_and_colour_and_alpha_mix_in_a_folder(tmp_path):
    colored = noise(1, 6, 8)[0]
    folder = write_images(tmp_path, **{"1.png": grey(7), "2.png": colored, "3.png": np.dstack([colored, grey(9)])})
    np.testing.assert_array_equal(read(folder), [flat((7, 7, 7), 6, 8), colored[..., ::-1], colored[..., ::-1]])
    source = reader.open_source(write_images(tmp_path, **{"0.png": np.dstack([colored, grey(9)])}))
    assert source.warnings == [f"{tmp_path} has an alpha channel, which is left out"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (grey(1, (6, 9)), r"frame \S+2.png: is 9x6 gray, expected 8x6 gray as 1.png$"),
        (grey(1).astype(np.uint16), r"frame \S+2.png: is 8x6 gray16le, expected 8x6 gray as 1.png$"),
        (b"", r"frame \S+2.png: not a readable image \([^\n]+\)$"),
        (b"no image", r"frame \S+2.png: not a readable image \([^\n]+\)$"),
        (b"ffconcat version 1.0\nfile 1.png\n", r"frame \S+2.png: not a readable image \([^\n]+\)$"),
    ],
)
def test_images_that_do_not_fit_are_named(tmp_path, content, message):
    folder = write_images(tmp_path, **{"1.png": grey(1)})
    if isinstance(content, bytes):
        (folder / "2.png").write_bytes(content)
    else:
        write_images(folder, **{"2.png": content})
    pictures = reader.open_source(folder).pictures()
    next(pictures)
    with pytest.raises(ValueError, match=f"^{message}"):
        next(pictures)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 0}, r"`fps` \(=0\) must be above 0$"),
        ({"start": "1"}, r"input \S+: no frames in this folder from 1 s to the end \(.png, .jpg"),
        ({"start": "0.001", "end": "0.002"}, r"input \S+: no frames in this folder from 0.001 s to 0.002 s \(.png"),
        ({}, None),
    ],
)
def test_folders_without_frames_are_refused(tmp_path, options, message):
    folder = write_images(tmp_path / "frames", **{"1.png": grey(1)})
    if message is None:
        folder, message = tmp_path, r"input \S+: no frames in this folder \(.png, .jpg"
    with pytest.raises(ValueError, match=f"^{message}"):
        reader.open_source(folder, **options)


def test_names_of_images_are_taken_as_they_are(tmp_path):
    names = ["%d.png", "%03d 1.png", "-y.png", "http:2.png", "ünï ☃.png"]
    folder = write_images(tmp_path, **{name: grey(index) for index, name in enumerate(names)})
    assert sorted(pixels[0, 0, 0] for pixels in read(folder)) == [0, 1, 2, 3, 4]
