"""Frames on disk: which count, in what order, and what is refused."""

import cv2
import numpy as np
import pytest

from input_pipeline import synthetic
from msitf_jax.evaluation.clips import FrameFolder, find_clips, read_frame
from tests.test_benchmark import write_clip
from tests.test_septuplets import write_vimeo


@pytest.fixture
def clip(tmp_path):
    write_clip(tmp_path / "one", synthetic.clip(0, frames=12, height=32, width=50))
    return tmp_path / "one"


def test_frames_come_in_the_order_of_their_numbers(clip):
    (clip / ".im0.png").write_bytes((clip / "im1.png").read_bytes())
    (clip / "folder.png").mkdir()
    (clip / "notes.txt").write_text("no frame")
    frames = FrameFolder(clip)
    assert [path.name for path in frames.paths] == [f"im{n}.png" for n in range(1, 13)]
    np.testing.assert_array_equal(frames[11], synthetic.clip(0, frames=12, height=32, width=50)[11])


def test_clips_are_the_folders_of_a_folder(clip, tmp_path):
    write_clip(tmp_path / ".hidden", synthetic.clip(0, height=16, width=16))
    (tmp_path / "empty").mkdir()
    found, absent = find_clips(tmp_path)
    assert [(clip.name, len(clip)) for clip in found] == [("empty", 0), ("one", 12)]
    assert absent == []


def test_vid4_names_what_is_absent_or_empty(tmp_path):
    write_clip(tmp_path / "GT" / "walk", synthetic.clip(0, height=16, width=16))
    (tmp_path / "GT" / "city").mkdir()
    found, absent = find_clips("vid4", tmp_path)
    assert [clip.name for clip in found] == ["walk"]
    assert absent == ["calendar", "city", "foliage"]


def test_septuplets_are_those_of_the_list_in_its_order(tmp_path):
    write_vimeo(tmp_path, test=["00002/0001", "00001/0007"], test_fast=["00001/0007"])
    (tmp_path / "sequences" / "00001" / "0007" / "extra.png").write_bytes(b"")
    found, absent = find_clips("vimeo90k_test", tmp_path)
    assert [(clip.name, len(clip)) for clip in found] == [("00002/0001", 7), ("00001/0007", 7)]
    assert absent == []
    assert [clip.name for clip in find_clips("vimeo90k_fast", str(tmp_path))[0]] == ["00001/0007"]
    clip = found[1]
    clip.check()
    np.testing.assert_array_equal(clip[6], read_frame(tmp_path / "sequences" / "00001" / "0007" / "im7.png"))
    (clip.folder / "im3.png").rename(clip.folder / "im8.png")
    with pytest.raises(ValueError, match=r"00001/0007/im3\.png: is missing"):
        clip.check()
    cv2.imwrite(str(clip.folder / "im3.png"), np.zeros((255, 448, 3), np.uint8))
    with pytest.raises(ValueError, match=r"00001/0007/im3\.png: is 448x255, expected 448x256"):
        clip.check()
    with pytest.raises(ValueError, match=r"sep_slow_testlist\.txt: no such list"):
        find_clips("vimeo90k_slow", tmp_path)


def test_grey_and_opaque_frames_are_read(tmp_path):
    grey = np.arange(16 * 16, dtype=np.uint8).reshape(16, 16)
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    np.testing.assert_array_equal(read_frame(tmp_path / "grey.png"), np.stack([grey] * 3, -1))
    colour = np.dstack([grey, grey // 2, grey // 3, np.full_like(grey, 255)])
    cv2.imwrite(str(tmp_path / "opaque.png"), colour)
    np.testing.assert_array_equal(read_frame(tmp_path / "opaque.png"), colour[..., 2::-1])


def test_bad_frames_are_named(clip):
    bad = clip / "im3.png"
    whole = bad.read_bytes()

    def message():
        with pytest.raises(ValueError, match=r"^frame .*im3\.png: ") as error:
            FrameFolder(clip).check()
        return str(error.value)

    cv2.imwrite(str(bad), np.zeros((32, 48, 3), np.uint8))
    assert message().endswith("is 48x32, expected 50x32 as im1.png")
    cv2.imwrite(str(bad), np.zeros((32, 50, 3), np.uint16))
    assert message().endswith("is uint16, expected 8 bits a channel")
    cv2.imwrite(str(bad), np.zeros((32, 50, 4), np.uint8))
    assert message().endswith("has transparent pixels, expected an opaque image")
    enormous = whole[:16] + (100_000).to_bytes(4, "big") * 2 + whole[24:]
    for content in (b"", b"no image", whole[:60], enormous):
        bad.write_bytes(content)
        assert message().endswith("not a readable image of at most 67,108,864 pixels")


def test_a_frame_in_two_files_is_named(clip):
    cv2.imwrite(str(clip / "im3.bmp"), np.zeros((32, 50, 3), np.uint8))
    with pytest.raises(ValueError, match=r"im3\.png: there is im3\.bmp too, expected one file a frame"):
        FrameFolder(clip).check()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vid4", None), r"`data_dir` \(=None\) must be the folder that holds GT"),
        (("vimeo90k_medium", None), r"`data_dir` \(=None\) must be the folder that holds sequences"),
        (
            ("vimeo90k", None),
            r"`dataset` \(='vimeo90k'\) must be vid4, vimeo90k_test, vimeo90k_fast, vimeo90k_medium, ",
        ),
        (("no/such/folder", None), r"`dataset` \(='no/such/folder'\) must be vid4, .* or a folder of clips"),
        (("clips", "elsewhere"), r"`data_dir` \(='elsewhere'\) goes with vid4 or vimeo90k_\*, not a folder of clips"),
    ],
)
def test_bad_datasets_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        find_clips(*arguments)


def test_a_folder_without_clips_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no clips in .*: expected one folder a clip"):
        find_clips(tmp_path)
