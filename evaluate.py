"""PSNR and SSIM of weights on clips: `python evaluate.py --dataset=vid4 --data_dir=DIR --weights=FILE`."""

import argparse
import sys

from input_pipeline.degradation import DEGRADATIONS
from msitf_jax.evaluation import benchmark
from msitf_jax.evaluation.clips import VIMEO90K
from msitf_jax.evaluation.windows import RULES


def _parser():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--dataset",
        required=True,
        help=f"{', '.join(['vid4', *VIMEO90K])}, or a folder that holds one folder of frames a clip",
    )
    parser.add_argument(
        "--data_dir",
        help="for vid4: the folder with GT/calendar/*.png and so on; "
        "for vimeo90k_*: the folder with sequences/ and sep_testlist.txt or sep_fast_testlist.txt and so on",
    )
    parser.add_argument("--weights", required=True, help="a .safetensors or .pth file, or trilinear or bicubic")
    parser.add_argument(
        "--degradation", choices=DEGRADATIONS, help="default: what the weights were made for, else bd_matlab"
    )
    parser.add_argument("--frames", choices=RULES, default="published", help="which frames count (default: published)")
    parser.add_argument(
        "--compute_dtype",
        choices=["float32", "bfloat16"],
        default="float32",
        help="what a network computes in (default: float32)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the scores there")
    parser.add_argument("--save_images", metavar="DIR", help="write the scored outputs there, as CLIP/FRAME.png")
    return parser


def main(arguments=None):
    """Returns the exit status: 0, or 2 with one sentence on standard error."""
    options = _parser().parse_args(arguments)
    try:
        benchmark.run(**vars(options))
    except (ValueError, OSError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
