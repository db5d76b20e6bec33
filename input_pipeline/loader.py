"""Batches for training and clips for validation, from prepared septuplets or drawn on the spot.

Reading goes through Grain: which clips a batch holds and how they are cropped and turned depends on the seed and the
batch's number alone, not on threads, hosts or interruptions.
"""

import collections.abc
import dataclasses
import functools
import pathlib
from typing import Any

import grain

from input_pipeline import septuplets, synthetic, transforms
from input_pipeline.degradation import DEGRADATIONS, SCALE, Degradation
from input_pipeline.png import png_size, read_png

# Drawing a clip takes far longer than reading one, so drawn clips are kept, up to this much: 64 of the usual size.
_KEPT_BYTES = 64 * septuplets.LENGTH * 256 * 448 * 3


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where clips come from and what becomes of them; `data` of a training configuration.

    Attributes:
      dir: of the prepared septuplets, of Vimeo-90K or of videos, see `input_pipeline.prepare`; None is synthetic clips.
      lr_dir: of low-resolution frames prepared from the same clips: LR_DIR/sequences/KEY/imN.png. None makes them from
        the full-size frames as they are read.
      degradation: how they are made, see `input_pipeline.degradation`.
      frames: N, how many low-resolution frames a training clip has, 2 to 4; 2N-1 are its truth. Fewer than 4 are some
        in a row, other ones each time; the rest of the septuplet is not decoded.
      crop: side of the square training crops in low-resolution pixels; 4 times that of the full-size frames.
      crop_candidates: how many crops are drawn of a clip, of which the one with the most detail and motion is taken
        (`transforms.activity`); 1 takes what is drawn.
      thirds: share of the training clips that are three times, not twice, as fast: every third frame goes in, and the
        truth has one a third or two thirds of the way to the next (`transforms.random_thirds`). Networks learn other
        times than halfway from it. It needs `frames` 2 or 3, and no `lr_dir`, which has every second frame only.
      threads: that read and decode ahead, at least 1.
      synthetic_clips: how many different clips training goes through without `dir`. More than 64 of 448x256 are not all
        kept in memory, and drawing them anew is slow.
      synthetic_height, synthetic_width: full-size frames of synthetic clips, in pixels, multiples of 4.

    Raises:
      ValueError: names the field and its value.
    """

    dir: str | None = None
    lr_dir: str | None = None
    degradation: Degradation = "bd_matlab"
    frames: int = transforms.MAX_INPUTS
    crop: int = 32
    crop_candidates: int = 1
    thirds: float = 0.0
    threads: int = 2
    synthetic_clips: int = 64
    synthetic_height: int = 256
    synthetic_width: int = 448

    def __post_init__(self) -> None:
        if self.degradation not in DEGRADATIONS:
            self._refuse("degradation", f"must be one of {', '.join(DEGRADATIONS)}")
        if not 2 <= self.frames <= transforms.MAX_INPUTS:
            self._refuse("frames", f"must be from 2 to {transforms.MAX_INPUTS}")
        for field in ("crop", "crop_candidates", "threads", "synthetic_clips"):
            if getattr(self, field) < 1:
                self._refuse(field, "must be at least 1")
        if self.lr_dir is not None and self.dir is None:
            self._refuse("lr_dir", "goes with `data.dir`; synthetic clips have no files")
        if not 0 <= self.thirds <= 1:
            self._refuse("thirds", "must be from 0 to 1")
        if self.thirds and self.frames > transforms.MAX_INPUTS_OF_THIRDS:
            self._refuse("frames", "must be 2 or 3 with `data.thirds`")
        if self.thirds and self.lr_dir is not None:
            self._refuse("lr_dir", "must be unset with `data.thirds`: it has every second frame only")
        for field in ("synthetic_height", "synthetic_width"):
            if self.dir is None and (getattr(self, field) % SCALE or getattr(self, field) < SCALE * self.crop):
                self._refuse(field, f"must be a multiple of 4, at least 4 * `data.crop` (={SCALE * self.crop})")

    def _refuse(self, field, expected):
        raise ValueError(f"`data.{field}` (={getattr(self, field)!r}) {expected}")


def train_batches(
    config: DataConfig, *, seed: int, batch_size: int, process_index: int = 0, process_count: int = 1
) -> grain.DatasetIterator:
    """Shuffled, cropped and augmented training clips without end; every clip once an epoch, in another order each.

    Args:
      config: `DataConfig`.
      seed: of the order, the crops and the turns, 0 to 2**32 - 1.
      batch_size: of all hosts together, a multiple of `process_count`.
      process_index: which host this is.
      process_count: how many hosts share each batch. Their parts are together what a single host would get.

    Returns:
      A Grain `DatasetIterator` of `{"low": [b, N, crop, crop, 3], "high": [b, 2N-1, 4 * crop, 4 * crop, 3]}`, uint8
      RGB, b = batch_size // process_count, N = `config.frames`; with `config.thirds` also `"time": [b]` float32, see
      `transforms.training_example`. `get_state()` is JSON-serialisable and counts batches:
      `set_state()` goes on from there, on any number of hosts. A clip that can't be read raises ValueError from
      `next()`.

    Raises:
      ValueError: names the argument or the file.
    """
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(f"`batch_size` (={batch_size!r}) must be a positive multiple of {process_count} processes")
    if not 0 <= process_index < process_count:
        raise ValueError(f"`process_index` (={process_index!r}) must be from 0 to {process_count - 1}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"`seed` (={seed!r}) must be from 0 to 2**32 - 1")
    clips = _source(config, "train", config.synthetic_clips)
    example = functools.partial(
        transforms.training_example,
        crop=config.crop,
        degradation=config.degradation,
        inputs=config.frames,
        candidates=config.crop_candidates,
        thirds=config.thirds,
        read_inputs=_input_reader(config),
    )
    dataset = grain.MapDataset.source(clips).seed(seed).shuffle().repeat().random_map(example)
    # Hosts part after the random numbers are tied to positions, and batches form before positions are counted: so
    # neither the clips of a step nor the iterator's state depend on the number of hosts.
    dataset = dataset[process_index::process_count].batch(batch_size // process_count, drop_remainder=True)
    # Grain's own 500 would be batches, several gigabytes.
    ahead = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=2 * config.threads)
    return iter(dataset.to_iter_dataset(ahead))


def validation_clips(config: DataConfig, count: int) -> collections.abc.Sequence[dict[str, Any]]:
    """Whole clips to score during training, the same at every call.

    Args:
      config: `DataConfig`.
      count: how many: spread evenly over the split of `validation_split`, all of it if it has fewer; or synthetic ones
        that training never sees.

    Returns:
      A sequence, read when indexed, of `{"key": str, "low": [4, H // 4, W // 4, 3], "high": [7, H, W, 3]}`, uint8 RGB.
      Clips of different sizes are cut to the smallest height and width among them, in the middle: devices take batches,
      and a network is compiled for one size.

    Raises:
      ValueError: names the argument or the file; from indexing, a clip that can't be read.
    """
    if count < 0:
        raise ValueError(f"`count` (={count!r}) must be 0 or more")
    clips = _source(config, validation_split(config), count)
    count = min(count, len(clips))
    return _WholeClips(config, clips, [number * len(clips) // count for number in range(count)])


def validation_split(config: DataConfig) -> str:
    """Which split training is validated on: val where the prepared set has one, else test.

    Raises:
      ValueError: no set is prepared in `config.dir`.
    """
    if config.dir is None:
        return "test"
    from input_pipeline.builders import vimeo90k  # brings TFDS, which synthetic clips do without

    return "val" if vimeo90k.has_split(config.dir, "val") else "test"


class _WholeClips(collections.abc.Sequence):
    def __init__(self, config, clips, chosen):
        self._clips, self._chosen, self._from_files = clips, chosen, config.dir is not None
        self._degradation, self._read_inputs = config.degradation, _input_reader(config)

    def __len__(self):
        return len(self._chosen)

    def __getitem__(self, index):
        clip = self._clips[self._chosen[index]]
        frames = transforms.decode_clip(clip)
        height, width = (size // SCALE for size in frames[0].shape[:2])
        rows, columns = self._common_size or (height, width)
        window = ((height - rows) // 2, (width - columns) // 2, rows, columns)
        if self._read_inputs is None:
            low = transforms.degrade_inputs(frames, self._degradation, window)
        else:
            low = transforms.cut(self._read_inputs(clip["key"], (width, height), transforms.WHOLE), window)
        return {"key": clip["key"], "low": low, "high": transforms.cut(frames, window, SCALE)}

    @functools.cached_property
    def _common_size(self):
        """The smallest height and width of the clips that files hold, in low-resolution pixels; None of drawn ones."""
        if not self._from_files:
            return None
        clips = map(self._clips.__getitem__, self._chosen)
        sizes = [png_size(clip["frames"][0], f"clip {clip['key']}, frame 1") for clip in clips]
        return tuple(min(sides) // SCALE for sides in zip(*sizes, strict=True))


def _source(config, split, synthetic_clips):
    """Random access to undecoded clips, `{"key": str, "frames": 7 PNG files or arrays}`, from several threads."""
    if config.dir is None:
        return _Synthetic(split, synthetic_clips, config.synthetic_height, config.synthetic_width)
    from input_pipeline.builders import vimeo90k  # brings TFDS, which synthetic clips do without

    return vimeo90k.data_source(config.dir, split)


class _Synthetic(collections.abc.Sequence):
    """Clips drawn when asked for; training has the odd seeds, testing the even ones."""

    def __init__(self, split, count, height, width):
        self._split, self._count = split, count
        kept = _KEPT_BYTES // (septuplets.LENGTH * height * width * 3)
        draw = functools.partial(synthetic.clip, frames=septuplets.LENGTH, height=height, width=width)
        self._draw = functools.lru_cache(maxsize=min(kept, count))(draw)

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        if not 0 <= index < self._count:
            raise IndexError(index)
        seed = 2 * index + (self._split == "train")
        return {"key": f"synthetic/{seed}", "frames": list(self._draw(seed))}


def _input_reader(config):
    """What reads the low-resolution frames of a clip from `lr_dir`, see `transforms.training_example`; or None."""
    if config.lr_dir is None:
        return None
    root = pathlib.Path(config.lr_dir)
    if not (root / "sequences").is_dir():
        raise ValueError(f"`data.lr_dir` (={config.lr_dir!r}) must hold sequences/00001/0001/im1.png and so on")
    _check_degradation(root, config.degradation)

    def read(key, size, part):
        paths = septuplets.frame_paths(root, key)
        inputs = [paths[number] for number in part[transforms.INPUTS]]
        return [transforms.decode(read_png(path, size)[0], f"frame {path}") for path in inputs]

    return read


def _check_degradation(root, expected):
    """Raises ValueError if frames that are said to be made by some degradation were made by another."""
    found = septuplets.read_degradation(root)
    if found not in (None, expected):
        path = root / septuplets.DEGRADATION_FILE
        raise ValueError(f"{path}: its frames were made by {found!r}, expected `data.degradation` (={expected!r})")
