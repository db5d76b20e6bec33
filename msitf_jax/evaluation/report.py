"""Scores for people (a table, a picture) and for programs (JSON)."""

import json
import math
import os
import pathlib

import cv2
import numpy as np

_COLUMNS = (
    ("frames", "frames", "{:d}"),
    ("psnr_y", "PSNR-Y", "{:.3f}"),
    ("ssim_y", "SSIM-Y", "{:.4f}"),
    ("psnr_rgb", "PSNR-RGB", "{:.3f}"),
    ("psnr_y_input", "Y input", "{:.3f}"),
    ("psnr_y_synthesized", "Y synth.", "{:.3f}"),
)


def table(rows):
    """`{name: scores}` -> lines of text, one a row, with a heading."""
    width = max(len(name) for name in rows)
    lines = [" " * width + "".join(f"{heading:>10}" for _, heading, _ in _COLUMNS)]
    for name, scores in rows.items():
        lines.append(f"{name:<{width}}" + "".join(f"{form.format(scores[key]):>10}" for key, _, form in _COLUMNS))
    return "\n".join(lines)


def write_json(path, report):
    """Writes a report; a PSNR of equal frames, which is infinite, becomes null."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(_finite(report), indent=2, allow_nan=False) + "\n")
    os.replace(temporary, path)


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
