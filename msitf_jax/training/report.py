"""A run in one picture: the curves of its metrics.jsonl, and below them frames to look at."""

import functools
import io
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from msitf_jax import atomic
from msitf_jax.atomic import FilePath
from msitf_jax.training.writers import checked_picture, naming, read_metrics

# Okabe and Ito's colours, told apart by colour-blind people too; the network has one in every panel.
_NETWORK, _INPUT, _SYNTHESIZED, _BASE, _RATE = "#0072B2", "#009E73", "#D55E00", "#7F7F7F", "#404040"
_DPI = 128  # a power of two, so that pixels -> inches -> pixels is exact
_WIDTH, _HEAD, _CURVES, _MARGIN = 1600, 64, 800, 24  # pixels
_GAP, _CAPTION = 10, 30  # pixels between pictures, and above each for its title
_SMALL, _TEXT, _LARGE = 7.5, 8.5, 13  # points
_SMOOTHED = 100  # points from which on a curve is drawn with its running mean


def draw(workdir: FilePath, pictures: Sequence[Mapping[str, npt.NDArray[np.uint8]]], title: str) -> pathlib.Path:
    """Draws a run as it is so far; what is not logged yet leaves its panel empty.

    Args:
      workdir: the run's folder, with its metrics.jsonl.
      pictures: rows of `{title: [H, W, 3] uint8 RGB}`; may be empty. Shown pixel for pixel, small ones enlarged by a
        whole factor without blur. The report is 1600 pixels wide, or as wide as the widest row. A title that is longer
        than its picture is wide is cut.
      title: of the whole.

    Returns:
      The path of the picture, `workdir/report.png`.

    Raises:
      OSError: metrics.jsonl can't be read or the picture not be written; named.
      ValueError: metrics.jsonl holds something else, or a picture has another shape or type; named.
    """
    workdir = pathlib.Path(workdir)
    records = read_metrics(workdir / "metrics.jsonl")
    rows = [[(name, checked_picture(name, picture)) for name, picture in row.items()] for row in pictures]
    factor = _enlargement(rows)
    rows = [[(name, picture.repeat(factor, 0).repeat(factor, 1)) for name, picture in row] for row in rows]
    heights = [_CAPTION + max((picture.shape[0] for _, picture in row), default=0) + _GAP for row in rows]
    width = max([_WIDTH, *(_row_width(row) + 2 * _MARGIN for row in rows)])
    height = _HEAD + _CURVES + sum(heights) + _MARGIN

    figure = Figure((width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    curves = (_MARGIN / width, 1 - (_HEAD + _CURVES) / height, 1 - 2 * _MARGIN / width, _CURVES / height)
    figure.set_layout_engine("constrained", rect=curves, h_pad=0.08, w_pad=0.14)
    _text(figure, _MARGIN, height - _HEAD / 2, title, size=_LARGE, weight="bold", va="center")
    _draw_curves(figure, records)
    top = height - _HEAD - _CURVES
    for row, row_height in zip(rows, heights, strict=True):
        left = (width - _row_width(row)) // 2
        for name, picture in row:
            cell = Bbox.from_bounds(left, 0, picture.shape[1], height)
            _text(figure, left, top - _CAPTION + 7, name, size=_TEXT, clip_on=True, clip_box=cell)
            figure.figimage(picture, left, top - _CAPTION - picture.shape[0], origin="upper")
            left += picture.shape[1] + _GAP
        top -= row_height

    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    path = workdir / "report.png"
    with naming(path):
        atomic.write(path, lambda file: file.write(content.getbuffer()))
    return path


def _enlargement(rows):
    """The whole factor with which the widest row comes closest to the report's usual width."""
    widths = [sum(picture.shape[1] for _, picture in row) for row in rows]
    return max(1, round((_WIDTH - 2 * _MARGIN) / max([1, *widths]))) if any(widths) else 1


def _row_width(row):
    return sum(picture.shape[1] for _, picture in row) + _GAP * (len(row) - 1)


def _text(figure, x, y, text, **style):
    """At pixels from the lower left corner; a $ is a $, not mathematics."""
    width, height = figure.bbox.size
    figure.text(x / width, y / height, text, parse_math=False, **style)


def _panel(figure, last, where, title, unit):
    axes = figure.add_subplot(where)
    axes.set_title(title, size=_TEXT, weight="bold", loc="left", pad=20)
    axes.set_xlabel("step", size=_SMALL)
    axes.set_ylabel(unit, size=_SMALL)
    axes.tick_params(labelsize=_SMALL, color="#B0B0B0")
    axes.grid(color="#E6E6E6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#B0B0B0")
    axes.set_xlim(0, last * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(_thousands)
    return axes


def _draw_curves(figure, records):
    grid = figure.add_gridspec(2, 3)
    panel = functools.partial(_panel, figure, max([1, *(record["step"] for record in records)]))

    axes = panel(grid[0, 0], "Training loss", "Charbonnier, sum over a batch")
    _log_scale_if_wide(axes, _training_curve(axes, records, "train/loss"))
    axes.yaxis.set_major_formatter(_thousands)
    _finish(axes)

    axes = panel(grid[0, 1], "Training PSNR", "dB, RGB, on crops")
    _training_curve(axes, records, "train/psnr")
    _finish(axes)

    axes = panel(grid[0, 2], "Learning rate", "")
    steps, values = _series(records, "train/learning_rate")
    label = f"at the last step {values[-1]:.1e}" if len(values) else None
    axes.plot(steps, values, "-" if len(values) > 1 else ".", color=_RATE, linewidth=1.5, label=label)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:.1e}" if rate else "0")
    _finish(axes)

    axes = panel(grid[1, :2], "Validation PSNR-Y of the network, numbers at the last step", "dB")
    for name, label, color, style in (
        ("eval/psnr_y", "all frames", _NETWORK, "o-"),
        ("eval/psnr_y_input", "input frames", _INPUT, "s-"),
        ("eval/psnr_y_synthesized", "frames in between", _SYNTHESIZED, "^-"),
        ("eval/psnr_y_base", "the base alone, all frames", _BASE, ".--"),
    ):
        _score_curve(axes, records, name, label, "{:.2f}", color, style)
    _finish(axes)

    axes = panel(grid[1, 2], "Validation SSIM-Y, numbers at the last step", "SSIM")
    _score_curve(axes, records, "eval/ssim_y", "network", "{:.4f}", _NETWORK, "o-")
    _score_curve(axes, records, "eval/ssim_y_base", "the base alone", "{:.4f}", _BASE, ".--")
    _finish(axes)


def _thousands(number, _):
    return f"{number / 1000:g}k" if number >= 1000 else f"{number:g}"


def _series(records, name):
    """Steps and values where `name` is logged; NaN, which interrupts a line, where it was not finite."""
    found = [(record["step"], record[name]) for record in records if name in record]
    steps, values = zip(*found, strict=True) if found else ((), ())
    return np.array(steps, int), np.array(values, float)


def _training_curve(axes, records, name):
    """Draws what varies from batch to batch, with its running mean when there is enough of it; returns the values."""
    steps, values = _series(records, name)
    if len(values) < _SMOOTHED:
        axes.plot(steps, values, ".-", color=_NETWORK, linewidth=1.2, markersize=4, label="batches")
        return values
    window = np.ones(len(values) // 50 * 2 + 1)
    known = np.isfinite(values)
    count = np.convolve(known, window, "same")
    total = np.convolve(np.where(known, values, 0), window, "same")
    mean = np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
    axes.plot(steps, values, color=_NETWORK, linewidth=0.6, alpha=0.35, label="batches")
    axes.plot(steps, mean, color=_NETWORK, linewidth=1.5, label=f"running mean of {len(window)}")
    return values


def _score_curve(axes, records, name, label, form, color, style):
    steps, values = _series(records, name)
    if len(values):
        label = f"{label} {form.format(values[-1])}"
        axes.plot(steps, values, style, color=color, linewidth=1.2, markersize=3.5, label=label)


def _log_scale_if_wide(axes, values):
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() > 10 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())


def _finish(axes):
    """The legend, between title and panel where it covers no curve, or a note where there is nothing to see."""
    if not any(np.isfinite(line.get_ydata()).any() for line in axes.lines):
        axes.text(0.5, 0.5, "nothing logged yet", transform=axes.transAxes, ha="center", color="#808080", size=_TEXT)
        axes.set(xticks=[], yticks=[])
    elif axes.get_legend_handles_labels()[0]:
        legend = axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=4,
            fontsize=_SMALL,
            frameon=False,
            borderaxespad=0.1,
            borderpad=0.2,
            columnspacing=1.5,
            handlelength=1.8,
        )
        legend.set_in_layout(False)  # a long one would narrow the panels
