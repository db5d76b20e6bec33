"""Scores for people (a table) and for programs (JSON)."""

import json
import math
from collections.abc import Mapping
from typing import Any

from msitf_jax import atomic
from msitf_jax.atomic import FilePath

_COLUMNS = (
    ("frames", "frames", "{:d}"),
    ("psnr_y", "PSNR-Y", "{:.3f}"),
    ("ssim_y", "SSIM-Y", "{:.4f}"),
    ("psnr_rgb", "PSNR-RGB", "{:.3f}"),
    ("psnr_y_input", "Y input", "{:.3f}"),
    ("psnr_y_synthesized", "Y synth.", "{:.3f}"),
)


def table(clips: Mapping[str, Mapping[str, float]], mean: Mapping[str, float] | None = None) -> str:
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


def write_json(path: FilePath, report: Mapping[str, Any]) -> None:
    """Writes a report; a PSNR of equal frames, which is infinite, becomes null."""
    text = json.dumps(_finite(report), indent=2, allow_nan=False) + "\n"
    atomic.write(path, lambda file: file.write(text.encode()))


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
