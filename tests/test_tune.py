"""The search for block sizes, which itself needs a GPU: that it measures right kernels, and the table it makes."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import timing, tune
from msitf_jax.ops.deform_conv import pallas_triton
from msitf_jax.ops.deform_conv.pallas_triton import Blocks

FEW, MANY = Blocks(16, 4, 1), Blocks(32, 8, 2)


def test_rows_end_half_way_to_the_next_size_and_are_merged():
    assert tune.rows({100: FEW, 10_000: MANY, 400: FEW}) == [
        {"up_to_pixels": 2000, "blocks": [16, 4, 1]},
        {"up_to_pixels": None, "blocks": [32, 8, 2]},
    ]
    assert tune.rows({100: FEW}) == [{"up_to_pixels": None, "blocks": [16, 4, 1]}]


@pytest.mark.skipif(pallas_triton.triton is None, reason="this JAX has no Triton backend")
def test_every_kernel_is_compared_with_the_plain_path_and_timed(capsys):
    found = tune.tune(((1, 3, 5, 64),), (FEW, MANY), products=("float32",), runs=1, interpret=True)
    assert found.keys() == {"forward", "points", "weight"}
    for products in found.values():
        (row,) = products["float32"]
        assert row["up_to_pixels"] is None
        assert row["blocks"] in ([16, 4, 1], [32, 8, 2])
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.count("[1, 3, 5, 64]") == 3


def test_wrong_and_broken_candidates_are_left_out_and_named(monkeypatch, capsys):
    def kernel():
        blocks = pallas_triton.blocks_for()
        if blocks.stages == 3:
            raise NotImplementedError("too much shared memory")
        return jnp.ones(3) * blocks.warps / 4

    candidates = (Blocks(16, 4, 3), Blocks(16, 8, 1), Blocks(16, 4, 1))
    monkeypatch.setattr(timing, "seconds", lambda function, runs: 1.0)
    best, seconds = tune.fastest("forward", "float32", kernel, lambda: jnp.ones(3), candidates, runs=1)
    assert (best, seconds) == (Blocks(16, 4, 1), 1.0)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "too much shared memory" in lines[0]
    assert "off by 1.0e+00" in lines[1]


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr("sys.argv", ["tune"])
    with pytest.raises(SystemExit, match=f"needs an NVIDIA GPU .*; JAX found {jax.devices()[0].device_kind}"):
        tune.main()


def test_product_types_are_what_the_kernels_take_them_for():
    with timing.product_type("bfloat16") as dtype:
        assert dtype == jnp.bfloat16
    with timing.product_type("float32") as dtype:
        assert pallas_triton.product_type(dtype) == "float32"
    with timing.product_type("tf32") as dtype:
        assert pallas_triton.product_type(dtype) == "tf32"
