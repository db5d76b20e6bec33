"""The command `msitf`; each of its commands is a module here with `add_arguments` and `run`."""

import argparse
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from msitf_jax.limits import MAX_PIXELS

# OpenCV's own limit is sixteen times as high, and read when it is imported.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))

COMMANDS = {
    "upscale": "a video, four times the size and twice the frame rate",
    "demo": "a clip that is drawn on the spot, upscaled and compared with the truth",
    "evaluate": "PSNR and SSIM of weights on clips",
    "convert": "weights between .pth and .safetensors, or from a training checkpoint",
    "export": "the network as one StableHLO program, for JAX without this package",
    "info": "what this installation has, or what a video or weights hold",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `msitf COMMAND ...` and returns the exit status, see `run`."""
    parser = argparse.ArgumentParser(
        prog="msitf",
        description="Space-time video super-resolution.",
        epilog="\n".join(f"{name:<10}{summary}" for name, summary in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = importlib.metadata.version("msitf-jax")
    parser.add_argument("--version", action="version", version=f"msitf {version}")
    parser.add_argument("command", choices=COMMANDS, help="one of those below; msitf COMMAND --help tells more")
    arguments = sys.argv[1:] if arguments is None else arguments
    command = parser.parse_args(arguments[:1]).command
    return run(importlib.import_module(f"msitf_jax.cli.{command}"), arguments[1:], prog=f"msitf {command}")


def run(command: ModuleType, arguments: Sequence[str] | None, *, prog: str) -> int:
    """Runs one command.

    Args:
      command: a module of this package.
      arguments: strings, None for the process's own.
      prog: what the command is called in messages.

    Returns:
      The exit status: 0, 2 with one sentence on standard error, or 130 if it was stopped.
    """
    from jax.errors import JaxRuntimeError  # `msitf --help` does without JAX

    parser = argparse.ArgumentParser(prog=prog, description=command.__doc__)
    command.add_arguments(parser)
    options = parser.parse_args(arguments)
    try:
        command.run(options)
    except (ValueError, OSError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    except (MemoryError, JaxRuntimeError) as error:
        print(f"{prog}: {out_of_memory(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"{prog}: {stop or 'stopped'}", file=sys.stderr)
        return 130
    return 0


def out_of_memory(error: Exception) -> str:
    """What a `MemoryError` or an error of JAX's devices is told as: one sentence."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"there is too little memory for this, or a device failed ({reason})"
