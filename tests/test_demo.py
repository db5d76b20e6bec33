"""The demo as a newcomer runs it, only smaller."""

import cv2
import numpy as np
import pytest
from flax import nnx

from input_pipeline import synthetic
from input_pipeline.degradation import degrade
from msitf_jax import MSITF, MSITFConfig, methods, weights
from msitf_jax.evaluation import demo


@pytest.fixture(scope="module")
def weight_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "model.safetensors"
    tiny = MSITFConfig(channels=8, residual_blocks=1, trunk_groups=1, offset_groups=2)
    weights.save(MSITF(tiny, rngs=nnx.Rngs(0)), path, degradation="bi")
    return path


def test_demo_scores_and_draws(weight_file, tmp_path):
    out = tmp_path / "demo.png"
    scores = demo.run(weight_file, out, seed=4, height=32, width=48)
    assert list(scores) == ["trilinear", "bicubic", "network"]
    assert all(score["frames"] == 7 for score in scores.values())
    picture = cv2.imread(str(out))[..., ::-1]
    assert picture.shape == (2 * (32 + 28), 5 * 48, 3)
    truth = synthetic.clip(4, height=32, width=48)
    np.testing.assert_array_equal(picture[28:60, -48:], truth[2])
    np.testing.assert_array_equal(picture[88:, -48:], truth[3])
    given = np.stack([degrade(truth[i], "bi") for i in (0, 2, 4, 6)])  # what the weights were made for
    for column, name in ((1, "trilinear"), (3, weight_file)):
        output = methods.method(name)(given)
        np.testing.assert_array_equal(picture[28:60, 48 * column : 48 * (column + 1)], output[2])
        np.testing.assert_array_equal(picture[88:, 48 * column : 48 * (column + 1)], output[3])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["--out=absent/demo.png"], "absent/demo.png"), (["--weights=absent.pth"], "absent.pth")],
)
def test_bad_arguments_are_said_in_a_sentence(weight_file, tmp_path, monkeypatch, capsys, arguments, named):
    monkeypatch.chdir(tmp_path)
    assert demo.main([f"--weights={weight_file}", *arguments]) == 2
    assert named in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
