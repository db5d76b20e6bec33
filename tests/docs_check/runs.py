"""The commands of the pages run, in a copy of the project beside stand-ins for a reader's files."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

from input_pipeline import synthetic
from msitf_jax.training import configuration
from msitf_jax.weights.files import save_torch
from tests import tiny_config
from tests.docs_check.commands import split_environment
from tests.docs_check.markdown import ROOT, commands
from tests.test_benchmark import write_clip
from tests.test_septuplets import write_vimeo
from tests.tiny_network import tiny_network
from tests.video import H264, Sound, write_video

SECONDS = 300  # for a command

# Why a command is not run; the first that is found in it.
NOT_RUN = {
    r"^srun |--coordinator=": "needs several hosts; tests/test_train.py starts two processes",
    r"^make |^pip ": "installs packages",
    r"benchmarks\.tune|--implementation=triton|--type=tf32|-m gpu": "needs an NVIDIA GPU",
    r"-m pytest": "is a test",
    r"-m benchmarks( |$)|benchmarks\.(exchanges|choices)": "takes many minutes",
}
# Training runs by tests/tiny_config.py and these, all alike, so that a step compiled once serves many.
TRAINING = {
    "num_train_steps": 2,
    "batch_size": 8,
    "eval_every": 2,
    "checkpoint_every": 2,
    "ema_decay": 0.9,
    "optimizer.max_grad_norm": 1e4,
}
# What Python blocks find there.
PRELUDE = """
import numpy as np
frames = np.random.default_rng(0).integers(0, 256, (4, 12, 16, 3), np.uint8)
clip = frames[None].astype(np.float32) / 255
"""


def make_stand_ins(folder):
    """Small files under the names that the pages give to those of a reader."""
    small = synthetic.clip(0, frames=7, height=24, width=32)
    write_video(folder / "holiday.mp4", list(small), rate=24, tracks=[Sound(codec="aac")], **H264)
    # A frame a second, so that there is something at one and a half minutes.
    write_video(folder / "film.mkv", list(synthetic.clip(1, frames=110, height=24, width=32)), rate=1, **H264)
    write_clip(folder / "FRAMES", small)
    for seed, clip in enumerate(("DIR/GT/calendar", "DIR/GT/walk", "CLIPS/one", "CLIPS/two")):
        write_clip(folder / clip, synthetic.clip(seed, height=96, width=128))
    lists = {"test_fast": ["00002/0001"], "test_medium": ["00002/0002"], "test_slow": ["00002/0003"]}
    test = [key for keys in lists.values() for key in keys]
    for name in ("VIMEO", "SEPTUPLETS"):
        write_vimeo(folder / name, train=["00001/0001", "00001/0002", "00001/0003"], test=test, **lists)
    save_torch(tiny_network(), folder / "msitf.pth")


def run_all(pages):
    """Runs what can be run and tells of each; returns how many failed."""
    counts = dict.fromkeys(("run", "only parsed", "failed"), 0)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="docs_check") as folder:
        folder = pathlib.Path(folder) / "project"
        ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "runs", "demo", "build", "dist")
        shutil.copytree(ROOT, folder, ignore=ignored)
        make_stand_ins(folder)
        for name, words in _wanted(pages):
            reason = next((why for pattern, why in NOT_RUN.items() if re.search(pattern, name)), None)
            if reason:
                outcome, text = "only parsed", f"     {reason}: {name}"
            else:
                start = time.monotonic()
                status, said = _run(folder, words)
                outcome = "failed" if status else "run"
                text = f"{time.monotonic() - start:6.1f} s  {name}" + (f"\n{said}" if status else "")
            counts[outcome] += 1
            print(f"{outcome:<12}{text}", flush=True)
    told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    print(f"{told}; {(time.monotonic() - begun) / 60:.1f} minutes")
    return counts["failed"]


def _wanted(pages):
    """Yields (what to call it, words) of every command and Python block, each once, page by page."""
    seen = set()
    for block in (block for page in pages.values() for block in page.blocks):
        found = [(shlex.join(words), words) for words in commands(block)] if not block.language else []
        if block.language == "python":
            found = [(f"Python of {block}", ["python", "-c", PRELUDE + block.text])]
        for name, words in found:
            if (key := tuple(words)) not in seen:
                seen.add(key)
                yield name, words


def _run(folder, words):
    """(exit status, the last lines that were printed)."""
    variables, words = split_environment(words)
    if words[0] == "msitf":  # as installed, but for this copy
        words = ["python", "-c", "import sys; from msitf_jax.cli import main; sys.exit(main())", *words[1:]]
    if words[1] == "train.py":
        kept = ["mesh.", *["model."] * ("--config.init_from=msitf-small" in words)]
        fields = configuration.flat(tiny_config.get_config().to_dict()) | TRAINING
        for name, value in fields.items():
            if value is not None and not name.startswith(tuple(kept)):
                words.append(f"--config.{name}={value}")
    if "benchmarks.pipeline" in words:
        words = [*words, "--batches=1", "--batch_size=2"]
    if "benchmarks.network" in words:
        words = [*words, "--runs=1"]
    if "benchmarks.export" in words:
        words = [*words, "--runs=1", "--width=16", "--height=16"]
    quick = {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(folder.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    try:
        done = subprocess.run(
            [sys.executable, *words[1:]],
            cwd=folder,
            env=os.environ | quick | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, f"took more than {SECONDS} s"
    return done.returncode, "\n".join(done.stdout.splitlines()[-15:])
