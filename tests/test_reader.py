"""Video files as pictures with their times, and what is refused."""

import fractions
import os

import av
import cv2
import numpy as np
import pytest

from msitf_jax.video import reader
from tests.video import H264, LOSSLESS, Sound, Text, flat, noise, read, seconds, write_video


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
        ({"start": "-1"}, "`start` and `end` ask for the part from -1 s to the end, expected 0 <= start < end$"),
        ({"start": "2", "end": "1"}, "`start` and `end` ask for the part from 2 s to 1 s, expected 0 <= start < end$"),
        ({"end": "0"}, "`start` and `end` ask for the part from 0 s to 0 s, expected 0 <= start < end$"),
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
