"""PSNR and SSIM as the space-time super-resolution papers report them, in NumPy.

On 8-bit frames in 0..255, no border cropped. "Y" is BT.601 luma in its 16..235 range, not rounded.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

PEAK = 255.0
_LUMA = np.array([65.481, 128.553, 24.966]) / 255
_WINDOW = cv2.getGaussianKernel(11, 1.5)
_C1, _C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2


def luma(frame: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """`[..., 3]` RGB in 0..255 -> `[...]` float64 in 16..235: `16 + (65.481 R + 128.553 G + 24.966 B) / 255`."""
    return 16 + frame.astype(np.float64) @ _LUMA


def psnr(frame: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    """Peak signal-to-noise ratio in dB, peak 255, over everything in two arrays of one shape; inf if they are equal."""
    _check_pair(frame, truth)
    error = np.mean((frame.astype(np.float64) - truth.astype(np.float64)) ** 2)
    return float(10 * np.log10(PEAK**2 / error)) if error else float("inf")


def ssim(frame: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    """Structural similarity (Wang et al., 2004): Gaussian window 11x11, sigma 1.5, where it fits in whole.

    Args:
      frame, truth: `[H, W]` or `[H, W, C]`, values in 0..255, H and W at least 11; the mean over channels is taken.

    Returns:
      At most 1, which equal frames have.

    Raises:
      ValueError: shapes that differ, or frames smaller than the window.
    """
    _check_pair(frame, truth)
    if min(frame.shape[:2]) < len(_WINDOW):
        raise ValueError(f"`frame` has shape {frame.shape}, expected at least 11x11 pixels for SSIM")
    a, b = frame.astype(np.float64), truth.astype(np.float64)
    mean_a, mean_b = _window_mean(a), _window_mean(b)
    var_a, var_b = _window_mean(a * a) - mean_a**2, _window_mean(b * b) - mean_b**2
    covariance = _window_mean(a * b) - mean_a * mean_b
    similarity = (2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)
    similarity /= (mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2)
    return float(similarity.mean())


def _window_mean(x):
    margin = len(_WINDOW) // 2
    return cv2.sepFilter2D(x, -1, _WINDOW, _WINDOW)[margin:-margin, margin:-margin]


def _check_pair(frame, truth):
    if frame.shape != truth.shape:
        raise ValueError(f"`frame` has shape {frame.shape}, expected that of `truth`, {truth.shape}")
