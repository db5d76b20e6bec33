"""What the choices of configs/msitf_small.py are worth: `python -m benchmarks.choices --data_dir=DATA --vid4=DIR`.

Trains one small network for each row of MODEL_CARD.md's table, all from one seed, on the same crops in the same order
and for the same number of steps, and scores it on Vid4 by `bi` and `--frames=published`. 18 minutes a row on one core;
`--only=BASE+INTERPOLATION` trains one of them.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time

from benchmarks.pretrained import DEGRADATION, cells
from msitf_jax import methods
from msitf_jax.evaluation import benchmark
from msitf_jax.evaluation.clips import find_clips

ROOT = pathlib.Path(__file__).parent.parent
ROWS = ("trilinear+first", "bicubic+first", "bicubic+mean", "bicubic+both")  # model.base and model.interpolation
STEPS = 950


def main():
    """Prints a Markdown table, a row as soon as it is trained."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choices", description=__doc__)
    parser.add_argument("--data_dir", required=True, help="prepared septuplets, as train.py takes them")
    parser.add_argument("--vid4", required=True, help="folder with GT/calendar/*.png and GT/walk/*.png")
    parser.add_argument("--only", choices=ROWS)
    options = parser.parse_args()
    clips, _ = find_clips("vid4", options.vid4)
    print("| base | interpolation | PSNR-Y | SSIM-Y | at input frames | synthesised | minutes |")
    print("|---|---|---|---|---|---|---|")
    for row in [options.only] if options.only else ROWS:
        base, interpolation = row.split("+")
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            train(folder, options.data_dir, base, interpolation)
            minutes = (time.perf_counter() - start) / 60
            method = methods.method(f"{folder}/model.safetensors")
        mean = benchmark.evaluate(clips, method, degradation=DEGRADATION, rule="published")["mean"]
        print(f"| {base} | {interpolation} | {cells(mean)} | {minutes:.0f} |", flush=True)


def train(folder, data_dir, base, interpolation):
    """The shipped recipe cut short: a lower and sooner peak of the rate, and an average over fewer steps."""
    fields = {
        "model.base": base,
        "model.interpolation": interpolation,
        "data.dir": data_dir,
        "num_train_steps": STEPS,
        "optimizer.period": STEPS,
        "optimizer.learning_rate": 3e-4,
        "optimizer.warmup": 100,
        "ema_decay": 0.99,
        "eval_every": STEPS,
        "checkpoint_every": STEPS,
    }
    command = [sys.executable, "train.py", "--config=configs/msitf_small.py", f"--workdir={folder}"]
    command += [f"--config.{name}={value}" for name, value in fields.items()]
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
