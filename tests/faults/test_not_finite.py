"""NaN and infinity in pixels and weights: said, not spread."""

import jax
import numpy as np
import pytest
from flax import nnx

from msitf_jax import cli, upscale, weights
from msitf_jax.weights import files
from tests.tiny_network import tiny_network


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_pixels(number):
    frames = np.zeros((3, 5, 7, 3), np.float32)
    frames[1, 2, 3, 0] = number
    with pytest.raises(ValueError, match=r"`frames\[1\]` holds NaN or infinite numbers, expected 0\.\.1"):
        upscale(frames, weights="bicubic")


@pytest.mark.parametrize(("number", "ending"), [(np.nan, ".safetensors"), (np.inf, ".pth")])
def test_weights(number, ending, tmp_path, capsys):
    model, path = tiny_network(), tmp_path / f"weights{ending}"
    state = nnx.state(model, nnx.Param)
    first, *_ = jax.tree.leaves(state)
    nnx.update(
        model, jax.tree.map(lambda leaf: leaf.at[(0,) * leaf.ndim].set(number) if leaf is first else leaf, state)
    )
    if ending == ".pth":
        pytest.importorskip("torch")
        files.save_torch(model, path)
    else:
        weights.save(model, path)
    assert cli.main(["info", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"msitf info: weights {path}: these tensors do not fit the network:\n  not finite: ")
    assert said.count("\n") == 2
