"""Deformable convolution forward at the network's largest shape, by itself in a process: prints JSON."""

import json

import jax
import jax.numpy as jnp

from benchmarks import timing
from msitf_jax.ops import deform_conv2d

HEIGHT, WIDTH, CHANNELS, GROUPS, TAPS = 144, 184, 64, 8, 9
OFFSET_PIXELS = 3.0  # standard deviation
RUNS = 20


def main():
    """Times the op on random frames, and notes what memory it took."""
    keys = jax.random.split(jax.random.key(0), 4)
    points = (1, HEIGHT, WIDTH, GROUPS, TAPS)
    x = jax.random.normal(keys[0], (1, HEIGHT, WIDTH, CHANNELS), jnp.float32)
    offset = OFFSET_PIXELS * jax.random.normal(keys[1], (*points, 2), jnp.float32)
    mask = jax.random.uniform(keys[2], points, jnp.float32)
    weight = jax.random.normal(keys[3], (3, 3, CHANNELS, CHANNELS), jnp.float32)
    arguments = (x, offset, mask, weight, jnp.zeros((CHANNELS,)))
    before = timing.peak_memory()
    seconds = timing.seconds(jax.jit(deform_conv2d), *arguments, runs=RUNS)
    print(json.dumps({"seconds": seconds, "memory_mb": timing.peak_memory() - before}))


if __name__ == "__main__":
    main()
