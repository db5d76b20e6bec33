"""Batches: who gets which clips, in what order, and whether the same comes again; validation clips; what is refused."""

import contextlib
import json
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest

from input_pipeline import loader, prepare, septuplets, synthetic, transforms
from input_pipeline.builders import vimeo90k
from input_pipeline.degradation import degrade
from tests.test_transforms import encode

CLIPS = 7


def clip(number, noise):
    """16x16 frames of noise around 30 times the clip's number."""
    frames = 30 * number + noise.integers(0, 5, (7, 16, 16, 3))
    return {"key": f"00001/{number:04d}", "frames": [encode(frame.astype(np.uint8)) for frame in frames]}


@pytest.fixture
def source(monkeypatch):
    """Stands in for the prepared data set; `source.read` lists the keys that were asked for."""
    noise = np.random.default_rng(0)

    class Source(list):
        read = []  # noqa: RUF012

        def __getitem__(self, index):
            self.read.append(super().__getitem__(index)["key"])
            return super().__getitem__(index)

    splits = {split: Source(clip(number, noise) for number in range(CLIPS)) for split in ("train", "test")}
    monkeypatch.setattr(vimeo90k, "has_split", lambda data_dir, split: split in splits)
    monkeypatch.setattr(vimeo90k, "data_source", lambda data_dir, split: splits[split] if data_dir == "DIR" else None)
    return splits["train"]


@pytest.fixture
def lr_dir(tmp_path):
    """A tree of low-resolution frames that tell their clip and number: 20 * clip + number."""
    for number in range(CLIPS):
        for frame, path in enumerate(septuplets.frame_paths(tmp_path, f"00001/{number:04d}"), start=1):
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full((4, 4, 3), 20 * number + frame, np.uint8))
    return tmp_path


@contextlib.contextmanager
def reading(*, seed=3, batch_size=4, process_index=0, process_count=1, **fields):
    """An iterator; afterwards its threads have come to an end."""
    config = loader.DataConfig(**{"dir": "DIR", "crop": 2} | fields)
    hosts = {"process_index": process_index, "process_count": process_count}
    iterator = loader.train_batches(config, seed=seed, batch_size=batch_size, **hosts)
    try:
        yield iterator
    finally:
        iterator.close()
        for thread in threading.enumerate():
            if thread.name.startswith("grain-prefetch"):
                thread.join()


def batches(count, *, state=None, **options):
    """The first `count` batches, or those after `state`; and the state afterwards."""
    with reading(**options) as iterator:
        if state is not None:
            iterator.set_state(json.loads(json.dumps(state)))
        return [next(iterator) for _ in range(count)], iterator.get_state()


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name])


def numbers(batches):
    """Which clips were drawn, in order."""
    return [int(example.min()) // 30 for batch in batches for example in batch["high"]]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_shapes_and_types(source, batch_size):
    (batch,), _ = batches(1, batch_size=batch_size)
    assert batch.keys() == {"low", "high"}
    assert batch["low"].shape == (batch_size, 4, 2, 2, 3)
    assert batch["high"].shape == (batch_size, 7, 8, 8, 3)
    assert batch["low"].dtype == batch["high"].dtype == np.uint8


def test_thirds_come_with_the_times_of_the_frames_between(source):
    (batch,), _ = batches(1, batch_size=24, frames=3, thirds=0.5)
    assert batch.keys() == {"low", "high", "time"}
    assert batch["time"].dtype == np.float32
    assert set(np.round(6 * batch["time"])) == {2, 3, 4}


def test_shapes_of_fewer_frames(source):
    (batch,), _ = batches(1, batch_size=3, frames=2)
    assert batch["low"].shape == (3, 2, 2, 2, 3)
    assert batch["high"].shape == (3, 3, 8, 8, 3)


@pytest.mark.parametrize(
    "fields",
    [
        {"frames": 2},
        {"crop_candidates": 4},
        {"frames": 3, "crop_candidates": 2},
        {"frames": 3, "thirds": 0.5},
    ],
)
def test_what_is_drawn_besides_is_the_same_whenever_it_is_drawn(source, fields):
    alone, _ = batches(5, **fields)
    assert_same(alone, batches(5, threads=5, **fields)[0])
    _, state = batches(2, **fields)
    for host in range(2):
        resumed, _ = batches(3, state=state, process_index=host, process_count=2, **fields)
        assert_same(resumed, [{name: array[host::2] for name, array in batch.items()} for batch in alone[2:]])


def test_every_clip_once_an_epoch_in_another_order_each(source):
    taken, _ = batches(CLIPS, batch_size=3)  # three epochs, batches run across their ends
    order = np.reshape(numbers(taken), (3, CLIPS))
    np.testing.assert_array_equal(np.sort(order), [range(CLIPS)] * 3)
    assert len({tuple(epoch) for epoch in order}) == 3
    crops = {example.tobytes() for batch in taken for example in batch["high"]}
    assert len(crops) > 2 * CLIPS  # cropped and turned anew


def test_the_seed_alone_decides(source):
    taken, _ = batches(4)
    assert_same(taken, batches(4)[0])
    assert_same(taken, batches(4, threads=5)[0])
    assert numbers(taken) != numbers(batches(4, seed=4)[0])


def test_a_data_set_smaller_than_a_batch_is_repeated(source):
    (batch,), _ = batches(1, batch_size=2 * CLIPS)
    assert sorted(numbers([batch])) == sorted(2 * list(range(CLIPS)))


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_each_batch(source, hosts):
    alone, state = batches(5)
    parts = [batches(5, process_index=host, process_count=hosts) for host in range(hosts)]
    assert [part_state for _, part_state in parts] == [state] * hosts
    for host, (part, _) in enumerate(parts):
        assert_same(part, [{name: array[host::hosts] for name, array in batch.items()} for batch in alone])


@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 2), (2, 1)])
def test_resumes_in_mid_epoch_on_any_number_of_hosts(source, before, after):
    alone, _ = batches(6)
    _, state = batches(3, process_count=before)
    for host in range(after):
        resumed, _ = batches(3, state=state, process_index=host, process_count=after)
        assert_same(resumed, [{name: array[host::after] for name, array in batch.items()} for batch in alone[3:]])


