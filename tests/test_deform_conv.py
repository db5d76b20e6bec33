"""Deformable convolution: small values by hand, the goldens, and any setting against a loop in NumPy and float64.

Most tests run three times: in plain JAX, with the kernels interpreted, and (marker `gpu`) with them compiled. Pallas's
interpreter fills outputs with NaN before a kernel writes them; on a GPU `poison` does.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from msitf_jax.ops import deform_conv2d
from msitf_jax.ops.chunks import traced_for
from msitf_jax.ops.deform_conv import pallas_triton, reference
from tests.conftest import golden

GOLDENS = ("3x3_g8", "1x1_g2", "stride2_dil2_g1", "far_outside", "integer_offsets")


@pytest.fixture(params=["xla", "interpreted", pytest.param("triton", marks=pytest.mark.gpu)])
def op(request, monkeypatch):
    """`deform_conv2d`, each way, compiled as a whole."""
    if request.param == "triton" and not pallas_triton.runs_here():
        pytest.skip("needs an NVIDIA GPU")
    if request.param == "interpreted":
        interpreted = functools.partial(pallas_triton.deform_conv2d, interpret=True)
        monkeypatch.setattr(pallas_triton, "deform_conv2d", interpreted)
    function = functools.partial(deform_conv2d, implementation="xla" if request.param == "xla" else "triton")
    return jax.jit(function, static_argnames=("stride", "padding", "dilation"))


def poison(arrays):
    """Leaves NaN where arrays of these shapes are likely to be allocated next."""
    jax.block_until_ready([jnp.full(a.shape, jnp.nan, a.dtype) for a in arrays for _ in range(3)])


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
def test_published_values_and_gradients(op, name):
    arguments, options, cotangent, y, gradients = load(name)
    poison([y, *gradients])
    out, *found = value_and_gradients(functools.partial(op, **options), *arguments, cotangent)
    np.testing.assert_allclose(out, y, rtol=1e-5, atol=1e-5)
    for gradient, golden_gradient in zip(found, gradients, strict=True):
        np.testing.assert_allclose(
            gradient, golden_gradient, rtol=1e-5, atol=1e-5 * max(1, np.abs(golden_gradient).max())
        )


@pytest.mark.parametrize("name", GOLDENS)
def test_float64_leaves_only_the_goldens_own_rounding(name):
    arguments, options, cotangent, y, gradients = load(name)
    with jax.enable_x64(True):
        arguments = [np.float64(a) for a in (*arguments, cotangent)]
        results = value_and_gradients(functools.partial(deform_conv2d, **options), *arguments)
    for result, wanted in zip(results, [y, *gradients], strict=True):
        assert result.dtype == jnp.float64
        # The goldens' inputs were rounded to float32 after use: 2e-7 of the largest value was measured.
        np.testing.assert_allclose(result, wanted, rtol=0, atol=4e-7 * np.abs(wanted).max())


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


def dense(x, offset, mask, weight, bias, stride, padding, dilation):
    """The definition with a sum over all pixels in place of a look-up, for JAX to derive."""
    height, width, channels = x.shape[1:]
    out_height, out_width, groups, taps = mask.shape[1:]
    tap_row, tap_column = jnp.divmod(jnp.arange(taps), weight.shape[1])
    y = jnp.arange(out_height)[:, None] * stride[0] - padding[0] + tap_row * dilation[0]
    z = jnp.arange(out_width)[:, None] * stride[1] - padding[1] + tap_column * dilation[1]

    def shares(position, size):
        pixel, lower = jnp.arange(size), jnp.floor(position)[..., None]
        behind = position[..., None] - lower
        return jnp.where(pixel == lower, 1 - behind, 0) + jnp.where(pixel == lower + 1, behind, 0)

    rows = shares(y[:, None, None] + offset[..., 0], height)
    columns = shares(z[:, None] + offset[..., 1], width)
    x = x.reshape(*x.shape[:3], groups, channels // groups)
    samples = jnp.einsum("bhwgc,bijgkh,bijgkw->bijgkc", x, rows, columns, optimize=True)
    weight = weight.reshape(taps, groups, channels // groups, -1)
    return jnp.einsum("bijgkc,bijgk,kgcf->bijf", samples, mask, weight, optimize=True) + bias


def random_arguments(frame, channels, groups, features, kernel=(3, 3), stride=1, padding=1, dilation=1, spread=3.0):
    """Arguments, options as pairs, and a cotangent, float32; values that bfloat16 holds, but for the points."""
    rng = np.random.default_rng(0)
    pairs = [(v, v) if isinstance(v, int) else v for v in (stride, padding, dilation)]
    out = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(frame, kernel, *pairs, strict=True)]
    points = (2, *out, groups, kernel[0] * kernel[1])
    shapes = (2, *frame, channels), (*kernel, channels, features), (features,), (2, *out, features)
    x, weight, bias, cotangent = (np.float32(jnp.asarray(rng.standard_normal(shape), jnp.bfloat16)) for shape in shapes)
    offset, mask = spread * rng.standard_normal((*points, 2), np.float32), rng.random(points, np.float32)
    return (x, offset, mask, weight, bias), dict(zip(("stride", "padding", "dilation"), pairs, strict=True)), cotangent


SETTINGS = {
    "the network's": {"frame": (9, 11), "channels": 64, "groups": 8, "features": 64},  # 99 pixels fill no block
    "one pixel": {"frame": (1, 1), "channels": 8, "groups": 1, "features": 3},
    "few channels": {"frame": (5, 4), "channels": 8, "groups": 2, "features": 3},
    "three groups": {"frame": (4, 5), "channels": 36, "groups": 3, "features": 20},
    "the widest": {"frame": (4, 3), "channels": 64, "groups": 1, "features": 128},
    "two blocks of groups": {"frame": (3, 4), "channels": 144, "groups": 12, "features": 17},
    "far outside": {"frame": (6, 5), "channels": 16, "groups": 4, "features": 8, "spread": 1e9},
    "rows and columns differ": {
        "frame": (6, 7),
        "channels": 8,
        "groups": 4,
        "features": 3,
        "kernel": (2, 3),
        "stride": (2, 1),
        "padding": (0, 2),
        "dilation": (1, 2),
    },
    "tall kernel": {
        "frame": (9, 5),
        "channels": 8,
        "groups": 1,
        "features": 3,
        "kernel": (5, 1),
        "stride": (3, 2),
        "padding": (2, 0),
    },
}


def value_and_gradients(function, *arguments):
    """[value, gradients of all arguments but the last, which is the cotangent]."""

    @jax.jit
    def compiled(*arguments):
        value, pullback = jax.vjp(function, *arguments[:-1])
        return [value, *pullback(arguments[-1])]

    return compiled(*map(jnp.asarray, arguments))


@functools.cache
def float64_results(setting):
    """What `value_and_gradients` of the plain path gives in float64."""
    arguments, options, cotangent = random_arguments(**SETTINGS[setting])
    with jax.enable_x64(True):
        return value_and_gradients(
            functools.partial(deform_conv2d, implementation="xla", **options),
            *(np.float64(a) for a in (*arguments, cotangent)),
        )


@pytest.mark.parametrize("setting", SETTINGS)
def test_float64_against_the_definition(setting):
    arguments, options, _ = random_arguments(**SETTINGS[setting])
    expected = direct(*arguments, *options.values())
    np.testing.assert_allclose(float64_results(setting)[0], expected, rtol=0, atol=1e-13 * np.abs(expected).max())


@pytest.mark.parametrize("offsets", ["random", "integer", "far outside"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_float64_gradients_against_those_of_the_definition(setting, offsets):
    arguments, options, cotangent = random_arguments(**SETTINGS[setting])
    x, offset, *others = (np.float64(a) for a in (*arguments, cotangent))
    offset = {"random": offset, "integer": np.round(offset), "far outside": 30 * offset}[offsets]
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = value_and_gradients(functools.partial(dense, **options), x, offset, *others)
        found = value_and_gradients(
            functools.partial(deform_conv2d, implementation="xla", **options), x, offset, *others
        )
    for a, b in zip(found, expected, strict=True):
        # Of the largest number; measured 1.4e-15.
        np.testing.assert_allclose(a, b, rtol=0, atol=3e-15 * np.abs(b).max())


@pytest.mark.parametrize("setting", ["the network's", "three groups", "far outside", "rows and columns differ"])
def test_values_and_gradients_in_the_form_for_other_devices(setting):
    arguments, options, cotangent = random_arguments(**SETTINGS[setting])
    with traced_for("cuda"):
        function = functools.partial(deform_conv2d, implementation="xla", **options)
        results = value_and_gradients(function, *arguments, cotangent)
    for result, exact in zip(results, float64_results(setting), strict=True):
        np.testing.assert_allclose(result, exact, rtol=0, atol=1.5e-6 * max(1e-6, np.abs(exact).max()))


@pytest.mark.parametrize(
    ("setting", "dtype"),
    [
        *((setting, "float32") for setting in SETTINGS),
        *((setting, "bfloat16") for setting in ("the network's", "three groups", "far outside")),
    ],
)
def test_values_and_gradients_against_float64(op, setting, dtype):
    (x, offset, mask, weight, bias), options, cotangent = random_arguments(**SETTINGS[setting])
    x, weight, cotangent = (jnp.asarray(a, dtype) for a in (x, weight, cotangent))
    arguments = x, offset, mask, weight, bias, cotangent
    poison(arguments)
    results = value_and_gradients(functools.partial(op, **options), *arguments)
    assert [r.dtype for r in results] == [dtype, dtype, "float32", "float32", dtype, "float32"]
    for result, exact in zip(results, float64_results(setting), strict=True):
        # Of the largest number; measured 7e-7 and, where the plain path adds up gradients of x in bfloat16, 1.1e-2.
        bound = {"float32": 1.5e-6, "bfloat16": 2.2e-2}[dtype] * max(1e-6, np.abs(exact).max())
        np.testing.assert_allclose(np.float64(result), exact, rtol=0, atol=bound)


@pytest.mark.parametrize("settings", [((48, 64), 24, 3, 24), ((33, 47), 48, 8, 48, (1, 1), 1, 0)], ids=["3x3", "1x1"])
def test_larger_frames_in_parts_and_in_the_form_for_other_devices(settings):
    # XLA's CPU backend has been wrong where sizes pass a threshold, and right below.
    arguments, options, cotangent = random_arguments(*settings)
    function = functools.partial(deform_conv2d, implementation="xla", **options)
    found = value_and_gradients(function, *arguments, cotangent)
    with traced_for("cuda"), jax.enable_x64(True):
        exact = value_and_gradients(
            functools.partial(deform_conv2d, implementation="xla", **options),
            *(np.float64(a) for a in (*arguments, cotangent)),
        )
    for a, b in zip(found, exact, strict=True):
        # Of the largest number; measured 2.8e-6: positions up to 64 have fewer digits behind the point.
        np.testing.assert_allclose(a, b, rtol=0, atol=5.5e-6 * np.abs(b).max())


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
@pytest.mark.parametrize(
    ("rows", "dtype"),
    [(0, "float32"), (3, "float32"), (3, "bfloat16"), (6, "float32"), (9, "float32")],
    ids=["a row", "three rows", "three rows in bfloat16", "rows of two images", "an image"],
)
def test_parts_of_a_batch_add_up(rows, dtype, platform):
    (x, offset, mask, weight, bias), options, cotangent = random_arguments(**SETTINGS["the network's"])
    x, weight, cotangent = (jnp.asarray(a, dtype) for a in (x, weight, cotangent))
    function = functools.partial(reference.deform_conv2d, samples=max(1, rows * 11 * 9 * 64), **options)
    with traced_for(platform):
        assert "scan" in str(jax.make_jaxpr(function)(x, offset, mask, weight, bias))
        results = value_and_gradients(function, x, offset, mask, weight, bias, cotangent)
    for result, exact in zip(results, float64_results("the network's"), strict=True):
        # Of the largest number; measured 7e-7 and 7.3e-3, for weights, rounded when all is added up, 5.4e-3.
        bound = {"float32": 1.5e-6, "bfloat16": 1e-2}[dtype] * np.abs(exact).max()
        np.testing.assert_allclose(np.float64(result), exact, rtol=0, atol=bound)


def test_without_offsets_it_is_a_convolution(op):
    keys = jax.random.split(jax.random.key(0), 2)
    x, weight = jax.random.normal(keys[0], (2, 6, 5, 4)), jax.random.normal(keys[1], (3, 3, 4, 2))
    points = (2, 6, 5, 2, 9)
    result = op(x, jnp.zeros((*points, 2)), jnp.ones(points), weight)
    plain = jax.lax.conv_general_dilated(x, weight, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(result, plain, rtol=0, atol=1e-5)


def test_offsets_beyond_any_integer_sample_nothing(op):
    offset = jnp.full((1, 2, 2, 1, 1, 2), jnp.float32(1e30)) * jnp.array([1.0, -1.0])[None, None, None, None, None]
    out = op(jnp.ones((1, 2, 2, 1)), offset, jnp.ones((1, 2, 2, 1, 1)), jnp.ones((1, 1, 1, 1)), padding=0)
    np.testing.assert_array_equal(out, 0)


def test_samples_outside_do_not_touch_the_border(op):
    x = jnp.full((1, 2, 2, 1), jnp.inf)
    for offset in (-3.0, 3.0):
        points = (1, 2, 2, 1, 1)
        out = op(x, jnp.full((*points, 2), offset), jnp.ones(points), jnp.ones((1, 1, 1, 1)), padding=0)
        np.testing.assert_array_equal(out, 0)


def test_the_result_has_the_type_of_x(op):
    points = (1, 4, 5, 2, 9)
    x = jnp.ones((1, 4, 5, 4), jnp.bfloat16)
    with jax.numpy_dtype_promotion("standard"):
        out = op(x, jnp.zeros((*points, 2)), jnp.ones(points), jnp.ones((3, 3, 4, 2)), jnp.ones(2))
    assert out.dtype == jnp.bfloat16


def mapped(function):
    return lambda x, offset, mask, weight, bias: jax.vmap(function, (0, 0, 0, None, None))(
        x[:, None], offset[:, None], mask[:, None], weight, bias
    )[:, 0]


def mapped_with_weights(function):
    return lambda x, offset, mask, weight, bias: jax.vmap(function)(
        x[:, None], offset[:, None], mask[:, None], jnp.stack([weight] * 2), jnp.stack([bias] * 2)
    )[:, 0]


def scanned(function):
    def loop(x, offset, mask, weight, bias):
        frames = x[:, None], offset[:, None], mask[:, None]
        return jax.lax.scan(lambda n, frame: (n + 1, function(*frame, weight, bias)[0]), 0, frames)[1]

    return loop


WRAPS = {
    "jit": jax.jit,
    "vmap": mapped,
    "vmap of weights": mapped_with_weights,
    "scan": scanned,
    "remat": jax.checkpoint,
    "remat in a scan": lambda function: scanned(jax.checkpoint(function)),
}


@functools.cache
def plain_results():
    """What is wanted of all transformations."""
    arguments, _, cotangent = random_arguments((4, 5), 8, 2, 3)
    return value_and_gradients(functools.partial(deform_conv2d, implementation="xla"), *arguments, cotangent)


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_within_transformations(op, wrap):
    arguments, _, cotangent = random_arguments((4, 5), 8, 2, 3)
    found = value_and_gradients(wrap(op), *arguments, cotangent)
    for a, b in zip(found, plain_results(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * np.abs(b).max())


def test_shard_map_tells_replicated_weights_from_a_batch():
    arguments, _, cotangent = random_arguments((4, 5), 8, 2, 3)
    batch, whole = jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()
    mesh = jax.make_mesh((1,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    split = jax.shard_map(deform_conv2d, mesh=mesh, in_specs=(batch,) * 3 + (whole,) * 2, out_specs=batch)
    found = value_and_gradients(split, *arguments, cotangent)
    for a, b in zip(found, plain_results(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * np.abs(b).max())


def test_forward_mode_is_refused_on_a_cpu():
    arguments, *_ = random_arguments((4, 5), 8, 2, 3)
    with traced_for("cpu"), pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(functools.partial(deform_conv2d, implementation="xla"), arguments, arguments)


def test_with_64_bits_enabled(op):
    arguments, _, cotangent = random_arguments((4, 5), 8, 2, 3)
    wanted = value_and_gradients(op, *arguments, cotangent)
    with jax.enable_x64(True):
        found = value_and_gradients(op, *arguments, cotangent)
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * np.abs(b).max())


def test_pixels_that_fit_need_no_loop():
    points = (1, 8, 9, 2, 9)
    larger = (1, 16, 18, 2, 9)
    weight = jnp.ones((3, 3, 4, 2))

    def operations(points):
        arguments = (jnp.ones((*points[:3], 4)), jnp.ones((*points, 2)), jnp.ones(points), weight)
        return names(jax.make_jaxpr(functools.partial(deform_conv2d, implementation="xla"))(*arguments).jaxpr)

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


def test_more_than_can_be_indexed_is_refused():
    x, points = (8, 1 << 14, 1 << 12, 8), (8, 1 << 14, 1 << 12, 8, 9)
    arguments = (jax.ShapeDtypeStruct(shape, "float32") for shape in (x, (*points, 2), points, (3, 3, 8, 8)))
    with pytest.raises(ValueError, match=r"`x` of shape .* in 8 groups is more than 32-bit indices count"):
        jax.eval_shape(functools.partial(deform_conv2d, implementation="xla"), *arguments)


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
        ({}, {"implementation": "cuda"}, r"`implementation` \(='cuda'\) must be None or one of \['triton', 'xla'\]"),
    ],
)
def test_bad_arguments_are_named(changes, options, message):
    with pytest.raises(ValueError, match=message):
        deform_conv2d(*shapes(**changes), **options)
