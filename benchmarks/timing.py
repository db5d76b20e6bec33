"""How times, memory and the machine's own speed are measured."""

import contextlib
import pathlib
import re
import resource
import statistics
import time

import jax
import jax.numpy as jnp

PRECISIONS = {"float32": "highest", "tf32": "default", "bfloat16": "default"}


def seconds(function, *arguments, runs, calls=1):
    """Median wall time of a call, after one that is not counted (it compiles, and maps memory).

    Args:
      runs: measurements.
      calls: of each, one after the other without waiting, so that a device need not wait for the next.
    """
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        for _ in range(calls):
            result = function(*arguments)
        jax.block_until_ready(result)
        times.append((time.perf_counter() - start) / calls)
    return statistics.median(times)


@contextlib.contextmanager
def product_type(name):
    """Within it, matrix products of float32 arrays are computed in "float32" or "tf32"; yields the arrays' type."""
    with jax.default_matmul_precision(PRECISIONS[name]):
        yield jnp.dtype("bfloat16" if name == "bfloat16" else "float32")


def matmul_rate(name="float32"):
    """GFLOP/s of a large matrix product of a `product_type`, what this machine can do; the best of ten."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    with product_type(name) as dtype:
        a = jax.random.normal(jax.random.key(0), (size, size), jnp.float32).astype(dtype)
        product = jax.jit(lambda a: a @ a)
        best = min(seconds(product, a, runs=1) for _ in range(10))
    return 2 * size**3 / best / 1e9


def bandwidth():
    """GB/s of adding one, in place, to numbers that no cache holds, read and written; the best of ten."""
    numbers = jnp.zeros(1 << (26 if jax.default_backend() == "cpu" else 29), jnp.float32)
    add = jax.jit(lambda a: a + 1, donate_argnums=0)
    times = []
    for _ in range(11):
        start = time.perf_counter()
        numbers = jax.block_until_ready(add(numbers))
        times.append(time.perf_counter() - start)
    return 2 * numbers.nbytes / min(times) / 1e9


def peak_memory():
    """The most memory held so far by this process, in MB."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory(compiled):
    """What a program that has run needed, in MB: on a CPU the peak of this process, else of the device's own memory.

    The peak there may be that of the compiler, which tries algorithms out.
    """
    if jax.default_backend() == "cpu":
        return peak_memory()
    sizes = compiled.memory_analysis()
    held = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return (held + sizes.temp_size_in_bytes) / 2**20


def forget_peak():
    """From here on `peak_memory` counts anew, on Linux; elsewhere it goes on."""
    references = pathlib.Path("/proc/self/clear_refs")
    if references.exists():
        references.write_text("5")
