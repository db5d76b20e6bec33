"""The network at work on test patterns that the project draws itself: `python -m msitf_jax.evaluation.demo`."""

import argparse
import pathlib
import sys

import numpy as np
from flax import nnx

from input_pipeline import synthetic
from input_pipeline.degradation import SCALE, degrade
from msitf_jax.evaluation import methods, report
from msitf_jax.evaluation.benchmark import score_clip
from msitf_jax.model.msitf import MSITF

DEGRADATION = "bd_matlab"


def run(out, *, seed=0, height=256, width=448):
    """Scores the trilinear base and an untrained network on a clip of 7 frames, and draws both.

    Args:
      out: PNG to write. Upper row: an input frame; lower row: the next one, which the input lacks. From left to right:
        what the network is given, the trilinear base, the network's output, the truth.
      seed: the clip's and the initial weights'.
      height, width: of the full-size clip in pixels.

    Returns:
      `{method: scores}`, see `msitf_jax.evaluation.benchmark.score_clip`.
    """
    truth = synthetic.clip(seed, height=height, width=width)
    contenders = {
        "trilinear": methods.method("trilinear"),
        "untrained network": methods.network(MSITF(rngs=nnx.Rngs(seed))),
    }
    scores, frames = {}, {}
    for name, method in contenders.items():
        outputs = frames[name] = []
        scores[name] = score_clip(
            truth,
            method,
            degradation=DEGRADATION,
            rule="published",
            on_frame=lambda index, frame, outputs=outputs: outputs.append(frame),
        )

    small = degrade(truth[2], DEGRADATION)
    given = np.repeat(np.repeat(small, SCALE, axis=0), SCALE, axis=1)
    pictures = [
        {f"input, frame {which}": shown} | {name: frames[name][index] for name in frames} | {"truth": truth[index]}
        for index, which, shown in ((2, 2, given), (3, "3 is missing", np.full_like(given, 128)))
    ]
    picture = np.concatenate([report.side_by_side(columns) for columns in pictures])
    report.write_image(out, picture)
    return scores


def main(arguments=None):
    """Prints the table and says where the picture is; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="demo.png", help="the picture to write (default: demo.png)")
    options = parser.parse_args(arguments)
    if not pathlib.Path(options.out).parent.is_dir():
        print(f"{options.out}: its folder does not exist", file=sys.stderr)
        return 2
    print("A clip of moving test patterns, 112x64 at half the frame rate -> 448x256 (the first run compiles, ~10 s)")
    print(report.table(run(options.out)))
    print(f"input, outputs and truth side by side: {options.out}")
    print("There are no trained weights yet: an untrained network adds noise to the trilinear base.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
