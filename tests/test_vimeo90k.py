"""Vimeo-90K in TFDS's format: what is written, in which order it is read, and what is refused."""

import concurrent.futures
import pathlib
import pickle
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from input_pipeline import septuplets
from input_pipeline.builders import clips, vimeo90k
from input_pipeline.prepare import prepare
from tests.test_septuplets import write_frame, write_vimeo

ROOT = pathlib.Path(__file__).parents[1]
TRAIN = ["00002/0001", "00001/0001", "00003/0001", "00001/0002", "00002/0002"]
TEST = ["00004/0002", "00004/0001"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_vimeo(tmp_path_factory.mktemp("raw"), train=TRAIN, test=TEST, test_slow=TEST[1:])


@pytest.fixture(scope="module")
def data(raw, tmp_path_factory):
    """Prepared in shards of two clips."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "CLIPS_PER_SHARD", 2)
        # Beyond this size TFDS's other way of writing needs TensorFlow.
        patch.setattr("tensorflow_datasets.core.shuffle.MAX_MEM_BUFFER_SIZE", 0)
        prepare("vimeo90k", raw, folder)
    return folder


@pytest.fixture
def copy(raw, tmp_path):
    """One that a test may spoil."""
    prepare("vimeo90k", raw, tmp_path / "data")
    return tmp_path / "data"


def keys(source):
    return [source[i]["key"] for i in range(len(source))]


def test_clips_come_in_the_order_of_the_list_and_with_the_bytes_of_the_files(raw, data):
    assert len(list((data / "vimeo90k" / "1.0.0").glob("vimeo90k-train.*"))) == 3
    source = vimeo90k.data_source(data, "train")
    assert keys(source) == TRAIN
    for clip in map(source.__getitem__, range(len(source))):
        assert clip["frames"] == [path.read_bytes() for path in septuplets.frame_paths(raw, clip["key"])]
    assert keys(vimeo90k.data_source(data, "test")) == TEST
    assert keys(vimeo90k.data_source(data, "test_slow")) == TEST[1:]
    assert list(vimeo90k.Vimeo90k(data_dir=data).info.splits) == ["train", "test", "test_slow"]


def test_parts_of_a_split_follow_the_list_too(data):
    assert keys(vimeo90k.data_source(data, "train[:40%]")) == TRAIN[:2]
    assert keys(vimeo90k.data_source(data, "train[1:4]")) == TRAIN[1:4]
    assert keys(vimeo90k.data_source(data, "train+test")) == TRAIN + TEST


def test_a_source_is_indexed_like_a_list(data):
    source = vimeo90k.data_source(data, "train")
    assert source[np.int64(1)]["key"] == source[-4]["key"] == TRAIN[1]
    for index in (5, -6):
        with pytest.raises(IndexError, match=f"clip {index} of vimeo90k train, which has 5"):
            source[index]
    assert [clip["key"] for clip in source] == TRAIN
    assert repr(source) == "EncodedClips(vimeo90k train, 5)"


def test_threads_share_a_source_and_processes_are_handed_one(data):
    source = vimeo90k.data_source(data, "train")
    order = np.random.default_rng(0).integers(0, len(TRAIN), 200)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        read = list(pool.map(source.__getitem__, order))
    assert [clip["key"] for clip in read] == [TRAIN[i] for i in order]
    assert keys(pickle.loads(pickle.dumps(source))) == TRAIN


def test_tfds_reads_it_too(raw, data):
    example = tfds.builder("vimeo90k", data_dir=data).as_data_source("test")[0]
    assert example["key"] == TEST[0].encode()
    truth = [cv2.imread(str(path))[..., ::-1] for path in septuplets.frame_paths(raw, TEST[0])]
    np.testing.assert_array_equal(np.stack(example["frames"]), truth)


def test_a_prepared_set_says_how_it_is_laid_out_and_whose_it_is(data):
    info = vimeo90k.Vimeo90k(data_dir=data).info
    assert "sequences/00001/0001/im1.png" in info.description
    assert "sep_fast_testlist.txt" in info.description
    assert "Video Enhancement with Task-Oriented Flow" in info.citation
    assert info.features["frames"].shape == (7, 256, 448, 3)


def test_what_is_not_prepared_is_named_with_the_cure(copy, tmp_path):
    cure = r"prepare it with: python -m input_pipeline\.prepare vimeo90k --manual_dir=DIR --data_dir="
    with pytest.raises(ValueError, match=rf"absent/vimeo90k/1\.0\.0: holds no prepared vimeo90k; {cure}.*absent$"):
        vimeo90k.data_source(tmp_path / "absent", "train")
    with pytest.raises(ValueError, match=rf"`split` \(='test_fast'\) must be one of train, test, test_slow.*{cure}"):
        vimeo90k.data_source(copy, "test_fast")
    for split in ("train[", "train+no", ""):
        with pytest.raises(ValueError, match=r"`split` \(='.*'\) must be one of train"):
            vimeo90k.data_source(copy, split)
    with pytest.raises(ValueError, match=r"`split` \(='train\[:0\]'\) must hold at least one clip"):
        vimeo90k.data_source(copy, "train[:0]")


def test_files_that_are_missing_or_cut_off_are_noticed(copy):
    folder = copy / "vimeo90k" / "1.0.0"
    shard = next(folder.glob("*-train.*"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"1\.0\.0: files of train are missing or cut off; prepare it .* --overwrite$"):
        vimeo90k.data_source(copy, "train[:1]")
    shard.unlink()
    with pytest.raises(ValueError, match="files of train are missing or cut off"):
        vimeo90k.data_source(copy, "train")
    assert keys(vimeo90k.data_source(copy, "test")) == TEST
    (folder / "dataset_info.json").unlink()
    with pytest.raises(ValueError, match="holds no prepared vimeo90k"):
        vimeo90k.data_source(copy, "test")


def test_the_default_folder_is_that_of_tfds(copy, monkeypatch):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(copy))
    assert len(vimeo90k.data_source(None, "test")) == 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(b""), "not a PNG image"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), r"is cut off after \d+ bytes"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20] + bytes(20)), "is damaged|is cut off"),
        (lambda path: write_frame(path, 0, 256, 446), "is 446x256, expected 448x256"),
        (lambda path: cv2.imwrite(str(path), np.zeros((256, 448), np.uint8)), "is 8-bit grey, expected 8-bit RGB"),
        (lambda path: cv2.imwrite(str(path), np.zeros((256, 448, 3), np.uint16)), "is 16-bit RGB, expected 8-bit RGB"),
    ],
)
def test_bad_frames_are_named_and_nothing_is_left(spoil, message, tmp_path):
    raw = write_vimeo(tmp_path / "raw", train=TRAIN[:1], test=TEST[:1])
    bad = raw / "sequences" / TEST[0] / "im4.png"
    spoil(bad)
    with pytest.raises(ValueError, match=f"^frame {bad}: {message}"):
        prepare("vimeo90k", raw, tmp_path / "data")
    assert [*(tmp_path / "data").rglob("*")] == [tmp_path / "data" / "vimeo90k"]


def test_importing_is_silent_and_brings_neither_tensorflow_nor_jax_nor_the_network():
    program = """if True:
        import socket, sys
        def refuse(*arguments, **options):
            raise OSError("the network was asked")
        socket.socket.connect = socket.getaddrinfo = refuse
        from input_pipeline.builders import vid4, vimeo90k
        vimeo90k.Vimeo90k(data_dir="absent")
        assert not {"tensorflow", "jax", "msitf_jax"} & set(sys.modules)
    """
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
