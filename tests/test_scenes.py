"""Cuts found where clips meet, drawn and filmed ones, and nowhere else."""

import functools
import itertools

import av
import cv2
import numpy as np
import pytest

from input_pipeline import synthetic
from msitf_jax.video.color import RGB, FloatRGB, YCbCr
from msitf_jax.video.reader import Picture
from msitf_jax.video.scenes import WIDTH, mark_cuts
from msitf_jax.video.windows import stills
from tests.conftest import shared

DRAWN = range(6)
FILMED = ("bear", "bee", "04_coffee", "blackswan")


@functools.cache
def drawn(seed):
    """6 frames of 64x112."""
    return synthetic.clip(seed, frames=6, height=64, width=112)


def cuts(frames, kind=None):
    """The frames that begin a scene; checks that all come out, in order."""
    pictures = (Picture(pixels, time) for time, pixels in enumerate(frames))
    found = list(mark_cuts(stills(pictures), kind or RGB(8)))
    assert [time for still in found for time in still.times] == list(range(len(frames)))
    assert all(still.last for still in found[-1:])
    return [still.next_time for still in found[:-1] if still.last]


@pytest.mark.parametrize("first", DRAWN)
def test_a_cut_between_drawn_clips_is_found(first):
    for second in set(DRAWN) - {first}:
        assert cuts([*drawn(first), *drawn(second)]) == [6]


@pytest.mark.parametrize("length", range(1, 7))
def test_cuts_beside_the_first_and_the_last_frame_count(length):
    before, after = drawn(0), drawn(1)
    assert cuts([*before[:length], *after]) == [length]
    assert cuts([*before, *after[:length]]) == [6]
    assert cuts([*before[:length], *after[:length]]) == [length]


def test_several_cuts_are_found():
    frames = [frame for seed in DRAWN for frame in drawn(seed)[: 3 + seed % 3]]
    assert cuts(frames) == list(itertools.accumulate(3 + seed % 3 for seed in DRAWN))[:-1]


@pytest.mark.parametrize("length", range(7))
def test_every_frame_of_a_scene_comes_out_and_begins_none(length):
    assert cuts(drawn(2)[:length]) == []


@pytest.mark.parametrize("held", [2, 3, 4])
def test_fast_motion_drawn_on_every_few_frames_is_no_cut(held):
    colours = np.random.default_rng(0).integers(0, 256, (4, 50, 3), np.uint8)
    wide = colours.repeat(16, axis=0).repeat(16, axis=1)
    pan = [wide[:, 40 * i : 40 * i + 112] for i in range(16)]
    assert cuts([frame for frame in pan for _ in range(held)]) == []
    assert cuts([frame for frame in [*drawn(0), *drawn(1)] for _ in range(held)]) == [6 * held]


def test_a_still_comes_out_when_the_third_after_it_is_over():
    read = []
    source = (read.append(time) or Picture(pixels, time) for time, pixels in enumerate(drawn(0)))
    late = [len(read) - 1 - still.times[0] for still in mark_cuts(stills(source), RGB(8))]
    assert late == [4, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("step", [12, 16, 40])
def test_a_fast_pan_is_no_cut(step):
    colours = np.random.default_rng(0).integers(0, 256, (4, 50, 3), np.uint8)
    wide = colours.repeat(16, axis=0).repeat(16, axis=1)
    pan = [wide[:, step * i : step * i + 112] for i in range(16)]
    assert change(pan[0], pan[1]) > change(drawn(0)[-1], drawn(1)[0])  # which is a cut
    assert cuts(pan) == []


def change(before, after):
    return np.abs(before.astype(int) - after).mean()


def test_what_stands_still_is_one_scene_and_slides_are_several():
    slides = [drawn(seed)[0] for seed in DRAWN]
    assert cuts(slides[:1] * 9) == []
    assert cuts([slide for slide in slides for _ in range(8)]) == [8, 16, 24, 32, 40]


def test_a_flash_is_no_cut_in_motion_and_a_scene_of_its_own_in_a_standing_picture():
    frames = drawn(3)
    flash = np.full_like(frames[0], 255)
    # Two great changes in a row are each less than three times the mean, unless nothing else changes at all.
    assert cuts([*frames[:3], flash, *frames[3:]]) == []
    assert cuts([frames[0]] * 4 + [flash] + [frames[0]] * 4) == [4, 5]


def test_a_fade_is_no_cut():
    frame = drawn(4)[0].astype(np.float32)
    assert cuts([np.rint(frame * (1 - i / 12)).astype(np.uint8) for i in range(12)]) == []


@pytest.mark.parametrize(
    "kind", [RGB(8), RGB(10), RGB(16), FloatRGB(), YCbCr(1, False), YCbCr(6, True, 12)], ids=lambda kind: str(kind)
)
def test_whatever_the_integers_mean_the_cut_is_the_same(kind):
    frames = np.concatenate([drawn(0)[:4], drawn(1)[:4]]).astype(np.float32) / 255
    assert cuts([np.asarray(kind.from_rgb(frame)) for frame in frames], kind) == [4]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 700), (300, 1), (18, WIDTH + 1)])
def test_frames_of_any_shape(height, width):
    dark, bright = (np.full((height, width, 3), level, np.uint8) for level in (10, 200))
    assert cuts([dark] * 3 + [bright] * 3) == [3]


def filmed(name):
    """6 frames from the middle of a clip of 448x256."""
    with av.open(str(shared(f"data/footage/clips/{name}.mp4"))) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return frames[len(frames) // 2 :][:6]


def test_cuts_between_filmed_clips_are_found_and_no_others():
    frames = [frame for name in FILMED for frame in filmed(name)]
    assert cuts(frames) == [6, 12, 18]


def test_a_cut_between_clips_of_vid4_is_found_and_no_other():
    folder = shared("data/vid4/GT")
    frames = [cv2.imread(str(folder / name / f"{i:08}.png")) for name in ("calendar", "walk") for i in range(1, 9)]
    assert cuts([frame[:480, :704, ::-1] for frame in frames]) == [8]  # theirs are two sizes
