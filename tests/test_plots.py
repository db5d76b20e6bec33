"""What benchmarks.plots draws, and from which numbers."""

import re

import matplotlib as mpl

from benchmarks import plots
from tests.docs_check.markdown import ROOT, read_pages

RESULTS = ROOT / "benchmarks" / "RESULTS.md"


def test_every_drawing_is_on_a_page_and_every_page_has_those_there_are():
    links = [link for page in read_pages().values() for _, link in page.links if "plots/" in link]
    shown = {link.rpartition("/")[2] for link in links}
    assert shown == {f"{name}.svg" for name in plots.FIGURES} == {path.name for path in ROOT.glob("docs/plots/*")}


def test_numbers_come_from_the_tables():
    assert plots.table(RESULTS, "shape", "type")[0][:3] == ["[1, 144, 184, 64]", "float32", "xla"]
    with mpl.rc_context(plots.STYLE):
        (axes,) = plots.speed().axes
    ratios = [float(ratio) for ratio in re.findall(r"\| ([\d.]+), [\d.]+ \|", RESULTS.read_text())]
    network = re.search(r"\| msitf \| 180x144 \| float32 \| ([\d.]+) .* ([\d.]+) \|\n", RESULTS.read_text())
    seconds, layers = map(float, network.groups())
    assert sorted(bar.get_width() for bar in axes.patches) == sorted([*ratios, layers / seconds])


def test_equal_data_give_equal_files(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "FIGURES", {name: plots.FIGURES[name] for name in ("times", "windows")})
    for folder in ("a", "b"):
        plots.draw(tmp_path / folder)
    for name in plots.FIGURES:
        content = (tmp_path / "a" / f"{name}.svg").read_bytes()
        assert content == (tmp_path / "b" / f"{name}.svg").read_bytes()
        assert b"<dc:date>" not in content
