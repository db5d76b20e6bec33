"""The command line of input_pipeline.prepare: whole or not at all, also when it is killed."""

import json
import os
import pathlib
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from input_pipeline import loader, prepare, septuplets, transforms
from input_pipeline.builders import vimeo90k
from input_pipeline.degradation import DEGRADATIONS, degrade
from input_pipeline.locking import alone_in
from tests.test_septuplets import write_vimeo
from tests.test_videos import film, pan

ROOT = pathlib.Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "input_pipeline.prepare"]
TRAIN = ["00001/0002", "00001/0001"]
TEST = ["00002/0001"]
LAST = "sequences/00002/0001/im7.png"


@pytest.fixture
def raw(tmp_path):
    return write_vimeo(tmp_path / "raw", train=TRAIN, test=TEST)


def run(*words, **flags):
    return prepare.main([*words, *(f"--{name}={value}" for name, value in flags.items())])


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kill_when_reading(frame, *arguments):
    """Runs the command on files of which `frame` is a pipe, and kills it as soon as it opens that one."""
    whole = frame.read_bytes()
    frame.unlink()
    os.mkfifo(frame)
    with subprocess.Popen([*COMMAND, *arguments], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while True:
            try:
                os.close(os.open(frame, os.O_WRONLY | os.O_NONBLOCK))
                break
            except OSError:  # nobody reads it yet
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
        process.kill()
    frame.unlink()
    frame.write_bytes(whole)


def test_it_says_what_was_written_and_what_comes_next(raw, tmp_path, capsys):
    assert run("vimeo90k", manual_dir=raw, data_dir=tmp_path / "data") == 0
    captured = capsys.readouterr()
    first, second = captured.out.splitlines()
    assert first.startswith("vimeo90k: wrote train 2, test 1 clips, ")
    assert first.endswith(f" GB, to {tmp_path}/data/vimeo90k/1.0.0")
    assert second == (
        f"train with: python train.py --config=configs/msitf.py --workdir=DIR --config.data.dir={tmp_path}/data"
    )
    assert "3/3" in captured.err
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["vimeo90k"]
    assert [path.name for path in (tmp_path / "data" / "vimeo90k").iterdir()] == ["1.0.0"]


def test_a_second_run_changes_nothing_and_tells_of_changed_lists(raw, tmp_path, capsys):
    run("vimeo90k", manual_dir=raw, data_dir=tmp_path / "data")
    before = content(tmp_path / "data")
    capsys.readouterr()
    assert run("vimeo90k", manual_dir=raw, data_dir=tmp_path / "data") == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"vimeo90k: already prepared in {tmp_path}/data/vimeo90k/1.0.0\n")
    assert captured.err == ""

    write_vimeo(raw, test_fast=TEST)
    (raw / "sep_trainlist.txt").write_text(f"{TRAIN[1]}\n")
    assert run("vimeo90k", manual_dir=raw, data_dir=tmp_path / "data") == 0
    changed = "differs from what it was made from in test_fast, train; --overwrite makes it anew"
    assert changed in capsys.readouterr().err
    assert content(tmp_path / "data") == before

    assert run("vimeo90k", "--overwrite", manual_dir=raw, data_dir=tmp_path / "data") == 0
    assert [len(vimeo90k.data_source(tmp_path / "data", split)) for split in ("train", "test_fast")] == [1, 1]
    assert [path.name for path in (tmp_path / "data" / "vimeo90k").iterdir()] == ["1.0.0"]


def test_clips_for_validation_are_moved_and_recorded(raw, tmp_path, capsys):
    write_vimeo(raw, train=[*TRAIN, "00003/0001", "00003/0002"])
    assert run("vimeo90k", manual_dir=raw, data_dir=tmp_path / "data", val="00003") == 0
    assert "wrote train 2, val 2, test 1 clips" in capsys.readouterr().out
    for split, keys in (("train", TRAIN), ("val", ["00003/0001", "00003/0002"]), ("test", TEST)):
        assert [clip["key"] for clip in vimeo90k.data_source(tmp_path / "data", split)] == keys
        assert vimeo90k.has_split(tmp_path / "data", split)
    assert not vimeo90k.has_split(tmp_path / "data", "test_slow")

    assert run("vimeo90k", manual_dir=raw, data_dir=tmp_path / "data", val="00003") == 0
    assert capsys.readouterr().err == ""
    for flags in ({}, {"val": "00001"}):
        assert run("vimeo90k", manual_dir=raw, data_dir=tmp_path / "data", **flags) == 0
        changed = f"{raw} with these options differs from what it was made from in train, val; --overwrite makes it an"
        assert changed in capsys.readouterr().err
    assert run("vimeo90k", manual_dir=raw, data_dir=tmp_path / "other", val="00009") == 2
    assert capsys.readouterr().err == (
        "prepare vimeo90k: `val` (='00009') must name clips of sep_trainlist.txt, such as '00001'\n"
    )
    assert not (tmp_path / "other").exists()


