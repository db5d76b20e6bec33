"""Checkpoints of a training run, through Orbax; nothing else in the project knows Orbax."""

import contextlib
import json
import os
import pathlib
import re
import zlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from msitf_jax.atomic import FilePath
from msitf_jax.training.state import TrainState


class Checkpoints:
    """The checkpoints under `workdir/checkpoints`, one folder a step.

    Saving goes on in the background, and a checkpoint counts only when all of it is on disk: a killed run finds the one
    before. Any mesh may restore what another one saved. With the arrays go their checksums, as the storage has none for
    what it holds; arrays that are cut up over several hosts are left out of that.

    Attributes:
      folder: where they are.
    """

    def __init__(self, workdir: FilePath, *, keep_last: int, keep_best: int) -> None:
        """Opens the folder and makes it where it is absent.

        Args:
          workdir: the run's folder.
          keep_last: how many of the latest to keep.
          keep_best: how many of those with the best score to keep beside them.

        Raises:
          OSError: the folder can't be made or written to; named.
        """
        self.folder = pathlib.Path(workdir).absolute() / "checkpoints"
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(
                self.folder,
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                        [
                            checkpoint_managers.LatestN(keep_last),
                            checkpoint_managers.BestN(
                                get_metric_fn=_score,
                                n=keep_best,
                                keep_checkpoints_without_metrics=False,
                            ),
                        ]
                    ),
                    best_fn=_score,  # without it scores are not stored, and a run that goes on drops its best
                    enable_async_checkpointing=True,
                    cleanup_tmp_directories=True,
                ),
            )

    def latest(self) -> int | None:
        """The newest complete checkpoint's step, or None."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """The steps of all complete checkpoints, in order."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: TrainState, progress: Any, score: float | None = None) -> None:
        """Starts to save; returns when the state may change again.

        Args:
          step: how many steps are done.
          state: `TrainState`.
          progress: what else the run goes on from, JSON-serialisable.
          score: higher is better; None where the step was not evaluated.

        Raises:
          OSError: this save or the one before could not be written; the folder is named.
        """
        with _writing(self.folder):
            record = json.dumps({"progress": progress, "checksums": _checksums(state)})
            sealed = {"record": record, "checksum": zlib.crc32(record.encode())}
            self._manager.save(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardSave(vars(state)), progress=ocp.args.JsonSave(sealed)),
                metrics=None if score is None else {"score": score},
            )

    def progress(self, step: int) -> Any:
        """What `save` was given as `progress`; raises as `restore`."""
        return self._record(step)["progress"]

    def restore(self, step: int, abstract: TrainState) -> TrainState:
        """The state that was saved.

        Args:
          step: of `steps()`.
          abstract: `TrainState` of `jax.ShapeDtypeStruct` with shardings: where each array shall lie.

        Returns:
          `TrainState`.

        Raises:
          ValueError: the checkpoint holds arrays of other shapes, or is damaged; named.
        """
        with self._reading(step):
            item = ocp.args.Composite(state=ocp.args.StandardRestore(vars(abstract)))
            state = type(abstract)(**self._manager.restore(step, args=item)["state"])
        saved = self._record(step)["checksums"]
        with self._reading(step):
            if any(None not in pair and pair[0] != pair[1] for pair in zip(saved, _checksums(state), strict=True)):
                raise ValueError("its arrays are damaged")
        return state

    def _record(self, step):
        with self._reading(step):
            item = ocp.args.Composite(progress=ocp.args.JsonRestore())
            sealed = self._manager.restore(step, args=item)["progress"]
            if zlib.crc32(sealed["record"].encode()) != sealed["checksum"]:
                raise ValueError("its record is damaged")
            return json.loads(sealed["record"])

    @contextlib.contextmanager
    def _reading(self, step):
        try:
            yield
        except Exception as error:  # Orbax and its storage raise whatever came up
            raise ValueError(
                f"checkpoint {self.folder / str(step)}: can't be restored ({_reason(error)}); "
                "without this folder the run goes on from the checkpoint before"
            ) from error

    def wait(self) -> None:
        """Returns when what is being saved is on disk; raises as `save`."""
        with _writing(self.folder):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits as `wait`, and lets go of the folder; raises as `save`."""
        with _writing(self.folder):
            self._manager.close()


@contextlib.contextmanager
def _writing(folder):
    """Turns what Orbax and its storage raise where files can't be written into an OSError that names the folder."""
    try:
        yield
    except Exception as error:
        raise OSError(f"checkpoints {folder}: can't be written ({_reason(error)})") from error


def _checksums(state):
    """Of every array's bytes; None where no host has all of them."""
    return [
        zlib.crc32(np.ascontiguousarray(leaf).data) if leaf.is_fully_addressable or leaf.is_fully_replicated else None
        for leaf in jax.tree.leaves(state)
    ]


def _score(metrics):
    return metrics["score"]


def _reason(error):
    text = str(error).partition("\n")[0]
    if code := re.search(r"os_error_code='(\d+)'", text):  # the storage tells at length where it was in its own code
        return os.strerror(int(code[1]))
    return text or type(error).__name__


def abstract(state: TrainState, shardings: TrainState) -> TrainState:
    """The shapes and places of a state's arrays, as `Checkpoints.restore` takes them."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), state, shardings
    )
