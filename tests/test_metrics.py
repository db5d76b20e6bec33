"""PSNR and SSIM against the published code's figures and by hand."""

import numpy as np
import pytest

from msitf_jax.evaluation.metrics import luma, psnr, ssim
from tests.conftest import golden


@pytest.mark.parametrize("which", [0, 1, 2])
def test_published_figures(which):
    pair = golden(f"metric_pair_{which}")
    frame, truth = pair["a_bgr"][..., ::-1], pair["b_bgr"][..., ::-1]
    assert psnr(frame, truth) == pytest.approx(pair["psnr_rgb"], abs=1e-10)
    assert ssim(frame, truth) == pytest.approx(pair["ssim_rgb_0_255"], abs=1e-12)
    # The published Y figures were computed in float32.
    assert psnr(luma(frame), luma(truth)) == pytest.approx(pair["psnr_y"], abs=1e-6)
    assert ssim(luma(frame), luma(truth)) == pytest.approx(pair["ssim_y"], abs=1e-8)


def test_luma_of_black_white_and_red():
    colours = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0]], np.uint8)
    np.testing.assert_allclose(luma(colours), [16, 235, 16 + 65.481])


def test_psnr_by_hand():
    a = np.zeros((2, 2), np.uint8)
    assert psnr(a, a + np.uint8(255)) == 0
    assert psnr(a, np.array([[0, 0], [0, 2]], np.uint8)) == pytest.approx(10 * np.log10(255**2))
    assert psnr(a, a) == float("inf")


def test_ssim_of_flat_frames_by_hand():
    c1 = (0.01 * 255) ** 2
    value = ssim(np.full((11, 11), 10.0), np.full((11, 11), 30.0))
    assert value == pytest.approx((2 * 10 * 30 + c1) / (10**2 + 30**2 + c1))
    assert ssim(np.full((15, 12, 3), 9.0), np.full((15, 12, 3), 9.0)) == 1


def test_bad_pairs_are_named():
    with pytest.raises(ValueError, match=r"`frame` has shape \(2, 2\), expected that of `truth`, \(2, 3\)"):
        psnr(np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="at least 11x11"):
        ssim(np.zeros((10, 20)), np.zeros((10, 20)))
