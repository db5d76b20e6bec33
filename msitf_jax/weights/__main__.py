"""Converts weights: `python -m msitf_jax.weights IN OUT`, .pth <-> .safetensors; the same as `msitf convert`."""

import sys
from collections.abc import Sequence

from msitf_jax import cli
from msitf_jax.cli import convert


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 with one sentence on standard error."""
    return cli.run(convert, arguments, prog="python -m msitf_jax.weights")


if __name__ == "__main__":
    sys.exit(main())
