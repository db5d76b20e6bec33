"""Deformable convolution: small values by hand, the goldens, and any setting against a loop in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from msitf_jax.ops import deform_conv2d
from tests.conftest import golden

GOLDENS = ("3x3_g8", "1x1_g2", "stride2_dil2_g1", "far_outside", "integer_offsets")


def load(name):
    """A golden in our layout: (arguments, options, cotangent, output, gradients of the arguments)."""
    g = golden(f"deform_conv_{name}")
    groups = int(g["groups"])

    def image(x):
        return x.transpose(0, 2, 3, 1)

    def offset(x):
        batch, _, height, width = x.shape
        return x.reshape(batch, groups, -1, 2, height, width).transpose(0, 4, 5, 1, 2, 3)

    def mask(x):
        batch, _, height, width = x.shape
        return x.reshape(batch, groups, -1, height, width).transpose(0, 3, 4, 1, 2)

    def kernel(x):
        return x.transpose(2, 3, 1, 0)

    layouts = (("x", image), ("offset", offset), ("mask", mask), ("weight", kernel), ("bias", np.asarray))
    arguments = [layout(g[name]) for name, layout in layouts]
    gradients = [layout(g["d" + name]) for name, layout in layouts]
    options = {name: int(g[name]) for name in ("stride", "padding", "dilation")}
    return arguments, options, image(g["cotangent"]), image(g["y"]), gradients


@pytest.mark.parametrize("name", GOLDENS)
def test_published_values_and_gradients(name):
    arguments, options, cotangent, y, gradients = load(name)
    out, pullback = jax.vjp(lambda *a: deform_conv2d(*a, **options), *map(jnp.asarray, arguments))
    np.testing.assert_allclose(out, y, rtol=1e-5, atol=1e-5)
    for gradient, reference in zip(pullback(jnp.asarray(cotangent)), gradients, strict=True):
        np.testing.assert_allclose(gradient, reference, rtol=1e-5, atol=1e-5 * max(1, np.abs(reference).max()))


@pytest.mark.parametrize("name", GOLDENS)
def test_float64_leaves_only_the_goldens_own_rounding(name):
    arguments, options, cotangent, y, gradients = load(name)
    with jax.enable_x64(True):
        arguments = [jnp.asarray(a, jnp.float64) for a in arguments]
        out, pullback = jax.vjp(lambda *a: deform_conv2d(*a, **options), *arguments)
        results = [out, *pullback(jnp.asarray(cotangent, jnp.float64))]
    for result, reference in zip(results, [y, *gradients], strict=True):
        assert result.dtype == jnp.float64
        # The goldens' inputs were rounded to float32 after use: 2e-7 of the largest value was measured.
        np.testing.assert_allclose(result, reference, rtol=0, atol=4e-7 * np.abs(reference).max())


def direct(x, offset, mask, weight, bias, stride, padding, dilation):
    """The definition, one sample at a time, in float64."""
    batch, height, width, channels = x.shape
    _, out_height, out_width, groups, _, _ = offset.shape
    kernel_height, kernel_width, _, features = weight.shape
    size = channels // groups
    out = np.zeros((batch, out_height, out_width, features)) + bias
    for b, i, j, g, k in np.ndindex(batch, out_height, out_width, groups, kernel_height * kernel_width):
        ky, kx = divmod(k, kernel_width)
        y = i * stride[0] - padding[0] + ky * dilation[0] + float(offset[b, i, j, g, k, 0])
        z = j * stride[1] - padding[1] + kx * dilation[1] + float(offset[b, i, j, g, k, 1])
        value = np.zeros(size)
        for row in (np.floor(y), np.floor(y) + 1):
            for column in (np.floor(z), np.floor(z) + 1):
                if 0 <= row < height and 0 <= column < width:
                    corner = x[b, int(row), int(column), g * size : (g + 1) * size]
                    value += (1 - abs(y - row)) * (1 - abs(z - column)) * corner
        out[b, i, j] += mask[b, i, j, g, k] * value @ weight[ky, kx, g * size : (g + 1) * size]
    return out


@pytest.mark.parametrize(
    ("frame", "kernel", "groups", "stride", "padding", "dilation"),
    [
        ((1, 1), (3, 3), 1, 1, 1, 1),
        ((5, 4), (3, 3), 2, 1, 1, 1),
        ((6, 7), (2, 3), 4, (2, 1), (0, 2), (1, 2)),
        ((9, 5), (5, 1), 1, (3, 2), (2, 0), 1),
    ],
)
def test_any_setting_against_the_definition(frame, kernel, groups, stride, padding, dilation):
    rng = np.random.default_rng(0)
    pairs = [(v, v) if isinstance(v, int) else v for v in (stride, padding, dilation)]
    out = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(frame, kernel, *pairs, strict=True)]
    points = (2, *out, groups, kernel[0] * kernel[1])
    x = rng.standard_normal((2, *frame, 8), np.float32)
    offset = 3 * rng.standard_normal((*points, 2), np.float32)
    mask, weight = rng.random(points, np.float32), rng.standard_normal((*kernel, 8, 3), np.float32)
    bias = rng.standard_normal(3, np.float32)
    result = deform_conv2d(
        *map(jnp.asarray, (x, offset, mask, weight, bias)), stride=stride, padding=padding, dilation=dilation
    )
    np.testing.assert_allclose(result, direct(x, offset, mask, weight, bias, *pairs), rtol=0, atol=2e-5)


def test_without_offsets_it_is_a_convolution():
    keys = jax.random.split(jax.random.key(0), 2)
    x, weight = jax.random.normal(keys[0], (2, 6, 5, 4)), jax.random.normal(keys[1], (3, 3, 4, 2))
    points = (2, 6, 5, 2, 9)
    result = deform_conv2d(x, jnp.zeros((*points, 2)), jnp.ones(points), weight)
    plain = jax.lax.conv_general_dilated(x, weight, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(result, plain, rtol=0, atol=1e-5)


def test_offsets_beyond_any_integer_sample_nothing():
    offset = jnp.full((1, 2, 2, 1, 1, 2), jnp.float32(1e30)) * jnp.array([1.0, -1.0])[None, None, None, None, None]
    out = deform_conv2d(jnp.ones((1, 2, 2, 1)), offset, jnp.ones((1, 2, 2, 1, 1)), jnp.ones((1, 1, 1, 1)), padding=0)
    np.testing.assert_array_equal(out, 0)


def test_samples_outside_do_not_touch_the_border():
    x = jnp.full((1, 2, 2, 1), jnp.inf)
    for offset in (-3.0, 3.0):
        points = (1, 2, 2, 1, 1)
        out = deform_conv2d(x, jnp.full((*points, 2), offset), jnp.ones(points), jnp.ones((1, 1, 1, 1)), padding=0)
        np.testing.assert_array_equal(out, 0)


def test_the_result_has_the_type_of_x():
    points = (1, 4, 5, 2, 9)
    x = jnp.ones((1, 4, 5, 4), jnp.bfloat16)
    with jax.numpy_dtype_promotion("standard"):
        out = deform_conv2d(x, jnp.zeros((*points, 2)), jnp.ones(points), jnp.ones((3, 3, 4, 2)), jnp.ones(2))
    assert out.dtype == jnp.bfloat16


def test_jit_and_vmap_agree_with_the_plain_call():
    keys = jax.random.split(jax.random.key(0), 4)
    points = (3, 1, 4, 5, 2, 9)
    x, weight = jax.random.normal(keys[0], (3, 1, 4, 5, 4)), jax.random.normal(keys[1], (3, 3, 4, 2))
    offset, mask = 2 * jax.random.normal(keys[2], (*points, 2)), jax.random.uniform(keys[3], points)
    mapped = jax.jit(jax.vmap(deform_conv2d, in_axes=(0, 0, 0, None)))(x, offset, mask, weight)
    for i in range(3):
        np.testing.assert_allclose(mapped[i], deform_conv2d(x[i], offset[i], mask[i], weight), rtol=0, atol=1e-5)


def test_nothing_loops_over_pixels():
    points = (1, 8, 9, 2, 9)
    larger = (1, 16, 18, 2, 9)
    weight = jnp.ones((3, 3, 4, 2))

    def operations(points):
        arguments = (jnp.ones((*points[:3], 4)), jnp.ones((*points, 2)), jnp.ones(points), weight)
        return names(jax.make_jaxpr(deform_conv2d)(*arguments).jaxpr)

    def names(jaxpr):
        for equation in jaxpr.eqns:
            yield equation.primitive.name
            for inner in jaxprs_in_params(equation.params):
                yield from names(inner)

    assert list(operations(points)) == list(operations(larger))
    assert not {"scan", "while"} & set(operations(points))


def shapes(**changes):
    defaults = {
        "x": (1, 4, 5, 8),
        "offset": (1, 4, 5, 2, 9, 2),
        "mask": (1, 4, 5, 2, 9),
        "weight": (3, 3, 8, 6),
        "bias": (6,),
    }
    return [jnp.asarray(v) if isinstance(v, np.ndarray) else jnp.zeros(v) for v in (defaults | changes).values()]


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"x": (4, 5, 8)}, {}, r"`x` has shape \(4, 5, 8\), expected \[batch"),
        ({"weight": (3, 3, 4, 6)}, {}, r"`weight` has shape \(3, 3, 4, 6\), expected \[kh, kw, 8"),
        ({"offset": (1, 4, 5, 2, 9)}, {}, "`offset` has shape"),
        ({}, {"stride": 2}, r"`offset` has shape .*expected \[1, 2, 3, 'groups', 9, 2\]"),
        ({"offset": (1, 4, 5, 3, 9, 2)}, {}, r"channels \(=8\) must be divisible by `offset` groups \(=3\)"),
        ({"mask": (1, 4, 5, 2, 8)}, {}, "`mask` has shape"),
        ({"bias": (5,)}, {}, r"`bias` has shape \(5,\), expected \(6,\)"),
        ({}, {"stride": 0}, r"`stride` \(=0\) must be an int of at least 1"),
        ({}, {"padding": (1, 2, 3)}, r"`padding` \(=\(1, 2, 3\)\)"),
        ({}, {"dilation": 5}, "does not fit"),
        ({}, {"stride": 1.5}, r"`stride` \(=1.5\) must be an int"),
        ({"x": np.zeros((1, 4, 5, 8), np.int32)}, {}, "`x` has dtype int32, expected floating point"),
        ({}, {"implementation": "cuda"}, r"`implementation` \(='cuda'\) must be None or one of \['xla'\]"),
    ],
)
def test_bad_arguments_are_named(changes, options, message):
    with pytest.raises(ValueError, match=message):
        deform_conv2d(*shapes(**changes), **options)
