"""Clips of PNG frames in TFDS's format, written and read without TensorFlow."""

import functools
import hashlib
import operator
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, SupportsIndex, TypeAlias

import cv2
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core.example_parser import ExampleParserNp

from input_pipeline.png import encode_png

Folder: TypeAlias = str | os.PathLike[str]
CLIPS_PER_SHARD = 512  # half a gigabyte of Vimeo-90K; a reader keeps each shard that it has used open


class ClipBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]  # TFDS has no hints
    """What the builders share: each clip is `{"key": text, "frames": PNG files as they are}`, in the order of its list.

    Shard by shard, because TFDS's `GeneratorBasedBuilder` shuffles through TensorFlow once a split exceeds a gigabyte.
    A subclass says which clips there are (`keys`) and where their frames lie (`frames`).

    Attributes:
      lists: `{split: keys}` to write; None is what `keys` finds.
      record: `{split: digest}` kept with the set; None is that of the lists.
      uncompressed: whether to store frames as uncompressed PNG, see `input_pipeline.png.encode_png`.
      on_clip: called after each clip that is written, or None.
    """

    lists: Mapping[str, Sequence[str]] | None = None
    record: Mapping[str, str] | None = None
    uncompressed: bool = False
    on_clip: Callable[[], object] | None = None
    # Nothing is downloaded. TFDS would look for checksums beside the module, with a package that it does not require.
    url_infos = None

    def __init__(self, *, file_format: str = "array_record", **options: Any) -> None:
        super().__init__(file_format=file_format, **options)

    @staticmethod
    def keys(manual_dir: Folder) -> dict[str, list[str]]:
        """The user's folder -> `{split: keys of its clips}`; raises ValueError if there is something wrong with it."""
        raise NotImplementedError

    @staticmethod
    def frames(manual_dir: Folder, key: str) -> list[pathlib.Path]:
        """The paths of a clip's frames in order, all checked; raises ValueError for a frame that is not as it must."""
        raise NotImplementedError

    @classmethod
    def folder(cls, data_dir: Folder | None = None) -> pathlib.Path:
        """Where this version of the set lies in `data_dir` (None: TFDS's default)."""
        return pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser() / cls.name / str(cls.VERSION)

    @staticmethod
    def digests(splits: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """`{split: keys}` -> `{split: digest}`, kept with a set to tell whether its lists have changed since."""
        return {split: hashlib.sha256("\n".join(keys).encode()).hexdigest() for split, keys in splits.items()}

    def _clip_info(self, image, length=None, **texts):
        features = {"key": tfds.features.Text(), "frames": tfds.features.Sequence(image, length=length)}
        metadata = tfds.core.MetadataDict()
        return _LocalInfo(builder=self, features=tfds.features.FeaturesDict(features), metadata=metadata, **texts)

    def _shard_iterators_per_split(self, dl_manager):
        manual_dir = pathlib.Path(dl_manager.manual_dir)
        splits = self.keys(manual_dir) if self.lists is None else self.lists
        self.info.metadata["lists"] = dict(self.record or self.digests(splits))
        return {
            split: [
                functools.partial(self._examples, manual_dir, keys[start : start + CLIPS_PER_SHARD])
                for start in range(0, len(keys), CLIPS_PER_SHARD)
            ]
            for split, keys in splits.items()
        }

    def _examples(self, manual_dir, keys):
        for key in keys:
            # Paths, not bytes: TFDS keeps the examples of a shard in memory, and just read files are in the cache.
            frame = _Uncompressed if self.uncompressed else str
            yield key, {"key": key, "frames": [frame(path) for path in self.frames(manual_dir, key)]}
            if self.on_clip:
                self.on_clip()

    def _example_writer(self):
        return _UncompressedWriter(self.info.file_format)


class _Uncompressed:
    """A PNG file, read as one whose pixels are not compressed; small itself, as TFDS keeps it."""

    def __init__(self, path):
        self._path = path

    def read(self):
        frame = cv2.imread(os.fspath(self._path), cv2.IMREAD_COLOR_RGB)
        if frame is None:
            raise ValueError(f"frame {self._path}: not a readable image")
        return encode_png(frame, uncompressed=True)


class _LocalInfo(tfds.core.DatasetInfo):
    def initialize_from_bucket(self):
        """Nothing: it would ask Google's bucket where that is enabled, and leave a folder in /tmp where not."""


class _UncompressedWriter(tfds.core.ExampleWriter):
    """PNG does not get smaller: without compression writing is four times faster, and reading twice."""

    def write(self, path, examples):
        try:
            writer = ArrayRecordWriter(os.fspath(path), "group_size:1,uncompressed")
            for _, example in examples:
                writer.write(example)
            writer.close()
        except RuntimeError as error:  # ArrayRecord's only one, for a full disk as for anything else; it names the file
            raise OSError(str(error)) from None


class EncodedClips:
    """A prepared split, read at random: `len(clips)`, `clips[i]` -> `{"key": str, "frames": [PNG bytes, ...]}`.

    Frames are not decoded, so that a reader decodes only those that it uses. Threads may share one, and processes may
    be handed one: it is opened anew there.
    """

    def __init__(self, name: str, instructions: Sequence[Any], features: tfds.features.FeaturesDict) -> None:
        self._name = name
        self._records = ArrayRecordDataSource(instructions)
        self._parser = ExampleParserNp(features.get_serialized_info())

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        length, index = len(self), operator.index(index)
        if not -length <= index < length:
            raise IndexError(f"clip {index} of {self._name}, which has {length}")
        example = self._parser.parse_example(self._records[index % length])
        return {"key": example["key"].decode(), "frames": list(example["frames"])}

    def __repr__(self) -> str:
        return f"EncodedClips({self._name}, {len(self)})"


def has_split(builder_class: type[ClipBuilder], data_dir: Folder | None, split: str) -> bool:
    """Whether a prepared set has a split of that name; raises ValueError if the set is not there."""
    info, _ = _open_info(builder_class, builder_class.folder(data_dir))
    return split in info.splits.keys()  # noqa: SIM118  # parts such as "train[:1%]" are in it too


def _open_info(builder_class, folder):
    """(TFDS's information on a prepared set, how to prepare it)."""
    name, root = builder_class.name, folder.parents[1]
    cure = f"prepare it with: python -m input_pipeline.prepare {name} --manual_dir=DIR --data_dir={root}"
    if not all((folder / file).is_file() for file in ("dataset_info.json", "features.json")):
        raise ValueError(f"{folder}: holds no prepared {name}; {cure}")
    return builder_class(data_dir=root).info, cure


def open_split(builder_class: type[ClipBuilder], data_dir: Folder | None, split: str) -> EncodedClips:
    """Opens a split of a prepared set.

    Args:
      builder_class: a subclass of `ClipBuilder`.
      data_dir: the folder that it was prepared into; None is TFDS's default.
      split: its name, or a part in TFDS's notation such as "train[:1%]" or "train[100:]"; in the order of the list.

    Returns:
      `EncodedClips`.

    Raises:
      ValueError: the set is not there or not whole, or it has no such split.
    """
    name, folder = builder_class.name, builder_class.folder(data_dir)
    info, cure = _open_info(builder_class, folder)
    splits = info.splits
    try:
        instructions = splits[split].file_instructions
    except (KeyError, ValueError, AssertionError):
        raise ValueError(f"`split` (={split!r}) must be one of {', '.join(splits)}, or a part; {cure}") from None
    if not instructions:
        raise ValueError(f"`split` (={split!r}) must hold at least one clip of {folder}")
    used = {instruction.filename for instruction in instructions}
    for there in splits.values():
        files = [os.fspath(path) for path in there.filepaths]
        if used.isdisjoint(files):
            continue
        if sum(os.path.getsize(file) for file in files if os.path.exists(file)) != there.num_bytes:
            raise ValueError(f"{folder}: files of {there.name} are missing or cut off; {cure} --overwrite")
    return EncodedClips(f"{name} {split}", instructions, info.features)
