"""The pages for people: their links and their commands. `make docs-check` also runs the commands."""

import re
import shlex

import pytest

from tests.docs_check import markdown
from tests.docs_check.commands import check_command
from tests.docs_check.faults import faults

# By ml_collections, which reads the configuration files.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def test_links_lead_somewhere_and_commands_are_ones_that_programs_take():
    assert "\n".join(faults(markdown.read_pages())) == ""


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("msitf upscale a.mp4 b.mp4 --sclae=2", "unrecognized arguments: --sclae=2"),
        ("msitf shrink a.mp4", "invalid choice: 'shrink'"),
        ("python evaluate.py --dataset=vid4", "required: --weights"),
        ("python absent.py", "no such script absent.py"),
        ("python -m benchmarks.absent", "No module named 'benchmarks.absent'"),
        ("python -m benchmarks.exchanges --fast", "takes no arguments"),
        ("python -m input_pipeline.prepare lr --manual_dir=VIMEO --out=LR", "required: --degradation"),
        ("python train.py --config=configs/msitf.py", "--workdir must have a value"),
        ("python train.py --config=configs/absent.py --workdir=DIR", "absent.py"),
        ("python train.py --config=configs/msitf.py --workdir=DIR --config.bach_size=8", "bach_size"),
        ("python train.py --config=configs/msitf.py --workdir=DIR --config.batch_size=0", "must be at least 1"),
        ("srun --nodes=2 python train.py --config=configs/msitf.py --workdir=DIR --distribute", "distribute"),
        ("make absent", "No rule to make target"),
        ("pip install '.[absent]'", "no such file or extra"),
        ("python -m pytest -m fast", "no such marker: fast"),
        ("python -m pytest tests/test_docs.py::test_absent", "no such test"),
        ("rm -rf runs", "a program that is not known here"),
    ],
)
def test_a_command_that_its_program_would_not_take_is_named(command, fault):
    with pytest.raises(ValueError, match=re.escape(fault)):
        check_command(shlex.split(command))


def test_faults_of_a_page_are_named_by_line(tmp_path, monkeypatch):
    monkeypatch.setattr(markdown, "ROOT", tmp_path)
    page, other = tmp_path / "README.md", tmp_path / "other.md"
    other.write_text("# Here\n")
    page.write_text(
        "# A page\n[one](absent.md), [two](#there), [three](#a-page)\n`msitf info --all`, `--scael=2`\n"
        "```python\n1 +\n```\n```sh\nls\n```\n"
    )
    found = "\n".join(faults({path: markdown.Page.read(path) for path in (page, other)}))
    for fault in (
        "README.md:2: absent.md: no such file",
        "README.md:2: #there: no such heading",
        "README.md:3: msitf info --all: ",
        "README.md:3: --scael=2: no command has such an option",
        "README.md:5: invalid syntax",
        "README.md:8: a block of 'sh'",
        "other.md: no link leads there",
    ):
        assert fault in found
    assert found.count("\n") == 6
