"""One clip's way into a batch: decoding, windows, turns, and low-resolution frames that stay aligned."""

import collections
import itertools

import cv2
import numpy as np
import pytest

from input_pipeline import transforms
from input_pipeline.degradation import DEGRADATIONS, degrade

NAMES = ("reverse", "mirror", "flip", "transpose")
TURNS = [dict(zip(NAMES, turns, strict=True)) for turns in itertools.product([False, True], repeat=4)]


class Chosen:
    """Stands in for a random generator: a window's corner, after what else is drawn before, and the four turns."""

    def __init__(self, *numbers):
        *corner, self.turns = numbers
        self.corner = iter(corner)

    def integers(self, bound):
        number = next(self.corner)
        assert 0 <= number < bound
        return number

    def random(self, count):
        assert count == 4
        return np.where(list(self.turns.values()), 0.2, 0.7)


def encode(frame):
    return cv2.imencode(".png", frame[..., ::-1])[1].tobytes()


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (7, height, width, 3), np.uint8)


def test_frames_are_decoded_as_rgb():
    frame = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    decoded = transforms.decode_clip({"key": "a", "frames": [encode(frame)] * 6 + [frame]})
    assert len(decoded) == 7
    for one in decoded:
        np.testing.assert_array_equal(one, frame)


@pytest.mark.parametrize("content", [b"", b"no image", encode(noise(8, 8)[0])[:-30]])
def test_unreadable_frames_are_named(content):
    frames = [encode(frame) for frame in noise(8, 8)]
    frames[2] = content
    with pytest.raises(ValueError, match=r"^clip 00001/0002, frame 3: not a readable image$"):
        transforms.decode_clip({"key": "00001/0002", "frames": frames})


def test_a_frame_of_another_size_is_named():
    frames = [*noise(8, 8)[:6], noise(8, 12)[0]]
    with pytest.raises(ValueError, match=r"^clip 00001/0002, frame 7: is 12x8, expected 8x8 as the first$"):
        transforms.decode_clip({"key": "00001/0002", "frames": frames})


def test_windows_reach_every_position_alike():
    rng = np.random.default_rng(0)
    counts = collections.Counter(transforms.random_window(rng, 4, 3, 2) for _ in range(1200))
    assert set(counts) == {(top, left, 2, 2) for top in range(3) for left in range(2)}
    assert all(150 < count < 250 for count in counts.values())  # 200 expected, deviation 13
    assert transforms.random_window(rng, 2, 2, 2) == (0, 0, 2, 2)


def test_windows_are_cut_at_either_scale():
    frames = [np.arange(48).reshape(6, 8, 1), np.zeros((6, 8, 1), int)]
    np.testing.assert_array_equal(transforms.cut(frames, (2, 1, 1, 3))[0, ..., 0], [[17, 18, 19]])
    np.testing.assert_array_equal(transforms.cut(frames, (2, 1, 1, 3), 2)[0, ..., 0], [range(34, 40), range(42, 48)])
    assert transforms.cut(frames, (2, 1, 1, 3), 2).shape == (2, 2, 6, 1)


@pytest.mark.parametrize(
    ("turn", "first", "second"),
    [
        ("reverse", [[6, 7, 8], [9, 10, 11]], [[0, 1, 2], [3, 4, 5]]),
        ("mirror", [[2, 1, 0], [5, 4, 3]], [[8, 7, 6], [11, 10, 9]]),
        ("flip", [[3, 4, 5], [0, 1, 2]], [[9, 10, 11], [6, 7, 8]]),
        ("transpose", [[0, 3], [1, 4], [2, 5]], [[6, 9], [7, 10], [8, 11]]),
    ],
)
def test_each_turn(turn, first, second):
    clip = np.arange(12).reshape(2, 2, 3, 1)
    turned = transforms.augment(clip, **TURNS[0] | {turn: True})
    np.testing.assert_array_equal(turned[..., 0], [first, second])


def test_turns_together_and_none():
    clip = np.arange(12).reshape(2, 2, 3, 1)
    np.testing.assert_array_equal(transforms.augment(clip, **TURNS[0]), clip)
    turned = transforms.augment(clip, **TURNS[-1])
    np.testing.assert_array_equal(turned[..., 0], [[[11, 8], [10, 7], [9, 6]], [[5, 2], [4, 1], [3, 0]]])


