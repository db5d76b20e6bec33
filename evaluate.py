"""PSNR and SSIM on Vid4 or a folder of clips: `python evaluate.py --dataset=vid4 --data_dir=DIR --weights=FILE`."""

import argparse
import sys

from input_pipeline.degradation import DEGRADATIONS
from msitf_jax import weights
from msitf_jax.evaluation import benchmark, methods, report
from msitf_jax.evaluation.windows import RULES


def _parser():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True, help="vid4, or a folder that holds one folder of frames a clip")
    parser.add_argument("--data_dir", help="for vid4: the folder with GT/calendar/*.png and so on")
    parser.add_argument("--weights", required=True, help="a .safetensors or .pth file, or trilinear or bicubic")
    parser.add_argument(
        "--degradation", choices=DEGRADATIONS, help="default: what the weights were made for, else bd_matlab"
    )
    parser.add_argument("--frames", choices=RULES, default="published", help="which frames count (default: published)")
    parser.add_argument("--json", metavar="FILE", help="write the scores there")
    parser.add_argument("--save_images", metavar="DIR", help="write the scored outputs there, as CLIP/FRAME.png")
    return parser


def main(arguments=None):
    """Returns the exit status: 0, or 2 with one sentence on standard error."""
    options = _parser().parse_args(arguments)
    try:
        _evaluate(options)
    except (ValueError, OSError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2
    return 0


def _evaluate(options):
    clips, absent = benchmark.find_clips(options.dataset, options.data_dir)
    trained_for = (
        None if options.weights in methods.BASELINES else weights.read_metadata(options.weights).get("degradation")
    )
    degradation = options.degradation or trained_for or "bd_matlab"
    if trained_for and trained_for != degradation:
        print(f"warning: these weights were made for {trained_for}, and {degradation} is asked for", file=sys.stderr)
    scores = benchmark.evaluate(
        clips,
        methods.method(options.weights),
        degradation=degradation,
        rule=options.frames,
        save_images=options.save_images,
    )
    print(f"{options.dataset}, weights {options.weights}, degradation {degradation}, frames {options.frames}")
    print(report.table(scores["clips"] | {"mean": scores["mean"]}))
    if absent:
        print(f"not in {options.data_dir} and left out: {', '.join(absent)}")
    if options.json:
        head = {
            "dataset": options.dataset,
            "degradation": degradation,
            "frames_rule": options.frames,
            "weights": options.weights,
        }
        report.write_json(options.json, head | scores)


if __name__ == "__main__":
    sys.exit(main())
