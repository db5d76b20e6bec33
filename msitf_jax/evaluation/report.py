"""Scores for people (a table, a picture) and for programs (JSON)."""

import json
import math

import cv2
import numpy as np

from msitf_jax import atomic

_COLUMNS = (
    ("frames", "frames", "{:d}"),
    ("psnr_y", "PSNR-Y", "{:.3f}"),
    ("ssim_y", "SSIM-Y", "{:.4f}"),
    ("psnr_rgb", "PSNR-RGB", "{:.3f}"),
    ("psnr_y_input", "Y input", "{:.3f}"),
    ("psnr_y_synthesized", "Y synth.", "{:.3f}"),
)


def table(clips, mean=None):
    """Scores as lines of text.

    Args:
      clips: `{name: scores}`, a row each.
      mean: scores for a last row under that name, or None.

    Returns:
      The lines, joined, under a heading.
    """
    rows = [*clips.items()] + ([("mean", mean)] if mean else [])
    width = max(len(name) for name, _ in rows)
    lines = [" " * width + "".join(f"{heading:>10}" for _, heading, _ in _COLUMNS)]
    for name, scores in rows:
        lines.append(f"{name:<{width}}" + "".join(f"{form.format(scores[key]):>10}" for key, _, form in _COLUMNS))
    return "\n".join(lines)


def write_json(path, report):
    """Writes a report; a PSNR of equal frames, which is infinite, becomes null."""
    text = json.dumps(_finite(report), indent=2, allow_nan=False) + "\n"
    atomic.write(path, lambda file: file.write(text.encode()))


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def side_by_side(columns):
    """Frames beside one another under their titles.

    Args:
      columns: `{title: [H, W, 3] uint8 RGB}`, all of one size.

    Returns:
      `[H + 28, sum of widths, 3]` uint8 RGB.
    """
    panels = []
    for title, frame in columns.items():
        panel = np.full((frame.shape[0] + 28, frame.shape[1], 3), 255, np.uint8)
        panel[28:] = frame
        cv2.putText(panel, title, (6, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        panels.append(panel)
    return np.concatenate(panels, axis=1)
