"""Vimeo-90K's septuplets, the training set of the field."""

import pathlib

import tensorflow_datasets as tfds

from input_pipeline import septuplets
from input_pipeline.builders import clips
from input_pipeline.png import read_png

_LAYOUT = """
Unpack `vimeo_septuplet.zip` (82 GB; the original septuplets, not the low-resolution ones), so that the folder holds
  sequences/00001/0001/im1.png .. im7.png
  sep_trainlist.txt, sep_testlist.txt
and, for scores by motion, put beside them
  sep_fast_testlist.txt, sep_medium_testlist.txt, sep_slow_testlist.txt
"""


class Vimeo90k(clips.ClipBuilder):
    """`{"key": "00001/0001", "frames": seven PNG files of 448x256}`; splits train, test and, where listed, test_fast,
    test_medium and test_slow, and val if clips are kept for it. `python -m input_pipeline.prepare vimeo90k
    --manual_dir=DIR` makes it.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Septuplets, PNG files as they are."}  # noqa: RUF012
    MANUAL_DOWNLOAD_INSTRUCTIONS = _LAYOUT

    def _info(self):
        width, height = septuplets.SIZE
        return self._clip_info(
            tfds.features.Image(shape=(height, width, 3), encoding_format="png"),
            septuplets.LENGTH,
            description="Seven frames of 448x256 each, from 39,000 videos: 64,612 to train with and 7,824 to test with."
            + _LAYOUT,
            homepage="http://toflow.csail.mit.edu/",
            citation="""
            @article{xue2019video,
              title={Video Enhancement with Task-Oriented Flow},
              author={Xue, Tianfan and Chen, Baian and Wu, Jiajun and Wei, Donglai and Freeman, William T},
              journal={International Journal of Computer Vision},
              volume={127},
              number={8},
              pages={1106--1125},
              year={2019}
            }
            """,
        )

    @staticmethod
    def keys(manual_dir: clips.Folder) -> dict[str, list[str]]:
        """See `ClipBuilder`."""
        return septuplets.read_lists(manual_dir)

    @staticmethod
    def frames(manual_dir: clips.Folder, key: str) -> list[pathlib.Path]:
        """See `ClipBuilder`."""
        paths = septuplets.frame_paths(manual_dir, key)
        for path in paths:
            read_png(path, septuplets.SIZE)
        return paths


def data_source(data_dir: clips.Folder | None, split: str) -> clips.EncodedClips:
    """Opens a split of the prepared set; see `input_pipeline.builders.clips.open_split`."""
    return clips.open_split(Vimeo90k, data_dir, split)


def has_split(data_dir: clips.Folder | None, split: str) -> bool:
    """Whether the prepared set has a split; see `input_pipeline.builders.clips.has_split`."""
    return clips.has_split(Vimeo90k, data_dir, split)
