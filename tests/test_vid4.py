"""Vid4 in TFDS's format."""

import cv2
import numpy as np
import pytest

from input_pipeline.builders import vid4
from input_pipeline.prepare import prepare


@pytest.fixture
def raw(tmp_path):
    """Two of the clips, of 11 and 3 frames, each of one size."""
    for name, frames, width in (("walk", 3, 20), ("city", 11, 24)):
        folder = tmp_path / "raw" / "GT" / name
        folder.mkdir(parents=True)
        for number in range(1, frames + 1):
            cv2.imwrite(str(folder / f"{number}.png"), np.full((16, width, 3), number, np.uint8))
    return tmp_path / "raw"


def test_clips_that_are_there_are_kept_in_numeric_order(raw, tmp_path):
    (raw / "GT" / "city" / ".hidden.png").write_bytes(b"")
    (raw / "GT" / "foliage").mkdir()
    (raw / "GT" / "other").mkdir()
    prepare("vid4", raw, tmp_path / "data")
    source = vid4.data_source(tmp_path / "data", "test")
    assert [(clip["key"], len(clip["frames"])) for clip in source] == [("city", 11), ("walk", 3)]
    for clip in source:
        folder = raw / "GT" / clip["key"]
        assert clip["frames"] == [(folder / f"{n}.png").read_bytes() for n in range(1, len(clip["frames"]) + 1)]
    example = vid4.Vid4(data_dir=tmp_path / "data").as_data_source("test")[0]
    assert [frame[0, 0, 0] for frame in example["frames"]] == list(range(1, 12))
    assert "On Bayesian Adaptive Video Super Resolution" in vid4.Vid4(data_dir=tmp_path / "data").info.citation


def test_a_folder_without_clips_is_named(tmp_path):
    (tmp_path / "GT" / "other").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"GT: holds no clip, expected \*\.png in at least one of calendar, city, fol"):
        prepare("vid4", tmp_path, tmp_path / "data")


def test_bad_frames_are_named(raw, tmp_path):
    cv2.imwrite(str(raw / "GT" / "city" / "5.png"), np.zeros((16, 20, 3), np.uint8))
    with pytest.raises(ValueError, match=r"city/5\.png: is 20x16, expected 24x16"):
        prepare("vid4", raw, tmp_path / "data")
    (raw / "GT" / "city" / "5.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"city/5\.png: not a PNG image"):
        prepare("vid4", raw, tmp_path / "data")
    with pytest.raises(ValueError, match=r"holds no prepared vid4; prepare it with: python -m .*prepare vid4 --manual"):
        vid4.data_source(tmp_path / "data", "test")
