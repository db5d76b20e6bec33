"""The search for block sizes, which itself needs a GPU: that it measures right kernels, and the table it makes."""

import json
import pathlib

import jax
import jax.numpy as jnp
import pytest

from benchmarks import timing, tune
from msitf_jax.ops.deform_conv import pallas_triton
from msitf_jax.ops.deform_conv.geometry import Blocks

FEW, MANY = Blocks(16, 32, 4, 1), Blocks(32, 64, 8, 2)


def test_rows_end_half_way_to_the_next_size_and_are_merged():
    assert tune.rows({100: FEW, 10_000: MANY, 400: FEW}) == [
        {"up_to_pixels": 2000, "blocks": [16, 32, 4, 1]},
        {"up_to_pixels": None, "blocks": [32, 64, 8, 2]},
    ]
    assert tune.rows({100: FEW}) == [{"up_to_pixels": None, "blocks": [16, 32, 4, 1]}]


@pytest.mark.slow
@pytest.mark.skipif(pallas_triton.triton is None, reason="this JAX has no Triton backend")
def test_every_kernel_is_compared_with_the_plain_path_and_timed(capsys):
    found = list(tune.tune(((1, 3, 5, 64),), (FEW, MANY), products=("float32",), runs=1, interpret=True))
    assert [(name, product) for name, product, _ in found] == [(n, "float32") for n in ("forward", "inputs", "weight")]
    for _, _, (row,) in found:
        assert row["up_to_pixels"] is None
        assert row["blocks"] in ([16, 32, 4, 1], [32, 64, 8, 2])
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.count("[1, 3, 5, 64]") == 3


def test_wrong_and_broken_candidates_are_left_out_and_named(monkeypatch, capsys):
    def kernel(x):
        blocks = pallas_triton.blocks_for()
        second = {1: x, 2: x * blocks.pixels / 16, 3: x * jnp.nan}[blocks.stages]
        return x, second

    def seconds(function, x, runs, calls):
        return 1.0

    class TooLarge:
        def compile(self):
            raise jax.errors.JaxRuntimeError("too much shared memory")

    lower = tune._lower
    monkeypatch.setattr(
        tune, "_lower", lambda kernel, blocks, rest: TooLarge() if blocks.stages == 4 else lower(kernel, blocks, rest)
    )
    candidates = (Blocks(16, 64, 8, 3), Blocks(32, 64, 4, 2), Blocks(32, 64, 8, 4), Blocks(16, 64, 4, 1))
    monkeypatch.setattr(timing, "seconds", seconds)

    def fastest(candidates):
        return tune.fastest("forward", "float32", kernel, lambda x: (x, x), (jnp.ones(3),), candidates, runs=1)

    assert fastest(candidates) == (1.0, Blocks(16, 64, 4, 1))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "off by nan" in lines[0]
    assert "off by 1.0e+00" in lines[1]
    assert "too much shared memory" in lines[2]
    assert fastest(candidates[:3]) is None


def test_what_is_measured_replaces_its_rows_and_no_others(tmp_path, monkeypatch):
    path = tmp_path / "blocks.json"
    path.write_bytes(pathlib.Path(pallas_triton.__file__).with_name("blocks.json").read_bytes())
    before = json.loads(path.read_text())
    monkeypatch.setattr("sys.argv", ["tune", "--write"])
    monkeypatch.setattr(pallas_triton, "runs_here", lambda: True)
    monkeypatch.setattr(pallas_triton, "__file__", str(tmp_path / "pallas_triton.py"))
    measured = [{"up_to_pixels": None, "blocks": [32, 64, 8, 1]}]
    monkeypatch.setattr(tune, "tune", lambda: iter([("forward", "tf32", measured)]))
    tune.main()
    after = json.loads(path.read_text())
    assert after["kernels"]["forward"].pop("tf32") == measured
    before["kernels"]["forward"].pop("tf32")
    assert after == before

    everything = [(kernel, product, measured) for kernel, products in before["kernels"].items() for product in products]
    monkeypatch.setattr(tune, "tune", lambda: iter([*everything, ("forward", "tf32", measured)]))
    tune.main()
    assert json.loads(path.read_text())["measured_on"]["jax"] == jax.__version__


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr("sys.argv", ["tune"])
    monkeypatch.setattr(pallas_triton, "runs_here", lambda: False)
    with pytest.raises(SystemExit, match=f"needs an NVIDIA GPU .*; JAX found {jax.devices()[0].device_kind}"):
        tune.main()


def test_product_types_are_what_the_kernels_take_them_for():
    with timing.product_type("bfloat16") as dtype:
        assert dtype == jnp.bfloat16
    with timing.product_type("float32") as dtype:
        assert pallas_triton.product_type(dtype) == "float32"
    with timing.product_type("tf32") as dtype:
        assert pallas_triton.product_type(dtype) == "tf32"
