"""The drawings of docs/: positions, times, windows and tiles as the code has them, and two outlines.

`python -m benchmarks.plots` draws them.
"""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from input_pipeline import degradation
from msitf_jax.model.swin import WINDOW
from msitf_jax.ops.resize import trilinear_base
from msitf_jax.video import tiles
from msitf_jax.video import windows as video_windows
from msitf_jax.weights import tile_margin

# Okabe and Ito's colours, told apart by colour-blind people too; as in `msitf_jax.training.report`.
NETWORK, INPUT, SYNTHESIZED, BASE, BICUBIC, GREY = "#0072B2", "#009E73", "#D55E00", "#9A9A9A", "#E69F00", "#606060"
PALE = {NETWORK: "#D6E8F4", INPUT: "#D3EFE6", SYNTHESIZED: "#F9E1D2", GREY: "#EFEFEF"}


def coordinates():
    """Where low-resolution pixels lie, and what the second one is made of, for each degradation."""
    scale = degradation.SCALE
    figure = Figure((8, 6.4), layout="constrained")
    panels = figure.subplots(3, 1, sharex=True, sharey=True)
    for axes, name in zip(panels, degradation.DEGRADATIONS, strict=True):
        first, weights, _ = degradation._kernel(name)
        taps = first + np.arange(len(weights))
        place = float(taps @ weights)
        for edge in np.arange(-3, 13) - 0.5:
            axes.axvline(edge, color="#EEEEEE", linewidth=0.8, zorder=0)
        axes.bar(scale + taps, weights, 0.8, color=PALE[NETWORK], edgecolor=NETWORK, linewidth=0.6)
        axes.axhline(0, color="#B0B0B0", linewidth=0.8)
        for number in range(3):
            left, top = scale * number - 0.5, 0.34
            chosen = number == 1
            axes.add_patch(
                Rectangle((left, top), scale, 0.09, facecolor=PALE[SYNTHESIZED if chosen else GREY], edgecolor="white")
            )
            axes.plot(scale * number + place, top + 0.045, "o", color=SYNTHESIZED if chosen else GREY, markersize=6)
            axes.text(left + scale - 0.15, top + 0.045, f"i = {number}", ha="right", va="center", size=8, color=GREY)
        axes.plot([scale + place] * 2, [0, 0.34], color=SYNTHESIZED, linewidth=1, linestyle=":")
        axes.annotate(
            f"4i + {place:g}" if round(place, 9) else "4i",
            (scale + place, 0.31), (5, 0), textcoords="offset points", color=SYNTHESIZED, va="center",
        )  # fmt: skip
        axes.set(title=name, xlim=(-3.5, 14.5), ylim=(-0.05, 0.47), xticks=range(-2, 15, 1), yticks=[0, 0.1, 0.2])
        axes.set_ylabel("weight in pixel i = 1")
    panels[-1].set_xlabel(
        "high-resolution pixel, counted from the frame's first; negative ones are beyond its border.  "
        "Dots: low-resolution pixels"
    )
    return figure


def times():
    """When the seven frames of a window are: nominally, and in the trilinear base."""
    frames = video_windows.LENGTH
    ramp = np.arange(frames, dtype=np.float32)[None, :, None, None, None]  # each frame as bright as its time
    found = np.asarray(trilinear_base(ramp))[0, :, 0, 0, 0]
    figure = Figure((8, 2.1), layout="constrained")
    axes = figure.add_subplot()
    nominal = np.arange(2 * frames - 1) / 2
    for y, values, color, marker, above in ((1, nominal, NETWORK, "o", 8), (0, found, SYNTHESIZED, "D", -15)):
        axes.axhline(y, color="#E0E0E0", linewidth=1, zorder=0)
        axes.plot(values, [y] * len(values), marker, color=color, markersize=7)
        for value in values:
            label = f"{value:.3f}".rstrip("0").rstrip(".")
            axes.annotate(label, (value, y), (0, above), textcoords="offset points", ha="center", size=8)
    for a, b in zip(nominal, found, strict=True):
        axes.plot([a, b], [0.88, 0.12], color="#C0C0C0", linewidth=0.8, zorder=0)
    axes.set(xlim=(-0.25, frames - 0.75), ylim=(-0.6, 1.5), yticks=[0, 1], xticks=range(frames))
    axes.set_yticklabels(["trilinear base", "frames that come out"])
    axes.set_xlabel("time, in input frames")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    return figure


