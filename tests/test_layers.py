"""Convolutions, sub-pixel upsampling and the initial weights of both."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from msitf_jax.model.layers import Conv, ResidualBlock, leaky_relu, subpixel_upsample2x, torch_uniform


def random(*shape, key=0):
    return jax.random.normal(jax.random.key(key), shape)


def test_strided_conv_pads_a_pixel_on_both_sides():
    conv = Conv(1, 1, stride=2, rngs=nnx.Rngs(0))
    conv.kernel[...] = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)
    conv.bias[...] = jnp.zeros(1)
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(conv(x)[0, :, :, 0], [[0, 2], [8, 10]])


def test_several_inputs_are_concatenated_and_parts_add_up():
    conv, a, b = Conv(6, 4, rngs=nnx.Rngs(0)), random(2, 5, 4, 2), random(2, 5, 4, 4, key=1)
    whole = conv(jnp.concatenate([a, b], -1))
    np.testing.assert_array_equal(conv(a, b), whole)
    parts = conv.partial(a, first=0, with_bias=True) + conv.partial(b, first=2)
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-6)


def test_pieces_are_cuts_of_the_whole():
    conv, x = Conv(3, 7, rngs=nnx.Rngs(0)), random(1, 4, 5, 3)
    pieces = conv.pieces([2, 5], x)
    assert [piece.shape[-1] for piece in pieces] == [2, 5]
    np.testing.assert_allclose(jnp.concatenate(pieces, -1), conv(x), rtol=0, atol=1e-6)


def test_subpixel_upsample2x_places_each_output_channel():
    conv = Conv(2, 8, kernel_size=1, rngs=nnx.Rngs(0))
    x = random(1, 2, 3, 2)
    flat, out = np.asarray(leaky_relu(conv(x))), np.asarray(subpixel_upsample2x(conv, x))
    for y, column, i, j, c in np.ndindex(2, 3, 2, 2, 2):
        assert out[0, 2 * y + i, 2 * column + j, c] == pytest.approx(flat[0, y, column, 4 * i + 2 * j + c], abs=1e-6)


def test_leaky_relu_slope():
    np.testing.assert_allclose(leaky_relu(jnp.array([-2.0, 0.0, 3.0])), [-0.2, 0, 3])


def test_torch_uniform_fills_its_bounds_evenly():
    values = torch_uniform(25)(jax.random.key(0), (100_000,))
    assert -0.2 <= values.min() < -0.199
    assert 0.199 < values.max() <= 0.2
    # A uniform distribution's standard deviation is its half-width / sqrt(3); 4 standard errors of the estimate.
    assert values.std() == pytest.approx(0.2 / 3**0.5, rel=0.006)


def test_residual_block_starts_near_the_identity():
    block = ResidualBlock(64, rngs=nnx.Rngs(0))
    expected = 0.1 * (2 / (9 * 64)) ** 0.5
    for conv in (block.conv1, block.conv2):
        assert conv.kernel[...].std() == pytest.approx(expected, rel=0.02)
        np.testing.assert_array_equal(conv.bias[...], 0)
    # Normal, not uniform: some values lie beyond 3 standard deviations.
    assert jnp.abs(block.conv1.kernel[...]).max() > 3 * expected
