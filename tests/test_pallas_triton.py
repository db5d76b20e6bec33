"""The kernels of deformable convolution as compiled programs: when they are chosen, and what they become.

That they compute the right thing is tested in `tests/test_deform_conv.py`.
"""

import contextlib
import functools
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from msitf_jax import MSITF, MSITFConfig
from msitf_jax.model.precision import narrow
from msitf_jax.ops import deform_conv2d
from msitf_jax.ops.deform_conv import api, geometry, pallas_triton

needs_triton = pytest.mark.skipif(pallas_triton.triton is None, reason="this JAX has no Triton backend")


def hopper():
    """A context in which newer versions of JAX lower for a GPU that is not there; older ones need none."""
    try:
        from jax.sharding import AbstractDevice, AbstractMesh, AxisType
    except ImportError:
        return contextlib.nullcontext()
    device = AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")
    return jax.sharding.use_abstract_mesh(AbstractMesh((1,), ("x",), (AxisType.Auto,), abstract_device=device))


def lowered(function, *arguments, platform="cuda"):
    """The program for a platform, as text."""
    with hopper() if platform == "cuda" else contextlib.nullcontext():
        return jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


def kernels(text):
    """Names of the kernels in a program, in its order, as often as they appear."""
    return re.findall(r'"?name"? = "(deform_conv_\w+)"', text)


def arguments(shape=(1, 5, 6, 64), groups=8, features=64, dtype="float32"):
    points = (*shape[:3], groups, 9)
    weight = jnp.ones((3, 3, shape[3], features), dtype)
    return jnp.ones(shape, dtype), jnp.zeros((*points, 2)), jnp.ones(points), weight, jnp.ones(features)


def shapes(*args, **kwargs):
    return jax.eval_shape(lambda: arguments(*args, **kwargs))


def with_gradients(*arguments):
    value, pullback = jax.vjp(functools.partial(deform_conv2d, implementation="triton"), *arguments)
    return value, pullback(value)


@needs_triton
@pytest.mark.parametrize("precision", ["default", "highest"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("shape", "groups", "features"),
    [((1, 144, 184, 64), 8, 64), ((16, 32, 32, 64), 8, 64), ((2, 5, 6, 36), 3, 20), ((1, 4, 3, 64), 1, 128)],
    ids=str,
)
def test_forward_and_backward_lower_for_cuda(shape, groups, features, dtype, precision):
    with jax.default_matmul_precision(precision):
        text = lowered(with_gradients, *shapes(shape, groups, features, dtype))
    assert kernels(text) == ["deform_conv_forward", "deform_conv_inputs", "deform_conv_weight"]


@needs_triton
def test_they_lower_with_64_bits_enabled():
    with jax.enable_x64(True):
        assert len(kernels(lowered(with_gradients, *shapes()))) == 3


@needs_triton
def test_the_forward_pass_has_no_gather_and_no_product_beside_its_kernel():
    text = lowered(functools.partial(deform_conv2d, implementation="triton"), *shapes())
    assert kernels(text) == ["deform_conv_forward"]
    assert not re.findall(r"stablehlo\.(gather|dot_general|convolution|scatter)", text)


@needs_triton
def test_vmap_scan_and_remat_lower_for_cuda():
    def loss(x, offset, mask, weight, bias):
        def step(total, frame):
            out = jax.checkpoint(functools.partial(deform_conv2d, implementation="triton"))(*frame, weight, bias)
            return total + jnp.sum(out), None

        frames = (a[:, None] for a in (x, offset, mask))
        return jax.lax.scan(step, 0.0, tuple(frames))[0]

    batched = (jax.ShapeDtypeStruct((3, *a.shape), a.dtype) for a in shapes((2, 5, 6, 64)))
    found = kernels(lowered(jax.vmap(jax.value_and_grad(loss, range(5))), *batched))
    assert set(found) >= {"deform_conv_forward", "deform_conv_inputs", "deform_conv_weight"}


@needs_triton
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_network_runs_the_kernel_on_a_gpu_by_itself(monkeypatch, dtype):
    config = MSITFConfig(channels=8, residual_blocks=1, trunk_groups=1, offset_groups=2, temporal_heads=2)
    graph, params = nnx.split(nnx.eval_shape(lambda: MSITF(config, rngs=nnx.Rngs(0))))

    def kernels_for(platform):
        def forward(params, clip):
            return nnx.merge(graph, narrow(params, jnp.dtype(dtype)))(clip)

        return kernels(lowered(forward, params, jnp.zeros((1, 2, 16, 16, 3)), platform=platform))

    monkeypatch.setattr(pallas_triton, "runs_here", lambda: True)
    # Three levels each: between two frames, and within the time step towards the hidden and the cell state.
    assert kernels_for("cuda") == 9 * ["deform_conv_forward"]
    assert not kernels_for("cpu")


@needs_triton
def test_products_follow_the_precision_that_jax_is_set_to():
    expected = dict.fromkeys((None, "default", "high", "tensorfloat32", "bfloat16", "TF32_TF32_F32"), "tf32")
    expected |= dict.fromkeys(("float32", "highest", "F32_F32_F32", "TF32_TF32_F32_X3", "BF16_BF16_F32_X6"), "float32")
    for precision, product in expected.items():
        with jax.default_matmul_precision(precision):
            assert pallas_triton.product_type(jnp.dtype("float32")) == product, precision
            assert pallas_triton.product_type(jnp.dtype("bfloat16")) == "bfloat16"


@pytest.fixture
def log(monkeypatch, caplog):
    """Lines that the choice of an implementation logs, none of them logged before."""
    api._log_once.cache_clear()
    yield lambda: [record.getMessage() for record in caplog.records]
    api._log_once.cache_clear()


@needs_triton
@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"dtype": "float16"}, "`x` is float16, not float32 or bfloat16"),
        ({"shape": (1, 3, 3, 130), "groups": 2}, "`x` has 65 channels a group, more than 64"),
        ({"features": 129}, "`weight` has 129 features, more than 128"),
        ({"shape": (1, 2**14, 2**11, 64)}, "up to 4831838208 elements"),
        ({"shape": (2**16, 1, 1, 8), "features": 8}, "there are 65536 images"),
        (
            {"shape": (2**15, 1, 1, 128), "features": 128},
            "up to 4836556800 elements",
        ),  # the weights' gradient, in parts
    ],
)
def test_outside_the_limits_the_plain_path_takes_over_with_a_line(changed, reason, log):
    for _ in range(2):
        jax.eval_shape(functools.partial(deform_conv2d, implementation="triton"), *shapes(**changed))
    (line,) = log()
    assert line.startswith("deform_conv2d in plain JAX instead of Triton: ")
    assert reason in line
    assert "pallas" not in str(
        jax.make_jaxpr(functools.partial(deform_conv2d, implementation="triton"))(*shapes(**changed))
    )