def windows():
    """A scene of nine frames: its windows, and which of them gives which frame."""
    frames, colors = 9, (NETWORK, INPUT, SYNTHESIZED)
    stills = [video_windows.Still(np.full((1, 1, 3), number), [number]) for number in range(frames)]
    stills[-1].last = True
    found = list(video_windows.windows(stills))
    figure = Figure((8, 3.1), layout="constrained")
    axes = figure.add_subplot()
    rows = [f"window {number}" for number in range(1, len(found) + 1)]
    for number in range(frames):
        _box(axes, number, 4.6, 0.6, 0.62, str(number + 1), GREY)
    for row, (window, color) in enumerate(zip(found, colors, strict=True)):
        y = 3.6 - 0.72 * row
        given = sorted({int(pixels[0, 0, 0]) for pixels in window.clip})
        axes.plot([given[0], given[-1]], [y, y], color=color, linewidth=1.2, zorder=0)
        for number in given:
            axes.plot(number, y, "o", color=color, markersize=8)
        for _, time in window.outputs:
            _box(axes, time / 2, 0.85, 0.36, 0.62, str(time + 1), color, size=8)
    ticks = {4.6: f"{frames} frames go in", 0.85: f"{2 * frames - 1} come out"}
    ticks |= {3.6 - 0.72 * row: name for row, name in enumerate(rows)}
    axes.set(
        xlim=(-0.5, frames - 0.5), ylim=(0.4, 5.05), xticks=[], yticks=list(ticks), yticklabels=list(ticks.values())
    )
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)
    return figure


def tiles_():
    """A frame cut into tiles, and the weights of those in a row."""
    width, height, most = 1280, 720, 280_000  # pixels

    def fits(*tile):
        return tile[0] * tile[1] <= most

    grid = tiles.choose(height, width, fits, margin=tile_margin("msitf-small"), alignment=WINDOW)
    figure = Figure((8, 6.4), layout="constrained")
    frame, fade = figure.subplots(2, 1, sharex=True, height_ratios=[2.6, 1])
    colors = (NETWORK, SYNTHESIZED, INPUT, BICUBIC)
    for row, top in enumerate(grid.rows):
        for column, left in enumerate(grid.columns):
            color = colors[(column + 2 * row) % len(colors)]
            tile_width, tile_height = grid.tile_width, grid.tile_height
            frame.add_patch(Rectangle((left, top), tile_width, tile_height, facecolor=color, alpha=0.16))
            inset = 2 + 4 * ((row + column) % 2)  # so that edges in one place are seen apart
            inner = (left + inset, top + inset), tile_width - 2 * inset, tile_height - 2 * inset
            frame.add_patch(Rectangle(*inner, fill=False, edgecolor=color, linewidth=1.4))
    frame.set(xlim=(0, width), ylim=(height, 0), ylabel="input pixel, down")
    frame.set_title(f"{width}x{height} in {len(grid)} tiles of {grid.tile_width}x{grid.tile_height}")
    scale = 4
    for column, part in enumerate(tiles._fades(grid.columns, grid.tile_width, scale)):
        color, left = colors[column % len(colors)], grid.columns[column]
        corners = np.flatnonzero(np.abs(np.diff(part.weights, 2, prepend=-9, append=-9)) > 1e-4)
        x = (part.outside.start + corners + 0.5) / scale
        fade.fill_between(x, part.weights[corners], color=color, alpha=0.16)
        fade.plot(x, part.weights[corners], color=color, linewidth=1.6)
        y = -0.24 - 0.18 * (column % 2)
        fade.plot([left, left + grid.tile_width], [y, y], "|-", color=color, linewidth=1.2)
        fade.text(left + grid.tile_width / 2, y, "a tile", size=7, ha="center", va="center", backgroundcolor="white")
    fade.set(ylim=(-0.6, 1.12), yticks=[0, 0.5, 1], xlabel="input pixel, across", ylabel="weight")
    fade.grid(axis="x")
    return figure


