"""Converts weights, .pth <-> .safetensors."""

import argparse

from msitf_jax.weights import convert


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """IN and OUT."""
    parser.add_argument(
        "source", metavar="IN", help="a published .pth state dict, a .safetensors file or a name such as msitf-small"
    )
    parser.add_argument("target", metavar="OUT", help="the file to write; its ending says which format")
    parser.add_argument("--half", action="store_true", help="float16: half the size, for .safetensors")
    parser.add_argument(
        "--note",
        dest="notes",
        metavar="NAME=TEXT",
        type=_note,
        action="append",
        default=[],
        help="kept in a .safetensors file, such as licence=CC0-1.0; may be given more than once",
    )


def run(options: argparse.Namespace) -> None:
    """See `msitf_jax.weights.convert`."""
    convert(options.source, options.target, half=options.half, notes=dict(options.notes))


def _note(text):
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=TEXT")
    return name, value
