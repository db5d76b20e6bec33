"""Two of the same at work on the same folder: the second is told, and the first is not disturbed."""

import contextlib

import pytest

from msitf_jax import locking
from tests import training


def test_a_second_run_in_a_workdir_is_told(tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    with locking.alone_in(workdir):
        with pytest.raises(ValueError, match=f"{workdir}: in use by another process, expected none at work there"):
            training.train(workdir)
        assert not list(workdir.iterdir())


@pytest.mark.slow
def test_a_second_training_process_is_told_and_the_first_comes_to_its_end(tmp_path):
    workdir, _, _ = training.uninterrupted()
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(training.started(tmp_path / "run"))
        training.read_until(first, "compiling the training step")
        second = training.script(tmp_path / "run")
        assert second.returncode == 2
        assert (
            second.stderr == f"train.py: {tmp_path / 'run'}: in use by another process, expected none at work there\n"
        )
        output, _ = first.communicate(timeout=300)
        assert first.returncode == 0, output
    training.assert_same_files(tmp_path / "run", workdir)
