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
def always(monkeypatch):
    """However small the images are, they are laid side by side."""
    monkeypatch.setattr(convolution, "FEW_PIXELS", 0)


SIZES = [(1, 2), (5, 6), (12, 70)]


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("size", SIZES)
def test_value_and_gradients(kernel_size, stride, size):
    assert_as_plain(arrays((2, *size, 3), kernel_size, 4), stride)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("features", [3, 4, 5], ids=["narrowing", "equal", "widening"])
@pytest.mark.parametrize("cores", [1, 2, 64])  # one strip an image, some, and as many as there may be
def test_any_number_of_strips(monkeypatch, cores, features):
    monkeypatch.setattr(convolution.os, "cpu_count", lambda: cores)
    assert_as_plain(arrays((2, 24, 60, 4), 3, features))


@pytest.mark.parametrize(
    ("shape", "strips"),
    [
        ((4, 32, 32), 2),  # 2 x 4 x 33 columns are the first to make 256
        ((4, 16, 16), 4),
        ((2, 128, 128), 1),
        ((1, 144, 184), 2),
        ((1, 576, 720), None),  # wide enough as it is
        ((4, 8, 8), None),  # 256 pixels in all
        ((1, 16, 64), 4),  # not 16: strips have at least four rows
        ((1, 37, 64), 1),  # nothing divides 37
    ],
)
def test_strips_suffice_for_all_threads(monkeypatch, shape, strips):
    monkeypatch.setattr(convolution.os, "cpu_count", lambda: 2)
    assert convolution._strips((*shape, 64)) == strips


def test_images_lie_in_a_row_on_a_cpu(monkeypatch):
    monkeypatch.setattr(convolution.os, "cpu_count", lambda: 2)
    x, kernel, _ = arrays((4, 32, 32, 8), 3, 8)
    lowered = {
        platform: jax.jit(conv2d).trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda")
    }
    assert "tensor<1x16x264x8xf64>" in lowered["cpu"]
    assert "264" not in lowered["cuda"]


@pytest.mark.parametrize("features", [3, 4, 5])
def test_the_wider_side_becomes_the_channels_of_the_kernel_gradient(features):
    x, kernel, cotangent = arrays((1, 4, 4, 4), 3, features)
    gradient = jax.jit(functools.partial(convolution._kernel_gradient, stride=1))
    produced = f"tensor<{min(4, features)}x3x3x{max(4, features)}xf64>"
    convolutions = [
        line for line in gradient.lower(x, kernel, cotangent).as_text().splitlines() if "stablehlo.convolution" in line
    ]
    assert len(convolutions) == 1
    assert convolutions[0].endswith(f"-> {produced}")


@pytest.mark.parametrize("features", [3, 6])  # one is narrower than x, the other wider
@pytest.mark.parametrize(
    ("part_rows", "shape", "part"),
    [
        (1, (2, 12, 5), (1, 1)),
        (5, (2, 12, 5), (1, 4)),  # the largest divisor of 12 up to 5
        (24, (6, 12, 5), (2, 12)),
        (100, (6, 12, 5), (6, 12)),
        (3, (2, 7, 5), (1, 1)),  # nothing divides 7
    ],
)
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_a_kernel_gradient_is_summed_over_parts_that_fit_the_cache(
    monkeypatch, kernel_size, part_rows, shape, part, features
):
    x, kernel, cotangent = arrays((*shape, 4), kernel_size, features)
    row = 8 * shape[2] * (4 + features)
    for name in ("LARGE_IMAGE", "LARGE_BATCH", "PART"):
        monkeypatch.setattr(convolution, name, part_rows * row)
    assert convolution._cached_part(x, cotangent) == part
    assert_as_plain((x, kernel, cotangent))


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


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_within_transformations(wrap):
    assert_as_plain(arrays((3, 4, 5, 4), 3, 5), wrap=wrap)


@pytest.mark.parametrize("result", ["bfloat16", "float32"])
def test_bfloat16_is_summed_up_in_float32(result):
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
        return gradients.trace(*arrays((1, 64, 32, 8), 3, 8)).lower(lowering_platforms=(platform,)).as_text()

    def convolutions(text):
        lines = (line for line in text.splitlines() if "stablehlo.convolution" in line)
        return sorted(line.partition("dim_numbers")[2] for line in lines)

    assert len(convolutions(lowered(plain, "cuda"))) == 3
    assert convolutions(lowered(conv2d, "cuda")) == convolutions(lowered(plain, "cuda"))
    assert convolutions(lowered(conv2d, "cpu")) != convolutions(lowered(plain, "cpu"))


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 4, 5, 3)])
def test_add_bias_keeps_the_type_and_sums_gradients_in_the_wider(shape):
    x, bias = jnp.ones(shape, "bfloat16"), jnp.asarray([0.001, 0.5, 1.0], "float32")
    found, pull = jax.vjp(convolution.add_bias, x, bias)
    np.testing.assert_array_equal(found, np.broadcast_to((1 + bias).astype("bfloat16"), shape))
    x_gradient, gradient = pull(jnp.ones(shape, "bfloat16"))
    assert (x_gradient.dtype, gradient.dtype) == ("bfloat16", "float32")
    # A thousand ones summed up in bfloat16 would stay at 256.
    many = jnp.ones((1000, 3), "bfloat16")
    np.testing.assert_array_equal(jax.vjp(convolution.add_bias, many, bias)[1](many)[1], 1000)
