"""Exported programs do what the network does, at any size, without this package. Tolerances: twice as measured."""

import dataclasses
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msitf_jax import cli, export, methods, weights
from msitf_jax.ops.deform_conv import pallas_triton
from tests.conftest import channels_last, golden
from tests.tiny_network import TINY, TINY_FLOW, quick_compilation, tiny_network

SIZE = (2, 3, 9, 7)
OUTPUT = "float32[batch,2*frames - 1,4*height,4*width,3]"
# As a program would that has JAX alone. Whatever of ours is imported raises ImportError.
LOAD = """
import sys
for package in ("msitf_jax", "input_pipeline", "flax"):
    sys.modules[package] = None
import jax, numpy as np
with open("network.jaxexport", "rb") as file:
    upscale = jax.jit(jax.export.deserialize(bytearray(file.read())).call)
np.save("frames.npy", upscale(np.load("clip.npy")))
"""


@pytest.fixture(scope="module")
def tiny():
    return methods.network(tiny_network())


@pytest.fixture(scope="module")
def program(tiny):
    return export.exported(tiny, "cpu")


@pytest.fixture(scope="module")
def flow_program():
    method = methods.network(tiny_network(TINY_FLOW))
    return method, export.exported(method, "cpu")


@pytest.fixture(scope="module")
def published_program(golden_model):
    return export.exported(methods.network(golden_model), "cpu")


def clip(*size):
    return np.random.default_rng(0).random((*size, 3), np.float32)


def test_another_process_runs_it_without_this_package(tmp_path, tiny):
    weights.save(tiny_network(), tmp_path / "tiny.safetensors")
    assert cli.main(["export", str(tmp_path / "tiny.safetensors"), str(tmp_path / "network.jaxexport")]) == 0
    given = clip(*SIZE)
    np.save(tmp_path / "clip.npy", given)
    quickly = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    subprocess.run([sys.executable, "-c", LOAD], cwd=tmp_path, env=quickly, check=True)
    with quick_compilation():
        expected = jax.jit(tiny.forward)(tiny.state, given)
    np.testing.assert_allclose(np.load(tmp_path / "frames.npy"), expected, rtol=0, atol=4e-7)


@pytest.mark.parametrize("baseline", methods.BASELINES)
def test_plain_resizes_can_be_exported_too(baseline):
    method, given = methods.method(baseline), clip(1, 3, 4, 5)
    out = jax.jit(export.exported(method, "cpu").call)(given)
    np.testing.assert_allclose(out, method.forward(method.state, given), rtol=0, atol=2.5e-7)


@pytest.mark.parametrize("size", [(1, 2, 2, 3), (2, 3, 9, 13)])
def test_a_network_along_optical_flow_can_be_exported_too(flow_program, size):
    method, program = flow_program
    given = clip(*size)
    with quick_compilation():
        expected = jax.jit(method.forward)(method.state, given)
        np.testing.assert_allclose(jax.jit(program.call)(given), expected, rtol=0, atol=2e-6)


def test_a_program_draws_frames_at_any_time():
    method, given = methods.network(tiny_network(TINY_FLOW)), clip(2, 2, 9, 7)
    program = export.exported(method, "cpu", time=True)
    assert [str(aval) for aval in program.in_avals] == ["float32[batch,frames,height,width,3]", "float32[]"]
    with quick_compilation():
        upscale, expected = jax.jit(program.call), jax.jit(method.forward)
        drawn = [upscale(given, time) for time in (1 / 3, 0.8)]
        for time, out in zip((1 / 3, 0.8), drawn, strict=True):
            np.testing.assert_allclose(out, expected(method.state, given, time), rtol=0, atol=2e-6)
    assert np.abs(drawn[0] - drawn[1])[:, 1].max() > 0.05


