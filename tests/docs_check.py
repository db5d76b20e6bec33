"""Tries what the pages for people say: `make docs-check`.

1. Links, pictures and anchors lead somewhere, and every page can be reached from the README.
2. Every command, in a block or within a sentence, is one that the program it starts takes: parsed by that program's own
   parser. Every Python block compiles.
3. What needs no foreign data, cluster or GPU is run, in a copy of the project beside small stand-ins for the files that
   the pages name; one folder for all pages, as for a reader who tries everything.

It stands among the tests because the first two are one, `tests/test_docs.py`. Blocks without a language are commands;
what a program prints goes into blocks of `text`.
"""

import argparse
import contextlib
import copy
import dataclasses
import functools
import importlib
import io
import itertools
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from unittest import mock

from absl import flags
from ml_collections import config_flags

import train
from msitf_jax import cli
from msitf_jax.training import configuration
from tests import tiny_config

ROOT = pathlib.Path(__file__).parents[1]
PAGES = ("README.md", "*.md", "docs/*.md", "benchmarks/*.md", "tests/golden/*.md")
EXAMPLES = {"DEGRADATION": "bi", "SECTION": "op"}  # for words that stand for one of several choices
PROGRAMS = ("python", "msitf", "make", "pip")
NAMES = {f"msitf {name}" for name in cli.COMMANDS}  # within a sentence a command may be named without its arguments
WITHOUT_OPTIONS = ("benchmarks.exchanges", "benchmarks.plots")  # modules that parse nothing
SECONDS = 300  # for a command

# Why a command is not run; the first that is found in it.
NOT_RUN = {
    r"^srun |--coordinator=": "needs several hosts; tests/test_train.py starts two processes",
    r"^make |^pip ": "installs packages",
    r"benchmarks\.tune|--implementation=triton|--type=tf32|-m gpu": "needs an NVIDIA GPU",
    r"-m pytest": "is a test",
    r"-m benchmarks( |$)|benchmarks\.(exchanges|choices)": "takes many minutes",
}
# Training runs by tests/tiny_config.py and these, all alike, so that a step compiled once serves many.
TRAINING = {
    "num_train_steps": 2,
    "batch_size": 8,
    "eval_every": 2,
    "checkpoint_every": 2,
    "ema_decay": 0.9,
    "optimizer.max_grad_norm": 1e4,
}
# What Python blocks find there.
PRELUDE = """
import numpy as np
frames = np.random.default_rng(0).integers(0, 256, (4, 12, 16, 3), np.uint8)
clip = frames[None].astype(np.float32) / 255
"""