def test_a_state_can_be_set_again_on_the_same_iterator(source):
    with reading() as iterator:
        first, state, second = next(iterator), iterator.get_state(), next(iterator)
        iterator.set_state(state)
        assert_same([next(iterator)], [second])
        iterator.set_state({"next_index": 0})
        assert_same([next(iterator)], [first])


@pytest.mark.parametrize("frames", [2, 3, 4])
@pytest.mark.parametrize("from_files", [False, True])
def test_no_frame_is_decoded_that_is_not_used(source, lr_dir, monkeypatch, from_files, frames):
    decoded, imdecode = [], cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *arguments: decoded.append(1) or imdecode(*arguments))
    batches(1, lr_dir=str(lr_dir) if from_files else None, frames=frames)
    assert len(source.read) >= 4
    assert len(decoded) == (2 * frames - 1 + (frames if from_files else 0)) * len(source.read)


def test_low_resolution_frames_are_read_from_files(source, lr_dir):
    (batch,), _ = batches(1, lr_dir=str(lr_dir))
    for number, low in zip(numbers([batch]), batch["low"], strict=True):
        frames = low[:, 0, 0, 0] - 20 * number
        assert frames.tolist() in ([1, 3, 5, 7], [7, 5, 3, 1])
        np.testing.assert_array_equal(low, np.broadcast_to(low[:, :1, :1, :1], low.shape))


def test_low_resolution_files_of_another_degradation_are_refused(source, lr_dir):
    record = lr_dir / septuplets.DEGRADATION_FILE
    record.write_text('{"degradation": "bi", "scale": 4}')
    batches(1, lr_dir=str(lr_dir), degradation="bi")
    with pytest.raises(ValueError, match=r"degradation\.json: its frames were made by 'bi', expected `data\.degrad"):
        batches(1, lr_dir=str(lr_dir))
    record.write_text("[]")
    with pytest.raises(ValueError, match=r"degradation\.json: not a readable record"):
        batches(1, lr_dir=str(lr_dir))
    with pytest.raises(ValueError, match=r"`data\.lr_dir` \(='no/such'\) must hold sequences/00001/0001/im1\.png"):
        batches(1, lr_dir="no/such")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is missing"), (b"", "not a PNG"), (encode(np.zeros((4, 5, 3), np.uint8)), "is 5x4, expected 4x4")],
)
def test_bad_low_resolution_files_are_named(source, lr_dir, content, message):
    path = lr_dir / "sequences" / "00001" / "0002" / "im3.png"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"frame .*/00001/0002/im3\.png: {message}"):
        batches(2, lr_dir=str(lr_dir))
    with pytest.raises(ValueError, match=rf"frame .*/00001/0002/im3\.png: {message}"):
        loader.validation_clips(loader.DataConfig(dir="DIR", lr_dir=str(lr_dir)), CLIPS)[2]


