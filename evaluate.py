"""PSNR and SSIM of weights on clips: `python evaluate.py --dataset=vid4 --data_dir=DIR --weights=FILE`."""

import sys
from collections.abc import Sequence

from msitf_jax import cli
from msitf_jax.cli import evaluate


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 with one sentence on standard error."""
    return cli.run(evaluate, arguments, prog="evaluate.py")


if __name__ == "__main__":
    sys.exit(main())
