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


def test_of_what_depends_on_the_platform_one_way_counts():
    x = jnp.zeros((3, 4))

    def function(x):
        return jax.lax.platform_dependent(x, cpu=lambda x: x @ jnp.ones((4, 5)), default=lambda x: x @ jnp.ones((4, 5)))

    assert flops.count(function, x) == 2 * 3 * 5 * 4
