"""Trials of damaged files, each given to the program in a process that may hang or die of it."""

import collections
import contextlib
import dataclasses
import itertools
import json
import os
import select
import signal
import subprocess
import sys

from tests.training import ROOT, environment

LONGEST = 120  # seconds; a trial that takes longer hangs


@dataclasses.dataclass
class Outcome:
    """How a trial ended.

    Attributes:
      kind: "taken", "refused" (by one sentence that names the file), or what must not be: "traceback", "mumbled" (an
        error that is no such sentence), "hung" or "died".
      text: what came of what was taken, a digest, or what was said.
    """

    kind: str
    text: str


class Subject:
    """A process of `tests.faults.subjects` that tries one file after another; a new one takes the place of a dead one.

    Args:
      name: of a function there.
      folder: for what the trials write.
    """

    def __init__(self, name, folder):
        self._command = [sys.executable, "-m", "tests.faults.subjects", name, os.fspath(folder)]
        self._errors = folder / "standard_error.txt"
        self._process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stop()

    def try_(self, path):
        """Gives the program a file; returns an `Outcome`."""
        if self._process is None:
            with self._errors.open("w") as errors:
                self._process = subprocess.Popen(
                    self._command,
                    cwd=ROOT,
                    env=environment(),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    start_new_session=True,
                )
        self._process.stdin.write(f"{json.dumps(os.fspath(path))}\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], LONGEST)[0]:
            self._stop()
            return Outcome("hung", f"for {LONGEST} s")
        answer = self._process.stdout.readline()
        if not answer:
            status = self._process.wait()
            self._process = None
            how = signal.Signals(-status).name if status < 0 else f"status {status}"
            return Outcome("died", f"{how}: {self._errors.read_text()[-2000:]}")
        return Outcome(**json.loads(answer))

    def _stop(self):
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)  # and what it has forked
            with contextlib.suppress(BrokenPipeError):
                self._process.communicate()
            self._process = None


def count(name, folder, damaged, *, altered):
    """Tries whole files and then damaged ones in their place, and prints how it went.

    Args:
      name: of a function of `tests.faults.subjects`.
      folder: for what the trials write.
      damaged: [(path of a whole file, what is in its place meanwhile)].
      altered: whether a damaged file may be taken for another one: where nothing in it could tell, or where it is
        documented that what can be read is taken. Otherwise what is taken must be as of the whole file.

    Raises:
      AssertionError: a trial that ended as none may.
    """
    allowed = {"refused", "as if whole"} | ({"taken for another"} if altered else set())
    ends, wrong = collections.Counter(), []
    with Subject(name, folder) as subject:
        first = subject.try_(damaged[0][0])
        assert first.kind == "taken", first.text
        for number, (path, content) in enumerate(damaged):
            whole = path.read_bytes()
            path.write_bytes(content)
            outcome = subject.try_(path)
            path.write_bytes(whole)
            if outcome.kind == "taken":
                outcome.kind = "as if whole" if outcome.text == first.text else "taken for another"
            ends[outcome.kind] += 1
            if outcome.kind not in allowed:
                kept = folder / f"{name}-{number}-{outcome.kind.replace(' ', '-')}-{path.name}"
                kept.write_bytes(content)
                wrong.append(f"{kept}: {outcome.text}")
        assert subject.try_(damaged[0][0]) == first
    print(f"\n{name}: {ends.total()} damaged files:", ", ".join(f"{n} {kind}" for kind, n in sorted(ends.items())))
    assert not wrong, "\n\n".join(itertools.islice(wrong, 5))
