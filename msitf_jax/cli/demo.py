"""A look at what to expect: draws a clip of moving test patterns, upscales it, and compares it with the truth."""

import argparse
import pathlib

from input_pipeline import synthetic
from input_pipeline.degradation import degrade
from msitf_jax import atomic, methods
from msitf_jax.cli.upscale import keep_compiled
from msitf_jax.evaluation import report
from msitf_jax.evaluation.benchmark import Scores, score_clip
from msitf_jax.video import job
from msitf_jax.video.upscaler import DEFAULT_WEIGHTS

SEED = 1000  # of the clip: even, as training draws odd ones
RATE = 12  # frames a second of the small clip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to put it, and which weights."""
    parser.add_argument("folder", metavar="FOLDER", nargs="?", default="demo", help="where to put it (default: demo)")
    parser.add_argument(
        "--weights",
        default=DEFAULT_WEIGHTS,
        help=f"as of msitf upscale, made for {job.DEFAULT_DEGRADATION} (default: {DEFAULT_WEIGHTS})",
    )


def run(options: argparse.Namespace) -> None:
    """Prints the scores, and where video and page lie."""
    keep_compiled()
    folder = pathlib.Path(options.folder)
    scores = show(folder, options.weights)
    print("\nMoving test patterns that no training saw, 112x64 at 12 frames/s -> 448x256 at 24 frames/s")
    print(report.table(scores))
    print(f"\nvideo:                       {folder / 'upscaled.mp4'}")
    print(f"before and after, to slide:  {(folder / 'compare.html').resolve().as_uri()}")


def show(
    folder: pathlib.Path, weights: str, *, frames: int = 25, height: int = 256, width: int = 448
) -> dict[str, Scores]:
    """Upscales a clip that is drawn in full and made small, and scores weights and baselines on it.

    Args:
      folder: gets `test_patterns/*.png`, `upscaled.mp4` and `compare.html`, in place of an earlier call's.
      weights: see `msitf_jax.methods.method`.
      frames, height, width: of the clip in full.

    Returns:
      `{method: scores}`, see `msitf_jax.evaluation.benchmark.score_clip`.

    Raises:
      ValueError: what `msitf_jax.video.job.run` raises.
      OSError: a file that can't be written.
    """
    contenders = {name: methods.method(name) for name in (*methods.BASELINES, weights)}
    truth = synthetic.clip(SEED, frames=frames, height=height, width=width)
    small, large, page = (folder / name for name in ("test_patterns", "upscaled.mp4", "compare.html"))
    small.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(truth[::2]):
        atomic.write_image(small / f"{number:04}.png", degrade(frame, job.DEFAULT_DEGRADATION))
    done = job.run(small, large, weights=weights, fps=RATE, compare=page, overwrite=True)
    print(done.text)
    return {
        name: score_clip(truth, method, degradation=job.DEFAULT_DEGRADATION, rule="all")
        for name, method in contenders.items()
    }
