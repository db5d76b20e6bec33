"""Memory over 2,000 frames, streamed in Python and from file to file."""

import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from msitf_jax import Upscaler, weights
from tests.tiny_network import tiny_network
from tests.training import ROOT, environment
from tests.video import Sound, noise, write_video

pytestmark = pytest.mark.slow

FRAMES = 2000
WARM = 0.1  # of the frames, after which buffers have their sizes
MOST_GROWTH = 0.05


def assert_flat(name, sizes):
    """Resident sizes in bytes, measured again and again; their medians, as caches come and go."""
    sizes = np.array(sizes[int(WARM * len(sizes)) :]) / 1e6
    first, last = (np.median(part) for part in np.array_split(sizes, 5)[::4])
    print(
        f"\n{name}: {first:.0f} MB, at the end {last:.0f} MB, at most {sizes.max():.0f} MB, {len(sizes)} times measured"
    )
    assert last <= (1 + MOST_GROWTH) * first
    assert sizes.max() <= (1 + MOST_GROWTH) * sizes[: len(sizes) // 5].max()


@pytest.fixture
def weight_file(tmp_path):
    path = tmp_path / "tiny.safetensors"
    weights.save(tiny_network(), path)
    return path


def test_a_stream(weight_file):
    frames = (np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8) for number in range(FRAMES))
    process, sizes = psutil.Process(), []
    for _ in Upscaler(weight_file).stream(frames):
        sizes.append(process.memory_info().rss)
    assert len(sizes) == 2 * FRAMES - 1
    assert_flat("stream", sizes)


def test_a_file(weight_file, tmp_path):
    clip = list(noise(FRAMES, 24, 32))
    source = write_video(tmp_path / "in.mkv", clip, codec="mpeg4", pix_fmt="yuv420p", tracks=[Sound(end=FRAMES / 25)])
    command = [sys.executable, "upscale.py", source, tmp_path / "out.mkv", f"--weights={weight_file}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    segments, sizes = tmp_path / "out.mkv.part", []
    with subprocess.Popen(command, cwd=ROOT, env=environment(), **quiet) as running:
        process = psutil.Process(running.pid)
        while running.poll() is None:
            if list(segments.glob("00000.nut*")):  # no longer compiling
                sizes.append(process.memory_info().rss)
            time.sleep(0.05)
    assert running.returncode == 0
    assert_flat("file", sizes)
