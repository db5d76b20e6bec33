"""Weights at work on test patterns that no training saw: `python -m msitf_jax.evaluation.demo --weights=FILE`."""

import argparse
import pathlib
import sys

import numpy as np

from input_pipeline import synthetic
from input_pipeline.degradation import SCALE, degrade
from msitf_jax import atomic, methods
from msitf_jax import weights as weight_files
from msitf_jax.evaluation import report
from msitf_jax.evaluation.benchmark import DEFAULT_DEGRADATION, score_clip

SEED = 1000  # of the clip: even, as training draws odd ones


def run(weights, out, *, seed=SEED, height=256, width=448):
    """Scores weights and the two baselines on a clip of 7 frames, and draws them.

    Args:
      weights: a file, see `msitf_jax.weights.load`.
      out: PNG to write. Upper row: an input frame; lower row: the next one, which the input lacks. From left to right:
        what the network is given, the baselines, the network's output, the truth.
      seed: of the clip.
      height, width: of the full-size clip in pixels.

    Returns:
      `{method: scores}`, see `msitf_jax.evaluation.benchmark.score_clip`.

    Raises:
      ValueError: what `msitf_jax.weights.load` raises.
    """
    degradation = weight_files.read_metadata(weights).get("degradation", DEFAULT_DEGRADATION)
    contenders = {name: methods.method(name) for name in methods.BASELINES} | {"network": methods.method(weights)}
    truth = synthetic.clip(seed, height=height, width=width)
    scores, frames = {}, {}
    for name, method in contenders.items():
        outputs = frames[name] = []
        scores[name] = score_clip(
            truth,
            method,
            degradation=degradation,
            rule="published",
            on_frame=lambda index, frame, outputs=outputs: outputs.append(frame),
        )

    small = degrade(truth[2], degradation)
    given = np.repeat(np.repeat(small, SCALE, axis=0), SCALE, axis=1)
    pictures = [
        {f"input, frame {which}": shown} | {name: frames[name][index] for name in frames} | {"truth": truth[index]}
        for index, which, shown in ((2, 2, given), (3, "3 is missing", np.full_like(given, 128)))
    ]
    picture = np.concatenate([report.side_by_side(columns) for columns in pictures])
    atomic.write_image(out, picture)
    return scores


def main(arguments=None):
    """Prints the table and says where the picture is; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m msitf_jax.evaluation.demo", description=__doc__)
    parser.add_argument("--weights", required=True, help="a .safetensors or .pth file")
    parser.add_argument("--out", default="demo.png", help="the picture to write (default: demo.png)")
    options = parser.parse_args(arguments)
    try:
        if not pathlib.Path(options.out).parent.is_dir():
            raise ValueError(f"`out` (={options.out!r}) must be in a folder that exists")
        scores = run(options.weights, options.out)
    except (ValueError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    print("A clip of moving test patterns that was not trained on, 112x64 at half the frame rate -> 448x256")
    print(report.table(scores))
    print(f"input, outputs and truth side by side: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
