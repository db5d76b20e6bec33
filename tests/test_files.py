"""Weight files: what is written is read back, equal content is equal bytes, and bad files are named."""

import json
import os
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import nnx

from msitf_jax import MSITF, MSITFConfig, weights
from msitf_jax.weights.__main__ import main

TINY = MSITFConfig(channels=8, residual_blocks=1, trunk_groups=1, offset_groups=2, temporal_heads=2)


@pytest.fixture(scope="module")
def model():
    return MSITF(TINY, rngs=nnx.Rngs(0))


def assert_equal(a, b):
    assert a.config == b.config
    for x, y in zip(*(jax.tree.leaves(nnx.state(m)) for m in (a, b)), strict=True):
        np.testing.assert_array_equal(x, y)


def test_saved_is_loaded_bit_for_bit(model, tmp_path):
    weights.save(model, tmp_path / "a.safetensors", degradation="bi", licence="CC0-1.0", training_step="7")
    assert_equal(weights.load(tmp_path / "a.safetensors"), model)
    metadata = weights.read_metadata(tmp_path / "a.safetensors")
    assert json.loads(metadata.pop("config"))["temporal_heads"] == 2
    assert metadata == {"degradation": "bi", "licence": "CC0-1.0", "training_step": "7"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_equal_weights_are_equal_bytes_in_every_process(model, tmp_path):
    weights.save(model, tmp_path / "a.safetensors", degradation="bi", licence="x", training_step="1")
    script = (
        "import sys; from msitf_jax import weights; m = weights.load(sys.argv[1]);"
        "weights.save(m, sys.argv[2], training_step='1', licence='x', degradation='bi')"
    )
    arguments = [str(tmp_path / name) for name in ("a.safetensors", "b.safetensors")]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_failed_write_leaves_what_was_there(model, tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"before")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        weights.save(model, path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    assert path.read_bytes() == b"before"


def test_command_line_converts_both_ways(model, tmp_path):
    torch = pytest.importorskip("torch")
    names = [str(tmp_path / name) for name in ("a.safetensors", "b.pth", "c.safetensors")]
    weights.save(model, names[0], degradation="bi")
    assert main(names[:2]) == 0
    state = torch.load(names[1], weights_only=True)
    assert state["conv_first.weight"].shape == (8, 3, 3, 3)
    assert any(name.endswith("attn_mask") for name in state)
    assert main(names[1:]) == 0
    for a, b in zip(*(jax.tree.leaves(nnx.state(weights.load(names[i]))) for i in (0, 2)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_conversion_keeps_metadata(model, tmp_path):
    weights.save(model, tmp_path / "a.safetensors", degradation="bd_duf")
    weights.convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def bad_files(tmp_path, model):
    torch = pytest.importorskip("torch")
    good = tmp_path / "good.safetensors"
    weights.save(model, good)
    torch.save({"a": torch.zeros(100)}, tmp_path / "whole.pth")
    contents = {
        "text.safetensors": b"hello",
        "empty.safetensors": b"",
        "truncated.safetensors": good.read_bytes()[:-9],
        "text.pth": b"hello",
        "empty.pth": b"",
        "truncated.pth": (tmp_path / "whole.pth").read_bytes()[:-40],
        "evil.pth": pickle.dumps(Evil(str(tmp_path / "executed"))),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    torch.save({"weight": torch.zeros(2), "step": Evil(str(tmp_path / "executed"))}, tmp_path / "evil_zip.pth")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    return [*contents, "evil_zip.pth", "list.pth", "absent.pth", "weights.bin"]


def test_bad_files_are_one_sentence_and_nothing_runs(model, tmp_path, capsys):
    for name in bad_files(tmp_path, model):
        with pytest.raises(ValueError, match=f"^weights .*{name}: "):
            weights.load(tmp_path / name)
        assert main([str(tmp_path / name), str(tmp_path / "out.safetensors")]) == 2
        message = capsys.readouterr().err
        assert name in message
        assert message.count("\n") == 1, message
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "out.safetensors").exists()


def test_metadata_that_are_no_configuration_are_named(model, tmp_path):
    import safetensors.numpy

    safetensors.numpy.save_file({"a": np.zeros(1)}, tmp_path / "a.safetensors", {"config": '{"colour": "blue"}'})
    with pytest.raises(ValueError, match=r"a\.safetensors: its metadata hold no configuration"):
        weights.load(tmp_path / "a.safetensors")


def test_bad_arguments_of_save_are_named(model, tmp_path):
    with pytest.raises(ValueError, match=r"a\.bin: expected a name that ends in \.safetensors"):
        weights.save(model, tmp_path / "a.bin")
    with pytest.raises(ValueError, match=r"metadata `training_step` \(=3\) must be a string"):
        weights.save(model, tmp_path / "a.safetensors", training_step=3)


def test_only_pth_files_need_pytorch():
    script = "import sys; sys.modules['torch'] = None; import msitf_jax.weights, msitf_jax.evaluation.methods"
    subprocess.run([sys.executable, "-c", script], check=True)
