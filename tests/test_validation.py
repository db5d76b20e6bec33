"""Validation scores: each clip counts once, whatever the number of devices."""

import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msitf_jax import methods, sharding
from msitf_jax.evaluation.benchmark import score_outputs
from msitf_jax.training import validation
from msitf_jax.training.validation import Validation

NAMES = {"psnr_y", "ssim_y", "psnr_y_input", "psnr_y_synthesized"}


class Clips(list):
    """Random clips whose frames get lighter from clip to clip, so that their scores differ."""

    def __init__(self, count):
        noise = np.random.default_rng(0)
        for number in range(count):
            low, high = (
                noise.integers(0, 100 + 20 * number, shape).astype(np.uint8) for shape in ((4, 6, 7, 3), (7, 24, 28, 3))
            )
            self.append({"key": str(number), "low": low, "high": high})


def enlarge(params, low):
    """Stands in for the network: every frame blown up and as bright as `params` says, every other one repeated."""
    out = np.asarray(low).repeat(2, 1)[:, :-1].repeat(4, 2).repeat(4, 3)
    return (out * params).astype(np.uint8)


def eval_step(params, low):
    return jnp.asarray(enlarge(params, low))


@pytest.fixture
def mesh():
    return sharding.make_mesh(devices=jax.devices()[:1])


def means_clip_by_clip(clips, output):
    scores = [score_outputs(output(clip), clip["high"]) for clip in clips]
    return {name: math.fsum(score[name] for score in scores) / len(scores) for name in scores[0]}


@pytest.mark.parametrize("base", methods.BASELINES)
def test_scores_are_the_means_of_the_benchmarks_clip_by_clip(mesh, base):
    clips = Clips(3)
    scores, _ = Validation(clips, mesh, base)(eval_step, 0.5)
    wanted = means_clip_by_clip(clips, lambda clip: enlarge(0.5, clip["low"][None])[0])
    alone = means_clip_by_clip(clips, lambda clip: methods.method(base)(clip["low"]))
    wanted = {name: wanted[name] for name in NAMES} | {f"{name}_base": alone[name] for name in ("psnr_y", "ssim_y")}
    assert scores == pytest.approx(wanted, rel=1e-12)
    assert set(scores) == set(wanted)


def test_the_base_is_scored_once(mesh, monkeypatch):
    calls = []
    score = validation.score_outputs
    monkeypatch.setattr(validation, "score_outputs", lambda *pair: calls.append(pair) or score(*pair))
    validate = Validation(Clips(2), mesh, "trilinear")
    first, second = validate(eval_step, 0.5)[0], validate(eval_step, 0.9)[0]
    assert len(calls) == 2 * 2 + 2
    assert first["psnr_y"] != second["psnr_y"]
    assert first["psnr_y_base"] == second["psnr_y_base"]


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_no_clip_counts_twice_when_they_do_not_fill_the_devices(monkeypatch, count):
    """Four devices are made up: batches of four are filled with clips that were there before."""
    clips, seen = Clips(count), []
    monkeypatch.setattr(sharding, "global_batch", lambda mesh, low: seen.append(low) or low)
    monkeypatch.setattr(sharding, "local_part", lambda outputs: outputs)
    scores, _ = Validation(clips, types.SimpleNamespace(size=4), "trilinear")(enlarge, 0.5)
    assert {len(low) for low in seen} == {4}
    assert len(seen) == -(-count // 4)
    wanted = means_clip_by_clip(clips, lambda clip: enlarge(0.5, clip["low"][None])[0])
    assert {name: scores[name] for name in NAMES} == pytest.approx({name: wanted[name] for name in NAMES}, rel=1e-12)


def test_hosts_with_different_numbers_of_scores(monkeypatch):
    """The other host's part is made up: it sends three rows, this one two of its own."""
    own, other = np.array([[0.1, 1e9], [0.2, 1e-9]]), np.array([[0.3, 1 / 3], [0.7, 2.0], [1e-17, 5.0]])
    sent = []

    def exchange(value):
        sent.append(value)
        padded = np.zeros((3, 2))
        padded[:] = other
        return np.stack([value, np.array(3, np.int32) if value.ndim == 0 else padded.view(np.uint32)])

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(validation.multihost_utils, "process_allgather", exchange)
    found = validation._mean_over_hosts(own.tolist(), 2)
    assert found == [math.fsum(column) / 5 for column in np.concatenate([own, other]).T]
    assert [value.dtype for value in sent] == [np.int32, np.uint32]  # as neither loses bits on its way


def test_no_clips(mesh):
    validate = Validation([], mesh, "trilinear")
    assert len(validate) == 0
    assert validate(None, None) == ({}, [])


def test_pictures_of_an_input_frame_and_one_between_of_the_first_clip(mesh):
    clips = Clips(2)
    _, pictures = Validation(clips, mesh, "trilinear")(eval_step, 0.5)
    given, between = pictures
    assert list(given) == ["input, frame 2", "trilinear", "output", "truth"]
    assert list(between) == ["frame 3 is not given", "trilinear", "output", "truth"]
    output = enlarge(0.5, clips[0]["low"][None])[0]
    for index, row in zip((2, 3), pictures, strict=True):
        np.testing.assert_array_equal(row["output"], output[index])
        np.testing.assert_array_equal(row["truth"], clips[0]["high"][index])
        np.testing.assert_array_equal(row["trilinear"], methods.method("trilinear")(clips[0]["low"])[index])
    np.testing.assert_array_equal(given["input, frame 2"][::4, ::4], clips[0]["low"][1])
    assert {picture.shape for row in pictures for picture in row.values()} == {(24, 28, 3)}
    assert np.all(between["frame 3 is not given"] == 128)