@dataclasses.dataclass(frozen=True)
class Block:
    """Fenced lines of a page."""

    page: pathlib.Path
    line: int
    language: str
    text: str

    def __str__(self):
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclasses.dataclass(frozen=True)
class Page:
    """A Markdown file, cut into blocks and what lies between them.

    Attributes:
      prose: of as many lines as the file, blocks left empty.
    """

    path: pathlib.Path
    prose: str
    blocks: list

    @classmethod
    def read(cls, path):
        prose, blocks, fenced = [], [], None
        for number, line in enumerate(path.read_text().splitlines(), 1):
            prose.append("" if fenced or line.startswith("```") else line)
            if line.startswith("```"):
                if fenced:
                    blocks.append(Block(path, *fenced[:2], "\n".join(fenced[2:])))
                fenced = None if fenced else [number + 1, line[3:].strip()]
            elif fenced:
                fenced.append(line)
        return cls(path, "\n".join(prose), blocks)

    @property
    def anchors(self):
        """As GitHub makes them of headings."""
        headings = re.findall(r"^#+ (.*)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}

    @property
    def links(self):
        """[(line, target)], other sites left out."""
        found = re.finditer(r"\]\(([^)\s]+)\)", self.prose)
        links = [(1 + self.prose.count("\n", 0, match.start()), match[1]) for match in found]
        return [(line, target) for line, target in links if "://" not in target]

    @property
    def quoted(self):
        """[(line, code within a sentence)]."""
        found = re.finditer(r"`([^`]+)`", self.prose)
        return [(1 + self.prose.count("\n", 0, match.start()), " ".join(match[1].split())) for match in found]


def read_pages():
    """{path: Page} of all of them, the README first."""
    paths = itertools.chain.from_iterable(sorted(ROOT.glob(pattern)) for pattern in PAGES)
    return {path: Page.read(path) for path in paths}


def commands(block):
    """The commands of a block, continued lines joined and comments cut off: lists of words."""
    lines = re.sub(r"\\\n", " ", block.text).splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def faults(pages):
    """Yields a sentence for everything that is wrong without running anything."""
    for path, page in pages.items():
        place = path.relative_to(ROOT)
        for line, target in page.links:
            file, _, anchor = target.partition("#")
            linked = (path.parent / file).resolve() if file else path
            if not linked.exists():
                yield f"{place}:{line}: {target}: no such file"
            elif anchor and anchor not in pages.get(linked, page).anchors:
                yield f"{place}:{line}: {target}: no such heading"
        for line, code in page.quoted:
            if code in NAMES:
                continue
            if code.split()[0] in PROGRAMS and " " in code:
                yield from _fault(f"{place}:{line}", check_command, shlex.split(code))
            elif code.startswith("--"):
                yield from _fault(f"{place}:{line}", check_option, code)
        for block in page.blocks:
            if block.language == "python":
                yield from _fault(block, compile, block.text, str(block), "exec")
            elif not block.language:
                for words in commands(block):
                    yield from _fault(block, check_command, words)
            elif block.language != "text":
                yield f"{block}: a block of {block.language!r}, expected commands (no language), python or text"
    for path in pages.keys() - reachable(pages):
        yield f"{path.relative_to(ROOT)}: no link leads there from the README"


def reachable(pages):
    """The paths to which links lead from the README, by way of pages."""
    found, new = set(), {ROOT / "README.md"}
    while new:
        found |= new
        links = {(path.parent / target.partition("#")[0]).resolve() for path in new for _, target in pages[path].links}
        new = (links & pages.keys()) - found
    return found


def _fault(place, check, *arguments):
    try:
        check(*arguments)
    except (ValueError, SyntaxError) as error:
        yield f"{place}: {error}"


def check_command(words):
    """Raises ValueError for a command that its program would not take."""
    line = shlex.join(words)
    words = [re.sub("=([A-Z]+)$", lambda match: f"={EXAMPLES.get(match[1], match[1])}", word) for word in words]
    _, words = _environment(words)
    if words[0] == "srun":
        words = words[words.index("python") :]
    program, *arguments = words
    try:
        if program == "msitf":
            _parse("msitf_jax.cli", arguments)
        elif program == "make":
            _dry_run(words)
        elif program == "pip":
            _check_install(arguments)
        elif pathlib.Path(program).name != "python":
            raise ValueError("a program that is not known here")
        elif arguments[0] != "-m":
            _run_parser(arguments)
        elif arguments[1] == "pytest":
            _check_tests(arguments[2:])
        else:
            _parse(arguments[1], arguments[2:])
    except ValueError as error:
        raise ValueError(f"{line}: {error}") from None


def check_option(code):
    """Raises ValueError for an option, such as `--scale=2`, that no command has."""
    for option in (word for word in code.split() if word.startswith("--")):
        if option.startswith("--config."):
            value = "" if "=" in option else "=1"
            option = re.sub(r"=[A-Z]+\b", "=1", option)
            _parse_training(["--config=configs/msitf.py", "--workdir=DIR", option + value])
        elif option.partition("=")[0] not in _known_options():
            raise ValueError(f"{option}: no command has such an option")


def _environment(words):
    """A command -> ({variable: value} that it begins with, the rest)."""
    count = next(number for number, word in enumerate(words) if not re.match(r"\w+=", word))
    return dict(word.split("=", 1) for word in words[:count]), words[count:]


class _Parsed(Exception):
    pass


def _parse(name, arguments, parsers=None):
    """Starts a module's `main` and ends it when its parser has taken the arguments, for real."""
    try:
        module = importlib.import_module(name)
        if hasattr(module, "__path__") and not hasattr(module, "main"):
            module = importlib.import_module(f"{name}.__main__")
    except ImportError as error:
        raise ValueError(f"{error}") from None
    if name in WITHOUT_OPTIONS:
        if arguments:
            raise ValueError("takes no arguments")
        return

    def parse_args(parser, arguments=None, namespace=None):
        if parsers is not None:
            parsers.append(parser)
        result = parse(parser, arguments, namespace)
        if parser.prog == "msitf":  # only says which of its commands is meant, which has a parser of its own
            return result
        raise _Parsed

    parse, said = argparse.ArgumentParser.parse_args, io.StringIO()
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", parse_args),
        mock.patch.object(sys, "argv", [name, *arguments]),
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(said),
        contextlib.suppress(_Parsed),
    ):
        try:
            module.main()
        except SystemExit as end:
            if end.code:  # --help has none
                raise ValueError(said.getvalue().strip().splitlines()[-1]) from None


