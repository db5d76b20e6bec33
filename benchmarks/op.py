"""Deformable convolution at the network's shapes, by itself in a process: prints JSON.

Its limit is what the machine, by rates measured in the same run, needs for the products or to touch each array once,
whichever takes longer.
"""

import argparse
import functools
import json
import math

import jax
import numpy as np

from benchmarks import timing
from msitf_jax.ops import deform_conv2d
from msitf_jax.ops.chunks import on_cpu

# A time step of the window that is upscaled at a time, all its frames, and a training batch.
SHAPES = ((1, 144, 184, 64), (7, 144, 184, 64), (16, 32, 32, 64))
GROUPS, TAPS = 8, 9
OFFSET_PIXELS = 3.0  # standard deviation
RUNS, DEVICE_CALLS = 5, 20


def calls():
    """How many to have in flight at a time, so that a device never waits for the next; a CPU takes them one by one."""
    return on_cpu(1, DEVICE_CALLS)


def make_arguments(shape, dtype):
    """x, offset, mask, weight and bias: random, points in float32 as the network gives them.

    They come from the host, so that nothing but themselves has been in a device's memory.
    """
    noise = np.random.default_rng(0)
    points = (*shape[:3], GROUPS, TAPS)
    x = noise.standard_normal(shape, np.float32).astype(dtype)
    offset = OFFSET_PIXELS * noise.standard_normal((*points, 2), np.float32)
    weight = noise.standard_normal((3, 3, shape[3], shape[3]), np.float32).astype(dtype)
    arguments = x, offset, noise.random(points, np.float32), weight, np.zeros(shape[3], np.float32)
    return jax.block_until_ready(jax.device_put(arguments))


def work(arguments):
    """(FLOP, bytes) of the forward pass, and of it with the backward pass."""
    x, offset, mask, weight, _ = arguments
    products = 2 * math.prod(offset.shape[:3]) * math.prod(weight.shape)
    inputs = sum(a.nbytes for a in (x, offset, mask, weight))
    # The result has x's size. Backward: all of them and the cotangent are read, and the inputs' gradients written.
    return (products, inputs + x.nbytes), (3 * products, 3 * inputs + 2 * x.nbytes)


def with_gradients(function):
    """`function`, giving all gradients as well."""

    def value_and_gradients(*arguments):
        value, pullback = jax.vjp(function, *arguments)
        return value, pullback(value)

    return value_and_gradients


def main():
    """Times one shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, default=0, choices=range(len(SHAPES)), help=f"which of {SHAPES}")
    parser.add_argument("--type", default="float32", choices=timing.PRECISIONS)
    parser.add_argument("--implementation", default="xla", choices=["xla", "triton"])
    options = parser.parse_args()
    with timing.product_type(options.type) as dtype:
        arguments = make_arguments(SHAPES[options.shape], dtype)
        op = functools.partial(deform_conv2d, implementation=options.implementation)
        functions = {"forward": op, "backward": with_gradients(op)}
        compiled = {name: jax.jit(f).lower(*arguments).compile() for name, f in functions.items()}
        result = {}
        timing.forget_peak()
        before = on_cpu(timing.peak_memory(), sum(a.nbytes for a in arguments) / 2**20)
        for name, function in compiled.items():
            jax.block_until_ready(function(*arguments))
            result[f"{name}_mb"] = timing.memory(function) - before
            result[name] = timing.seconds(function, *arguments, runs=RUNS, calls=calls())
    rate, bandwidth = timing.matmul_rate(options.type), timing.bandwidth()
    for name, (flop, size) in zip(("forward", "backward"), work(arguments), strict=True):
        result[f"{name}_limit"] = max(flop / rate, size / bandwidth) / 1e9
    result |= {"matmul_gflops": rate, "bandwidth_gbs": bandwidth}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
