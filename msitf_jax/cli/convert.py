"""Converts weights, .pth <-> .safetensors, and takes those of a training run's checkpoint."""

import argparse
import pathlib

from msitf_jax import weights
from msitf_jax.weights import pretrained


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """IN and OUT."""
    parser.add_argument(
        "source",
        metavar="IN",
        help="a published .pth state dict, a .safetensors file, a name such as msitf-small, or a checkpoint such as "
        "runs/x/checkpoints/5000; of runs/x the newest is taken",
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
    """See `msitf_jax.weights.convert`, and for a folder `msitf_jax.training.checkpoints.read_weights`."""
    source, chosen = options.source, {"half": options.half, "notes": dict(options.notes)}
    if source not in pretrained.SHA256 and pathlib.Path(source).is_dir():
        model, metadata = _from_checkpoint(source)
        weights.write(model, metadata, options.target, **chosen)
    else:
        weights.convert(source, options.target, **chosen)


def _from_checkpoint(folder):
    try:
        from msitf_jax.training import checkpoints
    except ImportError:
        raise ValueError(f"checkpoint {folder}: needs Orbax, which `pip install 'msitf-jax[train]'` brings") from None
    checkpoints.silence_storage()
    return checkpoints.read_weights(folder)


def _note(text):
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=TEXT")
    return name, value