def _run_parser(arguments):
    script, *arguments = arguments
    if not (ROOT / script).is_file():
        raise ValueError(f"no such script {script}")
    if script == "train.py":
        _parse_training(arguments)
    else:
        _parse(script.removesuffix(".py"), arguments)


def _parse_training(arguments):
    """As train.py reads them, but that the flags are copies: absl would keep what it has read."""
    values, command = flags.FlagValues(), ["train.py", *arguments]
    for flag in flags.FLAGS.get_flags_for_module(train):
        if flag.name != "config":
            values[flag.name] = copy.deepcopy(flag)
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=command)
    try:
        with contextlib.chdir(ROOT):
            rest = values(command)
            configuration.check(values.config)
    except (flags.Error, AttributeError, KeyError, TypeError, OSError) as error:
        raise ValueError(str(error).splitlines()[-1]) from None
    if rest[1:]:
        raise ValueError(f"unexpected {rest[1]}")


def _dry_run(words):
    done = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(done.stderr.strip().splitlines()[-1])


def _check_install(arguments):
    extras = _pyproject()["project"]["optional-dependencies"]
    if arguments[0] != "install":
        raise ValueError(f"unexpected {arguments[0]}")
    for what in arguments[1:]:
        named = re.fullmatch(r"(?:\.|msitf-jax)(?:\[(.*)\])?", what)
        wanted = named[1].split(",") if named and named[1] else []
        if not (named or what == "-r" or (ROOT / what).is_file()) or not set(wanted) <= extras.keys():
            raise ValueError(f"{what}: no such file or extra")


def _check_tests(arguments):
    markers = {line.partition(":")[0] for line in _pyproject()["tool"]["pytest"]["ini_options"]["markers"]}
    for before, argument in itertools.pairwise(["", *arguments]):
        if before == "-m":
            if unknown := set(re.findall(r"\w+", argument)) - markers - {"not", "and", "or"}:
                raise ValueError(f"no such marker: {', '.join(unknown)}")
        elif not argument.startswith("-"):
            file, _, test = argument.partition("::")
            if not (ROOT / file).exists() or (test and f"def {test}(" not in (ROOT / file).read_text()):
                raise ValueError(f"{argument}: no such test")


def _pyproject():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@functools.cache
def _known_options():
    """Of all commands that options are spoken of without."""
    parsers = []
    for command in cli.COMMANDS:
        with contextlib.suppress(ValueError):
            _parse("msitf_jax.cli", [command], parsers)
    for module in ("benchmarks", "benchmarks.choices", "benchmarks.pretrained"):
        with contextlib.suppress(ValueError):
            _parse(module, [], parsers)
    options = {option for parser in parsers for option in parser._option_string_actions}
    return options | {f"--{flag.name}" for flag in flags.FLAGS.get_flags_for_module(train)}


