"""Commands checked by the parsers of the programs that they start, without running them."""

import argparse
import contextlib
import copy
import functools
import importlib
import io
import itertools
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib
from unittest import mock

from absl import flags
from ml_collections import config_flags

import train
from msitf_jax import cli
from msitf_jax.training import configuration
from tests.docs_check.markdown import ROOT

PROGRAMS = ("python", "msitf", "make", "pip")
EXAMPLES = {"DEGRADATION": "bi", "SECTION": "op"}  # for words that stand for one of several choices
WITHOUT_OPTIONS = ("benchmarks.exchanges", "benchmarks.plots")  # modules that parse nothing


def check_command(words):
    """Raises ValueError for a command that its program would not take."""
    line = shlex.join(words)
    words = [re.sub("=([A-Z]+)$", lambda match: f"={EXAMPLES.get(match[1], match[1])}", word) for word in words]
    _, words = split_environment(words)
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


def split_environment(words):
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
    for module in ("benchmarks", "benchmarks.choices", "benchmarks.pretrained", "input_pipeline.prepare"):
        with contextlib.suppress(ValueError):
            _parse(module, [], parsers)
    for parser in list(parsers):
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    options = {option for parser in parsers for option in parser._option_string_actions}
    return options | {f"--{flag.name}" for flag in flags.FLAGS.get_flags_for_module(train)}
