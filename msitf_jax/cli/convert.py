"""Converts weights, .pth <-> .safetensors."""

from msitf_jax.weights import convert


def add_arguments(parser):
    """IN and OUT."""
    parser.add_argument("source", metavar="IN", help="a published .pth state dict or a .safetensors file")
    parser.add_argument("target", metavar="OUT", help="the file to write; its ending says which format")


def run(options):
    """See `msitf_jax.weights.convert`."""
    convert(options.source, options.target)
