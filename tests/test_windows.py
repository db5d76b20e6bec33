"""Which frames count, against the published lists and by the rules' promises."""

import json

import pytest

from msitf_jax.evaluation.windows import windows
from tests.conftest import GOLDEN


@pytest.mark.parametrize("frames", range(4, 26))
def test_published_windows(frames):
    published = json.loads((GOLDEN / "window_indices.json").read_text())[f"skip_{frames}"]
    assert [[list(w.inputs), list(w.outputs)] for w in windows(frames, "published")] == published


@pytest.mark.parametrize(
    ("frames", "published", "every"), [(41, 37, 41), (34, 31, 33), (49, 49, 49), (47, 43, 47), (6, 0, 5), (2, 0, 0)]
)
def test_frames_that_count(frames, published, every):
    assert all(len(window.outputs) == min(7, every) for window in windows(frames, "all"))
    for rule, expected in (("published", published), ("all", every)):
        scored = [index for window in windows(frames, rule) for index in window.scored]
        assert scored == list(range(expected))


@pytest.mark.parametrize("frames", range(3, 40))
def test_every_window_starts_and_ends_on_an_input(frames):
    for window in windows(frames, "all"):
        assert window.inputs[0] == window.outputs[0]
        assert window.inputs[-1] == window.outputs[-1]
        assert all(index % 2 == 0 for index in window.inputs)
        assert window.outputs.stop <= frames
        assert set(window.scored) <= set(window.outputs)


def test_unknown_rule_is_named():
    with pytest.raises(ValueError, match=r"`rule` \(='some'\) must be one of published, all"):
        windows(9, "some")
