"""The demo as a newcomer runs it, only smaller."""

import cv2

from msitf_jax.evaluation import demo


def test_demo_scores_and_draws(tmp_path):
    out = tmp_path / "demo.png"
    scores = demo.run(out, height=32, width=48)
    assert list(scores) == ["trilinear", "untrained network"]
    assert all(score["frames"] == 7 for score in scores.values())
    assert cv2.imread(str(out)).shape == (2 * (32 + 28), 4 * 48, 3)