def test_uncompressed_frames_are_the_same_pixels(raw, tmp_path, capsys):
    run("vimeo90k", manual_dir=raw, data_dir=tmp_path / "data")
    assert run("vimeo90k", "--uncompressed", manual_dir=raw, data_dir=tmp_path / "large") == 0
    sources = [vimeo90k.data_source(tmp_path / name, "train") for name in ("data", "large")]
    for clip, other in zip(*sources, strict=True):
        assert clip["key"] == other["key"]
        for frame, large in zip(transforms.decode_clip(clip), transforms.decode_clip(other), strict=True):
            np.testing.assert_array_equal(frame, large)
        assert min(map(len, other["frames"])) > 448 * 256 * 3
    capsys.readouterr()
    assert run("vimeo90k", manual_dir=raw, data_dir=tmp_path / "large") == 0
    assert "differs from what it was made from in test, train;" in capsys.readouterr().err


def test_what_cannot_be_replaced_keeps_the_old_set(raw, tmp_path, capsys):
    run("vimeo90k", manual_dir=raw, data_dir=tmp_path / "data")
    before = content(tmp_path / "data")
    (raw / LAST).write_bytes(b"")
    assert run("vimeo90k", "--overwrite", manual_dir=raw, data_dir=tmp_path / "data") == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"prepare vimeo90k: frame {raw / LAST}: not a PNG image"
    assert content(tmp_path / "data") == before


def test_a_folder_that_is_no_finished_set_is_named(raw, tmp_path, capsys):
    (tmp_path / "data" / "vimeo90k" / "1.0.0").mkdir(parents=True)
    assert run("vimeo90k", manual_dir=raw, data_dir=tmp_path / "data") == 2
    assert "1.0.0: is there but holds no finished vimeo90k; --overwrite" in capsys.readouterr().err
    assert run("vimeo90k", "--overwrite", manual_dir=raw, data_dir=tmp_path / "data") == 0


def test_a_killed_preparation_reads_as_unfinished_and_is_made_anew(raw, tmp_path):
    flags = [f"--manual_dir={raw}", f"--data_dir={tmp_path / 'data'}"]
    kill_when_reading(raw / LAST, "vimeo90k", *flags)
    assert any(path.is_file() for path in (tmp_path / "data").rglob("*"))
    for split in ("train", "test"):
        with pytest.raises(ValueError, match="holds no prepared vimeo90k"):
            vimeo90k.data_source(tmp_path / "data", split)
    # As when it is killed a moment later, before what is finished gets its place: TFDS would take it for what is asked.
    (tmp_path / "data" / "vimeo90k" / "incomplete.prepare" / "vimeo90k" / "1.0.0").mkdir()
    assert prepare.main(["vimeo90k", *flags]) == 0
    assert run("vimeo90k", manual_dir=raw, data_dir=tmp_path / "whole") == 0
    assert content(tmp_path / "data") == content(tmp_path / "whole")


@pytest.mark.parametrize("degradation", DEGRADATIONS)
def test_low_resolution_frames_are_degraded_whole_frames(degradation, raw, tmp_path, capsys):
    write_vimeo(raw, test_slow=["00003/0001"])
    out = tmp_path / "new" / "lr"
    assert run("lr", manual_dir=raw, degradation=degradation, out=out) == 0
    assert f"lr: wrote 4 septuplets, degradation {degradation}, to {out}" in capsys.readouterr().out
    assert json.loads((out / "degradation.json").read_text()) == {"degradation": degradation, "scale": 4}
    assert septuplets.read_lists(out) == septuplets.read_lists(raw)
    for key in [*TRAIN, *TEST, "00003/0001"]:
        for large, small in zip(septuplets.frame_paths(raw, key), septuplets.frame_paths(out, key), strict=True):
            expected = degrade(cv2.imread(str(large)), degradation)
            assert expected.shape == (64, 112, 3)
            np.testing.assert_array_equal(cv2.imread(str(small)), expected)
    assert len(content(out)) == 4 * 7 + 3 + 1
    assert [path.name for path in out.parent.iterdir()] == ["lr"]


def test_a_killed_reduction_goes_on_where_it_was(raw, tmp_path):
    flags = [f"--manual_dir={raw}", "--degradation=bi"]
    out, part = tmp_path / "lr", tmp_path / "lr.part"
    kill_when_reading(raw / LAST, "lr", *flags, f"--out={out}")
    assert not out.exists()
    done = part / "sequences" / TEST[0] / "im1.png"
    cut = part / "sequences" / TEST[0] / "im2.png"
    kept = done.stat().st_mtime_ns
    cut.write_bytes(cut.read_bytes()[:-1])  # as after a power cut
    assert prepare.main(["lr", *flags, f"--out={out}"]) == 0
    assert not part.exists()
    assert (out / done.relative_to(part)).stat().st_mtime_ns == kept
    assert prepare.main(["lr", *flags, f"--out={tmp_path / 'whole'}"]) == 0
    assert content(out) == content(tmp_path / "whole")


