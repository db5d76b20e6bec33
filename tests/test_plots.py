"""What benchmarks.plots draws, and from which numbers."""

import re
import subprocess
import sys

import matplotlib as mpl
import pytest

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


@pytest.mark.slow
def test_benchmarks_print_the_tables_that_are_read(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--only=op"]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    (tmp_path / "results.md").write_text(done.stdout)
    printed, kept = (plots.table(path, "shape", "type") for path in (tmp_path / "results.md", RESULTS))
    assert [row[:3] for row in printed] == [row[:3] for row in kept if row[2] == "xla"]
    assert all(float(row[3]) > 0 and float(row[7]) > 0 for row in printed)


def test_equal_data_give_equal_files(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "FIGURES", {name: plots.FIGURES[name] for name in ("times", "windows")})
    for folder in ("a", "b"):
        plots.draw(tmp_path / folder)
    for name in plots.FIGURES:
        content = (tmp_path / "a" / f"{name}.svg").read_bytes()
        assert content == (tmp_path / "b" / f"{name}.svg").read_bytes()
        assert b"<dc:date>" not in content
