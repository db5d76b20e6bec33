"""The demo as a newcomer runs it, only smaller."""

import av
import cv2
import numpy as np
import pytest

from input_pipeline import synthetic
from input_pipeline.degradation import degrade
from msitf_jax import cli, methods, weights
from msitf_jax.cli import demo
from msitf_jax.evaluation.benchmark import score_outputs
from tests.tiny_network import tiny_network


@pytest.fixture(scope="module")
def weight_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "model.safetensors"
    weights.save(tiny_network(), path, degradation="bi")
    return path


def test_a_clip_is_upscaled_scored_and_compared(weight_file, tmp_path):
    scores = demo.show(tmp_path / "demo", weight_file, frames=7, height=32, width=48)
    truth = synthetic.clip(demo.SEED, frames=7, height=32, width=48)
    given = np.stack([degrade(frame, "bi") for frame in truth[::2]])
    written = [cv2.imread(str(path))[..., ::-1] for path in sorted((tmp_path / "demo" / "test_patterns").iterdir())]
    np.testing.assert_array_equal(written, given)
    for name, found in scores.items():
        wanted = score_outputs(methods.method(name)(given), truth)
        assert found == pytest.approx(wanted, rel=1e-9)
    assert list(scores) == ["trilinear", "bicubic", "flow", weight_file]
    with av.open(tmp_path / "demo" / "upscaled.mp4") as video:
        assert [(frame.width, frame.height) for frame in video.decode(video=0)] == [(48, 32)] * 7
    assert "data:image" in (tmp_path / "demo" / "compare.html").read_text()


def test_where_to_look_is_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "keep_compiled", lambda: None)
    monkeypatch.setattr(demo, "show", lambda folder, weights: {weights: score_outputs(*2 * [np.zeros((3, 12, 12, 3))])})
    assert cli.main(["demo", str(tmp_path / "a b")]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "a b" / "compare.html").as_uri() in printed
    assert "msitf-small" in printed


def test_bad_arguments_are_said_in_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "keep_compiled", lambda: None)
    assert cli.main(["demo", str(tmp_path / "demo"), "--weights=absent.pth"]) == 2
    assert "absent.pth" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
