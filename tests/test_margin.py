"""The tile margin: what is measured is how far a network sees, and what files may say of it."""

import jax
import numpy as np
import pytest
from flax import nnx

from input_pipeline import synthetic
from msitf_jax import MSITF, MSITFConfig
from msitf_jax.weights import margin
from tests.conftest import randomised
from tests.tiny_network import quick_compilation, tiny_network


class Echo(nnx.Module):
    """Stands in for the network: enlarges each frame and adds some of what lies so far away, 0 outside."""

    def __init__(self, down, right, gain=0.5):
        self.way, self.gain = (down, right), gain

    def __call__(self, clip):
        height, width = clip.shape[2:4]
        down, right = self.way
        room = max(abs(down), abs(right))
        far = jax.numpy.pad(clip, ((0, 0), (0, 0), (room, room), (room, room), (0, 0)))
        far = far[:, :, room + down : room + down + height, room + right : room + right + width]
        return (clip + np.float32(self.gain) * far).repeat(4, axis=2).repeat(4, axis=3)


class Average(nnx.Module):
    """Enlarges each frame's mean."""

    def __call__(self, clip):
        return (0 * clip + clip.mean((2, 3), keepdims=True)).repeat(4, axis=2).repeat(4, axis=3)


@pytest.mark.parametrize("way", [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1)])
@pytest.mark.parametrize(("reach", "expected"), [(1, 8), (8, 8), (9, 16), (31, 32), (33, 40), (97, 104)])
def test_it_is_how_far_is_seen_on_each_side_rounded_up(way, reach, expected):
    assert margin.measure(Echo(*(reach * step for step in way))) == expected


def test_a_network_that_sees_nothing_beside_a_pixel_has_none():
    assert margin.measure(Echo(0, 0)) == 0


def test_differences_up_to_the_tolerance_do_not_count():
    assert margin.measure(Echo(20, 0, gain=margin.TOLERANCE)) == 0
    assert margin.measure(Echo(20, 0, gain=1.2 * margin.TOLERANCE)) == 24


def test_a_network_that_sees_the_whole_frame_has_the_most_that_is_measured():
    assert margin.measure(Average()) == 120


def test_the_frames_are_detailed_and_move_and_are_always_the_same():
    clip = margin._moving_texture()
    assert clip.dtype == np.float32
    assert clip.shape == (4, 299, 304, 3)
    assert clip.min() >= 0
    assert clip.max() <= 1
    assert clip.std((1, 2)).min() > 0.1
    for beside in (np.diff(clip, axis=0), np.diff(clip, axis=1), np.diff(clip, axis=2)):
        assert np.abs(beside).mean() > 0.05
    np.testing.assert_array_equal(margin._moving_texture(), clip)


def beyond(model, clip, cut):
    """`[width]`: how much a part that begins at a column differs from the whole, by distance from there."""
    graph, state = nnx.split(model)
    run = jax.jit(lambda clip: nnx.merge(graph, state)(clip))
    whole, part = (np.asarray(run(frames[None])[0]) for frames in (clip, clip[:, :, cut:]))
    return np.abs(part - whole[:, :, 4 * cut :]).max((0, 1, 3)).reshape(-1, 4).max(1)


def test_frames_that_were_not_measured_keep_to_it():
    model = tiny_network(MSITFConfig(channels=8, residual_blocks=1, trunk_groups=1, offset_groups=2))
    with quick_compilation():
        measured = margin.measure(model)
        clip = synthetic.clip(3, frames=4, height=24, width=64).astype(np.float32) / 255
        differences = beyond(model, clip, cut=16)
    assert measured == 8
    assert differences[0] > 1 / 255
    assert differences[measured:].max() <= margin.TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "offsets"), [(0.04, 1.0), (0.05, 0.1)])
def test_the_default_holds_at_the_published_size_for_random_weights_that_see_far(scale, offsets, monkeypatch):
    monkeypatch.setattr(margin, "_HEIGHT", 64)
    monkeypatch.setattr(margin, "_WIDTH", 240)
    model = randomised(lambda: MSITF(rngs=nnx.Rngs(0)), scale)
    rng = np.random.default_rng(0)
    state = nnx.state(model, nnx.Param)
    for path, parameter in nnx.to_flat_state(state):
        if "conv_offset" in path:
            parameter[...] = jax.numpy.asarray(np.float32(offsets) * rng.standard_normal(parameter.shape, np.float32))
    nnx.update(model, state)
    differences = beyond(model, margin._moving_texture(), cut=32)
    assert differences[0] > 50 / 255
    assert differences[margin.WITHOUT_FLOW :].max() <= margin.TOLERANCE


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("24", 24), ("007", 7), ("512", 512)])
def test_margins_are_read(text, value):
    assert margin.parse(text) == value


@pytest.mark.parametrize("text", ["", "-8", "513", "9" * 5000, "8.0", " 8", "+8", "1_0", "٢٤", "²", "many", "0x8"])
def test_what_is_no_margin_is_refused(text):
    with pytest.raises(
        ValueError, match=r"^`tile_margin` \(='.*'\) must be an integer from 0 to 512, in input pixels$"
    ):
        margin.parse(text)
