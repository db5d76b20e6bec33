"""Deformable convolution on a CPU, beside a plain convolution of the same size: prints a table.

    python -m benchmarks.op_cpu
    git worktree add /tmp/before REVISION
    python -m benchmarks.op_cpu --against=/tmp/before    # also beside what it was there

Within a process all take turns, so that what else the machine does slows down each of them. A ratio is the median over
these rounds.
"""

import argparse
import functools
import importlib
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.op import OFFSET_PIXELS, with_gradients
from benchmarks.turns import modules_of
from msitf_jax.ops import deform_conv2d
from msitf_jax.ops.convolution import conv2d

# Shape of x, groups, taps on a side: frames of a video, a training batch, and single taps.
CASES = {
    "24": ((2, 144, 184, 24), 3, 3),
    "32": ((2, 144, 184, 32), 4, 3),
    "64": ((2, 144, 184, 64), 8, 3),
    "batch": ((8, 24, 24, 24), 3, 3),
    "1x1, 24": ((2, 144, 184, 24), 3, 1),
    "1x1, 48": ((2, 144, 184, 48), 8, 1),
}
MEAN_OF = ("24", "32", "64", "batch")
WAVE_PIXELS = 40  # length of the waves in smooth offsets


def make_arguments(shape, groups, taps, smooth):
    """x, offset, mask, weight and bias: random, offsets independent of each other or like those of a flow field."""
    noise = np.random.default_rng(0)
    points = (*shape[:3], groups, taps**2)
    offset = noise.standard_normal((*points, 2), np.float32)
    if smooth:
        rows, columns = np.indices(shape[1:3]) / WAVE_PIXELS
        wave = np.sqrt(2) * np.stack([np.sin(rows + 2 * columns), np.cos(2 * rows - columns)], axis=-1)
        offset = np.float32(wave[None, :, :, None, None] + 0.05 * offset)
    x, mask = noise.standard_normal(shape, np.float32), noise.random(points, np.float32)
    weight = noise.standard_normal((taps, taps, shape[3], shape[3]), np.float32)
    return [jnp.asarray(a) for a in (x, OFFSET_PIXELS * offset, mask, weight, np.zeros(shape[3], np.float32))]


def op_of(checkout):
    """`deform_conv2d` of another checkout of this repository."""
    with modules_of(checkout):
        return importlib.import_module("msitf_jax.ops").deform_conv2d


def in_turns(calls, rounds):
    """Seconds of each call in each round: {name: [seconds, ..]}; one before is not counted."""
    times = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            if turn:
                times[name].append(time.perf_counter() - start)
    return times


def ratio(times, name, to):
    """The median over all rounds."""
    return statistics.median(a / b for a, b in zip(times[name], times[to], strict=True))


def measure(case, smooth, rounds, before):
    """Prints two lines, forward and with all gradients; returns ratios to `before` as a pair, if there is one."""
    shape, groups, taps = CASES[case]
    arguments = make_arguments(shape, groups, taps, smooth)
    padding = {"padding": taps // 2, "implementation": "xla"}
    functions = {"op": functools.partial(deform_conv2d, **padding)}
    if before:
        functions["before"] = functools.partial(before, **padding)
    found = []
    for kind in ("forward", "gradients"):
        wrap = with_gradients if kind == "gradients" else lambda function: function
        calls = {name: functools.partial(jax.jit(wrap(f)), *arguments) for name, f in functions.items()}
        calls["conv2d"] = functools.partial(jax.jit(wrap(conv2d)), arguments[0], arguments[3])
        times = in_turns(calls, rounds)
        milliseconds = [f"{name} {1e3 * statistics.median(t):7.1f} ms" for name, t in times.items()]
        ratios = [f"op/{name} {ratio(times, 'op', name):5.2f}" for name in times if name != "op"]
        print(f"{case:8} {kind:10}", *milliseconds, *ratios, sep="  ", flush=True)
        found.append(ratio(times, "op", "before") if before else None)
    return found


def main():
    """Times all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=pathlib.Path, metavar="CHECKOUT", help="another checkout of this repository")
    parser.add_argument("--smooth", action="store_true", help="offsets like those of a flow field")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--case", action="append", choices=CASES, help="this one; may be repeated")
    options = parser.parse_args()
    before = op_of(options.against) if options.against else None
    ratios = {case: measure(case, options.smooth, options.rounds, before) for case in options.case or CASES}
    if before and set(MEAN_OF) <= set(ratios):
        forward, gradients = (statistics.mean(ratios[case][i] for case in MEAN_OF) for i in (0, 1))
        print(f"mean of {', '.join(MEAN_OF)}: op/before {forward:.2f} forward, {gradients:.2f} with gradients")


if __name__ == "__main__":
    main()
