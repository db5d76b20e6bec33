"""A window of 4 frames to 7 of four times the size, by itself in a process: prints JSON."""

import argparse
import importlib
import json
import time

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks import flops, timing
from msitf_jax import MSITF, MSITFConfig
from msitf_jax.model.precision import narrow


def main():
    """Compiles and times a network, and then the machine's matmul rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="msitf", help="a file in configs/, without .py")
    parser.add_argument("--width", type=int, default=180)
    parser.add_argument("--height", type=int, default=144)
    parser.add_argument("--type", default="float32", choices=timing.PRECISIONS)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    config = MSITFConfig(**importlib.import_module(f"configs.{options.config}").get_config().model)
    graph, params = nnx.split(MSITF(config, rngs=nnx.Rngs(0)))
    clip = jax.random.uniform(jax.random.key(0), (1, 4, options.height, options.width, 3), jnp.float32)
    with timing.product_type(options.type) as dtype:
        params = narrow(params, dtype)
        forward = jax.jit(lambda params, clip: nnx.merge(graph, params)(clip))
        gflop = flops.count(forward, params, clip) / 1e9
        start = time.perf_counter()
        compiled = forward.lower(params, clip).compile()
        compile_seconds = time.perf_counter() - start
        seconds = timing.seconds(compiled, params, clip, runs=options.runs)
    result = {
        "compile_s": compile_seconds,
        "seconds": seconds,
        "peak_mb": timing.memory(compiled),
        "gflop": gflop,
    }
    print(json.dumps(result | {"matmul_gflops": timing.matmul_rate(options.type)}))


if __name__ == "__main__":
    main()
