"""How times, memory and the machine's own speed are measured."""

import resource
import statistics
import time

import jax
import jax.numpy as jnp


def seconds(function, *arguments, runs):
    """Median wall time of `runs` calls after one that is not counted (it compiles, and maps memory)."""
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def matmul_rate():
    """GFLOP/s of a 2048x2048 float32 matrix product, what this machine can do; the best of ten, as it is a limit."""
    size = 2048
    a = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda a: jnp.matmul(a, a, precision="highest"))
    best = min(seconds(product, a, runs=1) for _ in range(10))
    return 2 * size**3 / best / 1e9


def peak_memory():
    """The largest amount of memory that this process has held so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
