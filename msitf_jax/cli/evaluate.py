"""PSNR and SSIM of weights on clips."""

import argparse

from input_pipeline.degradation import DEGRADATIONS
from msitf_jax.evaluation import benchmark
from msitf_jax.evaluation.clips import VIMEO90K
from msitf_jax.evaluation.windows import RULES
from msitf_jax.model.precision import COMPUTE_DTYPES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The data set, the weights, and how to score."""
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
    parser.add_argument(
        "--weights", required=True, help="msitf-small, a .safetensors or .pth file, or trilinear, bicubic or flow"
    )
    parser.add_argument(
        "--degradation", choices=DEGRADATIONS, help="default: what the weights were made for, else bd_matlab"
    )
    parser.add_argument("--frames", choices=RULES, default="published", help="which frames count (default: published)")
    parser.add_argument(
        "--compute_dtype",
        choices=COMPUTE_DTYPES,
        default="float32",
        help="what a network computes in (default: float32)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the scores there")
    parser.add_argument("--save_images", metavar="DIR", help="write the scored outputs there, as CLIP/FRAME.png")


def run(options: argparse.Namespace) -> None:
    """See `msitf_jax.evaluation.benchmark.run`."""
    benchmark.run(**vars(options))
