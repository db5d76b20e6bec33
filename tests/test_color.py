"""Pixel values to RGB and back, against the formulas of ITU-T H.273 in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msitf_jax.video import color
from msitf_jax.video.color import RGB, FloatRGB, YCbCr

KINDS = [
    YCbCr(matrix, full_range, bits) for matrix in color.LUMA_WEIGHTS for full_range in (False, True) for bits in (8, 10)
]


def every(kind):
    """`[n, 3]`: all the way through each channel, with the ends, beside the others."""
    largest = 2**kind.bits - 1
    values = np.unique(np.r_[np.linspace(0, largest, 52).round(), 1 << (kind.bits - 1)])
    return np.stack(np.meshgrid(values, values, values), axis=-1).reshape(-1, 3).astype(kind.dtype)


def equations(kind):
    """M and b of H.273, equations 38 to 40 and 20 to 28: before rounding YCbCr is M @ RGB + b."""
    red, blue = color.LUMA_WEIGHTS[kind.matrix]
    luma = np.array([red, 1 - red - blue, blue])
    matrix = np.stack([luma, ([0, 0, 1] - luma) / (1 - blue) / 2, ([1, 0, 0] - luma) / (1 - red) / 2])
    step, largest = 1 << (kind.bits - 8), 2**kind.bits - 1
    if kind.full_range:
        return matrix * largest, np.array([0, 128 * step, 128 * step])
    return matrix * np.array([[219], [224], [224]]) * step, np.array([16, 128, 128]) * step


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_ycbcr_is_that_of_the_standard(kind):
    matrix, offset = equations(kind)
    pixels = every(kind)
    rgb = kind.to_rgb(jnp.asarray(pixels))
    assert rgb.dtype == jnp.float32
    # float32: 3.1e-7 measured, of values from -1 to 2
    np.testing.assert_allclose(rgb, np.linalg.solve(matrix, (pixels - offset.astype(float)).T).T, rtol=0, atol=6.2e-7)

    rgb = np.random.default_rng(0).random((10000, 3), np.float32)
    back = np.asarray(kind.from_rgb(jnp.asarray(rgb)))
    assert back.dtype == kind.dtype
    assert (
        np.abs(back - (rgb @ matrix.T + offset)).max() <= 0.5 + 6.6e-5
    )  # float32, of values up to 1023: 3.3e-5 measured


@pytest.mark.parametrize("kind", [*KINDS, RGB(8), RGB(10), RGB(16)], ids=str)
def test_integers_come_back_as_they_were(kind):
    pixels = every(kind)
    np.testing.assert_array_equal(kind.from_rgb(kind.to_rgb(jnp.asarray(pixels))), pixels)


@pytest.mark.parametrize(
    ("kind", "black", "white"),
    [
        (YCbCr(1, False), [16, 128, 128], [235, 128, 128]),
        (YCbCr(6, True), [0, 128, 128], [255, 128, 128]),
        (YCbCr(9, False, 10), [64, 512, 512], [940, 512, 512]),
        (YCbCr(5, True, 10), [0, 512, 512], [1023, 512, 512]),
        (YCbCr(4, False, 12), [256, 2048, 2048], [3760, 2048, 2048]),
        (YCbCr(7, False, 16), [4096, 32768, 32768], [60160, 32768, 32768]),
        (RGB(), [0, 0, 0], [255, 255, 255]),
        (RGB(16), [0, 0, 0], [65535, 65535, 65535]),
    ],
    ids=str,
)
def test_black_and_white_are_exact(kind, black, white):
    pixels = jnp.asarray(np.array([black, white], kind.dtype))
    rgb = kind.to_rgb(pixels)
    np.testing.assert_array_equal(rgb[0], 0)
    np.testing.assert_allclose(rgb[1], 1, rtol=0, atol=2.4e-7)  # float32: 1.2e-7 measured
    np.testing.assert_array_equal(kind.from_rgb(jnp.asarray([[0.0] * 3, [1.0] * 3])), pixels)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_grey_has_neutral_chroma_and_equal_rgb(kind):
    neutral = 1 << (kind.bits - 1)
    greys = np.full((2**kind.bits, 3), neutral, kind.dtype)
    greys[:, 0] = np.arange(2**kind.bits)
    rgb = kind.to_rgb(jnp.asarray(greys))
    np.testing.assert_array_equal(rgb[:, 0], rgb[:, 2])
    np.testing.assert_allclose(rgb[:, 1], rgb[:, 0], rtol=0, atol=3.6e-7)  # float32: 1.8e-7 measured
    levels = jnp.linspace(0.0, 1.0, 1000)
    assert (kind.from_rgb(jnp.stack([levels] * 3, axis=-1))[:, 1:] == neutral).all()


def test_primary_colours_of_bt601_as_in_every_table():
    bars = [[255, 255, 0], [0, 255, 255], [0, 255, 0], [255, 0, 255], [255, 0, 0], [0, 0, 255]]
    expected = [[210, 16, 146], [170, 166, 16], [145, 54, 34], [106, 202, 222], [81, 90, 240], [41, 240, 110]]
    rgb = RGB().to_rgb(jnp.asarray(np.array(bars, np.uint8)))
    np.testing.assert_array_equal(YCbCr(6, False).from_rgb(rgb), expected)


def test_what_does_not_fit_is_clipped():
    rgb = jnp.asarray([[-0.5, 0.5, 1.5]])
    np.testing.assert_array_equal(RGB().from_rgb(rgb), [[0, 128, 255]])
    np.testing.assert_array_equal(RGB(10).from_rgb(rgb), [[0, 512, 1023]])  # 127.5 and 511.5 go to the even one
    np.testing.assert_array_equal(FloatRGB().from_rgb(rgb), [[0, 0.5, 1]])
    np.testing.assert_array_equal(YCbCr(1, True).from_rgb(jnp.full((1, 3), 7.0)), [[255, 128, 128]])
    np.testing.assert_array_equal(YCbCr(1, False).from_rgb(jnp.full((1, 3), 1.05)), [[246, 128, 128]])  # above white


def test_float_rgb_is_as_it_is():
    rgb = jnp.asarray([[0.25, -1.0, 2.0]])
    assert FloatRGB().to_rgb(rgb) is rgb
    assert FloatRGB.dtype == np.float32


@pytest.mark.parametrize(("kind", "dtype"), [(RGB(), "u1"), (RGB(9), "u2"), (YCbCr(1, True), "u1"), (RGB(16), "u2")])
def test_more_than_8_bits_are_kept_in_16(kind, dtype):
    assert np.dtype(kind.dtype) == dtype
    assert kind.from_rgb(jnp.zeros((1, 2, 3))).dtype == dtype


@pytest.mark.parametrize(
    ("kind", "pixels", "expected"),
    [
        (RGB(), [1, 2, 3], [1, 2, 3]),
        (RGB(16), [0, 32768, 65535], [0, 128, 255]),
        (YCbCr(6, False), [81, 90, 240], [254, 0, 0]),
        (YCbCr(1, False, 10), [64, 512, 512], [0, 0, 0]),
        (YCbCr(1, True), [255, 255, 255], [255, 172, 255]),  # no colour of RGB: 1.784, 0.674, 1.924
    ],
    ids=str,
)
def test_to_look_at_there_are_8_bits_of_rgb(kind, pixels, expected):
    shown = color.to_8_bits(np.full((2, 3, 3), pixels, kind.dtype), kind)
    assert isinstance(shown, np.ndarray)
    assert shown.dtype == np.uint8
    np.testing.assert_array_equal(shown, np.broadcast_to(expected, (2, 3, 3)))


def test_kinds_are_static_arguments():
    compiled = jax.jit(lambda pixels, kind: kind.to_rgb(pixels), static_argnums=1)
    pixels = jnp.asarray(np.array([[180, 128, 128]], np.uint8))
    assert compiled(pixels, YCbCr(1, True))[0, 0] == pytest.approx(180 / 255)
    assert compiled(pixels, YCbCr(1, False))[0, 0] == pytest.approx(164 / 219)
    assert compiled(pixels, YCbCr(1, True))[0, 0] == pytest.approx(180 / 255)


@pytest.mark.parametrize(
    ("size", "matrix"),
    [((720, 576), 6), ((720, 480), 6), ((1024, 576), 6), ((1280, 534), 1), ((960, 720), 1), ((1920, 1080), 1)],
)
def test_untagged_is_bt601_up_to_pal_and_bt709_above(size, matrix):
    assert color.guess_matrix(*size) == matrix
