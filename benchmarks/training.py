"""Training steps of the published network on 32x32 crops, by themselves in a process: prints JSON.

As in `train.py`, in huge pages where the system leaves that to programs; `GLIBC_TUNABLES=` before the command measures
without them.
"""

import argparse
import json
import time

import jax
import numpy as np
from flax import nnx

from benchmarks import timing
from msitf_jax import MSITF, sharding
from msitf_jax.training import schedule, state, step
from msitf_jax.training.huge_pages import restart_with_huge_pages

RUNS = 3
CROP = 32


def main():
    """Compiles and times `msitf_jax.training.step` on random clips, and then the machine's matmul rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--remat", action="store_true")
    parser.add_argument("--type", default="float32", choices=timing.PRECISIONS)
    options = parser.parse_args()
    restart_with_huge_pages()

    rng = np.random.default_rng(0)
    batch = {
        "low": rng.integers(0, 256, (options.batch, 4, CROP, CROP, 3), dtype=np.uint8),
        "high": rng.integers(0, 256, (options.batch, 7, 4 * CROP, 4 * CROP, 3), dtype=np.uint8),
    }
    mesh = sharding.make_mesh()
    graph, params = nnx.split(MSITF(rngs=nnx.Rngs(0)), nnx.Param)
    optimizer = schedule.make_optimizer(lambda _: 2e-4)
    train_state = state.create(params, optimizer, ema=False, seed=0)
    shardings = sharding.state_shardings(mesh, train_state)
    train_state, batch = jax.device_put(train_state, shardings), sharding.global_batch(mesh, batch)
    with timing.product_type(options.type) as dtype:
        train_step = step.make_train_step(
            graph, optimizer, mesh, shardings, compute_dtype=dtype.name, remat=options.remat
        )
        start = time.perf_counter()
        compiled = train_step.lower(train_state, batch).compile()
        compile_seconds = time.perf_counter() - start

    def run():
        nonlocal train_state
        train_state, metrics = compiled(train_state, batch)
        return metrics

    seconds = timing.seconds(run, runs=RUNS)
    result = {"compile_s": compile_seconds, "seconds_per_clip": seconds / options.batch}
    result["peak_mb"] = timing.memory(compiled)
    print(json.dumps(result | {"matmul_gflops": timing.matmul_rate(options.type)}))


if __name__ == "__main__":
    main()
