"""Vid4, the four test clips on which the field compares itself."""

import pathlib

import tensorflow_datasets as tfds

from input_pipeline.builders import clips
from input_pipeline.png import frame_order, read_png

CLIPS = ("calendar", "city", "foliage", "walk")
_LAYOUT = """
The folder holds the original frames of the clips, or of some of them, as
  GT/calendar/*.png, GT/city/*.png, GT/foliage/*.png, GT/walk/*.png
"""


class Vid4(clips.ClipBuilder):
    """`{"key": "calendar", "frames": 41 PNG files}` and so on; the only split is test.
    `python -m input_pipeline.prepare vid4 --manual_dir=DIR` makes it.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Whole clips, PNG files as they are."}  # noqa: RUF012
    MANUAL_DOWNLOAD_INSTRUCTIONS = _LAYOUT

    def _info(self):
        return self._clip_info(
            tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            description="Four clips of 34 to 49 frames of about 720x576 or 720x480, 171 frames in all." + _LAYOUT,
            homepage="https://people.csail.mit.edu/celiu/CVPR2011/",
            citation="""
            @article{liu2014bayesian,
              title={On Bayesian Adaptive Video Super Resolution},
              author={Liu, Ce and Sun, Deqing},
              journal={IEEE Transactions on Pattern Analysis and Machine Intelligence},
              volume={36},
              number={2},
              pages={346--360},
              year={2014}
            }
            """,
        )

    @staticmethod
    def keys(manual_dir: clips.Folder) -> dict[str, list[str]]:
        """See `ClipBuilder`."""
        root = pathlib.Path(manual_dir, "GT")
        found = [name for name in CLIPS if _paths(manual_dir, name)]
        if not found:
            raise ValueError(f"{root}: holds no clip, expected *.png in at least one of {', '.join(CLIPS)}")
        return {"test": found}

    @staticmethod
    def frames(manual_dir: clips.Folder, key: str) -> list[pathlib.Path]:
        """See `ClipBuilder`."""
        paths, size = _paths(manual_dir, key), None
        for path in paths:
            _, size = read_png(path, size)
        return paths


def _paths(manual_dir, key):
    folder = pathlib.Path(manual_dir, "GT", key)
    return sorted((path for path in folder.glob("*.png") if not path.name.startswith(".")), key=frame_order)


def data_source(data_dir: clips.Folder | None, split: str) -> clips.EncodedClips:
    """Opens a split of the prepared set; see `input_pipeline.builders.clips.open_split`."""
    return clips.open_split(Vid4, data_dir, split)