def make_stand_ins(folder):
    """Small files under the names that the pages give to those of a reader."""
    # Only here: they bring JAX, FFmpeg and PyTorch, and what is above is wanted in no time.
    from input_pipeline import synthetic
    from msitf_jax.weights.files import save_torch
    from tests.test_benchmark import write_clip
    from tests.test_septuplets import write_vimeo
    from tests.tiny_network import tiny_network
    from tests.video import H264, Sound, write_video

    small = synthetic.clip(0, frames=7, height=24, width=32)
    write_video(folder / "holiday.mp4", list(small), rate=24, tracks=[Sound(codec="aac")], **H264)
    # A frame a second, so that there is something at one and a half minutes.
    write_video(folder / "film.mkv", list(synthetic.clip(1, frames=110, height=24, width=32)), rate=1, **H264)
    write_clip(folder / "FRAMES", small)
    for seed, clip in enumerate(("DIR/GT/calendar", "DIR/GT/walk", "CLIPS/one", "CLIPS/two")):
        write_clip(folder / clip, synthetic.clip(seed, height=96, width=128))
    lists = {"test_fast": ["00002/0001"], "test_medium": ["00002/0002"], "test_slow": ["00002/0003"]}
    test = [key for keys in lists.values() for key in keys]
    for name in ("VIMEO", "SEPTUPLETS"):
        write_vimeo(folder / name, train=["00001/0001", "00001/0002", "00001/0003"], test=test, **lists)
    save_torch(tiny_network(), folder / "msitf.pth")


def run_all(pages):
    """Runs what can be run and tells of each; returns how many failed."""
    counts = dict.fromkeys(("run", "only parsed", "failed"), 0)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="docs_check") as folder:
        folder = pathlib.Path(folder) / "project"
        ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "runs", "demo", "build", "dist")
        shutil.copytree(ROOT, folder, ignore=ignored)
        make_stand_ins(folder)
        for name, words in _wanted(pages):
            reason = next((why for pattern, why in NOT_RUN.items() if re.search(pattern, name)), None)
            if reason:
                outcome, text = "only parsed", f"     {reason}: {name}"
            else:
                start = time.monotonic()
                status, said = _run(folder, words)
                outcome = "failed" if status else "run"
                text = f"{time.monotonic() - start:6.1f} s  {name}" + (f"\n{said}" if status else "")
            counts[outcome] += 1
            print(f"{outcome:<12}{text}", flush=True)
    told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    print(f"{told}; {(time.monotonic() - begun) / 60:.1f} minutes")
    return counts["failed"]


def _wanted(pages):
    """Yields (what to call it, words) of every command and Python block, each once, page by page."""
    seen = set()
    for block in (block for page in pages.values() for block in page.blocks):
        found = [(shlex.join(words), words) for words in commands(block)] if not block.language else []
        if block.language == "python":
            found = [(f"Python of {block}", ["python", "-c", PRELUDE + block.text])]
        for name, words in found:
            if (key := tuple(words)) not in seen:
                seen.add(key)
                yield name, words


def _run(folder, words):
    """(exit status, the last lines that were printed)."""
    variables, words = _environment(words)
    if words[0] == "msitf":  # as installed, but for this copy
        words = ["python", "-c", "import sys; from msitf_jax.cli import main; sys.exit(main())", *words[1:]]
    if words[1] == "train.py":
        kept = ["mesh.", *["model."] * ("--config.init_from=msitf-small" in words)]
        fields = configuration.flat(tiny_config.get_config().to_dict()) | TRAINING
        for name, value in fields.items():
            if value is not None and not name.startswith(tuple(kept)):
                words.append(f"--config.{name}={value}")
    if "benchmarks.pipeline" in words:
        words = [*words, "--batches=1", "--batch_size=2"]
    if "benchmarks.network" in words:
        words = [*words, "--runs=1"]
    quick = {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(folder.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    try:
        done = subprocess.run(
            [sys.executable, *words[1:]],
            cwd=folder,
            env=os.environ | quick | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, f"took more than {SECONDS} s"
    return done.returncode, "\n".join(done.stdout.splitlines()[-15:])


def main():
    """Returns the exit status: 0 if all is well."""
    pages = read_pages()
    found = list(faults(pages))
    print(*found, f"{len(pages)} pages read, {len(found)} faults", sep="\n", flush=True)
    return 1 if run_all(pages) or found else 0


if __name__ == "__main__":
    sys.exit(main())
