"""Configurations beside each other, in one process and in turns: a window upscaled, and a training step.

    git worktree add /tmp/before REVISION
    python -m benchmarks.turns /tmp/before:msitf_small msitf_small    # one of them as it was there

A configuration is a file in configs/, without .py, of this checkout or of another one. What else the machine does slows
down each of them alike; a ratio to the first one is the median over the rounds. As `train.py` does, it runs in huge
pages. Prints a Markdown table.
"""

import argparse
import contextlib
import importlib
import pathlib
import statistics
import sys
import time

import jax
import numpy as np
from flax import nnx

from benchmarks import flops
from msitf_jax.training.huge_pages import restart_with_huge_pages

HEIGHT, WIDTH = 144, 180  # of Vid4's frames, at a fourth
OURS = ("msitf_jax", "configs", "input_pipeline")


def main():
    """Compiles all, then times a window and a step of each, again and again."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.turns", description=__doc__)
    parser.add_argument("configs", nargs="+", metavar="[CHECKOUT:]CONFIG")
    parser.add_argument("--batch", type=int, default=4, help="clips of a training step")
    parser.add_argument("--crop", type=int, default=24, help="side of its crops, in low-resolution pixels")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    restart_with_huge_pages()
    contenders = [prepare(name, options.batch, options.crop) for name in options.configs]
    times = [
        [[seconds(run) for run in (contender["window"], contender["step"])] for contender in contenders]
        for _ in range(options.rounds)
    ]
    print(
        "| | parameters | GFLOP a window | its compilation, s | seconds | ratio | clips/s trained | ratio "
        "| compilation, s |"
    )
    print("|" + "---|" * 9)
    for place, (name, contender) in enumerate(zip(options.configs, contenders, strict=True)):
        window, step = (statistics.median(turn[place][part] for turn in times) for part in (0, 1))
        ratios = [statistics.median(turn[place][part] / turn[0][part] for turn in times) for part in (0, 1)]
        print(
            f"| {name.rpartition(':')[2]}{' before' if ':' in name else ''} | {contender['parameters']:,} "
            f"| {contender['gflop']:.0f} | {contender['window_compile']:.1f} | {window:.3f} | {ratios[0]:.2f} "
            f"| {options.batch / step:.1f} | {1 / ratios[1]:.2f} | {contender['step_compile']:.1f} |"
        )


def prepare(name, batch, crop):
    """A configuration's window and training step, compiled and run once."""
    checkout, _, name = name.rpartition(":")
    with modules_of(checkout) if checkout else contextlib.nullcontext():
        package = importlib.import_module("msitf_jax")
        sharding = importlib.import_module("msitf_jax.sharding")
        schedule, state, step = (
            importlib.import_module(f"msitf_jax.training.{part}") for part in ("schedule", "state", "step")
        )
        fields = importlib.import_module(f"configs.{name}").get_config()
        config = package.MSITFConfig(**fields.model)
        graph, params = nnx.split(package.MSITF(config, rngs=nnx.Rngs(0)), nnx.Param)
        forward = jax.jit(lambda params, clip: nnx.merge(graph, params)(clip))
        clip = np.random.default_rng(0).random((1, 4, HEIGHT, WIDTH, 3), np.float32)
        gflop = flops.count(forward, params, clip) / 1e9
        forward, window_compile = compiled(forward, params, clip)

        rng = np.random.default_rng(0)
        examples = {
            "low": rng.integers(0, 256, (batch, 4, crop, crop, 3), dtype=np.uint8),
            "high": rng.integers(0, 256, (batch, 7, 4 * crop, 4 * crop, 3), dtype=np.uint8),
        }
        mesh = sharding.make_mesh()
        optimizer = schedule.make_optimizer(lambda _: 1e-4)
        copy = jax.tree.map(lambda leaf: leaf + 0, params)  # the step takes its state's memory
        trained = state.create(copy, optimizer, ema=False, seed=0)
        shardings = sharding.state_shardings(mesh, trained)
        trained = jax.device_put(trained, shardings)
        examples = sharding.global_batch(mesh, examples)
        train_step = step.make_train_step(graph, optimizer, mesh, shardings)
        train_step, step_compile = compiled(train_step, trained, examples)

    def run_step():
        nonlocal trained
        trained, metrics = train_step(trained, examples)
        return metrics

    result = {"window": lambda: forward(params, clip), "step": run_step, "gflop": gflop}
    result |= {"window_program": forward, "step_program": train_step}
    for run in (result["window"], run_step):
        jax.block_until_ready(run())
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return result | {"parameters": count, "window_compile": window_compile, "step_compile": step_compile}


@contextlib.contextmanager
def modules_of(checkout):
    """Within it, our packages are imported from another checkout of this repository."""
    with contextlib.ExitStack() as restore:
        for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
            restore.callback(sys.modules.__setitem__, name, sys.modules.pop(name))
        sys.path.insert(0, str(pathlib.Path(checkout).resolve()))
        restore.callback(sys.path.pop, 0)
        yield
        for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
            del sys.modules[name]


def compiled(function, *arguments):
    """A jitted function compiled for these arguments, and the seconds that this took."""
    start = time.perf_counter()
    program = function.lower(*arguments).compile()
    return program, time.perf_counter() - start


def seconds(function):
    """Of a call."""
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
