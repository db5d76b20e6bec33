"""Septuplets of videos: what is a video, which clips are kept apart, what is left out, and how frames come out."""

import collections
import weakref

import av
import cv2
import numpy as np
import pytest

from input_pipeline import videos
from msitf_jax.video import reader
from tests.video import H264, LOSSLESS, write_video

HEIGHT, WIDTH = 128, 160
QUARTER_TURN = (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)


def texture(height, width, seed=0):
    """Blobs of a few pixels, `[height, width, 3]` uint8."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.clip(128 + 40 * blurred / blurred.std(), 0, 255).astype(np.uint8)


def pan(count, *, seed=0, height=HEIGHT, width=WIDTH, speed=3):
    """A window that moves over a texture by `speed` pixels a frame."""
    wide = texture(height, width + speed * count, seed)
    return [wide[:, speed * n : speed * n + width].copy() for n in range(count)]


def film(path, frames, **options):
    """`write_video` of RGB frames, lossless unless a codec is given."""
    options = {"pix_fmt": "bgr0"} | options  # FFV1
    if options["pix_fmt"] == "bgr0":
        frames = [[np.dstack([frame[..., ::-1], frame[..., :1]])] for frame in frames]
    else:
        frames = [cv2.cvtColor(frame, cv2.COLOR_RGB2YUV) for frame in frames]
    return write_video(path, frames, **options)


def mix(frame, other, share=0.5):
    return np.round(share * frame.astype(float) + (1 - share) * other).astype(np.uint8)


def cut(path, *, split="train", step=1, short_side=540, uncompressed=False):
    """(Numbers of the first frames, what was left out, what was said) of a video; its frames lie beside it in OUT."""
    said, steps = [], []
    there = videos.Video(path.stem, path, 0)
    others = {"train": [path.stem]} if split == "train" else {"train": [], split: [path.stem]}
    keys, left_out = videos.cut_videos(
        [there],
        others,
        path.parent / "OUT",
        step=step,
        short_side=short_side,
        uncompressed=uncompressed,
        say=said.append,
        on_frame=lambda: steps.append(1),
    )
    assert len(steps) >= 7
    assert set(keys) == {split}
    assert {key.rpartition("/")[0] for key in keys[split]} == {path.stem}
    return [int(key.rpartition("/")[2]) for key in keys[split]], left_out, said


def frames_in(folder):
    return {int(path.stem): cv2.imread(str(path))[..., ::-1] for path in folder.iterdir()}


@pytest.mark.parametrize(("step", "starts"), [(1, list(range(1, 15))), (3, [1, 4, 7, 10, 13]), (7, [1, 8]), (20, [1])])
def test_septuplets_start_every_so_many_frames_and_hold_what_was_filmed(step, starts, tmp_path):
    frames = pan(20)
    found, left_out, said = cut(film(tmp_path / "a.mkv", frames), step=step)
    assert (found, sum(left_out.values()), said) == (starts, 0, [])
    written = frames_in(tmp_path / "OUT" / "a")
    assert set(written) == {start + n for start in starts for n in range(7)}
    for number, frame in written.items():
        np.testing.assert_array_equal(frame, frames[number - 1])


def test_uncompressed_frames_are_the_same_and_larger(tmp_path):
    path = film(tmp_path / "a.mkv", pan(7))
    cut(path)
    small = frames_in(tmp_path / "OUT" / "a")
    sizes = [path.stat().st_size for path in (tmp_path / "OUT" / "a").iterdir()]
    (tmp_path / "OUT").rename(tmp_path / "small")
    cut(path, uncompressed=True)
    for number, frame in frames_in(tmp_path / "OUT" / "a").items():
        np.testing.assert_array_equal(frame, small[number])
    assert max(sizes) < HEIGHT * WIDTH * 3
    assert min(path.stat().st_size for path in (tmp_path / "OUT" / "a").iterdir()) > HEIGHT * WIDTH * 3


@pytest.mark.parametrize("codec", [{}, LOSSLESS, H264 | {"options": {"crf": "23"}}])
def test_what_is_filmed_in_one_go_is_all_taken(codec, tmp_path):
    found, left_out, _ = cut(film(tmp_path / "a.mkv", pan(20, speed=2), **codec))
    assert (found, sum(left_out.values())) == (list(range(1, 15)), 0)


def test_no_septuplet_crosses_a_cut(tmp_path):
    frames = pan(10) + pan(10, seed=1)
    found, left_out, _ = cut(film(tmp_path / "a.mkv", frames))
    assert found == [1, 2, 3, 4, 11, 12, 13, 14]
    assert left_out == {"cuts": 6}


def test_a_cut_between_scenes_alike_is_one_and_fast_motion_is_none(tmp_path):
    scene = pan(10, speed=1)
    other = [np.clip(frame + 30.0, 0, 255).astype(np.uint8) for frame in pan(10, speed=1)[::-1]]
    assert cut(film(tmp_path / "a.mkv", scene + other))[0] == [1, 2, 3, 4, 11, 12, 13, 14]
    found, left_out, _ = cut(film(tmp_path / "b.mkv", pan(20, speed=4)))
    assert (len(found), sum(left_out.values())) == (14, 0)


def test_repeated_frames_are_left_out(tmp_path):
    frames = pan(19)
    frames.insert(9, frames[8])  # frame 10 is frame 9 again
    found, left_out, _ = cut(film(tmp_path / "a.mkv", frames))
    assert found == [1, 2, 3, 10, 11, 12, 13, 14]
    assert left_out == {"stills": 6}


@pytest.mark.parametrize("codec", [{}, H264 | {"options": {"crf": "23"}}])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_mixtures_of_their_neighbors_are_left_out(codec, share, tmp_path):
    frames = pan(20, speed=4)
    frames[9] = mix(frames[8], frames[10], share)
    found, left_out, _ = cut(film(tmp_path / "a.mkv", frames, **codec))
    assert found == [1, 2, 3, 11, 12, 13, 14]
    assert left_out == {"blends": 7}


def test_dropped_frames_are_left_out(tmp_path):
    times = [*range(10), *range(11, 21)]
    found, left_out, _ = cut(film(tmp_path / "a.mkv", pan(20, speed=1), times=times))
    assert found == [1, 2, 3, 4, 11, 12, 13, 14]
    assert left_out == {"uneven times": 6}
    jitter = [33 * n + n % 2 for n in range(20)]
    (tmp_path / "OUT").rename(tmp_path / "before")
    path = film(tmp_path / "b.mkv", pan(20, speed=1), times=jitter, time_base="1/1000")
    assert len(cut(path)[0]) == 14


def test_clips_to_score_with_do_not_overlap_whatever_the_step(tmp_path):
    for split in ("val", "test"):
        path = film(tmp_path / f"{split}.mkv", pan(20))
        with pytest.raises(ValueError, match=r"no septuplet to train with in 0 videos"):
            cut(path, split=split)
        assert len(frames_in(tmp_path / "OUT" / split)) == 14


def test_large_frames_are_reduced_by_averaging(tmp_path):
    frames = [frame.repeat(2, 0).repeat(2, 1) for frame in pan(7)]
    cut(film(tmp_path / "a.mkv", frames), short_side=HEIGHT)
    for number, frame in frames_in(tmp_path / "OUT" / "a").items():
        np.testing.assert_array_equal(frame, pan(7)[number - 1])
    path = film(tmp_path / "b.mkv", pan(7, height=300, width=202))
    cut(path, short_side=150)
    assert {frame.shape for frame in frames_in(tmp_path / "OUT" / "b").values()} == {(223, 150, 3)}


@pytest.mark.parametrize("matrix", [None, QUARTER_TURN, (-65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30)])
def test_frames_are_upright(matrix, tmp_path):
    path = film(tmp_path / "a.mov", pan(7), matrix=matrix, **LOSSLESS)
    cut(path)
    upright = reader.open_source(path)
    for frame in frames_in(tmp_path / "OUT" / "a").values():
        assert frame.shape[:2] == (upright.height, upright.width)
    first = next(iter(upright.pictures())).pixels[..., 0]  # luma
    ours = cv2.cvtColor(frames_in(tmp_path / "OUT" / "a")[1], cv2.COLOR_RGB2GRAY)
    assert np.corrcoef(first.ravel(), ours.ravel())[0, 1] > 0.99


def test_what_is_damaged_is_left_out_up_to_the_next_key_frame(tmp_path):
    path = film(tmp_path / "a.mkv", pan(20), **H264 | {"options": {"g": "7", "sc_threshold": "0"}})
    with av.open(str(path)) as container:
        key_frames = [packet for packet in container.demux(video=0) if packet.size and packet.is_keyframe]
    content = bytearray(path.read_bytes())
    position, size = key_frames[2].pos, key_frames[2].size  # frame 15
    content[position + size // 2 : position + size] = bytes(size - size // 2)
    path.write_bytes(content)
    found, _, (said,) = cut(path)
    assert 1 <= len(found) <= 8  # FFmpeg keeps back some frames before the damage
    assert found == list(range(1, len(found) + 1))
    assert said.startswith(f"{path}: is damaged (")
    assert said.endswith("); septuplets are cut from its whole parts")


def test_a_video_without_motion_is_named(tmp_path):
    path = film(tmp_path / "a.mkv", pan(1) * 20)
    with pytest.raises(ValueError, match=r"^no septuplet to train with in 1 videos, expected seven frames in motion$"):
        cut(path)
    said = []
    there = [videos.Video("a", path, 20), videos.Video("b", film(tmp_path / "b.mkv", pan(7)), 7)]
    rest = {"step": 1, "short_side": 540, "uncompressed": False, "on_frame": lambda: None}
    keys, left_out = videos.cut_videos(there, {"train": ["a", "b"]}, tmp_path / "2", say=said.append, **rest)
    assert keys == {"train": ["b/000001"]}
    assert left_out == {"stills": 14}
    assert said == [f"{path}: gives no septuplet, it has cuts, stills, blends or too few frames everywhere"]


def test_memory_holds_a_few_frames_of_a_long_video():
    made, most = [], 0

    def frames():
        nonlocal most
        for number in range(1, 200):
            frame = videos._Frame(number, np.full((8, 8, 3), number % 2 * 9, np.uint8), number, np.zeros((8, 8)))
            made.append(weakref.ref(frame))
            most = max(most, sum(one() is not None for one in made))
            yield frame

    count = sum(1 for _ in videos._septuplets(frames(), 1, collections.Counter()))
    assert count == 193
    assert most < 12


def test_videos_of_a_folder_are_found_by_name_and_other_files_are_told_of(tmp_path):
    film(tmp_path / "b.mkv", pan(7))
    (tmp_path / "trip").mkdir()
    film(tmp_path / "trip" / "Día 1.mp4", pan(9), **H264)
    (tmp_path / "notes.txt").write_text("no video")
    cv2.imwrite(str(tmp_path / "cover.png"), pan(1)[0])
    cv2.imwrite(str(tmp_path / "cover.jpg"), pan(1)[0])
    (tmp_path / ".hidden.mkv").write_bytes(b"")
    film(tmp_path / "short.mkv", pan(6))
    film(tmp_path / "small.mkv", pan(7, height=96))
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux([*stream.encode(frame), *stream.encode()])
    said = []
    found = videos.find_videos(tmp_path, said.append)
    assert [(video.name, video.frames) for video in found] == [("b", 7), ("trip/Día 1", 9)]
    reasons = {line.partition(": ")[0].rpartition("/")[2]: line.partition(": ")[2] for line in said}
    assert set(reasons) == {"notes.txt", "cover.png", "cover.jpg", "short.mkv", "small.mkv", "sound.wav"}
    for name in ("notes.txt", "cover.png", "cover.jpg"):
        assert reasons[name].startswith("not a video that FFmpeg can read")
    assert reasons["sound.wav"] == "no video in it"
    assert reasons["short.mkv"] == "has 6 frames, expected at least 7"
    assert reasons["small.mkv"] == "is 160x96, expected at least 128 pixels each way"


def test_folders_without_videos_and_two_of_a_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"absent: no such folder, expected one with videos"):
        videos.find_videos(tmp_path / "absent", print)
    with pytest.raises(ValueError, match=r": holds no video that can be used, expected files that FFmpeg decodes$"):
        videos.find_videos(tmp_path, print)
    for suffix in ("mkv", "mp4"):
        film(tmp_path / f"a.{suffix}", pan(7), **H264)
    with pytest.raises(ValueError, match=r"a\.mp4: has the name of .*a\.mkv, expected one video named a$"):
        videos.find_videos(tmp_path, print)


def test_clips_are_kept_apart_by_name_alone():
    names = [f"clip {number}" for number in range(40)]
    splits = videos.assign_splits(names)
    assert [len(splits[split]) for split in ("train", "val", "test")] == [36, 2, 2]
    assert sorted(name for found in splits.values() for name in found) == sorted(names)
    assert splits == {split: sorted(found, key=names.index) for split, found in splits.items()}
    again = videos.assign_splits(names[::-1])
    assert {split: set(found) for split, found in again.items()} == {
        split: set(found) for split, found in splits.items()
    }
    assert [len(there) for there in videos.assign_splits(names[:2]).values()] == [1, 1, 0]
    assert [len(there) for there in videos.assign_splits(names[:3]).values()] == [1, 1, 1]


def test_clips_can_be_named():
    names = ["a", "b", "c", "d"]
    assert videos.assign_splits(names, ["c"], ["b"]) == {"train": ["a", "d"], "val": ["c"], "test": ["b"]}
    assert videos.assign_splits(names, [], []) == {"train": names, "val": [], "test": []}
    assert len(videos.assign_splits(names, ["c"])["test"]) == 1
    assert "c" not in videos.assign_splits(names, None, ["c"])["val"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a", "b"], ["c"]), r"`val` \(='c'\) must name videos of the folder: a, b$"),
        ((list("abcdef"), [], ["x"]), r"`test` \(='x'\) must name videos of the folder: a, b, c, d, e, \.\.\.$"),
        ((["a", "b"], ["a"], ["a"]), r"`val` and `test` \(='a'\) must have no video in common"),
        ((["a", "b"], ["a"], ["b"]), r"of 2 videos none is left to train with"),
        ((["a"],), r"of 1 videos none is left to train with, .* a single video can be cut in two"),
    ],
)
def test_splits_that_cannot_be_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        videos.assign_splits(*arguments)
