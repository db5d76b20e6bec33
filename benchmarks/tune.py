"""Finds the fastest block sizes of the deformable convolution's kernels on the GPU at hand.

    python -m benchmarks.tune            # prints a table
    python -m benchmarks.tune --write    # replaces msitf_jax/ops/deform_conv/blocks.json

A candidate whose result differs from the plain path's, or which does not compile, is left out and named.
"""

import argparse
import concurrent.futures
import dataclasses
import datetime
import functools
import json
import math
import pathlib
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import op, timing
from msitf_jax import atomic
from msitf_jax.ops.deform_conv import pallas_triton
from msitf_jax.ops.deform_conv.geometry import Blocks, Options

# The finest level of a window that is upscaled, and a training batch.
SHAPES = ((1, 144, 184, 64), (16, 32, 32, 64))
# Fewer channels at a time keep what is sampled in a smaller cache, more save products. In pairs: pixels, warps.
CANDIDATES = (
    *(Blocks(pixels, 16, warps, 1) for pixels, warps in ((32, 4), (64, 4), (64, 8), (128, 4), (128, 8))),
    *(Blocks(pixels, 32, warps, 1) for pixels, warps in ((16, 4), (32, 4), (64, 4), (64, 8))),
    *(Blocks(pixels, 64, warps, 1) for pixels, warps in ((16, 4), (16, 8), (32, 4), (64, 8))),
    Blocks(32, 64, 8, 3),
)
TOLERANCE = {"float32": 1e-5, "tf32": 1e-2, "bfloat16": 5e-2}  # of the largest number


def kernels(options):
    """`{name: (kernel, plain path)}`, functions of the op's arguments that give arrays; the cotangent is x."""

    plain = functools.partial(pallas_triton._plain, options)

    def gradients(*arguments):
        return jax.vjp(plain, *arguments)[1](arguments[0])

    return {
        "forward": (functools.partial(pallas_triton._forward_kernel, options), plain),
        "inputs": (
            lambda x, offset, mask, weight, _: pallas_triton._inputs_kernel(options, x, offset, mask, weight, x),
            lambda *arguments: gradients(*arguments)[:3],
        ),
        "weight": (
            lambda x, offset, mask, weight, _: pallas_triton._weight_kernel(options, x, offset, mask, weight, x),
            lambda *arguments: gradients(*arguments)[3],
        ),
    }


def fastest(name, product, kernel, plain, arguments, candidates, runs):
    """The candidate whose median of some calls is the least, and that time in seconds; None if none is right."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        with jax.default_matmul_precision("highest"):
            reference = pool.submit(jax.jit(plain).lower(*arguments).compile)
        compiling = [pool.submit(_lower(kernel, blocks, arguments).compile) for blocks in candidates]
    wanted, found = jax.tree.leaves(reference.result()(*arguments)), []
    for blocks, future in zip(candidates, compiling, strict=True):
        try:
            compiled = future.result()
            results = jax.tree.leaves(compiled(*arguments))
            errors = [jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b)) for a, b in zip(results, wanted, strict=True)]
            if not all(error <= TOLERANCE[product] for error in errors):
                raise ValueError(f"off by {np.max(errors):.1e}")
            found.append((timing.seconds(compiled, *arguments, runs=runs, calls=op.calls()), blocks))
        except (ValueError, jax.errors.JaxRuntimeError) as error:
            print(f"{name}, {product}, {blocks}: {str(error).splitlines()[0]}", file=sys.stderr)
    return min(found, key=lambda entry: entry[0], default=None)


def _lower(kernel, blocks, arguments):
    with mock.patch.object(pallas_triton, "blocks_for", return_value=blocks):
        return jax.jit(lambda *arguments: kernel(*arguments)).lower(*arguments)


def rows(best):
    """`{pixels: blocks}` -> rows of `blocks.json`: between two measured sizes, the nearer's by ratio."""
    sizes = sorted(best)
    found = []
    for size, larger in zip(sizes, [*sizes[1:], None], strict=True):
        blocks = list(dataclasses.astuple(best[size]))
        if found and found[-1]["blocks"] == blocks:
            found.pop()
        found.append({"up_to_pixels": larger and math.isqrt(size * larger), "blocks": blocks})
    return found


def tune(shapes=SHAPES, candidates=CANDIDATES, products=tuple(timing.PRECISIONS), runs=20, interpret=False):
    """Measures everything, telling what it finds; yields kernel, product and rows as each is done."""
    for product in products:
        with timing.product_type(product) as dtype:
            options = Options((1, 1), (1, 1), (1, 1), product, interpret)
            for name, functions in kernels(options).items():
                best = {}
                for shape in shapes:
                    arguments = op.make_arguments(shape, dtype)
                    if entry := fastest(name, product, *functions, arguments, candidates, runs):
                        seconds, best[math.prod(shape[:3])] = entry
                        print(f"{name}, {product}, {list(shape)}: {1e6 * seconds:.0f} us with {entry[1]}", flush=True)
                if best:
                    yield name, product, rows(best)


def main():
    """Tunes; with `--write` the file is replaced each time that a kernel and product are done."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tune", description=__doc__)
    parser.add_argument("--write", action="store_true", help="replace blocks.json")
    options = parser.parse_args()
    if not pallas_triton.runs_here():
        sys.exit(f"needs an NVIDIA GPU of compute capability 8.0 or more; JAX found {jax.devices()[0].device_kind}")
    path = pathlib.Path(pallas_triton.__file__).with_name("blocks.json")
    table = json.loads(path.read_text())
    done = set()
    for name, product, found in tune():
        table["kernels"][name][product] = found
        done.add((name, product))
        if len(done) == sum(map(len, table["kernels"].values())):
            device, date = jax.devices()[0].device_kind, datetime.date.today().isoformat()
            table["measured_on"] = {"device": device, "jax": jax.__version__, "date": date}
        if options.write:
            atomic.write(path, lambda file: file.write(json.dumps(table, indent=2).encode() + b"\n"))
    print(json.dumps(table["kernels"], indent=2))


if __name__ == "__main__":
    main()
