"""Two of the same at work on the same folder: the second is told, and the first is not disturbed."""

import pytest

from input_pipeline.locking import alone_in
from tests import training


def test_a_second_run_in_a_workdir_is_told(tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    with alone_in(workdir):
        with pytest.raises(ValueError, match=f"{workdir}: in use by another process, expected none at work there"):
            training.train(workdir)
        assert not list(workdir.iterdir())


@pytest.mark.slow
def test_a_second_training_process_is_told_and_the_first_goes_on(tmp_path):
    with training.started(tmp_path / "run", "--config.num_train_steps=2000", "--config.eval_every=2000") as first:
        training.read_until(first, "compiling the training step")
        second = training.script(tmp_path / "run")
        assert second.returncode == 2
        assert second.stderr.startswith(f"train.py: {tmp_path / 'run'}: in use by another process")
        assert first.poll() is None
        first.terminate()
        output, _ = first.communicate(timeout=300)
        assert first.returncode == 0, output
        assert "the same command goes on from there" in output
