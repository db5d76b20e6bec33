"""Converts weights: `python -m msitf_jax.weights IN OUT`, .pth <-> .safetensors."""

import argparse
import sys

from msitf_jax.weights.files import convert


def main(arguments=None):
    """Returns the exit status: 0, or 2 with one sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m msitf_jax.weights", description="Converts .pth <-> .safetensors.")
    parser.add_argument("source", metavar="IN", help="a published .pth state dict or a .safetensors file")
    parser.add_argument("target", metavar="OUT", help="the file to write; its ending says which format")
    options = parser.parse_args(arguments)
    try:
        convert(options.source, options.target)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
