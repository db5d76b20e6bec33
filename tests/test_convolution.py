"""The convolution and both its derivatives against those of the plain one, on every path they may take."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msitf_jax.ops import convolution
from msitf_jax.ops.convolution import conv2d


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def plain(x, kernel, stride=1, dtype=None):
    """What `conv2d` is, with the derivatives that JAX has for it."""
    pad = kernel.shape[0] // 2
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(pad, pad)] * 2, dimension_numbers=dimensions, preferred_element_type=dtype
    )


def arrays(shape, size, features, dtype="float64"):
    """x of `[B, H, W, C]`, a kernel of `[size, size, C, features]`, and a cotangent at stride 1."""
    noise = np.random.default_rng(0)
    shapes = shape, (size, size, shape[3], features), (*shape[:3], features)
    return [jnp.asarray(noise.normal(size=shape), dtype) for shape in shapes]


def value_and_gradients(function, x, kernel, cotangent):
    """The value and both gradients; of a value smaller than the cotangent, for the first part of that."""
    value, pull = jax.vjp(function, x, kernel)
    cotangent = jnp.resize(cotangent, value.shape)
    return value, *pull(cotangent.astype(value.dtype))


def assert_as_plain(arrays, stride=1, wrap=lambda function: function):
    @jax.jit
    def both(*arrays):
        functions = (wrap(functools.partial(function, stride=stride)) for function in (conv2d, plain))
        return [value_and_gradients(function, *arrays) for function in functions]

    for found, wanted in zip(*both(*arrays), strict=True):
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


@pytest.fixture
def taken(monkeypatch):
    """Names of the ways to the kernel's gradient as they are traced."""
    names = []

    def note(name, way):
        monkeypatch.setattr(convolution, name, lambda *args: names.append(name) or way(*args))

    note("_kernel_gradient", convolution._kernel_gradient)
    note("_kernel_gradient_in_strips", convolution._kernel_gradient_in_strips)
    return names


SIZES = [(1, 1), (1, 2), (5, 6), (8, 7)]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_as_a_convolution(taken, kernel_size, stride, size):
    assert_as_plain(arrays((2, *size, 3), kernel_size, 4), stride)
    assert taken == ["_kernel_gradient"]


@pytest.mark.parametrize("features", [3, 5], ids=["narrowing", "widening"])
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (8, 7)])
@pytest.mark.parametrize("strip", [1, 14, 1024])  # pixels: less than a row, some rows, the whole frame
def test_in_strips(taken, monkeypatch, kernel_size, size, features, strip):
    monkeypatch.setattr(convolution, "MANY_PIXELS", 0)
    monkeypatch.setattr(convolution, "STRIP_PIXELS", strip)
    assert_as_plain(arrays((2, *size, 4), kernel_size, features))
    assert taken == ["_kernel_gradient_in_strips"]


@pytest.mark.parametrize(
    ("shape", "features", "stride", "way"),
    [
        ((2, 64, 64, 8), 8, 1, "_kernel_gradient"),
        ((1, 8193, 1, 8), 8, 1, "_kernel_gradient_in_strips"),
        ((2, 4, 4, 64), 64, 1, "_kernel_gradient"),
        ((2, 4, 4, 64), 65, 1, "_kernel_gradient_in_strips"),
        ((1, 8193, 1, 8), 8, 2, "_kernel_gradient"),
        ((2, 4, 4, 64), 65, 2, "_kernel_gradient"),
    ],
)
def test_many_pixels_or_channels_take_strips(taken, shape, features, stride, way):
    assert_as_plain(arrays(shape, 3, features), stride)
    assert taken == [way]


@pytest.mark.parametrize(("features", "unrolled"), [(3, 3), (4, 4), (5, 4)])
def test_the_narrower_one_is_unrolled(monkeypatch, features, unrolled):
    widths = []
    product = convolution._patch_product
    monkeypatch.setattr(
        convolution, "_patch_product", lambda a, b, size: widths.append(a.shape[3]) or product(a, b, size)
    )
    monkeypatch.setattr(convolution, "MANY_PIXELS", 0)
    jax.eval_shape(functools.partial(value_and_gradients, conv2d), *arrays((1, 4, 4, 4), 3, features))
    assert widths == [unrolled]


WRAPS = {
    "jit": jax.jit,
    "checkpoint": jax.checkpoint,
    "vmap": lambda function: lambda x, kernel: jax.vmap(function, (0, None))(x[:, None], kernel),
    "vmap of kernels": lambda function: lambda x, kernel: jax.vmap(function, (None, 0))(x, jnp.stack([kernel] * 2)),
    "scan": lambda function: (
        lambda x, kernel: jax.lax.scan(
            lambda total, frame: (total + jnp.sum(function(frame, kernel)), function(frame, kernel)), 0.0, x[:, None]
        )[1]
    ),
    "checkpointed scan": lambda function: (
        lambda x, kernel: jax.lax.scan(
            jax.checkpoint(lambda last, frame: (function(frame + jnp.sum(last), kernel),) * 2),
            jnp.zeros_like(function(x[:1], kernel)),
            x[:, None],
        )[1]
    ),
}


@pytest.mark.parametrize("many", [0, 8192], ids=["strips", "convolution"])
@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_within_transformations(taken, monkeypatch, wrap, many):
    monkeypatch.setattr(convolution, "MANY_PIXELS", many)
    monkeypatch.setattr(convolution, "STRIP_PIXELS", 10)
    assert_as_plain(arrays((3, 4, 5, 4), 3, 5), wrap=wrap)
    assert set(taken) == {"_kernel_gradient" if many else "_kernel_gradient_in_strips"}


@pytest.mark.parametrize("many", [0, 8192], ids=["strips", "convolution"])
@pytest.mark.parametrize("result", ["bfloat16", "float32"])
def test_bfloat16_is_summed_up_in_float32(monkeypatch, many, result):
    monkeypatch.setattr(convolution, "MANY_PIXELS", many)
    narrow = arrays((2, 16, 16, 32), 3, 32, "bfloat16")
    found = value_and_gradients(functools.partial(conv2d, dtype=jnp.dtype(result)), *narrow)
    exact = value_and_gradients(plain, *(a.astype("float64") for a in narrow))
    assert [a.dtype for a in found] == [result, "bfloat16", "bfloat16"]
    for a, b in zip(found, exact, strict=True):
        # One rounding at the end, of at most 2^-8 of a number, or of float32 sums of 288 or 512 products.
        bound = 2**-8 * np.abs(b) if a.dtype == "bfloat16" else 0
        assert np.all(np.abs(np.asarray(a, "float64") - b) <= bound + 1e-6 * np.abs(b).max())


def test_other_platforms_keep_the_derivatives_of_jax():
    def lowered(function, platform):
        gradients = jax.jit(functools.partial(value_and_gradients, function))
        return gradients.trace(*arrays((1, 8193, 1, 8), 3, 8)).lower(lowering_platforms=(platform,)).as_text()

    def convolutions(text):
        lines = (line for line in text.splitlines() if "stablehlo.convolution" in line)
        return sorted(line.partition("dim_numbers")[2] for line in lines)

    assert len(convolutions(lowered(plain, "cuda"))) == 3
    assert convolutions(lowered(conv2d, "cuda")) == convolutions(lowered(plain, "cuda"))
    assert "stablehlo.while" not in lowered(conv2d, "cuda")
    assert "stablehlo.while" in lowered(conv2d, "cpu")
