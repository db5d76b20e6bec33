"""Scores and pictures of the weights in the package: `python -m benchmarks.pretrained --vid4=DIR --vimeo=DIR`.

Prints the tables of MODEL_CARD.md, and with `--pictures=docs/pretrained` draws its pictures. `--vid4` is the folder
with GT/calendar and GT/walk, `--vimeo` the one with the held-out septuplets and sep_testlist.txt; either may be left
out. All by `bi`, which the weights were made for, and `--frames=published`.
"""

import argparse
import dataclasses
import pathlib

import cv2
import numpy as np

from input_pipeline.degradation import SCALE, degrade
from msitf_jax import atomic, methods
from msitf_jax.evaluation import benchmark
from msitf_jax.evaluation.clips import Septuplet, find_clips

DEGRADATION = "bi"
FEW = 4  # clips that get a row each
ENLARGED = 2  # times that the pictures show


@dataclasses.dataclass(frozen=True)
class Example:
    """Part of a frame to show.

    Attributes:
      name: of the picture.
      key: of the septuplet.
      frame: 0 to 6; odd ones are between the network's inputs.
      window: (top, left, height, width) in full-size pixels.
      jpeg: quality that the small frames are compressed by, None for not at all.
    """

    name: str
    key: str
    frame: int
    window: tuple
    jpeg: int | None = None


EXAMPLES = (
    Example("detail", "00003/0013", 2, (40, 180, 120, 150)),
    Example("fast_rotation", "00003/0003", 3, (10, 130, 120, 150)),
    Example("repeated_texture", "00028/0007", 3, (0, 100, 120, 150)),
    Example("faces", "00001/0009", 2, (20, 20, 120, 150)),
    Example("compression", "00003/0013", 2, (40, 180, 120, 150), jpeg=30),
)


def main():
    """Prints tables, a data set after the other, and draws the pictures where asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pretrained", description=__doc__)
    parser.add_argument("--vid4", help="folder with GT/calendar/*.png and GT/walk/*.png")
    parser.add_argument("--vimeo", help="folder with sequences/ and sep_testlist.txt")
    parser.add_argument("--weights", default="msitf-small")
    parser.add_argument("--pictures", type=pathlib.Path, help="folder for the pictures, drawn from --vimeo")
    options = parser.parse_args()
    rows = {name: methods.method(name) for name in (*methods.BASELINES, options.weights)}
    if options.vid4:
        print_scores(*find_clips("vid4", options.vid4)[:1], rows)
    if options.vimeo:
        print_scores(*find_clips("vimeo90k_test", options.vimeo)[:1], rows)
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
        for example in EXAMPLES:
            atomic.write_image(options.pictures / f"{example.name}.png", draw(example, options.vimeo, rows))


def print_scores(clips, rows):
    """A Markdown table: a row for each method and clip, or the mean of more than a few; and how many beat bicubic."""
    print("\n| clips | weights | PSNR-Y | SSIM-Y | at input frames | synthesized |\n|---|---|---|---|---|---|")
    found = {}
    for name, method in rows.items():
        scores = found[name] = benchmark.evaluate(clips, method, degradation=DEGRADATION, rule="published")
        shown = scores["clips"] if len(clips) <= FEW else {}
        for title, row in (shown | {f"mean of {len(clips)}": scores["mean"]}).items():
            print(f"| {title} | {name} | {cells(row)} |", flush=True)
    ours, bicubic = found[name]["clips"], found["bicubic"]["clips"]
    print()
    for key in ("psnr_y", "ssim_y"):
        gains = [ours[clip][key] - bicubic[clip][key] for clip in ours]
        above = sum(gain > 0 for gain in gains)
        print(f"{name} is above bicubic in {key} on {above} of {len(gains)} clips, by {min(gains):.4f} at least")


def cells(scores):
    """PSNR-Y, SSIM-Y, PSNR-Y at input frames and at synthesized ones, as cells of a Markdown table."""
    psnr = [f"{scores[key]:.3f}" for key in ("psnr_y", "psnr_y_input", "psnr_y_synthesized")]
    return f"{psnr[0]} | {scores['ssim_y']:.4f} | {psnr[1]} | {psnr[2]}"


def draw(example, root, rows):
    """What the network is given, what bicubic and it make of that, and the truth: `[H, W, 3]` uint8 RGB."""
    truth = np.stack(list(Septuplet(root, example.key)))
    small = [degrade(frame, DEGRADATION) for frame in truth[::2]]
    if example.jpeg is not None:
        small = [jpeg(frame, example.jpeg) for frame in small]
    small = np.stack(small)
    given = small[example.frame // 2].repeat(SCALE, 0).repeat(SCALE, 1)
    outputs = {name: method(small)[example.frame] for name, method in rows.items() if name != "trilinear"}
    first = "input" if example.frame % 2 == 0 else "input before"
    top, left, height, width = example.window
    columns = {
        title: frame[top : top + height, left : left + width].repeat(ENLARGED, 0).repeat(ENLARGED, 1)
        for title, frame in ({first: given} | outputs | {"truth": truth[example.frame]}).items()
    }
    return beside(columns)


def beside(columns):
    """Frames of one size beside one another under their titles: `{title: [H, W, 3] uint8 RGB}` to one such picture."""
    panels = []
    for title, frame in columns.items():
        panel = np.full((frame.shape[0] + 28, frame.shape[1], 3), 255, np.uint8)
        panel[28:] = frame
        cv2.putText(panel, title, (6, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        panels.append(panel)
    return np.concatenate(panels, axis=1)


def jpeg(frame, quality):
    """A frame as JPEG leaves it."""
    _, content = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(content, cv2.IMREAD_COLOR_RGB)


if __name__ == "__main__":
    main()
