"""The same seed on the same machine gives the same bits, on one device and on eight; see docs/determinism.md."""

import subprocess
import sys

import numpy as np
import pytest

from msitf_jax import weights
from msitf_jax.training import writers
from tests import training
from tests.tiny_network import tiny_network
from tests.video import noise, write_video

pytestmark = pytest.mark.slow

DEVICES = (1, 8)


def environment(devices):
    return training.environment(XLA_FLAGS=f"--xla_force_host_platform_device_count={devices}")


def test_training(tmp_path):
    flags = ("num_train_steps=3", "batch_size=8", "eval_every=3", "eval_clips=1", "log_every=1")
    for devices in DEVICES:
        for run in "ab":
            command = training.command(tmp_path / f"{run}{devices}", *(f"--config.{flag}" for flag in flags))
            done = subprocess.run(
                command, cwd=training.ROOT, env=environment(devices), capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
        training.assert_same_files(tmp_path / f"a{devices}", tmp_path / f"b{devices}")
    one, eight = (writers.read_metrics(tmp_path / f"a{devices}" / "metrics.jsonl") for devices in DEVICES)
    worst = max(
        abs(record[name] / value - 1)
        for record, other in zip(eight, one, strict=True)
        for name, value in other.items()
        if value
    )
    print(f"\ntraining: 1 and 8 devices differ by {worst:.1e} in metrics.jsonl, relative, at most")
    assert worst < 1e-3


def test_upscaling(tmp_path):
    weights.save(tiny_network(), tmp_path / "tiny.safetensors")
    source = write_video(tmp_path / "in.mkv", list(noise(9, 24, 40)))
    outputs = {}
    for devices in DEVICES:
        for run in "ab":
            output = tmp_path / f"{run}{devices}.mkv"
            command = [sys.executable, "upscale.py", source, output, f"--weights={tmp_path / 'tiny.safetensors'}"]
            subprocess.run(command, cwd=training.ROOT, env=environment(devices), capture_output=True, check=True)
            outputs[run, devices] = np.frombuffer(output.read_bytes(), np.uint8)
        np.testing.assert_array_equal(outputs["a", devices], outputs["b", devices])
    same = np.array_equal(outputs["a", 1], outputs["a", 8])
    print(f"\nupscaling: 1 and 8 devices give {'the same' if same else 'other'} bytes")
