"""Finds the fastest block sizes of the deformable convolution's kernels on the GPU at hand.

    python -m benchmarks.tune            # prints a table
    python -m benchmarks.tune --write    # replaces msitf_jax/ops/deform_conv/blocks.json

A candidate whose result differs from the plain path's, or which does not compile, is left out and named.
"""

import argparse
import datetime
import functools
import json
import math
import pathlib
import sys
from unittest import mock

import jax
import jax.numpy as jnp

from benchmarks import op, timing
from msitf_jax.ops.deform_conv import pallas_triton
from msitf_jax.ops.deform_conv.pallas_triton import Blocks

# The levels of a window that is upscaled and of a training batch.
SHAPES = ((1, 36, 46, 64), (1, 72, 92, 64), (1, 144, 184, 64), (7, 144, 184, 64), (16, 32, 32, 64))
CANDIDATES = tuple(
    Blocks(pixels, warps, stages) for pixels in (16, 32, 64, 128) for warps in (4, 8) for stages in (1, 2)
)
TOLERANCE = {"float32": 1e-5, "tf32": 1e-2, "bfloat16": 5e-2}  # of the largest number


def kernels(options, arguments):
    """`{name: (kernel, plain path)}`, functions of no arguments that give arrays."""
    x, offset, mask, weight, bias = arguments
    cotangent = x

    def gradients(offset, mask, weight):
        return jax.vjp(lambda *rest: options.plain(x, *rest, bias), offset, mask, weight)[1](cotangent)

    rest = offset, mask, weight
    return {
        "forward": (
            functools.partial(pallas_triton._forward_kernel, options, x, *rest, bias),
            functools.partial(options.plain, x, *rest, bias),
        ),
        "points": (
            functools.partial(pallas_triton._points_kernel, options, x, *rest, cotangent),
            lambda: gradients(*rest)[:2],
        ),
        "weight": (
            functools.partial(pallas_triton._weight_kernel, options, x, *rest, cotangent),
            lambda: gradients(*rest)[2],
        ),
    }


def fastest(name, product, kernel, plain, candidates, runs):
    """The candidate whose median of some calls is the least, and that time in seconds."""
    wanted = jax.tree.leaves(jax.jit(plain)())
    found = []
    for blocks in candidates:
        with mock.patch.object(pallas_triton, "blocks_for", lambda *_, blocks=blocks: blocks):
            try:
                compiled = jax.jit(lambda: kernel()).lower().compile()
                results = jax.tree.leaves(compiled())
                errors = [jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b)) for a, b in zip(results, wanted, strict=True)]
                if not max(errors) <= TOLERANCE[product]:
                    raise ValueError(f"off by {max(errors):.1e}")
                found.append((timing.seconds(compiled, runs=runs), blocks))
            except (ValueError, NotImplementedError, jax.errors.JaxRuntimeError) as error:
                print(f"{name}, {product}, {blocks}: {str(error).splitlines()[0]}", file=sys.stderr)
    seconds, blocks = min(found, key=lambda entry: entry[0])
    return blocks, seconds


def rows(best):
    """`{pixels: blocks}` -> rows of `blocks.json`: between two measured sizes, the nearer's by ratio."""
    sizes = sorted(best)
    found = []
    for size, larger in zip(sizes, [*sizes[1:], None], strict=True):
        blocks = [best[size].pixels, best[size].warps, best[size].stages]
        if found and found[-1]["blocks"] == blocks:
            found.pop()
        found.append({"up_to_pixels": larger and math.isqrt(size * larger), "blocks": blocks})
    return found


def tune(shapes=SHAPES, candidates=CANDIDATES, products=tuple(timing.PRECISIONS), runs=20, interpret=False):
    """Measures everything, telling what it finds; returns `{kernel: {product: rows}}`."""
    best = {}
    for product in products:
        with timing.product_type(product) as dtype:
            options = pallas_triton._Options((1, 1), (1, 1), (1, 1), product, interpret)
            for shape in shapes:
                arguments = op.make_arguments(shape, dtype)
                for name, functions in kernels(options, arguments).items():
                    blocks, seconds = fastest(name, product, *functions, candidates, runs)
                    print(f"{name}, {product}, {list(shape)}: {1e6 * seconds:.0f} us with {blocks}", flush=True)
                    best.setdefault(name, {}).setdefault(product, {})[math.prod(shape[:3])] = blocks
    return {name: {product: rows(found) for product, found in products.items()} for name, products in best.items()}


def main():
    """Tunes, prints and writes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tune", description=__doc__)
    parser.add_argument("--write", action="store_true", help="replace blocks.json")
    options = parser.parse_args()
    if not pallas_triton.runs_here():
        sys.exit(f"needs an NVIDIA GPU of compute capability 8.0 or more; JAX found {jax.devices()[0].device_kind}")
    measured_on = {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "date": datetime.date.today().isoformat(),
    }
    text = json.dumps({"measured_on": measured_on, "kernels": tune()}, indent=2) + "\n"
    print(text)
    if options.write:
        pathlib.Path(pallas_triton.__file__).with_name("blocks.json").write_text(text)


if __name__ == "__main__":
    main()
