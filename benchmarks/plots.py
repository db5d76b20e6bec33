"""Draws all plots and diagrams of the pages: `python -m benchmarks.plots` writes docs/plots/*.svg.

What is measured is read where it stands: speed in benchmarks/RESULTS.md, which `python -m benchmarks` writes; scores in
MODEL_CARD.md, as `python -m benchmarks.pretrained` prints them; training in benchmarks/results, metrics.jsonl as
train.py left them. Equal data give equal files, with the same Matplotlib.
"""

import io
import pathlib

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks import diagrams
from benchmarks.diagrams import BASE, BICUBIC, GREY, INPUT, NETWORK, SYNTHESIZED
from msitf_jax import atomic
from msitf_jax.training.writers import read_metrics

ROOT = pathlib.Path(__file__).parent.parent
RUN, COOLDOWN = "msitf_small", "msitf_small_cooled"  # of the shipped weights
STYLE = {
    "svg.hashsalt": "msitf-jax",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#B0B0B0",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "legend.frameon": False,
}


def tables(path):
    """The tables of a Markdown file: lists of rows, lists of cells, headings first."""
    found, rows = [], []
    for line in [*path.read_text().splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip().strip("*") for cell in line.strip("|").split("|")])
        elif rows:
            found.append([rows[0], *rows[2:]])
            rows = []
    return found


def table(path, *headings):
    """The rows, without headings, of the first table that begins with these headings."""
    return next(rows[1:] for rows in tables(path) if rows[0][: len(headings)] == list(headings))


def speed():
    """How many times as fast as PyTorch: deformable convolution at three shapes, and the network."""
    results = ROOT / "benchmarks" / "RESULTS.md"
    labels, groups = [], []
    for shape, _, name, _, _, _, forward, _, _, _, backward in table(results, "shape", "type"):
        if name != "torchvision":
            labels.append(f"deformable convolution\n{shape}")
            groups.append([float(ratio.partition(",")[0]) for ratio in (forward, backward)])
    for config, size, _, seconds, *_, layers in table(results, "", "frames", "type", "seconds"):
        if layers:
            labels.append(f"{config}, 4 frames of {size},\nagainst its layers alone")
            groups.append([float(layers) / float(seconds)])
    figure = Figure((7.5, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for row, ratios in enumerate(groups):
        for place, (ratio, color, label) in enumerate(
            zip(ratios, (INPUT, NETWORK), ("forward", "with all gradients"), strict=False)
        ):
            y = row + 0.36 * (place - (len(ratios) - 1) / 2)
            axes.barh(y, ratio, 0.34, color=color, label=label if row == 0 else None)
            axes.annotate(f"{ratio:.1f}", (ratio, y), (4, 0), textcoords="offset points", va="center")
    axes.axvline(1, color=GREY, linewidth=1, linestyle="--")
    axes.annotate("as fast as PyTorch", (1, -0.62), (3, 0), textcoords="offset points", size=8, color=GREY, va="center")
    axes.set(yticks=range(len(labels)), yticklabels=labels, xlabel="PyTorch's time / msitf-jax's time, same run")
    axes.set_ylim(len(labels) - 0.4, -0.8)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.legend(loc="lower right")
    return figure


def scores():
    """PSNR-Y of the baselines and the shipped weights, clip by clip, at the input's times and between."""
    rows = [row for row in table(ROOT / "MODEL_CARD.md", "clip", "weights") if not row[0].startswith("mean")]
    colors = {"trilinear": BASE, "bicubic": BICUBIC, "flow": SYNTHESIZED, "msitf-small": NETWORK}
    clips = list(dict.fromkeys(row[0] for row in rows))
    figure = Figure((7.5, 3.2), layout="constrained")
    for axes, clip in zip(figure.subplots(1, len(clips)), clips, strict=True):
        values = {row[1]: [float(row[column]) for column in (2, 4, 5)] for row in rows if row[0] == clip}
        for place, (name, color) in enumerate(colors.items()):
            x = [column + 0.22 * (place - 1.5) for column in range(3)]
            axes.bar(x, values[name], 0.2, color=color, label=name)
            for left, value in zip(x, values[name], strict=True):
                axes.annotate(f"{value:.1f}", (left, value), (0, 2), textcoords="offset points", ha="center", size=7.5)
        axes.set_ylim(min(map(min, values.values())) - 1.5, max(map(max, values.values())) + 0.6)
        axes.set(title=clip, xticks=range(3), xticklabels=["all frames", "input's", "synthesized"])
        axes.set_ylabel("PSNR-Y, dB (axis does not start at 0)", size=8)
        axes.tick_params(axis="x", length=0)
        axes.grid(axis="y")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def training():
    """The run that the shipped weights are from, and its cooldown."""
    results = ROOT / "benchmarks" / "results"
    cooled = read_metrics(results / f"{COOLDOWN}.jsonl")
    branch = min(record["step"] for record in cooled)
    run = [record for record in read_metrics(results / f"{RUN}.jsonl") if record["step"] < branch] + cooled
    figure = Figure((8, 6.2), layout="constrained")
    validation, psnr, rate = figure.subplots(3, 1, sharex=True, height_ratios=[2, 1, 1])
    for name, label, color, style in (
        ("eval/psnr_y_input", "input frames", INPUT, "s-"),
        ("eval/psnr_y", "all frames", NETWORK, "o-"),
        ("eval/psnr_y_base", "base: bicubic along the flow, all frames", BASE, "--"),
        ("eval/psnr_y_synthesized", "frames in between", SYNTHESIZED, "^-"),
    ):
        steps, values = _series(run, name)
        validation.plot(steps, values, style, color=color, markersize=4, linewidth=1.4, label=label)
        validation.annotate(
            f"{values[-1]:.2f}", (steps[-1], values[-1]), (0, 5), textcoords="offset points", ha="right", size=8
        )
    psnr.plot(*_series(run, "train/psnr"), color=NETWORK, linewidth=1.2)
    rate.plot(*_series(run, "train/learning_rate"), color="#404040", linewidth=1.4)
    rate.set(xlabel="step", xlim=(0, run[-1]["step"] * 1.01))
    labels = "validation PSNR-Y, dB,\n30 septuplets of 5 clips", "training PSNR, dB,\nRGB, on crops", "learning rate"
    for axes, label in zip((validation, psnr, rate), labels, strict=True):
        axes.grid()
        axes.set_ylabel(label)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
    figure.legend(*validation.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _series(records, name):
    return zip(*((record["step"], record[name]) for record in records if name in record), strict=True)


FIGURES = {function.__name__.strip("_"): function for function in (speed, scores, training, *diagrams.ALL)}


def draw(folder):
    """Writes all of them into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        for name, function in FIGURES.items():
            content = io.BytesIO()
            function().savefig(content, format="svg", metadata={"Date": None})
            atomic.write(folder / f"{name}.svg", lambda file, content=content: file.write(content.getbuffer()))


def main():
    draw(ROOT / "docs" / "plots")


if __name__ == "__main__":
    main()
