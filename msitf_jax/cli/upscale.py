"""Your own video, four times the size and twice the frame rate, with its sound, subtitles and chapters."""

import argparse
import fractions
import os
import re

import jax
import platformdirs

from input_pipeline.degradation import DEGRADATIONS
from msitf_jax.model.precision import COMPUTE_DTYPES
from msitf_jax.video import job
from msitf_jax.video.reader import IMAGE_SUFFIXES
from msitf_jax.video.upscaler import DEFAULT_WEIGHTS, SCALES
from msitf_jax.video.windows import CUT_RULES
from msitf_jax.video.writer import CONTAINERS

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Input, output, and what there is to choose."""
    parser.add_argument(
        "source", metavar="INPUT", help=f"a video file, or a folder of frames ({', '.join(IMAGE_SUFFIXES)})"
    )
    parser.add_argument(
        "output", metavar="OUTPUT", help=f"a name that ends in {', '.join(CONTAINERS)}, or without: a folder for PNGs"
    )
    network = parser.add_argument_group("the network")
    network.add_argument(
        "--weights",
        default=DEFAULT_WEIGHTS,
        help="msitf-small (the default), a .safetensors or .pth file, or trilinear, bicubic or flow, which only resize",
    )
    network.add_argument(
        "--degradation",
        choices=DEGRADATIONS,
        default=job.DEFAULT_DEGRADATION,
        help=f"what the weights were made for, if they say (default: {job.DEFAULT_DEGRADATION})",
    )
    network.add_argument("--compute_dtype", choices=COMPUTE_DTYPES, default="float32", help="for GPUs")
    network.add_argument(
        "--memory", type=_bytes, metavar="SIZE", help="such as 2G: what the network may take (default: what is free)"
    )
    result = parser.add_argument_group("the result")
    result.add_argument("--scale", type=int, choices=SCALES, default=4, help="how much larger (default: 4)")
    result.add_argument(
        "--no-interpolate", dest="interpolate", action="store_false", help="as many frames as there were"
    )
    result.add_argument(
        "--cut",
        choices=CUT_RULES,
        default="repeat",
        help="between the frames beside a scene cut: repeat the earlier one, or hold it for longer (default: repeat)",
    )
    result.add_argument("--start", type=_seconds, metavar="TIME", help="such as 90, 1:30 or 0:01:30.5")
    result.add_argument("--end", type=_seconds, metavar="TIME", help="frames before this are taken")
    result.add_argument("--fps", type=_rate, help="of a folder of frames: such as 25 or 30000/1001 (default: 24)")
    result.add_argument("--compare", metavar="PAGE.html", help="write a page with a slider: plain resize and result")
    result.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    encoding = parser.add_argument_group("encoding")
    encoding.add_argument("--codec", help="FFmpeg's name (default: libx264, for .webm libvpx-vp9)")
    encoding.add_argument("--crf", type=float, help="quality, lower is better (default: 18 for libx264)")
    encoding.add_argument("--pix_fmt", help="FFmpeg's name (default: yuv420p, or yuv420p10le of more than 8 bits)")


def run(options: argparse.Namespace) -> None:
    """See `msitf_jax.video.job.run`; prints its summary."""
    keep_compiled()
    print(job.run(**vars(options)).text)


def keep_compiled() -> None:
    """Keeps what XLA compiles on disk for the next start, unless JAX_COMPILATION_CACHE_DIR says where."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", platformdirs.user_cache_dir("msitf-jax"))


def _bytes(text):
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a size such as 800M or 2G")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _seconds(text):
    if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds or hours:minutes:seconds")
    total = fractions.Fraction(0)
    for part in text.split(":"):
        total = 60 * total + fractions.Fraction(part)
    return total


def _rate(text):
    try:
        rate = fractions.Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = fractions.Fraction(0)
    if not 0 < rate <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r}: expected frames a second, such as 25 or 30000/1001")
    return rate
