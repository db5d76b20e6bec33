"""Checkpoints of a training run, through Orbax; nothing else in the project knows Orbax."""

import contextlib
import json
import logging
import os
import pathlib
import re
import sys
import warnings
import zlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from orbax.checkpoint import checkpoint_managers

from msitf_jax import MSITF, MSITFConfig
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
            _check(saved, state)
        return state

    def _record(self, step):
        with self._reading(step):
            item = ocp.args.Composite(progress=ocp.args.JsonRestore())
            return _opened(self._manager.restore(step, args=item)["progress"])

    def _reading(self, step):
        return _reading(self.folder / str(step), "without this folder the run goes on from the checkpoint before")

    def wait(self) -> None:
        """Returns when what is being saved is on disk; raises as `save`."""
        with _writing(self.folder):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits as `wait`, and lets go of the folder; raises as `save`."""
        with _writing(self.folder):
            self._manager.close()


def read_weights(path: FilePath) -> tuple[MSITF, dict[str, str]]:
    """The weights of a run's checkpoint: the average of the parameters where the run has one, else the parameters.

    Whatever mesh the run has, they lie on one device. Nothing is written or locked, so the run may be at work.

    Args:
      path: the checkpoint, such as `runs/x/checkpoints/5000`, or the run's folder or its `checkpoints`, of which the
        newest is taken.

    Returns:
      (`MSITF`, metadata): what `msitf_jax.weights.write` takes: `degradation` and `training_step`.

    Raises:
      ValueError: no checkpoint, or one that is damaged or was removed meanwhile; named.
    """
    folder = _find(pathlib.Path(path).absolute())
    with _reading(folder, "it is damaged, or the run is just removing it"):
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
            record = _opened(reader.restore(folder / "progress"))
        config = record["progress"]["config"]
        model_config = MSITFConfig(**config["model"])
        graph, params = nnx.split(nnx.eval_shape(lambda: MSITF(model_config, rngs=nnx.Rngs(0))), nnx.Param)
        averaged = "params" if config["ema_decay"] is None else "ema"
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        item = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
            {"step": jax.ShapeDtypeStruct((), np.int32), averaged: params},
        )
        places = ocp.checkpoint_utils.construct_restore_args(item)
        arguments = ocp.args.PyTreeRestore(item, restore_args=places, partial_restore=True)
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            found = reader.restore(folder / "state", args=arguments)
        # As `TrainState` has them: step, parameters, optimizer, average, key.
        saved, count = record["checksums"], len(jax.tree.leaves(params))
        last = count + 1 if averaged == "params" else len(saved) - 1
        _check([saved[0], *saved[last - count : last]], (found["step"], found[averaged]))
        metadata = {"degradation": config["data"]["degradation"], "training_step": str(found["step"])}
        return nnx.merge(graph, found[averaged]), metadata


def silence_storage() -> None:
    """For programs, which tell in a sentence what failed: Orbax and its storage print tracebacks of it as well."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    sys.unraisablehook = lambda _: None
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)


def _find(path):
    """The checkpoint that a path means, see `read_weights`."""
    if _is_checkpoint(path):
        return path
    for folder in (path / "checkpoints", path):
        if folder.is_dir():
            # What is being saved has another name until it is whole.
            steps = [each for each in folder.iterdir() if each.name.isdecimal() and _is_checkpoint(each)]
            if steps:
                return max(steps, key=lambda each: int(each.name))
    raise ValueError(f"checkpoint {path}: no such folder, or none in it, expected such as runs/x/checkpoints/5000")


def _is_checkpoint(path):
    return (path / "state").is_dir() and (path / "progress").is_dir()


@contextlib.contextmanager
def _reading(folder, remedy):
    """Turns whatever Orbax and its storage raise where a checkpoint can't be read into a ValueError that names it."""
    try:
        yield
    except Exception as error:
        if not folder.exists():
            raise ValueError(f"checkpoint {folder}: was removed while it was read, take a newer one") from error
        raise ValueError(f"checkpoint {folder}: can't be restored ({_reason(error)}); {remedy}") from error


def _opened(sealed):
    """The record that `Checkpoints.save` sealed."""
    if zlib.crc32(sealed["record"].encode()) != sealed["checksum"]:
        raise ValueError("its record is damaged")
    return json.loads(sealed["record"])


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


def _check(saved, arrays):
    """Raises ValueError unless arrays have the checksums that were saved."""
    if any(None not in pair and pair[0] != pair[1] for pair in zip(saved, _checksums(arrays), strict=True)):
        raise ValueError("its arrays are damaged")


def _score(metrics):
    return metrics["score"]


def _reason(error):
    text = str(error).partition("\n")[0]
    if code := re.search(r"os_error_code='(\d+)'", text):  # the storage tells at length where it was in its own code
        return os.strerror(int(code[1]))
    return text.partition(" [tensorstore_spec")[0] or type(error).__name__


def abstract(state: TrainState, shardings: TrainState) -> TrainState:
    """The shapes and places of a state's arrays, as `Checkpoints.restore` takes them."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), state, shardings
    )
