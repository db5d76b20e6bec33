"""Deformable convolution of a batch cut over eight virtual devices, kernels interpreted; prints how far off it is.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.sharded_op

A process of its own, because the number of devices is fixed when JAX starts; `tests/test_pallas_triton.py` runs it.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.exchanges import collectives
from msitf_jax import sharding
from msitf_jax.ops.deform_conv import pallas_triton, reference

OPTIONS = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}


def main():
    """Value and gradients of the points, under `jit` with a cut-up batch and split by `sharding.per_device`."""
    mesh = sharding.make_mesh()
    noise = np.random.default_rng(0)
    points = (16, 4, 5, 2, 9)
    shapes = (3, 3, 8, 4), (16, 4, 5, 8), (*points, 2), points
    weight, *cut = (jnp.asarray(noise.standard_normal(shape), jnp.float32) for shape in shapes)

    def results(function, weight, x, offset, mask):
        bias = jnp.zeros(weight.shape[3], weight.dtype)
        value, pullback = jax.vjp(lambda *points: function(x, *points, weight, bias, **OPTIONS), offset, mask)
        return value, *pullback(value)

    kernels = functools.partial(results, functools.partial(pallas_triton.deform_conv2d, interpret=True))
    wanted = jax.jit(functools.partial(results, reference.deform_conv2d))(weight, *cut)
    cut = jax.device_put(cut, sharding.batch(mesh))
    report = {}
    for name, function in (("jit", kernels), ("per_device", sharding.per_device(mesh, kernels, summed=False))):
        compiled = jax.jit(function, out_shardings=sharding.batch(mesh)).lower(weight, *cut).compile()
        found = compiled(weight, *cut)
        errors = (np.abs(a - b).max() / np.abs(b).max() for a, b in zip(found, wanted, strict=True))
        report[name] = {
            "error": float(max(errors)),
            "devices": len(found[0].sharding.device_set),
            "collectives": sorted(collectives(compiled.as_text())),
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
