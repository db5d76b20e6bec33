"""A network exported to one program of symbolic sizes, beside the network itself compiled for one size: prints JSON."""

import argparse
import importlib
import itertools
import json
import statistics
import time

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks import timing
from msitf_jax import MSITF, MSITFConfig, export, methods

PLATFORM = {"gpu": "cuda"}  # what JAX calls a backend -> what it calls the platform of a program


def main():
    """Exports, loads and compiles, then times both, taking turns, on a window of 4 frames."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="msitf_small", help="a file in configs/, without .py")
    parser.add_argument("--width", type=int, default=180)
    parser.add_argument("--height", type=int, default=144)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    config = MSITFConfig(**importlib.import_module(f"configs.{options.config}").get_config().model)
    method = methods.network(MSITF(config, rngs=nnx.Rngs(0)))
    clip = jax.random.uniform(jax.random.key(0), (1, 4, options.height, options.width, 3), jnp.float32)
    backend = jax.default_backend()

    marks = [time.perf_counter()]
    content = export.exported(method, PLATFORM.get(backend, backend)).serialize()
    marks.append(time.perf_counter())
    program = jax.export.deserialize(bytearray(content))
    marks.append(time.perf_counter())
    exported = jax.jit(program.call).lower(clip).compile()
    marks.append(time.perf_counter())
    ordinary = jax.jit(method.forward).lower(method.state, clip).compile()
    marks.append(time.perf_counter())
    names = ("export_s", "load_s", "compile_s", "ordinary_compile_s")
    taken = {name: end - start for name, (start, end) in zip(names, itertools.pairwise(marks), strict=True)}

    pairs = [
        (timing.seconds(exported, clip, runs=1), timing.seconds(ordinary, method.state, clip, runs=1))
        for _ in range(options.runs)
    ]
    result = {
        "megabytes": len(content) / 1e6,
        **taken,
        "seconds": statistics.median(ours for ours, _ in pairs),
        "ordinary_seconds": statistics.median(theirs for _, theirs in pairs),
        "ratio": statistics.median(ours / theirs for ours, theirs in pairs),
        "temporary_mb": exported.memory_analysis().temp_size_in_bytes / 2**20,
        "ordinary_temporary_mb": ordinary.memory_analysis().temp_size_in_bytes / 2**20,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
