"""The three degradations: goldens, constants kept, and where each low-resolution pixel lies."""

import itertools

import cv2
import numpy as np
import pytest

from input_pipeline.degradation import DEGRADATIONS, degrade
from tests.conftest import golden, shared


@pytest.mark.parametrize("which", [0, 1])
def test_bicubic_reduction_of_matlab(which):
    pair = golden(f"bicubic_down4_{which}")
    # Twice the rounding of the stored float32.
    np.testing.assert_allclose(degrade(pair["x"], "bi"), pair["y"], rtol=0, atol=1.2e-7)


@pytest.mark.parametrize("degradation", ["bi", "bd_matlab"])
def test_calendar_frame_is_bit_exact_but_for_rounding_ties(degradation):
    truth = cv2.imread(str(shared("data/vid4/GT/calendar/00000001.png")))
    reference = cv2.imread(str(shared(f"parity/calendar_lr_{degradation}_frame1.png")))
    difference = np.abs(degrade(truth, degradation).astype(int) - reference)
    assert difference.max() <= 1
    assert (difference.max(-1) > 0).mean() <= 0.001


@pytest.mark.parametrize("degradation", DEGRADATIONS)
def test_constants_stay_and_sizes_are_cropped(degradation):
    frame = np.full((19, 14, 3), 77, np.uint8)
    small = degrade(frame, degradation)
    assert small.dtype == np.uint8
    np.testing.assert_array_equal(small, np.full((4, 3, 3), 77))
    # What is cropped has no say.
    frame[16:], frame[:, 12:] = 0, 0
    np.testing.assert_array_equal(degrade(frame, degradation), small)


@pytest.mark.parametrize("degradation", DEGRADATIONS)
def test_a_window_is_what_it_is_in_the_whole_frame_to_the_byte(degradation):
    frame = np.random.default_rng(0).integers(0, 256, (43, 50, 3), np.uint8)
    # Straight edges: halves, which any other order of adding would round either way.
    frame[:, :22], frame[:18, 22:] = 16, 235
    whole = degrade(frame, degradation)
    for top, left, height, width in itertools.product(range(10), range(12), (1, 3, 10), (1, 4, 12)):
        if top + height <= 10 and left + width <= 12:
            part = degrade(frame, degradation, window=(top, left, height, width))
            np.testing.assert_array_equal(part, whole[top : top + height, left : left + width])


@pytest.mark.parametrize(("degradation", "shift"), [("bi", 1.5), ("bd_matlab", 1.5), ("bd_duf", 0.0)])
def test_positions_of_low_resolution_pixels(degradation, shift):
    # A ramp keeps its value at every position under any symmetric kernel, away from the borders.
    ramp = np.broadcast_to(np.arange(80.0)[None, :, None], (80, 80, 1))
    small = degrade(ramp, degradation)
    np.testing.assert_allclose(small[10, 4:16, 0], 4 * np.arange(4, 16) + shift, rtol=0, atol=1e-9)
    np.testing.assert_allclose(degrade(ramp.swapaxes(0, 1), degradation), small.swapaxes(0, 1), rtol=0, atol=1e-9)


def gaussian_reference(line, taps, centre, pad, mode):
    """Blur of one line with a 1.6-sigma Gaussian, every fourth sample."""
    kernel = np.exp(-((np.arange(taps) - centre) ** 2) / (2 * 1.6**2))
    padded = np.pad(line, pad, mode=mode)
    return np.correlate(padded, kernel / kernel.sum(), "valid")


def test_gaussians_against_padding_and_correlating():
    frame = np.random.default_rng(0).random((24, 32, 1))

    def both(taps, centre, pad, mode, start):
        out = np.apply_along_axis(gaussian_reference, 0, frame, taps, centre, pad, mode)[start::4]
        return np.apply_along_axis(gaussian_reference, 1, out, taps, centre, pad, mode)[:, start::4]

    np.testing.assert_allclose(degrade(frame, "bd_matlab"), both(12, 5.5, (5, 6), "edge", 1), rtol=0, atol=1e-12)
    np.testing.assert_allclose(degrade(frame, "bd_duf"), both(13, 6, (6, 6), "reflect", 0), rtol=0, atol=1e-12)


def test_borders_are_mirrored():
    # A frame that is its own mirror image at the border goes on beyond it as if it were there.
    half = np.random.default_rng(1).random((12, 12, 1))
    whole = np.concatenate([half[:, ::-1], half], 1)
    np.testing.assert_allclose(degrade(half, "bi"), degrade(whole, "bi")[:, 3:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("degradation", DEGRADATIONS)
def test_8_bit_frames_are_rounded_to_the_nearest_and_clipped(degradation):
    frame = np.random.default_rng(0).integers(0, 2, (48, 48, 3)).astype(np.uint8) * 255
    frame[:, :24] //= 255
    unrounded = degrade(frame.astype(np.float64), degradation)
    np.testing.assert_array_equal(degrade(frame, degradation), np.clip(np.floor(unrounded + 0.5), 0, 255))
    step = np.zeros((40, 40, 1), np.uint8)
    step[:, 20:] = 255
    exact = degrade(step.astype(np.float64), degradation)
    assert (exact.min() < -1) == (exact.max() > 256) == (degradation == "bi")
    assert np.abs(degrade(step, degradation) - np.clip(exact, 0, 255)).max() <= 0.5


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"`degradation` \(='bd'\) must be one of bi, bd_matlab, bd_duf"):
        degrade(np.zeros((8, 8, 3)), "bd")
    with pytest.raises(ValueError, match="`frame` has dtype int64, expected uint8 or floating point"):
        degrade(np.zeros((8, 8, 3), int), "bi")
    with pytest.raises(ValueError, match=r"`frame` has shape \(3, 8, 3\), expected"):
        degrade(np.zeros((3, 8, 3)), "bi")
    for window in [(-1, 0, 2, 2), (0, 0, 3, 2), (0, 1, 2, 3), (0, 0, 0, 2)]:
        with pytest.raises(ValueError, match=r"`window` \(=\(.*\)\) must lie within the low-resolution frame of 2x3"):
            degrade(np.zeros((8, 12, 3), np.uint8), "bi", window=window)
