"""Weight files: what is written is read back, equal content is equal bytes, and bad files are named."""

import dataclasses
import json
import os
import pathlib
import pickle
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from msitf_jax import MSITFConfig, cli, methods, weights
from msitf_jax.weights import margin
from msitf_jax.weights.__main__ import main
from tests.tiny_network import TINY_FLOW, tiny_network

TINY = MSITFConfig(channels=8, residual_blocks=1, trunk_groups=1, offset_groups=2, stochastic_depth=0.2)


@pytest.fixture(scope="module")
def model():
    return tiny_network(TINY)


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    """The models whose tile margin was measured; tests/test_margin.py sees to what is."""
    models = []
    monkeypatch.setattr(margin, "measure", lambda model: models.append(model) or 40)
    return models


def assert_equal(a, b):
    assert a.config == b.config
    for x, y in zip(*(jax.tree.leaves(nnx.state(m)) for m in (a, b)), strict=True):
        np.testing.assert_array_equal(x, y)


def test_saved_is_loaded_bit_for_bit(model, tmp_path):
    weights.save(model, tmp_path / "a.safetensors", degradation="bi", licence="CC0-1.0", training_step="7")
    assert_equal(weights.load(tmp_path / "a.safetensors"), model)
    metadata = weights.read_metadata(tmp_path / "a.safetensors")
    assert json.loads(metadata.pop("config"))["stochastic_depth"] == 0.2
    assert len(metadata.pop("sha256")) == 64
    assert metadata == {"degradation": "bi", "licence": "CC0-1.0", "training_step": "7"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_network_along_optical_flow_is_saved_but_not_as_pth(tmp_path, capsys):
    model = tiny_network(TINY_FLOW)
    weights.save(model, tmp_path / "a.safetensors")
    assert_equal(weights.load(tmp_path / "a.safetensors"), model)
    assert cli.main(["convert", str(tmp_path / "a.safetensors"), str(tmp_path / "b.pth")]) == 2
    assert "a .pth file can't hold MSITFConfig(" in capsys.readouterr().err
    assert not (tmp_path / "b.pth").exists()


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
    # A .pth file has no place for the stochastic depth, which only training uses.
    assert weights.load(names[2]).config == dataclasses.replace(TINY, stochastic_depth=0.1)
    for a, b in zip(*(jax.tree.leaves(nnx.state(weights.load(names[i]))) for i in (0, 2)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("change", [{"temporal_heads": 2}, {"base": "bicubic"}, {"interpolation": "mean"}])
def test_a_pth_file_that_would_be_another_network_is_refused(change, tmp_path, capsys):
    pytest.importorskip("torch")
    source, target = tmp_path / "a.safetensors", tmp_path / "b.pth"
    weights.save(tiny_network(dataclasses.replace(TINY, **change)), source)
    assert main([str(source), str(target)]) == 2
    assert "a .pth file can't hold" in capsys.readouterr().err
    assert not target.exists()


def test_conversion_keeps_metadata(model, tmp_path, measured):
    weights.save(model, tmp_path / "a.safetensors", degradation="bd_duf", tile_margin="16")
    weights.convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert measured == []


def test_conversion_measures_the_tile_margin_that_a_file_does_not_say(model, tmp_path, measured):
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    weights.save(model, source)
    for options, expected in ({}, 40), ({"half": True}, 40), ({"notes": {"tile_margin": "8"}}, 8):
        weights.convert(source, target, **options)
        assert weights.tile_margin(target) == expected
    for found in measured:
        assert_equal(found, model)
    assert len(measured) == 2


def test_tiles_overlap_as_the_file_says_or_by_the_default(model, tmp_path, capsys):
    path = tmp_path / "a.safetensors"
    with_flow = tiny_network(TINY_FLOW)
    for network, metadata, expected, told in (
        (model, {}, 64, "64, since the file does not say"),
        (with_flow, {}, 120, "120, since the file does not say"),
        (model, {"tile_margin": "16"}, 16, "16"),
    ):
        weights.save(network, path, **metadata)
        assert weights.tile_margin(path) == expected
        assert methods.method(path).margin == expected
        assert cli.main(["info", str(path)]) == 0
        facts = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
        assert facts["tile_margin"] == told
        assert methods.network(network).margin == (120 if network is with_flow else 64)


@pytest.mark.parametrize("value", ["wide", "-8", "100000"])
def test_a_tile_margin_that_is_none_is_refused(value, model, tmp_path, capsys):
    path, output = tmp_path / "bad.safetensors", str(tmp_path / "out.safetensors")
    weights.save(model, path)
    tensors = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file(tensors, path, weights.read_metadata(path) | {"tile_margin": value})
    message = f"weights {path}: `tile_margin` (='{value}') must be an integer from 0 to 512, in input pixels"
    for use in (weights.load, weights.read_metadata, weights.tile_margin, methods.method):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            use(path)
    for command in (["info", str(path)], ["convert", str(path), output]):
        assert cli.main(command) == 2
        assert capsys.readouterr().err == f"msitf {command[0]}: {message}\n"
    with pytest.raises(ValueError, match=re.escape(message.replace(str(path), output))):
        weights.save(model, output, tile_margin=value)
    assert not pathlib.Path(output).exists()


@pytest.mark.parametrize(
    ("name", "notes", "message"),
    [("b.bin", {}, r"expected a name that ends in \.safetensors"), ("b.safetensors", {"sha256": "1"}, "own digest")],
)
def test_what_can_not_be_written_is_refused_before_anything_is_measured(
    name, notes, message, model, tmp_path, measured
):
    with pytest.raises(ValueError, match=message):
        weights.write(model, {}, tmp_path / name, notes=notes)
    assert measured == []


def test_half_precision_and_notes(model, tmp_path):
    whole, half = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    weights.save(model, whole, degradation="bi", training_step="7")
    assert main([str(whole), str(half), "--half", "--note=licence=CC0-1.0", "--note=training_step=a=b"]) == 0
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    for a, b in zip(*(jax.tree.leaves(nnx.state(weights.load(path))) for path in (whole, half)), strict=True):
        assert b.dtype == np.float32
        np.testing.assert_array_equal(b, np.asarray(a, np.float16).astype(np.float32))
    metadata = weights.read_metadata(half)
    assert json.loads(metadata.pop("config")) == dataclasses.asdict(TINY)
    assert len(metadata.pop("sha256")) == 64
    assert metadata == {"degradation": "bi", "licence": "CC0-1.0", "tile_margin": "40", "training_step": "a=b"}


def test_what_half_precision_cannot_hold_is_refused(tmp_path):
    model = tiny_network(TINY)
    model.conv_first.bias[...] = model.conv_first.bias[...].at[3].set(70_000.0)
    with pytest.raises(ValueError, match=r"conv_first\.bias holds 7e\+04, expected at most 65504"):
        weights.save(model, tmp_path / "a.safetensors", half=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--half", "--note=licence=CC0-1.0"])
def test_a_pth_file_takes_neither_half_precision_nor_notes(option, model, tmp_path, capsys):
    weights.save(model, tmp_path / "a.safetensors")
    assert main([str(tmp_path / "a.safetensors"), str(tmp_path / "b.pth"), option]) == 2
    assert "b.pth: half precision and notes are for .safetensors files" in capsys.readouterr().err


def test_a_note_needs_a_name(capsys):
    with pytest.raises(SystemExit):
        main(["a.safetensors", "b.safetensors", "--note=licence"])
    assert "argument --note: 'licence': expected NAME=TEXT" in capsys.readouterr().err


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def bad_safetensors(tmp_path, model):
    good = tmp_path / "good.safetensors"
    weights.save(model, good)
    tensors = {"conv_first.bias": np.zeros(8, np.float32), "b": np.zeros(8)}
    safetensors.numpy.save_file(tensors, tmp_path / "nested.safetensors", {"config": "[" * 100_000})
    safetensors.numpy.save_file(tensors, tmp_path / "huge.safetensors", {"config": '{"trunk_groups": 100000000}'})
    contents = {"text": b"hello", "empty": b"", "truncated": good.read_bytes()[:-9]}
    for name, content in contents.items():
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    names = [*contents, "nested", "huge", "absent"]
    return [f"{name}.safetensors" for name in names] + ["weights.bin"]


def bad_pth_files(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.zeros(100)}, tmp_path / "whole.pth")
    contents = {
        "text.pth": b"hello",
        "empty.pth": b"",
        "truncated.pth": (tmp_path / "whole.pth").read_bytes()[:-40],
        "evil.pth": pickle.dumps(Evil(str(tmp_path / "executed"))),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    torch.save({"weight": torch.zeros(2), "step": Evil(str(tmp_path / "executed"))}, tmp_path / "evil_zip.pth")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    torch.save({"state_dict": {"a": torch.zeros(2)}, "epoch": 3}, tmp_path / "nested.pth")
    torch.save({"a": torch.zeros(4).to_sparse()}, tmp_path / "sparse.pth")
    torch.save({"a": torch.zeros(1, dtype=torch.bfloat16).expand(1 << 40)}, tmp_path / "expanded.pth")
    return [*contents, *(f"{n}.pth" for n in ("evil_zip", "list", "nested", "sparse", "expanded", "absent"))]


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_bad_files_are_one_sentence_and_nothing_runs(kind, model, tmp_path, capsys):
    for name in bad_safetensors(tmp_path, model) if kind == "safetensors" else bad_pth_files(tmp_path):
        with pytest.raises(ValueError, match=f"^weights .*{name}: "):
            weights.load(tmp_path / name)
        assert main([str(tmp_path / name), str(tmp_path / "out.safetensors")]) == 2
        message = capsys.readouterr().err
        assert name in message
        assert message.count("\n") == 1, message
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "out.safetensors").exists()


def test_a_number_of_blocks_that_no_network_has_is_not_laid_out(model, tmp_path):
    tensors = {"conv_first.bias": np.zeros(8, np.float32), "feature_extraction.99999999.conv1.bias": np.zeros(8)}
    safetensors.numpy.save_file(tensors, tmp_path / "deep.safetensors")
    with pytest.raises(ValueError, match=r"unexpected: feature_extraction\.99999999\.conv1\.bias"):
        weights.load(tmp_path / "deep.safetensors")
    with pytest.raises(ValueError, match=r"`trunk_groups` \(=99999999\) \* `trunk_blocks` \(=2\) must be at most 1000"):
        MSITFConfig(trunk_groups=99999999)


def test_metadata_that_are_no_configuration_are_named(model, tmp_path):
    safetensors.numpy.save_file({"a": np.zeros(1)}, tmp_path / "a.safetensors", {"config": '{"colour": "blue"}'})
    with pytest.raises(ValueError, match=r"a\.safetensors: its metadata hold no configuration"):
        weights.load(tmp_path / "a.safetensors")


def test_bad_arguments_of_save_are_named(model, tmp_path):
    with pytest.raises(ValueError, match=r"a\.bin: expected a name that ends in \.safetensors"):
        weights.save(model, tmp_path / "a.bin")
    with pytest.raises(ValueError, match="metadata `config` is the model's own"):
        weights.save(model, tmp_path / "a.safetensors", config="mine")
    with pytest.raises(FileNotFoundError, match=r"absent/a\.safetensors'$"):
        weights.save(model, tmp_path / "absent" / "a.safetensors")
    with pytest.raises(ValueError, match=r"metadata `training_step` \(=3\) must be a string"):
        weights.save(model, tmp_path / "a.safetensors", training_step=3)


def test_only_pth_files_need_pytorch(model, tmp_path):
    script = (
        "import sys; sys.modules['torch'] = None; from msitf_jax import weights;"
        "weights.save(weights.load(sys.argv[1]), sys.argv[2])"
    )
    weights.save(model, tmp_path / "a.safetensors")
    names = [str(tmp_path / name) for name in ("a.safetensors", "b.safetensors")]
    subprocess.run([sys.executable, "-c", script, *names], check=True)
    (tmp_path / "c.pth").write_bytes(b"")
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "c.pth"), "x"], capture_output=True, text=True
    )
    assert "needs PyTorch, which `pip install 'msitf-jax[convert]'` brings" in result.stderr