def test_trees_that_would_be_lost_or_mixed_are_refused(raw, tmp_path, capsys):
    before = content(raw)
    assert run("lr", manual_dir=raw, degradation="bi", out=raw / ".." / "raw") == 2
    assert "raw') must be another folder than `manual_dir`" in capsys.readouterr().err
    (tmp_path / "there").mkdir()
    assert run("lr", manual_dir=raw, degradation="bi", out=tmp_path / "there") == 2
    assert "there') must not exist yet" in capsys.readouterr().err
    assert content(raw) == before

    (raw / LAST).unlink()
    assert run("lr", manual_dir=raw, degradation="bi", out=tmp_path / "lr") == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"prepare lr: frame {raw / LAST}: is missing"
    assert not (tmp_path / "lr").exists()
    assert run("lr", manual_dir=raw, degradation="bd_duf", out=tmp_path / "lr") == 2
    assert "lr.part: was begun with bi, not bd_duf; finish it or remove it" in capsys.readouterr().err


@pytest.mark.parametrize("record", [b"{", b"[]", b"{}"])
def test_a_damaged_record_of_what_was_begun_is_named(record, raw, tmp_path, capsys):
    (tmp_path / "lr.part").mkdir()
    (tmp_path / "lr.part" / "degradation.json").write_bytes(record)
    assert run("lr", manual_dir=raw, degradation="bi", out=tmp_path / "lr") == 2
    assert "degradation.json: not a readable record of how" in capsys.readouterr().err


def test_two_at_once_do_not_get_in_each_others_way(raw, tmp_path, capsys):
    for folder, flags in (
        ("data/vimeo90k", ["vimeo90k", f"--data_dir={tmp_path / 'data'}"]),
        ("lr.part", ["lr", "--degradation=bi", f"--out={tmp_path / 'lr'}"]),
    ):
        (tmp_path / folder).mkdir(parents=True)
        with alone_in(tmp_path / folder):
            assert run(*flags, manual_dir=raw) == 2
        assert f"{folder}: in use by another process, expected none at work there" in capsys.readouterr().err
        assert run(*flags, manual_dir=raw) == 0


@pytest.mark.parametrize("command", ["vimeo90k", "lr"])
def test_a_file_that_cannot_be_written_is_named(command, raw, tmp_path):
    # As on a full disk: no file may grow beyond a kilobyte, and those of both commands do.
    flags = {"vimeo90k": [f"--data_dir={tmp_path}"], "lr": ["--degradation=bi", f"--out={tmp_path / 'lr'}"]}[command]
    limited = ["bash", "-c", 'ulimit -f 1; exec "$@"', "bash", *COMMAND, command, f"--manual_dir={raw}", *flags]
    done = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"prepare {command}: ")
    assert "File too large" in last
    assert str(tmp_path) in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "lr").exists()
    assert not (tmp_path / "vimeo90k" / "1.0.0").exists()


def test_bad_arguments_are_one_sentence_and_exit_status_2(raw, tmp_path, capsys):
    assert run("vimeo90k", manual_dir=tmp_path / "absent", data_dir=tmp_path / "data") == 2
    assert "absent/sep_trainlist.txt: no such list" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
    assert run("lr", manual_dir=tmp_path / "absent", degradation="bi", out=tmp_path / "lr") == 2
    (tmp_path / "file").write_text("")
    assert run("vimeo90k", manual_dir=raw, data_dir=tmp_path / "file") == 2
    assert run("lr", manual_dir=raw, degradation="bi", out=tmp_path / "file" / "lr") == 2
    assert "file/lr.part'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        run("lr", manual_dir=raw, degradation="blur", out=tmp_path / "lr")
    assert stop.value.code == 2


@pytest.fixture
def footage(tmp_path):
    """Four clips of 20 frames of two sizes, and a file that is none."""
    folder = tmp_path / "footage"
    folder.mkdir()
    for number, name in enumerate(["a", "b", "c", "d"]):
        film(folder / f"{name}.mkv", pan(20, seed=number, width=160 + 4 * (name == "b")))
    (folder / "notes.txt").write_text("none")
    return folder


