"""The demo as a newcomer runs it, only smaller."""

import cv2
import numpy as np

from input_pipeline import synthetic
from input_pipeline.degradation import degrade
from msitf_jax.evaluation import demo, methods


def test_demo_scores_and_draws(tmp_path):
    out = tmp_path / "demo.png"
    scores = demo.run(out, height=32, width=48)
    assert list(scores) == ["trilinear", "untrained network"]
    assert all(score["frames"] == 7 for score in scores.values())
    picture = cv2.imread(str(out))[..., ::-1]
    assert picture.shape == (2 * (32 + 28), 4 * 48, 3)
    truth = synthetic.clip(0, height=32, width=48)
    np.testing.assert_array_equal(picture[28:60, -48:], truth[2])
    np.testing.assert_array_equal(picture[88:, -48:], truth[3])
    base = methods.method("trilinear")(np.stack([degrade(truth[i], "bd_matlab") for i in (0, 2, 4, 6)]))
    np.testing.assert_array_equal(picture[28:60, 48:96], base[2])
    np.testing.assert_array_equal(picture[88:, 48:96], base[3])


def test_a_picture_that_cannot_be_written_is_said_before_the_work(tmp_path, capsys):
    assert demo.main([f"--out={tmp_path}/absent/demo.png"]) == 2
    assert "absent/demo.png" in capsys.readouterr().err
