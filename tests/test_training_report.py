"""The picture of a run: what is drawn, pixel for pixel where it is pictures."""

import itertools
import subprocess
import sys

import cv2
import numpy as np
import pytest
from matplotlib.text import Text

from msitf_jax.training import report
from msitf_jax.training.writers import RunLog

EVAL = ("psnr_y", "ssim_y", "psnr_y_input", "psnr_y_synthesized", "psnr_y_base", "ssim_y_base")


def log_run(workdir, steps, evaluations=()):
    with RunLog(workdir) as log:
        for step in steps:
            log.scalars(step, {"train/loss": 1e5 / step, "train/psnr": 20.0, "train/learning_rate": 2e-4})
        for step in evaluations:
            log.scalars(step, {f"eval/{name}": 0.9 for name in EVAL})


def read(path):
    return cv2.imread(str(path))[..., ::-1]


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def places(image, picture):
    """Where a picture stands in a larger one, exactly: (y, x) of its upper left corners."""
    windows = np.lib.stride_tricks.sliding_window_view(image, picture.shape[:2], axis=(0, 1))
    candidates = np.argwhere((windows[..., 0, 0] == picture[0, 0]).all(-1))
    height, width = picture.shape[:2]
    return [(y, x) for y, x in candidates if (image[y : y + height, x : x + width] == picture).all()]


