"""What this installation has, or what a video, a folder of frames or weights hold."""

import argparse
import importlib.metadata
import pathlib

import av
import jax
from flax import nnx

from msitf_jax import weights
from msitf_jax.video import reader, upscaler, writer
from msitf_jax.weights import pretrained

_WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """An optional file."""
    parser.add_argument(
        "path", metavar="FILE", nargs="?", help="a video, a folder of frames, a weight file or its name"
    )


def run(options: argparse.Namespace) -> None:
    """Prints it, a line a fact."""
    if options.path is None:
        facts = _installation()
    elif options.path in pretrained.SHA256 or pathlib.Path(options.path).suffix in _WEIGHT_SUFFIXES:
        facts = _weights(options.path)
    else:
        facts = _video(options.path)
    width = max(len(name) for name, _ in facts)
    for name, fact in facts:
        print(f"{name:<{width}}  {fact}")


def _installation():
    packages = ("msitf-jax", "jax", "flax", "av")
    devices = ", ".join(f"{device.device_kind} ({device.platform})" for device in jax.local_devices())
    encoders = [name for name in writer.DEFAULT_CRF if name in av.codecs_available]
    return [
        *((name, importlib.metadata.version(name)) for name in packages),
        ("devices", devices),
        ("weights", ", ".join(pretrained.SHA256)),
        ("memory for it", f"{upscaler.free_memory() / 1e9:.1f} GB"),
        ("encoders", ", ".join([*encoders, "and whatever else FFmpeg has"])),
    ]


def _weights(path):
    model, metadata = weights.load(path), weights.read_metadata(path)
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    margin = {"tile_margin": f"{weights.tile_margin(path)}, since the file does not say"}
    return [("parameters", f"{count:,}"), *sorted({"config": model.config, **margin, **metadata}.items())]


def _video(path):
    video = reader.open_source(path)
    facts = [
        ("frames", f"about {video.frames}" if video.frames else "unknown"),
        ("size", f"{video.width}x{video.height}, pixels {video.sample_aspect_ratio} as wide as high"),
        ("rate", f"{float(video.rate):.4g} frames/s"),
        ("pixels", video.pixels),
        ("colours", video.tags),
    ]
    if isinstance(video, reader.VideoFile):
        with video.open() as container:
            for stream in container.streams:
                codec = stream.codec_context.name if stream.codec_context else "unknown"
                facts.append((f"stream {stream.index}", f"{stream.type}, {codec}, {dict(stream.metadata)}"))
    return [*facts, *(("warning", sentence) for sentence in video.warnings)]