@pytest.mark.parametrize("degradation", DEGRADATIONS)
def test_low_resolution_is_that_of_whole_frames_turned_like_the_truth(degradation):
    frames = noise(32, 40)
    low, crop = np.stack([degrade(frames[n], degradation) for n in (0, 2, 4, 6)]), 3
    for turns, (top, left) in itertools.product(TURNS, [(0, 0), (0, 7), (5, 0), (5, 7), (2, 3)]):
        clip = {"key": "a", "frames": list(frames)}
        example = transforms.training_example(clip, Chosen(top, left, turns), crop=crop, degradation=degradation)
        assert example["low"].dtype == example["high"].dtype == np.uint8
        assert all(array.flags.c_contiguous for array in example.values())
        cropped = low[:, top : top + crop, left : left + crop]
        np.testing.assert_array_equal(example["low"], transforms.augment(cropped, **turns))
        cropped = frames[:, 4 * top : 4 * (top + crop), 4 * left : 4 * (left + crop)]
        np.testing.assert_array_equal(example["high"], transforms.augment(cropped, **turns))


@pytest.mark.parametrize("turns", TURNS)
def test_low_resolution_is_that_of_the_turned_truth_where_kernels_are_symmetric(turns):
    # bd_duf samples at every fourth pixel's own place, so only transposing and reversing commute with it.
    commutes = {"bi": True, "bd_matlab": True, "bd_duf": not (turns["mirror"] or turns["flip"])}
    clip = {"key": "a", "frames": list(noise(48, 48))}
    for degradation in DEGRADATIONS:
        example = transforms.training_example(clip, Chosen(1, 2, turns), crop=8, degradation=degradation)
        # Two pixels from the crop's border, beyond the kernels' reach of what was cut away.
        again = np.stack([degrade(frame, degradation) for frame in example["high"][::2]])[:, 2:-2, 2:-2]
        assert np.array_equal(example["low"][:, 2:-2, 2:-2], again) == commutes[degradation]


def test_low_resolution_frames_that_are_read_are_cut_and_turned_alike():
    small = noise(5, 6)[::2]
    clip = {"key": "00001/0002", "frames": list(np.repeat(np.repeat(noise(5, 6), 4, 1), 4, 2))}

    def read(key, size, part):
        assert (key, size, part) == ("00001/0002", (6, 5), range(7))
        return small

    for turns in TURNS:
        rng = Chosen(1, 2, turns)
        example = transforms.training_example(clip, rng, crop=3, degradation="bi", read_inputs=read)
        np.testing.assert_array_equal(example["low"], example["high"][::2, ::4, ::4])


@pytest.mark.parametrize(("inputs", "starts"), [(2, 3), (3, 2)])
def test_fewer_frames_are_those_from_one_input_to_another(inputs, starts):
    frames = noise(32, 40)
    seen = []

    def read(key, size, part):
        seen.append(part)
        return [np.full((8, 10, 3), number, np.uint8) for number in part[::2]]

    for start, turns in itertools.product(range(starts), (TURNS[0], TURNS[-1])):
        part = range(2 * start, 2 * start + 2 * inputs - 1)
        # Neither is decoded.
        clip = {"key": "a", "frames": [frame if n in part else b"" for n, frame in enumerate(frames)]}
        options = {"crop": 3, "degradation": "bi", "inputs": inputs}
        example = transforms.training_example(clip, Chosen(start, 1, 2, turns), **options)
        whole = transforms.training_example(
            {"key": "a", "frames": list(frames)}, Chosen(1, 2, TURNS[0]), crop=3, degradation="bi"
        )
        np.testing.assert_array_equal(
            example["high"], transforms.augment(whole["high"][part.start : part.stop], **turns)
        )
        np.testing.assert_array_equal(example["low"], transforms.augment(whole["low"][start : start + inputs], **turns))
        assert (len(example["low"]), len(example["high"])) == (inputs, 2 * inputs - 1)
        read_from = transforms.training_example(clip, Chosen(start, 1, 2, TURNS[0]), read_inputs=read, **options)
        assert read_from["low"][:, 0, 0, 0].tolist() == list(part[::2])
        assert seen[-1] == part


def test_every_part_is_as_likely_and_four_frames_draw_nothing():
    rng = np.random.default_rng(0)
    counts = collections.Counter(transforms.random_part(rng, 2).start for _ in range(600))
    assert set(counts) == {0, 2, 4}
    assert all(150 < count < 250 for count in counts.values())  # 200 expected, deviation 12
    assert transforms.random_part(None, 4) == range(7)