def test_a_broken_clip_is_named(source):
    source[5]["frames"][6] = b"no image"
    with pytest.raises(ValueError, match="not a readable image") as error:
        batches(2)
    assert str(error.value) == "clip 00001/0005, frame 7: not a readable image"


def test_validation_clips_are_whole_and_spread_over_the_test_split(source):
    clips = loader.validation_clips(loader.DataConfig(dir="DIR", degradation="bi"), 3)
    assert [one["key"] for one in clips] == ["00001/0000", "00001/0002", "00001/0004"]
    np.testing.assert_array_equal(clips[2]["high"], clips[-1]["high"])
    assert clips[1]["high"].shape == (7, 16, 16, 3)
    for low, high in zip(clips[1]["low"], clips[1]["high"][::2], strict=True):
        np.testing.assert_array_equal(low, degrade(high, "bi"))


def test_validation_takes_the_split_val_where_there_is_one(source, monkeypatch):
    config = loader.DataConfig(dir="DIR")
    assert loader.validation_split(config) == "test"
    assert loader.validation_split(loader.DataConfig()) == "test"
    monkeypatch.setattr(vimeo90k, "has_split", lambda data_dir, split: split == "val")
    opened = []
    monkeypatch.setattr(vimeo90k, "data_source", lambda data_dir, split: opened.append(split) or source)
    assert loader.validation_split(config) == "val"
    assert len(loader.validation_clips(config, 3)) == 3
    assert opened == ["val"]


def test_validation_clips_of_several_sizes_are_cut_to_one_in_the_middle(source, lr_dir):
    for index, (height, width) in enumerate([(24, 32), (20, 48), (41, 29)]):
        frames = np.random.default_rng(index).integers(0, 256, (7, height, width, 3), np.uint8)
        source[index] |= {"frames": [encode(frame) for frame in frames]}
        for frame, path in zip(frames, septuplets.frame_paths(lr_dir, source[index]["key"]), strict=True):
            cv2.imwrite(str(path), degrade(frame, "bi")[..., ::-1])
    for lr in (None, str(lr_dir)):
        config = loader.DataConfig(dir="DIR", degradation="bi", lr_dir=lr)
        clips = loader._WholeClips(config, source, [0, 1, 2])
        assert {clip["high"].shape for clip in clips} == {(7, 20, 28, 3)}
        for clip, whole, (top, left) in zip(clips, source, [(0, 0), (0, 2), (2, 0)], strict=False):
            frames = np.stack(transforms.decode_clip(whole))
            np.testing.assert_array_equal(clip["high"], frames[:, 4 * top :, 4 * left :][:, :20, :28])
            low = np.stack([degrade(frame, "bi") for frame in frames[::2]])
            np.testing.assert_array_equal(clip["low"], low[:, top : top + 5, left : left + 7])


def test_validation_takes_what_there_is_and_none_if_none_is_wanted(source, lr_dir):
    config = loader.DataConfig(dir="DIR", lr_dir=str(lr_dir))
    clips = loader.validation_clips(config, 100)
    assert len(clips) == CLIPS
    assert clips[6]["low"][:, 0, 0, 0].tolist() == [121, 123, 125, 127]
    assert list(loader.validation_clips(config, 0)) == []
    with pytest.raises(ValueError, match=r"`count` \(=-1\) must be 0 or more"):
        loader.validation_clips(config, -1)


def test_synthetic_clips_without_files():
    fields = {"dir": None, "synthetic_height": 32, "synthetic_width": 48, "crop": 8, "synthetic_clips": 5}
    taken, _ = batches(2, batch_size=5, **fields)
    assert taken[0]["high"].shape == (5, 7, 32, 32, 3)
    assert_same(taken, batches(2, batch_size=5, **fields)[0])
    clips = loader.validation_clips(loader.DataConfig(**fields), 6)
    assert [len(clips), clips[5]["low"].shape, clips[5]["high"].shape] == [6, (4, 8, 12, 3), (7, 32, 48, 3)]
    np.testing.assert_array_equal(clips[0]["low"][3], degrade(clips[0]["high"][6], "bd_matlab"))


def test_training_never_draws_a_validation_clip_and_draws_none_twice(monkeypatch):
    drawn = []

    def draw(seed, frames, height, width):
        drawn.append(seed)
        return np.full((frames, height, width, 3), seed, np.uint8)

    monkeypatch.setattr(synthetic, "clip", draw)
    fields = {"dir": None, "synthetic_height": 16, "synthetic_width": 16, "synthetic_clips": 6, "threads": 1}
    taken, _ = batches(12, batch_size=3, **fields)
    trained = {int(seed) for batch in taken for seed in batch["high"][:, 0, 0, 0, 0]}
    assert len(drawn) == len(trained) == 6
    drawn.clear()
    validated = {int(one["high"][0, 0, 0, 0]) for one in loader.validation_clips(loader.DataConfig(dir=None), 50)}
    assert len(validated) == 50
    assert not trained & validated


