"""The fixed resizes against hand-made values and NumPy's own interpolation."""

import jax.numpy as jnp
import numpy as np

from msitf_jax.ops.resize import trilinear_base, upsample2x


def test_upsample2x_by_hand():
    x = jnp.array([[0.0, 4.0]])[..., None]
    np.testing.assert_array_equal(upsample2x(x)[..., 0], [[0, 1, 3, 4], [0, 1, 3, 4]])


def test_upsample2x_of_one_pixel_repeats_it():
    np.testing.assert_array_equal(upsample2x(jnp.full((2, 1, 1, 3), 7.0)), np.full((2, 2, 2, 3), 7))


def interpolate(x, axis, size):
    """Half-pixel centres, clamped edges, float64."""
    n = x.shape[axis]
    position = (np.arange(size) + 0.5) * n / size - 0.5
    return np.apply_along_axis(lambda line: np.interp(position, np.arange(n), line), axis, x)


def test_trilinear_base_is_linear_interpolation_on_each_axis():
    clip = np.random.default_rng(0).random((2, 4, 3, 5, 3), np.float32)
    reference = clip.astype(np.float64)
    for axis, size in ((1, 7), (2, 12), (3, 20)):
        reference = interpolate(reference, axis, size)
    np.testing.assert_allclose(trilinear_base(jnp.asarray(clip)), reference, rtol=0, atol=5e-7)


def test_trilinear_base_samples_time_at_the_published_positions():
    ramp = jnp.arange(4.0)[None, :, None, None, None]
    times = trilinear_base(ramp)[0, :, 0, 0, 0]
    np.testing.assert_allclose(times, [0, 5 / 14, 13 / 14, 1.5, 29 / 14, 37 / 14, 3], rtol=0, atol=1e-6)
