"""kill -9 at ten random moments each of training, preparation and upscaling: nothing finished is lost."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from msitf_jax import weights
from tests import training
from tests.test_septuplets import write_vimeo
from tests.tiny_network import tiny_network
from tests.video import noise, write_video

pytestmark = pytest.mark.slow

KILLS = 10


@contextlib.contextmanager
def started(command):
    """A command in a process group of its own, which is killed at the end."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=training.ROOT, env=training.environment(), start_new_session=True, **quiet)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def timed(command, *landmarks):
    """Runs a command to its end: the seconds after which each path appeared, and that it took."""
    begin, seconds = time.monotonic(), []
    with started(command) as process:
        for path in landmarks:
            while not path.exists():
                assert process.poll() is None
                time.sleep(0.005)
            seconds.append(time.monotonic() - begin)
        assert process.wait() == 0
    return [*seconds, time.monotonic() - begin]


def kill_and_go_on(command, spans, finished):
    """Kills a command at `KILLS` random moments, starting it again after each, and lets it come to its end.

    Args:
      command: what to run.
      spans: (from, to) in seconds after its start; the moments are spread over them.
      finished: () -> what is finished, as a set; nothing of it may be lost.
    """
    draw = random.Random(0)
    moments = [draw.uniform(*spans[number % len(spans)]) for number in range(KILLS)]
    draw.shuffle(moments)
    before = set()
    print()
    for number, moment in enumerate(moments, 1):
        with started(command) as process, contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
            pytest.fail(f"it ended before kill {number}, after {moment:.2f} s")
        now = finished()
        print(f"kill {number:2} after {moment:5.2f} s: {len(now)} finished")
        assert before <= now
        before = now
    with started(command) as process:
        assert process.wait() == 0


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def states(folder, pattern):
    """Which files of a pattern there are, each with its time, which says that it has not been made anew."""
    return {(path.name, path.stat().st_mtime_ns) for path in folder.glob(pattern)}


def test_training(tmp_path):
    """Each step is saved, all checkpoints are kept, and the result is the same to the bit."""

    def command(workdir):
        flags = ("num_train_steps=60", "checkpoint_every=1", "eval_every=15", "keep_last=60")
        return training.command(workdir, *(f"--config.{flag}" for flag in flags))

    timed(command(tmp_path / "whole"))  # and compiles
    first = tmp_path / "again" / "checkpoints" / "1"
    start, stepping, end = timed(command(tmp_path / "again"), first.parent, first)
    training.assert_same_files(tmp_path / "again", tmp_path / "whole")
    saved = tmp_path / "killed" / "checkpoints"
    spans = [(0, start), (start, stepping), *[(stepping, stepping + (end - stepping) / KILLS)] * 3]
    kill_and_go_on(command(tmp_path / "killed"), spans, lambda: states(saved, "[0-9]*[0-9]"))
    training.assert_same_files(tmp_path / "killed", tmp_path / "whole")
    assert not list(saved.glob("*tmp*"))


@pytest.mark.parametrize("kind", ["vimeo90k", "lr"])
def test_preparation(kind, tmp_path):
    """A set is made whole or not at all; low-resolution frames that are finished are kept."""
    train = [f"00001/{number:04}" for number in range(1, 91)]
    raw = write_vimeo(tmp_path / "raw", train=train, test=["00002/0001"])

    def command(out):
        flags = {"vimeo90k": (f"--data_dir={out}",), "lr": (f"--out={out}", "--degradation=bd_matlab")}[kind]
        return [sys.executable, "-m", "input_pipeline.prepare", kind, f"--manual_dir={raw}", *flags]

    def incomplete(out):
        return out / "vimeo90k" / "incomplete.prepare" if kind == "vimeo90k" else out.with_name(f"{out.name}.part")

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    start, end = timed(command(whole), incomplete(whole))
    spans = [(0, start), *[(start, end - 0.1 if kind == "vimeo90k" else start + (end - start) / KILLS)] * 3]

    def finished():
        assert not (killed / "vimeo90k" / "1.0.0" if kind == "vimeo90k" else killed).exists()
        return states(incomplete(killed), "sequences/*/*/im?.png") if kind == "lr" else set()

    kill_and_go_on(command(killed), spans, finished)
    assert contents(killed) == contents(whole)
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "whole", "killed"}


@pytest.mark.parametrize("ending", [".mp4", ""])
def test_upscaling(ending, tmp_path):
    """Finished segments, or frames, are kept, and the output is the same to the byte."""
    source = write_video(tmp_path / "in.mkv", list(noise(700)))
    weights.save(tiny_network(), tmp_path / "tiny.safetensors")

    def command(output):
        return [sys.executable, "upscale.py", source, output, f"--weights={tmp_path / 'tiny.safetensors'}"]

    whole, killed = tmp_path / f"whole{ending}", tmp_path / f"killed{ending}"
    timed(command(tmp_path / f"first{ending}"))  # and compiles
    part, pattern = ("whole.mp4.part", "*.json") if ending else ("whole.part", "frames/*.png")
    first = tmp_path / part / ("00000.nut.part" if ending else "frames/00000001.png")
    start, end = timed(command(whole), first)
    spans = [(0, start), *[(start, start + (end - start) / KILLS)] * 3]
    unfinished = tmp_path / part.replace("whole", "killed")
    kill_and_go_on(command(killed), spans, lambda: states(unfinished, pattern))
    if ending:
        assert killed.read_bytes() == whole.read_bytes()
    else:
        assert contents(killed) == contents(whole)
    assert not unfinished.exists()
