"""A video upscaled by `upscale.py`, by itself in a process, against the network alone: prints JSON.

What the command does beside the network is decoding, finding cuts, comparing frames, encoding, joining and starting up.
"""

import argparse
import importlib
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import av
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks import timing
from input_pipeline import synthetic
from msitf_jax import MSITF, MSITFConfig, methods, weights
from msitf_jax.video.windows import LENGTH

ROOT = pathlib.Path(__file__).parent.parent


def main():
    """Writes a clip and random weights, starts the command on them, then times the network by itself."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="msitf_small", help="a file in configs/, without .py")
    parser.add_argument("--width", type=int, default=180)
    parser.add_argument("--height", type=int, default=144)
    parser.add_argument("--frames", type=int, default=60)
    options = parser.parse_args()
    config = MSITFConfig(**importlib.import_module(f"configs.{options.config}").get_config().model)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        model = folder / "model.safetensors"
        weights.save(MSITF(config, rngs=nnx.Rngs(0)), model)
        result = {"frames": options.frames}
        # A first short one compiles, or finds that it is compiled; a second is what every later start is like.
        for name, frames in (("cold_s", LENGTH), ("warm_s", LENGTH), ("seconds", options.frames)):
            source = folder / f"{name}.mp4"
            _write(source, frames, options.height, options.width)
            result[name], result["peak_mb"] = _command(source, folder / f"{name}_4x.mp4", model)
        network = _network_seconds(model, options.height, options.width)
    windows = 1 + max(0, -(-(options.frames - LENGTH) // (LENGTH - 1)))
    result |= {"windows": windows, "network_s": network * windows, "window_s": network}
    print(json.dumps(result | {"overhead": result["seconds"] / result["network_s"] - 1}))


def _write(path, frames, height, width):
    """Test patterns, whatever the number of frames without holding them all."""
    clip = synthetic.clip(0, frames=min(frames, 60), height=4 * height, width=4 * width)[:, ::4, ::4]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            turn, place = divmod(index, len(clip))
            frame = clip[-1 - place if turn % 2 else place]  # there and back
            frame = np.clip(frame.astype(int) + turn, 0, 255).astype(np.uint8)  # so that no two are equal
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())


def _command(source, output, model):
    """Wall time of the whole command, and its peak memory in MB."""
    begun = time.perf_counter()
    command = [sys.executable, str(ROOT / "upscale.py"), str(source), str(output), f"--weights={model}"]
    wrapped = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=2); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    peak = subprocess.run([sys.executable, "-c", wrapped, *command], check=True, stdout=subprocess.PIPE).stdout
    return time.perf_counter() - begun, float(peak)


def _network_seconds(model, height, width):
    """One window of the network, compiled."""
    method = methods.method(model)
    clip = jax.random.uniform(jax.random.key(0), (1, LENGTH, height, width, 3), jnp.float32)
    return timing.seconds(jax.jit(method.forward), method.state, clip, runs=5)


if __name__ == "__main__":
    main()
