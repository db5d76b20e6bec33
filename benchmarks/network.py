"""One Vid4 window, 4 frames of 180x144 to 7 of 720x576, by itself in a process: prints JSON."""

import json
import time

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks import flops, timing
from msitf_jax import MSITF

RUNS = 3


def main():
    """Compiles and times the published network, with the machine's matmul rate before and after."""
    rates = [timing.matmul_rate()]
    graph, state = nnx.split(MSITF(rngs=nnx.Rngs(0)))
    clip = jax.random.uniform(jax.random.key(0), (1, 4, 144, 180, 3), jnp.float32)
    forward = jax.jit(lambda state, clip: nnx.merge(graph, state)(clip))
    gflop = flops.count(forward, state, clip) / 1e9
    start = time.perf_counter()
    compiled = forward.lower(state, clip).compile()
    compile_seconds = time.perf_counter() - start
    seconds = timing.seconds(compiled, state, clip, runs=RUNS)
    memory = timing.peak_memory()
    rates.append(timing.matmul_rate())
    print(
        json.dumps(
            {
                "compile_s": compile_seconds,
                "seconds": seconds,
                "peak_mb": memory,
                "gflop": gflop,
                "matmul_gflops": max(rates),
            }
        )
    )


if __name__ == "__main__":
    main()
