"""The training script in processes of its own: exit status and messages, signals, several hosts."""

import contextlib
import json
import random
import re
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from flax import nnx

from msitf_jax import sharding, weights
from msitf_jax.training import checkpoints, writers
from tests.test_checkpoints import large, restored_from
from tests.training import (
    CONFIG,
    ROOT,
    assert_same_files,
    assert_same_state,
    command,
    environment,
    read_until,
    started,
    stop,
    train,
    uninterrupted,
)

# Imports once, then runs each command line in a fork: what absl defines for one of them would be in the way of others.
# A fork ends without taking down the interpreter, which takes two seconds after such imports.
_SEVERAL = """
import json, os, sys
import train
from absl import app
import msitf_jax.training.loop
for arguments in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        sys.argv = ["train.py", *arguments]
        try:
            app.run(train.main, flags_parser=train._parse)
        except SystemExit as end:
            os._exit(end.code)
    print("exit status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=sys.stderr, flush=True)
"""


def one_sentence(finished):
    """What a run that was refused says."""
    assert finished.returncode == 2, finished.stderr
    assert finished.stderr.count("\n") == 1, finished.stderr
    assert finished.stderr.startswith("train.py: ")
    return finished.stderr


def test_what_is_wrong_on_the_command_line_is_told_in_one_sentence(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("def get_config():\n    return int('x')\n")
    config, workdir = f"--config={CONFIG}", f"--workdir={tmp_path / 'run'}"
    wanted = {
        (
            config,
            workdir,
            "--config.model.chanels=8",
        ): "has no field 'chanels' Did you mean \"channels\"",
        (config, workdir, "--config.speed=8"): "tiny_config.py has no field 'speed'",
        (config, workdir, "--config.batch_size=two"): "--config.batch_size=two: invalid literal for int()",
        (config, workdir, "--config.batch_size=2.5"): "--config.batch_size=2.5: invalid literal for int()",
        (config, workdir, "--config.ema_decay=often"): "--config.ema_decay=often: could not convert",
        (config, workdir, "--config.remat=maybe"): "--config.remat=maybe",
        (config, workdir, "--config.num_train_steps=0"): "`num_train_steps` (=0) must be at least 1",
        (config, workdir, "--config.model.channels=12"): "`channels` (=12) must be divisible by",
        (config, workdir, "--config.mesh.model=3"): "`mesh.model` (=3) must divide the number of devices, 2",
        (config, workdir, "--config.batch_size=3"): "`batch_size` (=3) must be a multiple of the number of devices, 2",
        (config, workdir, "--speed=8"): "Unknown command line flag 'speed'",
        (config, workdir, "more"): "unexpected argument 'more': options are written --name=value",
        (config,): "--workdir",
        (workdir,): "--config",
        ("--config=nowhere.py", workdir): "No such file or directory: 'nowhere.py'",
        (f"--config={broken}", workdir): "ValueError: invalid literal for int() with base 10: 'x'",
        (config, workdir, "--coordinator=localhost:1", "--num_processes=2"): "`distributed`: no cluster found",
    }
    finished = subprocess.run(
        [sys.executable, "-c", _SEVERAL, json.dumps(list(wanted))],
        cwd=ROOT,
        env=environment(XLA_FLAGS="--xla_force_host_platform_device_count=2"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    lines = finished.stderr.splitlines()
    assert lines[1::2] == ["exit status 2"] * len(wanted), finished.stderr
    for line, text in zip(lines[::2], wanted.values(), strict=True):
        assert line.startswith("train.py: ")
        assert text in line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_signal_while_compiling_stops_after_a_step_and_the_run_goes_on_to_the_same_bits(tmp_path):
    expected, state, _ = uninterrupted()
    with started(tmp_path) as process:
        read_until(process, "compiling the training step")
        process.terminate()
        output = process.communicate(timeout=300)[0]
        assert process.returncode == 0
    assert output.endswith("stopped, step 1 is saved; the same command goes on from there\n"), output
    # The second half in another process, and so with the same programs compiled again.
    resumed, _ = train(tmp_path)
    assert_same_state(resumed, state)
    assert_same_files(tmp_path, expected)


@pytest.mark.slow
def test_what_cannot_be_written_in_the_background_is_told_in_one_sentence(tmp_path):
    uninterrupted()  # so that all is compiled, and nothing of that to be stored
    finished = subprocess.run(
        [
            "bash",
            "-c",
            'ulimit -f 100; exec "$@"',
            "bash",
            *command(tmp_path, "--config.eval_clips=0"),
        ],  # 100 KiB a file
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (
        one_sentence(finished)
        == f"train.py: checkpoints {tmp_path / 'checkpoints'}: can't be written (File too large)\n"
    )
    assert not (tmp_path / "model.safetensors").exists()


_EIGHT = """
import pathlib, sys
import jax
from msitf_jax import sharding
from msitf_jax.training import checkpoints
from tests.test_checkpoints import large, restored_from
assert jax.device_count() == 8
mesh = sharding.make_mesh(4)
restored = restored_from(pathlib.Path(sys.argv[1]), mesh)
assert len({str(shard.index) for shard in restored.params["w"].addressable_shards}) == 4
manager = checkpoints.Checkpoints(sys.argv[2], keep_last=1, keep_best=0)
manager.save(1, restored, {})
manager.close()
"""


def test_another_mesh_restores_what_was_saved_and_back(tmp_path):
    manager = checkpoints.Checkpoints(tmp_path / "one", keep_last=1, keep_best=0)
    manager.save(1, large(), {})
    manager.close()
    variables = environment(XLA_FLAGS="--xla_force_host_platform_device_count=8", PYTHONPATH=str(ROOT))
    arguments = [sys.executable, "-c", _EIGHT, tmp_path / "one", tmp_path / "eight"]
    subprocess.run(arguments, cwd=ROOT, env=variables, timeout=120, check=True)
    assert_same_state(restored_from(tmp_path / "eight", sharding.make_mesh()), large())


def slurm(process, count, job):
    """What Slurm tells each process of a job."""
    return {
        "SLURM_JOB_ID": str(job),
        "SLURM_STEP_NODELIST": "127.0.0.1",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_NTASKS": str(count),
        "SLURM_PROCID": str(process),
        "SLURM_LOCALID": str(process),
    }


def together(workdir, flags, processes, *, until=None, which=None, timeout=400):
    """Two runs of the script that train together; a signal goes to one of them; their outputs."""
    outputs, files = [], []
    with contextlib.ExitStack() as stack:
        running = []
        for number, (own, variables) in enumerate(processes):
            path = workdir.with_name(f"{workdir.name}-{number}.txt")
            file = stack.enter_context(open(path, "w"))
            process = subprocess.Popen(
                command(workdir, *flags, *own),
                cwd=ROOT,
                env=environment(**variables),
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
            stack.callback(stop, process)
            running.append(process)
            files.append(path)
        end = time.monotonic() + timeout
        while until is not None and until not in files[0].read_text():
            assert time.monotonic() < end, files[0].read_text()
            assert running[0].poll() is None, files[0].read_text()
            time.sleep(0.05)
        if until is not None:
            running[which].terminate()
        for process, path in zip(running, files, strict=True):
            assert process.wait(max(end - time.monotonic(), 1)) == 0, path.read_text()
            outputs.append(path.read_text())
    return outputs


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_two_processes_train_stop_and_go_on_like_one(tmp_path):
    expected, state, _ = uninterrupted()
    job = random.randrange(10**6)
    cluster = [(("--distributed",), slurm(number, 2, job)) for number in range(2)]
    first, second = together(tmp_path / "two", (), cluster, until="2/6", which=1)
    stopped = int(re.search(r"stopped, step (\d) is saved", first)[1])
    print(f"\nstopped at step {stopped}")
    assert "2 x cpu on 2 hosts, mesh 2 data x 1 model" in first
    assert "stopped" not in second  # one of them speaks
    port = free_port()
    explicit = [
        ((f"--coordinator=127.0.0.1:{port}", "--num_processes=2", f"--process_id={number}"), {}) for number in range(2)
    ]
    first, _ = together(tmp_path / "two", (), explicit)
    assert f"going on from step {stopped}" in first
    ours, theirs = (writers.read_metrics(path / "metrics.jsonl") for path in (tmp_path / "two", expected))
    assert [record.keys() for record in ours] == [record.keys() for record in theirs]
    worst = 0
    for record, wanted in zip(ours, theirs, strict=True):
        worst = max([worst, *(abs(record[name] / value - 1) for name, value in wanted.items() if value)])
    print(f"largest relative difference in metrics.jsonl: {worst:.1e}")
    assert worst < 1e-5
    model = nnx.state(weights.load(tmp_path / "two" / "model.safetensors"), nnx.Param)
    pairs = list(zip(jax.tree.leaves(model), jax.tree.leaves(state.params), strict=True))
    error = np.sqrt(sum(np.sum((a - b) ** 2) for a, b in pairs) / sum(np.sum(b**2) for _, b in pairs))
    print(f"relative difference of the parameters: {error:.1e}")
    # Adam's first steps go by the sign of each gradient, and where that is near 0, by the sign of its rounding.
    assert error < 1e-3
    # One process goes on from what two have saved.
    prolonged, _ = train(tmp_path / "two", num_train_steps=7)
    assert int(prolonged.step) == 7
