"""Training runs that several test files look at, each done once; compiled programs are shared by all of them."""

import atexit
import contextlib
import functools
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest.mock

import jax
import numpy as np
import pytest

from msitf_jax.training import loop, schedule, step
from tests import tiny_config

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = "tests/tiny_config.py"


@functools.cache
def folder():
    """Of this test session, removed at its end."""
    kept = tempfile.TemporaryDirectory(prefix="training")
    atexit.register(kept.cleanup)
    return pathlib.Path(kept.name)


def configuration(**changes):
    """The tiny one; `configuration(**{"model.channels": 16})` changes a field."""
    config = tiny_config.get_config()
    config.update_from_flattened_dict(changes)
    return config


def train(workdir, **changes):
    """A run in this process that compiles nothing an earlier one has compiled."""
    if not _train_steps:
        # Initializers that another test has compiled with all optimizations round otherwise than in a process that has
        # only `environment()`'s.
        jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        with (
            jax.numpy_dtype_promotion("standard"),  # Optax needs it
            unittest.mock.patch.object(loop.step, "make_train_step", _train_step),
            unittest.mock.patch.object(loop.step, "make_eval_step", _eval_step),
            unittest.mock.patch.object(loop.schedule, "restarted_cosine", _rate),
            unittest.mock.patch.object(loop.schedule, "make_optimizer", _optimizer),
        ):
            return loop.train_and_evaluate(configuration(**changes), workdir)
    finally:
        jax.config.update("jax_disable_most_optimizations", False)


@functools.cache
def uninterrupted():
    """(workdir, state, scores) of a run of the tiny configuration from beginning to end."""
    workdir = folder() / "uninterrupted"
    return workdir, *train(workdir)


def command(workdir, *flags):
    return [sys.executable, "train.py", f"--config={CONFIG}", f"--workdir={workdir}", *flags]


def environment(**variables):
    """For a process of its own: compiles what `train` does, and finds it compiled; stores only what took long."""
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1",
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONWARNINGS": "ignore:Error reading persistent compilation cache entry:UserWarning",
        **variables,
    }


def script(workdir, *flags, timeout=300, **variables):
    """train.py in a process of its own, to its end."""
    return subprocess.run(
        command(workdir, *flags),
        cwd=ROOT,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def stop(process):
    """Ends a process group that may have ended already."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def started(workdir, *flags, **variables):
    """train.py in a process group of its own, which is killed at the end; its output is one stream."""
    process = subprocess.Popen(
        command(workdir, *flags),
        cwd=ROOT,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        stop(process)
        process.stdout.close()


def read_until(process, text):
    """Reads the output of `started` up to the line that has a text."""
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"the run ended without saying {text!r}")


def assert_same_state(state, expected):
    """Bit for bit."""
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    for (path, ours), theirs in zip(jax.tree.leaves_with_path(state), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs), err_msg=jax.tree_util.keystr(path))


def assert_same_files(workdir, expected):
    for name in ("metrics.jsonl", "model.safetensors"):
        assert (workdir / name).read_bytes() == (expected / name).read_bytes(), name


_rate = functools.cache(schedule.restarted_cosine)
_optimizer = functools.cache(schedule.make_optimizer)
_eval_steps, _train_steps = {}, {}
_make_train_step, _make_eval_step = step.make_train_step, step.make_eval_step


def _train_step(graph, optimizer, mesh, shardings, **options):
    key = graph, optimizer, mesh, tuple(options.items())
    if key not in _train_steps:
        _train_steps[key] = _make_train_step(graph, optimizer, mesh, shardings, **options)
    return _train_steps[key]


def _eval_step(graph, mesh, shardings):
    if (graph, mesh) not in _eval_steps:
        _eval_steps[graph, mesh] = _make_eval_step(graph, mesh, shardings)
    return _eval_steps[graph, mesh]
