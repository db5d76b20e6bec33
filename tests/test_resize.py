"""The fixed resizes against hand-made values, NumPy's own interpolation and what a cubic kernel promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msitf_jax.ops.resize import bicubic_base, trilinear_base, upsample2x

# Twice what float32's rounding was measured to make of values in 0..1.
TOLERANCE = 4e-7


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


enlarge = jax.jit(bicubic_base)


def bicubic(frames):
    """`[N, H, W, C]` -> `[2N-1, 4H, 4W, C]`."""
    return np.asarray(enlarge(np.asarray(frames, np.float32)[None])[0])


def keys_cubic(x, a=-0.5):
    x = np.abs(x)
    near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def enlarging_matrix(size):
    """`[4 * size, size]`: the kernel's weights, those of pixels outside given to their mirror images."""
    position = (np.arange(4 * size) + 0.5) / 4 - 0.5
    weights = np.zeros((4 * size, size))
    period = np.r_[np.arange(size), np.arange(size)[::-1]]
    for place in range(-3, size + 3):
        weights[:, period[place % (2 * size)]] += keys_cubic(position - place)
    return weights


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2), (3, 1), (5, 7), (8, 4)])
def test_bicubic_base_is_keys_cubic_with_mirrored_borders(height, width):
    frames = np.random.default_rng(0).random((3, height, width, 3), np.float32)
    reference = np.einsum("yh,xw,nhwc->nyxc", enlarging_matrix(height), enlarging_matrix(width), frames)
    np.testing.assert_allclose(bicubic(frames)[::2], reference, rtol=0, atol=TOLERANCE)


def test_bicubic_base_by_hand():
    line = bicubic(np.array([0, 0, 0, 128, 0, 0, 0]).reshape(1, 1, 7, 1))[0, 0, :, 0]
    # Keys' cubic at 15/8, 13/8, 11/8, 9/8, 7/8, 5/8, 3/8 and 1/8.
    rise = 128 * np.array([-7, -45, -75, -49, 93, 399, 745, 987]) / 1024
    np.testing.assert_array_equal(line, [0] * 6 + [*rise, *rise[::-1]] + [0] * 6)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_bicubic_base_gives_polynomials_up_to_degree_two_exactly(degree):
    places = np.arange(9)
    between = (np.arange(36) + 0.5) / 4 - 0.5
    inside = slice(6, -6)  # at least two pixels on either side
    out = bicubic((places[:, None] ** degree + 2 * places**degree)[None, :, :, None])[0, ..., 0]
    expected = between[:, None] ** degree + 2 * between**degree
    np.testing.assert_array_equal(out[inside, inside], expected[inside, inside])


def test_bicubic_base_continues_a_frame_with_its_mirror_image():
    half = np.random.default_rng(0).random((1, 6, 5, 3), np.float32)
    whole = np.concatenate([half, half[:, :, ::-1]], 2)
    whole = np.concatenate([whole, whole[:, ::-1]], 1)
    out = bicubic(whole)
    np.testing.assert_allclose(out[:, :24, :20], bicubic(half), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(out, out[:, ::-1, ::-1], rtol=0, atol=TOLERANCE)


def test_bicubic_base_shows_means_between_frames():
    frames = np.random.default_rng(0).random((4, 5, 6, 3), np.float32)
    out = bicubic(frames)
    assert out.shape == (7, 20, 24, 3)
    np.testing.assert_allclose(out[1::2], (out[:-2:2] + out[2::2]) / 2, rtol=0, atol=TOLERANCE)
    for index, frame in enumerate(frames):
        np.testing.assert_allclose(out[2 * index], bicubic(frame[None])[0], rtol=0, atol=TOLERANCE)