@pytest.mark.parametrize(
    ("inputs", "parts"),
    [(2, {(0, 1, 3), (0, 2, 3), (3, 4, 6), (3, 5, 6)}), (3, {(0, 1, 3, 4, 6), (0, 2, 3, 5, 6)})],
)
def test_thirds_are_every_third_frame_and_one_between(inputs, parts):
    rng = np.random.default_rng(0)
    drawn = [transforms.random_thirds(rng, inputs) for _ in range(200)]
    assert {tuple(part) for part, _ in drawn} == parts
    assert all(time == pytest.approx((part[1] - part[0]) / 3) for part, time in drawn)


def test_the_time_of_a_clip_that_runs_backwards_is_turned_round():
    frames = [np.full((16, 16, 3), 10 * number, np.uint8) for number in range(7)]
    rng = np.random.default_rng(0)
    options = {"crop": 2, "degradation": "bi", "inputs": 2}
    seen = set()
    for _ in range(100):
        example = transforms.training_example({"key": "a", "frames": frames}, rng, thirds=0.5, **options)
        before, between, after = (int(frame[0, 0, 0]) for frame in example["high"])
        assert example["time"].dtype == np.float32
        assert example["time"] == pytest.approx((between - before) / (after - before), rel=1e-6)
        assert example["low"][:, 0, 0, 0].tolist() == [before, after]
        seen.add((abs(after - before), between > before))
    assert seen == {(20, True), (20, False), (30, True), (30, False)}
    assert "time" not in transforms.training_example({"key": "a", "frames": frames}, rng, **options)


def test_a_frame_of_a_part_keeps_its_number_in_messages():
    frames = [*noise(8, 8)[:4], b"no image", *noise(8, 8)[5:]]
    with pytest.raises(ValueError, match=r"^clip a, frame 5: not a readable image$"):
        transforms.decode_clip({"key": "a", "frames": frames}, range(2, 5))


def test_activity_is_that_of_detail_and_motion_in_the_window():
    flat = np.full((16, 32, 3), 100, np.uint8)
    assert transforms.activity([flat] * 3, (0, 0, 4, 4)) == 0
    stripes = flat.copy()
    stripes[:, 16:][:, ::4] += 40  # every other of the pixels that are looked at
    assert transforms.activity([flat, stripes, stripes], (0, 0, 4, 4)) == 0
    assert transforms.activity([flat, stripes, stripes], (0, 4, 4, 4)) == 40
    assert transforms.activity([flat, stripes, flat], (0, 4, 4, 4)) == 60
    # A whole clip is looked at in its middle.
    assert transforms.activity([flat] * 3 + [stripes, stripes] + [flat] * 2, (0, 4, 4, 4)) == 40


@pytest.mark.parametrize("candidates", [1, 4])
def test_of_several_windows_the_one_with_the_most_activity_is_taken(candidates):
    frames = np.full((7, 64, 64, 3), 100, np.uint8)
    frames[:, 40:] = noise(24, 64)[:, :, :64]
    clip = {"key": "a", "frames": list(frames)}
    options = {"crop": 4, "degradation": "bi", "candidates": candidates}
    busy = 0
    for seed in range(200):
        rng, again = np.random.default_rng(seed), np.random.default_rng(seed)
        high = transforms.training_example(clip, rng, **options)["high"]
        windows = [transforms.random_window(again, 16, 16, 4) for _ in range(candidates)]
        best = max(windows, key=lambda window: transforms.activity(list(frames), window))
        assert sorted(high.ravel()) == sorted(transforms.cut(frames, best, 4).ravel())
        busy += high.std() > 0
    # Six of the thirteen rows that a window may begin at lead into what is not flat.
    assert (busy < 130) if candidates == 1 else (busy > 150)


def test_every_turn_is_as_likely_as_not():
    clip = {"key": "a", "frames": list(np.arange(7 * 16, dtype=np.uint8).reshape(7, 4, 4, 1) * np.ones(3, np.uint8))}
    rng = np.random.default_rng(0)
    examples = (transforms.training_example(clip, rng, crop=1, degradation="bi") for _ in range(800))
    counts = collections.Counter(example["high"].tobytes() for example in examples)
    assert len(counts) == 16
    assert all(20 < count < 80 for count in counts.values())  # 50 expected, deviation 7


def test_a_clip_smaller_than_the_crop_is_named():
    clip = {"key": "00001/0002", "frames": list(noise(8, 12))}
    with pytest.raises(ValueError, match=r"^clip 00001/0002: is 12x8, expected at least 12 pixels each way, 4 `crop`$"):
        transforms.training_example(clip, np.random.default_rng(0), crop=3, degradation="bi")