def test_without_the_backend_the_plain_path_takes_over_with_a_line(monkeypatch, log):
    monkeypatch.setattr(pallas_triton, "triton", None)
    out = deform_conv2d(*arguments(), implementation="triton")
    np.testing.assert_array_equal(out, deform_conv2d(*arguments(), implementation="xla"))
    assert log() == [f"deform_conv2d in plain JAX instead of Triton: JAX {jax.__version__} has no Triton backend"]


def test_a_cpu_takes_the_plain_path_without_a_word(log, monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: jax.local_devices(backend="cpu"))
    assert not pallas_triton.runs_here()
    assert not kernels(lowered(deform_conv2d, *shapes(), platform="cuda"))
    assert log() == []


@pytest.mark.parametrize(("capability", "runs"), [("9.0", True), ("8.0", True), ("7.5", False), ("gfx942", False)])
def test_which_gpus_run_the_kernels(monkeypatch, capability, runs):
    class Device:
        platform = "gpu"
        compute_capability = capability

    monkeypatch.setattr(jax, "devices", lambda: [Device()])
    assert pallas_triton.runs_here() == runs


@needs_triton
def test_an_older_gpu_takes_the_plain_path_with_a_line(monkeypatch, log):
    class Device:
        platform = "gpu"
        compute_capability = "7.5"
        device_kind = "Tesla T4"

    monkeypatch.setattr(jax, "devices", lambda: [Device()])
    jax.eval_shape(functools.partial(deform_conv2d, implementation="triton"), *shapes())
    reason = "Tesla T4 is no NVIDIA GPU of compute capability 8.0 or more"
    assert log() == [f"deform_conv2d in plain JAX instead of Triton: {reason}"]


@pytest.mark.parametrize("pixels", [1, 8192, 8193, 10**7])
@pytest.mark.parametrize("product", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("kernel", ["forward", "inputs", "weight"])
def test_every_shape_and_type_has_blocks(kernel, product, pixels):
    blocks = geometry.blocks_for(kernel, product, pixels)
    assert blocks.pixels >= geometry.SMALLEST_DOT
    assert all(n & (n - 1) == 0 for n in (blocks.pixels, blocks.warps))


@pytest.mark.slow
def test_a_batch_cut_over_eight_devices():
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    output = subprocess.run(
        [sys.executable, "-m", "tests.sharded_op"],
        cwd=pathlib.Path(__file__).parents[1],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    results = json.loads(output)
    assert results.keys() == {"jit", "per_device"}
    for result in results.values():
        assert result["devices"] == 8
        assert result["error"] <= 2e-6  # of the largest number; measured 5e-7
    assert results["per_device"]["collectives"] == []
