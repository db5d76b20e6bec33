"""The network with its weights as one StableHLO program, which JAX runs without this package."""

import argparse

from msitf_jax import export
from msitf_jax.model.precision import COMPUTE_DTYPES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """WEIGHTS, OUT and where it will run."""
    parser.add_argument(
        "weights", metavar="WEIGHTS", help="msitf-small, a .safetensors or .pth file, or trilinear, bicubic or flow"
    )
    parser.add_argument("path", metavar="OUT", help="the file to write, such as msitf.jaxexport")
    parser.add_argument("--platform", choices=export.PLATFORMS, default="cpu", help="where it will run (default: cpu)")
    parser.add_argument("--compute_dtype", choices=COMPUTE_DTYPES, default="float32", help="for GPUs")
    parser.add_argument(
        "--time", action="store_true", help="the program is told the time of the frames between, from 0 to 1"
    )


def run(options: argparse.Namespace) -> None:
    """See `msitf_jax.export.export`."""
    export.export(**vars(options))