def test_videos_become_a_set_that_training_reads(footage, tmp_path, capsys):
    flags = {"data_dir": tmp_path / "data", "step": 4, "val": "b,c", "test": "d"}
    assert run("videos", str(footage), **flags) == 0
    captured = capsys.readouterr()
    first, second, third = captured.out.splitlines()
    assert first.startswith("vimeo90k: wrote train 4, val 4, test 2 clips, ")
    assert second == "left out: 0 septuplets (0 cuts, 0 stills, 0 blends, 0 uneven times)"
    assert third.endswith(f"--config.data.dir={tmp_path}/data")
    assert f"skipped {footage}/notes.txt: not a video that FFmpeg can read" in captured.err
    assert [path.name for path in (tmp_path / "data" / "vimeo90k").iterdir()] == ["1.0.0"]
    source = vimeo90k.data_source(tmp_path / "data", "train")
    assert [clip["key"] for clip in source] == ["a/000001", "a/000005", "a/000009", "a/000013"]
    for frame, filmed in zip(transforms.decode_clip(source[1]), pan(20)[4:11], strict=True):
        np.testing.assert_array_equal(frame, filmed)

    config = loader.DataConfig(dir=str(tmp_path / "data"), crop=16)
    assert loader.validation_split(config) == "val"
    batches = loader.train_batches(config, seed=0, batch_size=8)
    assert next(batches)["high"].shape == (8, 7, 64, 64, 3)
    batches.close()
    clips = loader.validation_clips(config, 4)
    assert [clip["key"] for clip in clips] == ["b/000001", "b/000008", "c/000001", "c/000008"]
    # They are cut to one size, in the middle.
    assert {clip["high"].shape for clip in clips} == {(7, 128, 160, 3)}
    np.testing.assert_array_equal(clips[0]["high"][0], pan(20, seed=1, width=164)[0][:, 0:160])
    np.testing.assert_array_equal(clips[0]["low"][0], degrade(pan(20, seed=1, width=164)[0], "bd_matlab")[:, :40])


def test_a_second_run_tells_of_other_videos_and_options(footage, tmp_path, capsys):
    flags = {"data_dir": tmp_path / "data", "val": "b", "test": "c"}
    assert run("videos", str(footage), **flags) == 0
    before = content(tmp_path / "data")
    capsys.readouterr()
    assert run("videos", str(footage), **flags) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"vimeo90k: already prepared in {tmp_path}/data/vimeo90k/1.0.0\n")
    assert "differs" not in captured.err
    assert run("videos", str(footage), **flags | {"val": "d"}) == 0
    assert f"{footage} with these options differs from what it was made from in train, val;" in capsys.readouterr().err
    assert run("videos", str(footage), **flags, step=1) == 0
    assert "in test, train, val; --overwrite makes it anew" in capsys.readouterr().err
    (footage / "a.mkv").unlink()
    assert run("videos", str(footage), **flags) == 0
    assert "differs from what it was made from in train;" in capsys.readouterr().err
    assert content(tmp_path / "data") == before
    assert run("videos", str(footage), "--overwrite", **flags) == 0
    assert [clip["key"][0] for clip in vimeo90k.data_source(tmp_path / "data", "train")] == ["d"] * 5


def test_videos_whose_preparation_was_killed_are_prepared_anew(footage, tmp_path):
    flags = ["videos", str(footage), "--val=b", "--test=c"]
    staging = tmp_path / "data" / "vimeo90k" / "incomplete.prepare"
    film(footage / "d.mkv", pan(4) * 500)  # takes long enough to be killed in
    command = [*COMMAND, *flags, f"--data_dir={tmp_path / 'data'}"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (staging / "frames" / "d").is_dir():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    assert any(path.is_file() for path in staging.rglob("*.png"))
    with pytest.raises(ValueError, match="holds no prepared vimeo90k"):
        vimeo90k.data_source(tmp_path / "data", "train")
    film(footage / "d.mkv", pan(20))
    for folder in ("data", "whole"):
        assert prepare.main([*flags, f"--data_dir={tmp_path / folder}"]) == 0
    assert content(tmp_path / "data") == content(tmp_path / "whole")


def test_videos_that_cannot_be_prepared_are_named_and_nothing_is_left(footage, tmp_path, capsys):
    assert run("videos", str(footage), data_dir=tmp_path / "data", val="x") == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "prepare videos: `val` (='x') must name videos of the folder: a, b, c, d"
    )
    assert run("videos", str(footage), data_dir=tmp_path / "data", step=0) == 2
    assert run("videos", str(footage), data_dir=tmp_path / "data", short_side=64) == 2
    assert "`short_side` (=64) must be at least 128" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
    film(footage / "a.mkv", pan(1) * 20)
    assert run("videos", str(footage), data_dir=tmp_path / "data", val="b", test="c,d") == 2
    assert "prepare videos: no septuplet to train with in 1 videos" in capsys.readouterr().err
    assert [*(tmp_path / "data").rglob("*")] == [tmp_path / "data" / "vimeo90k"]