def network():
    """The data flow, top to bottom of `msitf_jax/model/msitf.py`."""
    figure = Figure((8.4, 4.5), layout="constrained")
    axes = _empty(figure, 100, 56)
    parts = (
        ("shallow features", "convolution, 5 residual\nblocks, frame by frame"),
        ("interpolation", "pyramid, deformable\nalignment of neighbors"),
        ("fusion over time", "ConvLSTM, both ways,\ndeformable alignment"),
        ("global context", "attention over time\nat every pixel"),
        ("trunk", "6 groups of Swin V2\nblocks, frame by frame"),
    )
    y, width, height = 34, 16.5, 12
    for number, (title, text) in enumerate(parts):
        x = 20.5 * number
        _panel(axes, x, y, width, height, title, text, NETWORK)
        if number:
            _arrow(axes, (x - 4, y + height / 2), (x, y + height / 2))
    _arrow(axes, (8.25, 53), (8.25, 46))
    axes.text(9.5, 50.2, "4 frames, $h \\times w \\times 3$", size=9, va="center")
    _panel(axes, 82, 10, width, height, "reconstruction", "two pixel shuffles\nby 2, two convolutions", NETWORK)
    _arrow(axes, (90.25, 34), (90.25, 22))
    axes.text(89, 28, "7 frames, $h \\times w \\times C$", size=8.5, va="center", ha="right")
    _panel(axes, 20.5, 10, width, height, "base", "resized in space\nand time, no weights", GREY)
    axes.add_patch(FancyArrowPatch(
        (-2.5, 50.5), (20.5, 16), connectionstyle="angle,angleA=90,angleB=0,rad=4", arrowstyle="-|>",
        mutation_scale=11, color=GREY, linewidth=1.2, shrinkA=0, shrinkB=0,
    ))  # fmt: skip
    axes.plot([-2.5, 8.25], [50.5, 50.5], color=GREY, linewidth=1.2)
    axes.add_patch(FancyBboxPatch((57, 13.5), 5, 5, boxstyle="circle,pad=0.1", facecolor="white", edgecolor=GREY))
    axes.text(59.5, 16, "+", ha="center", va="center", size=14)
    _arrow(axes, (37, 16), (56.7, 16))
    _arrow(axes, (82, 16), (62.3, 16))
    _arrow(axes, (59.5, 13.3), (59.5, 5.5))
    axes.text(59.5, 3.4, "7 frames, $4h \\times 4w \\times 3$", ha="center", va="center", size=9)
    return figure


