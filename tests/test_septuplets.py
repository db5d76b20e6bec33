"""Vimeo-90K's lists and paths."""

import re
import zlib

import cv2
import numpy as np
import pytest

from input_pipeline import septuplets


def write_frame(path, seed, height=256, width=448):
    """A pattern of its own for each seed, which compresses well."""
    y, x, channel = np.ogrid[:height, :width, :3]
    cv2.imwrite(str(path), ((x * (channel + 1) + 2 * y + 7 * seed) // 16 * 16).astype(np.uint8))


def write_vimeo(root, **lists):
    """Vimeo-90K with septuplets of these lists, such as train=["00001/0001"]; returns its folder."""
    for split, keys in lists.items():
        root.mkdir(exist_ok=True)
        (root / septuplets.LISTS[split]).write_text("".join(f"{key}\n" for key in keys))
        for key in keys:
            paths = septuplets.frame_paths(root, key)
            paths[0].parent.mkdir(parents=True, exist_ok=True)
            for number, path in enumerate(paths):
                write_frame(path, zlib.crc32(key.encode()) % 1000 + number)
    return root


def test_lists_keep_their_order_and_motion_lists_may_be_absent(tmp_path):
    (tmp_path / "sep_trainlist.txt").write_bytes(b"\xef\xbb\xbf00002/0001\r\n00001/0003\r\n\r\n")
    (tmp_path / "sep_testlist.txt").write_text("00001/0002")
    assert septuplets.read_lists(tmp_path) == {"train": ["00002/0001", "00001/0003"], "test": ["00001/0002"]}
    (tmp_path / "sep_slow_testlist.txt").write_text("00001/0002\n")
    assert list(septuplets.read_lists(tmp_path)) == ["train", "test", "test_slow"]


def test_paths_are_those_of_the_published_layout(tmp_path):
    paths = septuplets.frame_paths(tmp_path, "00001/0002")
    assert paths[0] == tmp_path / "sequences" / "00001" / "0002" / "im1.png"
    assert [path.name for path in paths] == [f"im{n}.png" for n in range(1, 8)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty, expected a septuplet a line"),
        ("\n \n", "is empty"),
        ("00001/0001\n../../etc/passwd\n", "line 2: is '../../etc/passwd', expected a septuplet such as '00001/0001'"),
        ("00001/0001\n00001/../00001\n", "line 2: is '00001/../00001'"),
        ("/0001/0001\n", "line 1: is '/0001/0001'"),
        ("00001/0001 00001/0002\n", "line 1: is '00001/0001 00001/0002'"),
        ("00001/0001/im1.png\n", "line 1: is '00001/0001/im1.png'"),
        ("0001/0001\n", "line 1: is '0001/0001'"),
        ("0000\u0661/0001\n", "line 1: is"),
        ("\xff" * 1000, "line 1: is"),
        ("00001/0001\n00002/0001\n00001/0001\n", "line 3: 00001/0001 is in line 1 already"),
    ],
)
def test_bad_lists_are_named(content, message, tmp_path):
    (tmp_path / "sep_trainlist.txt").write_bytes(content.encode("latin-1" if content[:1] == "\xff" else "utf-8"))
    with pytest.raises(ValueError, match=rf"/sep_trainlist\.txt(: |, ){re.escape(message)}") as error:
        septuplets.read_list(tmp_path, "train")
    assert len(str(error.value)) < len(str(tmp_path)) + 200


def test_a_missing_list_is_named(tmp_path):
    (tmp_path / "sep_trainlist.txt").write_text("00001/0001\n")
    with pytest.raises(ValueError, match=r"sep_testlist\.txt: no such list, expected it beside the folder sequences"):
        septuplets.read_lists(tmp_path)


def test_whole_clips_move_from_train_to_val():
    splits = {
        "train": ["00002/0001", "00001/0001", "00002/0002", "00003/0001"],
        "test": ["00001/0002"],
        "test_slow": ["00001/0002"],
    }
    moved = septuplets.with_val(splits, ["00003", "00002"])
    assert list(moved) == ["train", "val", "test", "test_slow"]
    assert moved == splits | {"train": ["00001/0001"], "val": ["00002/0001", "00002/0002", "00003/0001"]}
    assert septuplets.with_val(splits, []) == splits
    with pytest.raises(
        ValueError, match=r"^`val` \(='00004'\) must name clips of sep_trainlist\.txt, such as '00001'$"
    ):
        septuplets.with_val(splits, ["00001", "00004"])
    with pytest.raises(
        ValueError, match=r"^`val` \(='00001,00002,00003'\) must leave clips of sep_trainlist\.txt to tr"
    ):
        septuplets.with_val(splits, ["00001", "00002", "00003"])