def test_a_time_is_refused_where_frames_are_drawn_halfway_only(tmp_path, capsys):
    weights.save(tiny_network(), tmp_path / "tiny.safetensors")
    for name in (str(tmp_path / "tiny.safetensors"), "bicubic"):
        assert cli.main(["export", name, str(tmp_path / "x.jaxexport"), "--time"]) == 2
        assert capsys.readouterr().err == (
            f"msitf export: `time` (=True) is for networks along the flow, and {name} draws frames halfway only\n"
        )
        assert not (tmp_path / "x.jaxexport").exists()


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_any_machine_exports_for_any_platform(tiny, program, platform):
    found = program if platform == "cpu" else export.exported(tiny, platform)
    assert found.platforms == (platform,)
    assert str(found.in_avals[0]) == "float32[batch,frames,height,width,3]"
    assert str(found.out_avals[0]) == OUTPUT
    # Rows of pixels one after another, for a CPU's cache, would keep a large device waiting.
    loops = found.mlir_module().count("stablehlo.while")
    cpu_loops = program.mlir_module().count("stablehlo.while")
    assert platform == "cpu" or loops < cpu_loops
    # Nothing but what checks the sizes of a call.
    assert set(re.findall(r"custom_call @([\w.]+)", found.mlir_module())) == {"shape_assertion"}


@pytest.mark.parametrize("changes", [{"interpolation": "both", "base": "bicubic"}, {"interpolation": "mean"}])
def test_every_kind_of_network_can_be_exported(changes):
    found = export.exported(methods.network(tiny_network(dataclasses.replace(TINY, **changes))), "cuda")
    assert str(found.out_avals[0]) == OUTPUT


@pytest.mark.slow
def test_bfloat16_is_exported_as_it_is_computed():
    method, given = methods.network(tiny_network(), "bfloat16"), clip(1, 2, 8, 8)
    out = jax.jit(export.exported(method, "cpu").call)(given)
    np.testing.assert_allclose(out, jax.jit(method.forward)(method.state, given), rtol=0, atol=5e-4)


def test_a_program_refuses_what_the_network_would(program):
    with pytest.raises(ValueError, match="frames >= 2"):
        program.call(clip(1, 1, 8, 8))
    with pytest.raises(ValueError, match="batch"):
        program.call(clip(8, 8))
    with pytest.raises(ValueError, match="cuda"):
        export.exported(methods.method("bicubic"), "cuda").call(clip(1, 2, 8, 8))


def test_faults_are_told_in_one_sentence_and_nothing_is_left(tmp_path, capsys):
    there = tmp_path / "there.safetensors"
    assert cli.main(["export", str(tmp_path / "no.safetensors"), str(there)]) == 2
    assert capsys.readouterr().err.startswith("msitf export: weights ")
    assert not list(tmp_path.iterdir())
    weights.save(tiny_network(), there)
    before = there.read_bytes()
    assert cli.main(["export", str(there), str(there)]) == 2
    assert "these are the weights, expected another name" in capsys.readouterr().err
    assert cli.main(["export", "bicubic", str(tmp_path / "no" / "x.jaxexport")]) == 2
    assert str(tmp_path / "no" / "x.jaxexport") in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"`platform` \(='metal'\) must be one of cpu, cuda, rocm, tpu"):
        export.export("bicubic", there, platform="metal")
    assert there.read_bytes() == before
    assert list(tmp_path.iterdir()) == [there]


def test_kernels_are_ruled_out_where_sizes_are_not_known():
    x = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("b, h, w"), 8), jnp.float32)
    offset, weight = jax.ShapeDtypeStruct((*x.shape[:3], 2, 9, 2), jnp.float32), jnp.zeros((3, 3, 8, 8))
    assert pallas_triton.unsupported(x, offset, weight) == "`x` has sizes that are not known yet"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ragged_13x18_n2", "batch2_16x16_n3"])
def test_the_published_network_exported_gives_the_published_numbers(published_program, name):
    arrays = golden(f"forward_{name}")
    out = jax.jit(published_program.call)(channels_last(arrays["x"]))
    np.testing.assert_allclose(out, channels_last(arrays["y"]), rtol=0, atol=2.6e-5)