def kernel():
    """What one program of the forward kernel does."""
    figure = Figure((8.4, 5.2), layout="constrained")
    axes = _empty(figure, 100, 64)
    # Which pixels.
    axes.text(0, 62, "output pixels of an image, row by row", size=8.5, va="center")
    for pixel in range(32):
        chosen = 8 <= pixel < 16
        _cell(axes, 3 * pixel, 56, 2.6, 3, SYNTHESIZED if chosen else GREY)
    axes.text(36, 53.2, "a program takes a block of them", size=8.5, ha="center", va="center", color=SYNTHESIZED)
    # One step.
    axes.add_patch(Rectangle((0, 17), 77, 33, fill=False, edgecolor="#B0B0B0", linestyle="--"))
    axes.text(1.5, 47.7, "a step: one tap, some groups of channels", size=9, weight="bold", va="center")
    for line in range(6):
        axes.plot([4, 19], [25 + 3 * line] * 2, color="#C8C8C8", linewidth=0.8)
        axes.plot([4 + 3 * line] * 2, [25, 40], color="#C8C8C8", linewidth=0.8)
    axes.add_patch(Rectangle((10, 31), 6, 6, facecolor=PALE[SYNTHESIZED], edgecolor=SYNTHESIZED))
    for corner in ((10, 31), (16, 31), (10, 37), (16, 37)):
        axes.plot(*corner, "o", color="white", markeredgecolor=SYNTHESIZED, markersize=5)
    axes.plot(13.6, 33.4, "o", color=SYNTHESIZED, markersize=6)
    axes.annotate("", (13.6, 33.4), (7, 28), arrowprops={"arrowstyle": "-|>", "color": GREY, "shrinkB": 3})
    axes.text(11.5, 42.6, "four corners of x,\ngathered", ha="center", va="center", size=8.5)
    axes.text(11.5, 21.4, "where tap and offset\n(dy, dx) point", ha="center", va="center", size=8.5)
    _arrow(axes, (20.5, 32.5), (29.5, 32.5))
    axes.text(24.8, 33.6, "interpolate,\nmask", ha="center", va="bottom", size=8)
    _matrix(axes, 33, 25, 11, 15, "samples", "pixels", "channels", SYNTHESIZED)
    axes.text(47, 32.5, r"$\times$", ha="center", va="center", size=16)
    _matrix(axes, 53, 27, 15, 11, "weights\nof the tap", "channels", "features", INPUT)
    axes.text(50, 21.4, "samples never leave the registers: those of\nall nine taps are nine times as large as x",
              ha="center", va="center", size=8, color=GREY)  # fmt: skip
    _arrow(axes, (69.5, 32.5), (82, 32.5))
    axes.text(79.6, 33.6, "add", ha="center", va="bottom", size=8)
    _matrix(axes, 83, 25, 15, 15, "sum,\nfloat32", "", "features", NETWORK)
    axes.text(90.5, 47, "in registers,\nfor all steps", ha="center", va="center", size=8, color=GREY)
    _arrow(axes, (90.5, 24), (90.5, 18.5))
    axes.text(90.5, 15, "after the last step:\nplus bias, written", ha="center", va="center", size=8.5)
    # In which order.
    axes.text(0, 13.2, "steps, in order", size=8.5, va="center")
    for step in range(18):
        block, tap = divmod(step, 9)
        _cell(axes, 4.3 * step, 6.5, 3.8, 4, (INPUT, NETWORK)[block], str(tap + 1))
    for block, text in enumerate(("all taps of the first groups", "all taps of the next groups")):
        axes.text(38.7 * block + 19, 3.4, text, size=8, ha="center", va="center", color=GREY)
    return figure


def _empty(figure, width, height):
    axes = figure.add_subplot()
    axes.set(xlim=(-3, width), ylim=(0, height), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return axes


def _box(axes, x, y, width, height, text, color, size=9):
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2), width, height,
            boxstyle="round,pad=0,rounding_size=0.06", facecolor=PALE[color], edgecolor=color,
        )
    )  # fmt: skip
    axes.text(x, y, text, ha="center", va="center", size=size)


def _cell(axes, x, y, width, height, color, text=""):
    axes.add_patch(Rectangle((x, y), width, height, facecolor=PALE[color], edgecolor=color, linewidth=0.8))
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", size=7.5)


def _panel(axes, x, y, width, height, title, text, color):
    style = "round,pad=0,rounding_size=1"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=PALE[color], edgecolor=color))
    axes.text(x + width / 2, y + height - 1.3, title, ha="center", va="top", size=9, weight="bold")
    axes.text(x + width / 2, y + 1.2, text, ha="center", va="bottom", size=7.5)


def _matrix(axes, x, y, width, height, title, down, across, color):
    axes.add_patch(Rectangle((x, y), width, height, facecolor=PALE[color], edgecolor=color))
    axes.text(x + width / 2, y + height / 2, title, ha="center", va="center", size=8.5, wrap=True)
    axes.text(x + width / 2, y + height + 0.8, across, ha="center", va="bottom", size=8, color=GREY)
    axes.text(x - 0.6, y + height / 2, down, ha="right", va="center", size=8, color=GREY, rotation=90)


def _arrow(axes, start, end):
    style = {"arrowstyle": "-|>", "mutation_scale": 11, "color": GREY, "linewidth": 1.2}
    axes.add_patch(FancyArrowPatch(start, end, shrinkA=0, shrinkB=0, **style))


ALL = (coordinates, times, windows, tiles_, network, kernel)
