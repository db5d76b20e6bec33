"""The operation count behind the benchmarks."""

import jax
import jax.numpy as jnp

from benchmarks import flops


def test_convolutions_products_and_loops_are_counted():
    x, kernel, w = jnp.zeros((1, 8, 8, 4)), jnp.zeros((3, 3, 4, 6)), jnp.zeros((6, 5))

    def function(x):
        y = jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jax.lax.map(lambda row: jax.jit(jnp.matmul)(row, w), y[0])

    convolution = 2 * 4 * 4 * 6 * (3 * 3 * 4)
    product = 2 * 4 * 4 * 6 * 5
    assert flops.count(function, x) == convolution + product
