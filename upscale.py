"""Your own video, four times the size and twice the frame rate: `python upscale.py holiday.mp4 holiday_4x.mp4`."""

import sys
from collections.abc import Sequence

from msitf_jax import cli
from msitf_jax.cli import upscale


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 2 with one sentence on standard error, or 130 if it was stopped."""
    return cli.run(upscale, arguments, prog="upscale.py")


if __name__ == "__main__":
    sys.exit(main())
