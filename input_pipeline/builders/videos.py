"""Septuplets cut out of one's own videos, as the set of Vimeo-90K's layout that training reads."""

import pathlib

import tensorflow_datasets as tfds

from input_pipeline import septuplets
from input_pipeline.builders import clips

_LAYOUT = """
The folder is one that `input_pipeline.videos.cut_videos` wrote: NAME/000001.png and so on, a folder a clip.
"""


class Videos(clips.ClipBuilder, skip_registration=True):  # type: ignore[call-arg]  # TFDS has no hints
    """`{"key": "NAME/000001", "frames": seven PNG files}`, named after the clip and the first frame; splits train, val
    and test. It takes the place of `vimeo90k`, so that training reads either alike.
    `python -m input_pipeline.prepare videos DIR` makes it.
    """

    name = "vimeo90k"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Septuplets of any size."}  # noqa: RUF012
    MANUAL_DOWNLOAD_INSTRUCTIONS = _LAYOUT

    def _info(self):
        return self._clip_info(
            tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            septuplets.LENGTH,
            description="Seven frames in a row of a folder of videos, without cuts, stills and blends.",
        )

    @staticmethod
    def frames(manual_dir: clips.Folder, key: str) -> list[pathlib.Path]:
        """See `ClipBuilder`."""
        name, _, first = key.rpartition("/")
        return [pathlib.Path(manual_dir, name, f"{int(first) + n:06d}.png") for n in range(septuplets.LENGTH)]