def test_only_so_many_synthetic_clips_are_kept(monkeypatch):
    drawn = []

    def draw(seed, frames, height, width):
        drawn.append(seed)
        return np.zeros((frames, height, width, 3), np.uint8)

    monkeypatch.setattr(synthetic, "clip", draw)
    monkeypatch.setattr(loader, "_KEPT_BYTES", 2 * 7 * 16 * 16 * 3)
    clips = loader.validation_clips(loader.DataConfig(synthetic_height=16, synthetic_width=16, crop=4), 3)
    for index in (0, 1, 0, 1, 2, 0):
        clips[index]
    assert drawn == [0, 2, 4, 0]


def test_synthetic_clips_need_no_tfds():
    code = "import sys; from input_pipeline import loader; next(loader.train_batches(loader.DataConfig("
    code += "synthetic_height=32, synthetic_width=32, crop=8), seed=0, batch_size=1)); "
    code += "sys.exit('tensorflow_datasets' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_prepared_data_set(tmp_path):
    for number, split in enumerate(("train", "train", "test"), start=1):
        frames = synthetic.clip(number)
        for frame, path in zip(frames, septuplets.frame_paths(tmp_path, f"00001/{number:04d}"), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), frame[..., ::-1])
        with open(tmp_path / septuplets.LISTS[split], "a") as file:
            file.write(f"00001/{number:04d}\n")
    prepare.prepare("vimeo90k", tmp_path, tmp_path / "tfds")
    prepare.write_low_resolution(tmp_path, tmp_path / "lr", "bd_duf")
    fields = {"dir": str(tmp_path / "tfds"), "degradation": "bd_duf", "crop": 16}
    taken, _ = batches(3, **fields)
    assert_same(taken, batches(3, lr_dir=str(tmp_path / "lr"), **fields)[0])
    (one,) = loader.validation_clips(loader.DataConfig(**fields), 2)
    assert one["key"] == "00001/0003"
    np.testing.assert_array_equal(one["high"], synthetic.clip(3))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"degradation": "bd"}, r"`data\.degradation` \(='bd'\) must be one of bi, bd_matlab, bd_duf"),
        ({"frames": 1}, r"`data\.frames` \(=1\) must be from 2 to 4"),
        ({"frames": 5}, r"`data\.frames` \(=5\) must be from 2 to 4"),
        ({"thirds": 1.5, "frames": 2}, r"`data\.thirds` \(=1\.5\) must be from 0 to 1"),
        ({"thirds": 0.5}, r"`data\.frames` \(=4\) must be 2 or 3 with `data\.thirds`"),
        ({"thirds": 0.5, "frames": 3, "dir": "a", "lr_dir": "x"}, r"`data\.lr_dir` \(='x'\) must be unset with `data"),
        ({"crop_candidates": 0}, r"`data\.crop_candidates` \(=0\) must be at least 1"),
        ({"crop": 0}, r"`data\.crop` \(=0\) must be at least 1"),
        ({"threads": 0}, r"`data\.threads` \(=0\) must be at least 1"),
        ({"synthetic_clips": 0}, r"`data\.synthetic_clips` \(=0\) must be at least 1"),
        ({"lr_dir": "x"}, r"`data\.lr_dir` \(='x'\) goes with `data\.dir`"),
        ({"synthetic_height": 130}, r"`data\.synthetic_height` \(=130\) must be a multiple of 4, at least 4 \* `data"),
        ({"synthetic_width": 128, "crop": 33}, r"`data\.synthetic_width` \(=128\) must .* `data\.crop` \(=132\)"),
    ],
)
def test_bad_configurations_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        loader.DataConfig(**fields)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 3, "process_count": 2}, r"`batch_size` \(=3\) must be a positive multiple of 2 processes"),
        ({"batch_size": 0}, r"`batch_size` \(=0\) must be a positive multiple"),
        ({"process_index": 2, "process_count": 2}, r"`process_index` \(=2\) must be from 0 to 1"),
        ({"seed": -1}, r"`seed` \(=-1\) must be from 0"),
    ],
)
def test_bad_arguments_are_named(source, arguments, message):
    with pytest.raises(ValueError, match=message):
        batches(1, **arguments)
