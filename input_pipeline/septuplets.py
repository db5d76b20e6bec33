"""Vimeo-90K as it is unpacked: lists of septuplets, and seven frames in a folder each.

ROOT/sequences/00001/0001/im1.png .. im7.png      448x256, 8-bit RGB
ROOT/sep_trainlist.txt, sep_testlist.txt          a line a septuplet: 00001/0001
ROOT/degradation.json                             of a tree of reduced frames: {"degradation": name, "scale": 4}
ROOT/sep_fast_testlist.txt, sep_medium_testlist.txt, sep_slow_testlist.txt      the test list by motion, optional
"""

import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence

LISTS = {
    "train": "sep_trainlist.txt",
    "test": "sep_testlist.txt",
    "test_fast": "sep_fast_testlist.txt",
    "test_medium": "sep_medium_testlist.txt",
    "test_slow": "sep_slow_testlist.txt",
}
OPTIONAL = ("test_fast", "test_medium", "test_slow")
DEGRADATION_FILE = "degradation.json"
LENGTH = 7
SIZE = (448, 256)  # width, height


def read_lists(root: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Reads the lists of a data set.

    Args:
      root: the folder that holds them.

    Returns:
      `{split: keys}`: train and test always, test_fast, test_medium and test_slow where there are such lists.

    Raises:
      ValueError: what `read_list` raises; a missing list of train or test.
    """
    return {split: read_list(root, split) for split in LISTS if split not in OPTIONAL or _path(root, split).exists()}


def read_list(root: str | os.PathLike[str], split: str) -> list[str]:
    """Reads one list.

    Args:
      root: the folder that holds it.
      split: a key of `LISTS`.

    Returns:
      The septuplets' keys, such as "00001/0001", in the list's order.

    Raises:
      ValueError: names a list that is missing or empty, and a line that is not a key or is there twice.
      OSError: a list that can't be read.
    """
    path = _path(root, split)
    keys: dict[str, int] = {}  # and their lines
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{path}: no such list, expected it beside the folder sequences") from None
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line:
            continue
        if not re.fullmatch("[0-9]{5}/[0-9]{4}", line):
            raise ValueError(f"{path}, line {number}: is {line[:40]!r}, expected a septuplet such as '00001/0001'")
        if line in keys:
            raise ValueError(f"{path}, line {number}: {line} is in line {keys[line]} already")
        keys[line] = number
    if not keys:
        raise ValueError(f"{path}: is empty, expected a septuplet a line, such as 00001/0001")
    return list(keys)


def with_val(splits: Mapping[str, Sequence[str]], val: Sequence[str]) -> dict[str, list[str]]:
    """Moves whole clips out of train.

    Args:
      splits: `{split: keys}`, see `read_lists`.
      val: clips, the first parts of keys of train: "00016" is all of "00016/0001", "00016/0002" and so on.

    Returns:
      `{split: keys}` with "val" after "train", in the order of the list.

    Raises:
      ValueError: a clip of which train has no septuplet, or none left to train with.
    """
    moved = set(val)
    unknown = sorted(moved - {clip_of(key) for key in splits["train"]})
    if unknown:
        raise ValueError(f"`val` (={unknown[0]!r}) must name clips of {LISTS['train']}, such as '00001'")
    kept = [key for key in splits["train"] if clip_of(key) not in moved]
    if not kept:
        raise ValueError(f"`val` (={','.join(val)!r}) must leave clips of {LISTS['train']} to train with")
    if not moved:
        return {split: list(keys) for split, keys in splits.items()}
    chosen = [key for key in splits["train"] if clip_of(key) in moved]
    return {"train": kept, "val": chosen, **{split: list(keys) for split, keys in splits.items() if split != "train"}}


def clip_of(key: str) -> str:
    """Which clip a septuplet is of: "00016/0003" -> "00016"."""
    return key.rpartition("/")[0]


def frame_paths(root: str | os.PathLike[str], key: str) -> list[pathlib.Path]:
    """The paths of a septuplet's seven frames, in order."""
    folder = pathlib.Path(root, "sequences", key)
    return [folder / f"im{number}.png" for number in range(1, LENGTH + 1)]


def read_degradation(root: str | os.PathLike[str]) -> str | None:
    """What the frames of a tree were reduced with, None where nothing says; ValueError names a file that is damaged."""
    path = pathlib.Path(root, DEGRADATION_FILE)
    if not path.exists():
        return None
    try:
        return str(json.loads(path.read_bytes())["degradation"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: not a readable record of how the frames beside it were made") from None


def _path(root, split):
    return pathlib.Path(root, LISTS[split])
