"""That a program is started anew with huge pages, once, and only where the system leaves that to programs."""

import os
import subprocess
import sys

import pytest

from msitf_jax.training import huge_pages


@pytest.fixture
def restarts(monkeypatch, tmp_path):
    """What a process is replaced by, on a system that leaves it to programs."""
    setting, found = tmp_path / "enabled", []
    setting.write_text("always [madvise] never\n")
    monkeypatch.setattr(huge_pages, "_SETTING", setting)
    monkeypatch.setattr(huge_pages.os, "execv", lambda path, arguments: found.append((path, arguments)))
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "benchmarks.training", "--batch=2"])
    monkeypatch.setenv("GLIBC_TUNABLES", "")  # so that it is as before at the end
    monkeypatch.delenv("GLIBC_TUNABLES")
    return found


def test_the_same_command_is_started_once(restarts):
    huge_pages.restart_with_huge_pages()
    assert restarts == [(sys.executable, [sys.executable, "-m", "benchmarks.training", "--batch=2"])]
    assert huge_pages.os.environ["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    huge_pages.restart_with_huge_pages()
    assert len(restarts) == 1


def test_what_the_user_has_set_stays(restarts, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    huge_pages.restart_with_huge_pages()
    assert restarts == []


@pytest.mark.parametrize("setting", ["[always] madvise never\n", "always madvise [never]\n", None])
def test_where_the_system_decides_nothing_is_started(restarts, setting):
    if setting is None:  # not Linux
        huge_pages._SETTING.unlink()
    else:
        huge_pages._SETTING.write_text(setting)
    huge_pages.restart_with_huge_pages()
    assert restarts == []


_PROGRAM = """
import os, pathlib, sys
from msitf_jax.training import huge_pages
huge_pages._SETTING = pathlib.Path(sys.argv[1])
print(os.getpid(), flush=True)
huge_pages.restart_with_huge_pages()
print(os.environ["GLIBC_TUNABLES"], *sys.argv[2:])
"""


def test_a_program_goes_on_as_the_same_process_with_its_arguments(tmp_path):
    setting = tmp_path / "enabled"
    setting.write_text("always [madvise] never\n")
    variables = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    command = [sys.executable, "-c", _PROGRAM, setting, "--a=b c", "*"]
    printed = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=True).stdout
    first, again, last = printed.splitlines()
    assert first == again
    assert last == "glibc.malloc.hugetlb=1 --a=b c *"