def axes_drawn(workdir, monkeypatch):
    """The panels of the figure that `draw` makes, by title."""
    figures = []

    class Figure(report.Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            figures.append(self)

    monkeypatch.setattr(report, "Figure", Figure)
    report.draw(workdir, [], "title")
    return {axes.get_title("left").split(",")[0]: axes for axes in figures[0].axes}


def test_the_curves_show_what_is_logged(tmp_path, monkeypatch):
    log_run(tmp_path, range(10, 101, 10), (50, 100))
    axes = axes_drawn(tmp_path, monkeypatch)
    (loss,) = axes["Training loss"].lines
    assert loss.get_xydata().tolist() == [[step, 1e5 / step] for step in range(10, 101, 10)]
    assert axes["Training loss"].get_yscale() == "linear"
    (rate,) = axes["Learning rate"].lines
    assert rate.get_ydata().tolist() == [2e-4] * 10
    assert axes["Learning rate"].get_legend_handles_labels()[1] == ["at the last step 2.0e-04"]
    assert [line.get_label() for line in axes["Validation PSNR-Y of the network"].lines] == [
        "all frames 0.90",
        "input frames 0.90",
        "frames in between 0.90",
        "the base alone, all frames 0.90",
    ]
    network, base = axes["Validation SSIM-Y"].lines
    assert network.get_xydata().tolist() == base.get_xydata().tolist() == [[50, 0.9], [100, 0.9]]
    assert network.get_color() == axes["Validation PSNR-Y of the network"].lines[0].get_color() == loss.get_color()
    assert {panel.get_xlim() for panel in axes.values()} == {(0, 102)}


def test_a_loss_that_spans_more_than_a_decade_is_drawn_on_a_log_scale(tmp_path, monkeypatch):
    log_run(tmp_path, (10, 100, 101))
    assert axes_drawn(tmp_path, monkeypatch)["Training loss"].get_yscale() == "log"


def test_a_long_curve_has_its_running_mean_over_what_is_finite(tmp_path, monkeypatch):
    losses = [float("nan") if step == 40 else float(step) for step in range(100)]
    with RunLog(tmp_path) as log:
        for step, loss in enumerate(losses):
            log.scalars(step, {"train/loss": loss})
    batches, mean = axes_drawn(tmp_path, monkeypatch)["Training loss"].lines
    np.testing.assert_array_equal(batches.get_ydata(), losses)
    assert mean.get_label() == "running mean of 5"
    assert mean.get_ydata()[[0, 20, 39, 40, 99]] == pytest.approx([1, 20, (37 + 38 + 39 + 41) / 4, 40, 98])


@pytest.mark.parametrize("known", [(), ("train/loss",), ("train/loss", "eval/psnr_y")])
@pytest.mark.parametrize("value", [1.0, 0.0, -1.0, float("nan")])
def test_a_run_with_hardly_anything_logged_draws(tmp_path, monkeypatch, known, value):
    with RunLog(tmp_path) as log:
        log.scalars(0, dict.fromkeys(known, value))
    panels = axes_drawn(tmp_path, monkeypatch)
    notes = [title for title, axes in panels.items() if any("nothing" in text.get_text() for text in axes.texts)]
    shown = {"train/loss": "Training loss", "eval/psnr_y": "Validation PSNR-Y of the network"}
    expected = set(panels) - ({shown[name] for name in known} if np.isfinite(value) else set())
    assert set(notes) == expected
    assert read(tmp_path / "report.png").shape == (888, 1600, 3)


@pytest.mark.parametrize("steps", [range(1, 200), range(100, 150_001, 500), range(1, 3)])
def test_no_text_covers_another(tmp_path, monkeypatch, steps):
    log_run(tmp_path, steps, steps[-2:])
    panels = axes_drawn(tmp_path, monkeypatch).values()
    figure = next(iter(panels)).figure
    figure.canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    axises = [axis for axes in panels for axis in (axes.xaxis, axes.yaxis)]

    def seen(axis, tick):
        low, high = sorted(axis.get_view_interval())
        return low <= tick.get_loc() <= high

    # Ticks beyond the ends of an axis are objects too, only never drawn.
    unseen = {tick.label1 for axis in axises for tick in axis.get_major_ticks() if not seen(axis, tick)}
    boxes = [text.get_window_extent() for text in texts if text not in unseen]
    assert len(boxes) > 40
    assert not [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]
    assert all(0 <= box.x0 < box.x1 <= 1600 and 0 <= box.y0 < box.y1 <= 888 for box in boxes)


def test_pictures_are_shown_pixel_for_pixel_in_their_rows(tmp_path):
    log_run(tmp_path, (10, 20))
    rows = [{f"{column} $x$": noise(64, 448, 4 * row + column) for column in range(4)} for row in range(2)]
    path = report.draw(tmp_path, rows, "$5 & more")
    assert path == tmp_path / "report.png"
    image = read(path)
    found = [[places(image, picture) for picture in row.values()] for row in rows]
    assert all(len(place) == 1 for row in found for place in row)
    upper, lower = ([place[0] for place in row] for row in found)
    top, bottom = upper[0][0], lower[0][0]
    assert top + 64 < bottom
    assert upper == [(top, 24 + 458 * column) for column in range(4)]
    assert lower == [(bottom, 24 + 458 * column) for column in range(4)]
    assert image.shape[1] == 4 * 448 + 3 * 10 + 2 * 24


def test_small_pictures_are_enlarged_by_a_whole_factor(tmp_path):
    log_run(tmp_path, (10, 20))
    pictures = [noise(20, 30, seed) for seed in range(4)]
    image = read(report.draw(tmp_path, [dict(enumerate(pictures))], "title"))
    for picture in pictures:
        assert len(places(image, picture.repeat(13, 0).repeat(13, 1))) == 1
    assert image.shape[1] == 4 * 30 * 13 + 3 * 10 + 2 * 24


def test_a_title_does_not_run_into_the_next_picture(tmp_path):
    log_run(tmp_path, (10, 20))
    image = read(report.draw(tmp_path, [{"W" * 200: noise(20, 200), "": noise(20, 200, 1)}], "title"))
    enlarged = noise(20, 200, 1).repeat(4, 0).repeat(4, 1)
    [(y, x)] = places(image, enlarged)
    assert image[y - 30 : y, :x].min() < 128
    assert image[y - 30 : y, x:].min() == 255


def test_equal_runs_give_equal_files_and_nothing_else_is_left(tmp_path):
    log_run(tmp_path, (10, 20), (20,))
    before = sorted(tmp_path.iterdir())
    first = report.draw(tmp_path, [{"a": noise(8, 8)}], "title").read_bytes()
    assert report.draw(tmp_path, [{"a": noise(8, 8)}], "title").read_bytes() == first
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "report.png"])


def test_what_cannot_be_drawn_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl"):
        report.draw(tmp_path, [], "title")
    log_run(tmp_path, (10,))
    for picture in (np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"picture 'truth': is .*, expected uint8 \[H, W, 3\]"):
            report.draw(tmp_path, [{"truth": picture}], "title")
    (tmp_path / "report.png").mkdir()
    with pytest.raises(OSError, match=r"report\.png"):
        report.draw(tmp_path, [], "title")


def test_importing_neither_opens_windows_nor_warns():
    program = (
        "import sys, matplotlib; backend = matplotlib.rcParams._get_backend_or_none()\n"
        "import msitf_jax.training.report\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert 'tensorflow' not in sys.modules\n"
        "assert matplotlib.rcParams._get_backend_or_none() == backend\n"
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
