"""The network's optical flow beside OpenCV's: `python -m benchmarks.outside_flow --data_dir=DATA`.

Draws the frames between of validation clips as the flow alone does: both neighbors moved halfway, their mean enlarged
by bicubic interpolation. Prints PSNR-Y in a Markdown table, a column for each clip of the split `val`.
"""

import argparse
import collections
import itertools

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline import loader
from msitf_jax.evaluation.metrics import luma, psnr
from msitf_jax.ops.optical_flow import halfway, optical_flow, seen_from
from msitf_jax.ops.resize import bicubic4x

SEPTUPLETS = 15
# OpenCV's presets, and what is changed in them.
FINDERS = {
    "DIS, fast": (cv2.DISOPTICAL_FLOW_PRESET_FAST, {}),
    "DIS, medium": (cv2.DISOPTICAL_FLOW_PRESET_MEDIUM, {}),
    "DIS, full size": (
        cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
        {"FinestScale": 0, "GradientDescentIterations": 50, "VariationalRefinementIterations": 10},
    ),
}


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outside_flow", description=__doc__)
    parser.add_argument("--data_dir", required=True, help="prepared septuplets with a split val")
    options = parser.parse_args()
    scores = {name: collections.defaultdict(list) for name in ("none", "ours", *FINDERS)}
    data = loader.DataConfig(dir=options.data_dir, degradation="bi")
    for septuplet in loader.validation_clips(data, SEPTUPLETS):
        low, truth = septuplet["low"], septuplet["high"][1::2]
        earlier, later = (jnp.asarray(frames / np.float32(255)) for frames in (low[:-1], low[1:]))
        flows = {"none": jnp.zeros((*earlier.shape[:3], 2)), "ours": jax.jit(optical_flow)(earlier, later)}
        flows |= {name: dis(low, name) for name in FINDERS}
        for name, flow in flows.items():
            drawn = np.clip(np.rint(255 * render(earlier, later, flow)), 0, 255).astype(np.uint8)
            found = [psnr(luma(a), luma(b)) for a, b in zip(drawn, truth, strict=True)]
            scores[name][septuplet["key"].rpartition("/")[0]].append(np.mean(found))
    clips = list(scores["none"])
    print(f"| flow | {' | '.join(clips)} | mean |\n|{'---|' * (len(clips) + 2)}")
    for name, by_clip in scores.items():
        means = [np.mean(by_clip[clip]) for clip in clips]
        print(f"| {name} | {' | '.join(f'{mean:.2f}' for mean in (*means, np.mean(means)))} |")


def dis(frames, name):
    """Flow of uint8 frames `[N, H, W, 3]` seen from halfway, the mean of both directions: `[N-1, H, W, 2]`."""
    preset, settings = FINDERS[name]
    finder = cv2.DISOpticalFlow_create(preset)
    for setting, value in settings.items():
        getattr(finder, f"set{setting}")(value)
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    ahead, back = (
        np.stack([finder.calc(a, b, None)[..., ::-1] for a, b in pairs])
        for pairs in (itertools.pairwise(gray), ((b, a) for a, b in itertools.pairwise(gray)))
    )
    return seen_from_halfway(ahead, back)


@jax.jit
def seen_from_halfway(ahead, back):
    """The mean of flows seen from the earlier frame and from the later one."""
    return (seen_from(ahead, 0.5) - seen_from(back, 0.5)) / 2


@jax.jit
def render(earlier, later, flow):
    """`[N-1, H, W, 3]` in 0..1 and their flow -> the enlarged frames between."""
    return bicubic4x(halfway(earlier, later, flow)[None])[0]


if __name__ == "__main__":
    main()
