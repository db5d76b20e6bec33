"""A training run from its first step, or its last checkpoint, to the report."""

import contextlib
import dataclasses
import math
import pathlib
import signal
import threading

import clu.metrics
import clu.parameter_overview
import flax
import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from input_pipeline import loader
from input_pipeline.locking import alone_in
from msitf_jax import MSITFConfig, atomic, sharding, weights
from msitf_jax.atomic import FilePath
from msitf_jax.training import (
    checkpoints,
    configuration,
    initialization,
    losses,
    report,
    schedule,
    state,
    step,
    validation,
    writers,
)


class NotFinite(ArithmeticError):
    """The loss or the gradients became NaN or infinite."""


@flax.struct.dataclass
class TrainMetrics(clu.metrics.Collection):
    """Means over the steps since the last line of the log."""

    loss: clu.metrics.Average.from_output("loss")  # type: ignore[valid-type]  # made on the spot
    psnr: clu.metrics.Average.from_output("psnr")  # type: ignore[valid-type]  # made on the spot
    grad_norm: clu.metrics.Average.from_output("grad_norm")  # type: ignore[valid-type]  # made on the spot


def join(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Makes this process one of several that train together; see `jax.distributed.initialize`.

    Raises:
      ValueError: nothing tells which processes there are.
    """
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"`distributed`: no cluster found ({reason}); give --coordinator, --num_processes and --process_id"
        ) from None


def train_and_evaluate(config: ConfigDict, workdir: FilePath) -> tuple[state.TrainState, dict[str, float] | None]:
    """Trains as a configuration says, going on from what `workdir` holds.

    Args:
      config: `ConfigDict`, see `configs/msitf.py`.
      workdir: folder for checkpoints, logs, `model.safetensors` and `report.png`.

    Returns:
      (`TrainState`, scores): the last state, and the last validation scores, see `Validation`; or (state, None) if a
      SIGTERM or Ctrl-C stopped the run after saving it.

    Raises:
      ValueError: a field that is out of range or does not fit the others, the devices, the data or the checkpoint; or
        another run is at work in `workdir`.
      OSError: a file that can't be read or written.
      NotFinite: with the step, the last checkpoint, and what to try.
    """
    with contextlib.ExitStack() as held:
        return _Run(config, pathlib.Path(workdir), held).go()


class _Run:
    """The parts of a run, put together by `__init__`, which writes nothing unless all of them fit.

    Args:
      config, workdir: see `train_and_evaluate`.
      held: an `ExitStack`, which gets the lock of `workdir`.
    """

    log: "writers.RunLog | _Silence"
    progress: "writers.ProgressLine | _Silence"

    def __init__(self, config, workdir, held):
        configuration.check(config)
        self.config, self.workdir = config, workdir
        self.mesh = sharding.make_mesh(config.mesh.model)
        sharding.check_batch(self.mesh, config.batch_size)
        self.data = configuration.filled(loader.DataConfig, "data", config.data)
        self.model_config = configuration.filled(MSITFConfig, "model", config.model)
        if self.data.thirds and self.model_config.alignment == "pcd":
            raise ValueError(
                f'`data.thirds` (={self.data.thirds!r}) must be 0 with `model.alignment` "pcd", '
                "whose frames between are halfway"
            )
        self.batches = loader.train_batches(
            self.data,
            seed=config.seed,
            batch_size=config.batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        self.validation_split = loader.validation_split(self.data)
        self.validate = validation.Validation(
            loader.validation_clips(self.data, config.eval_clips), self.mesh, self.model_config.base
        )
        rates = config.optimizer
        limits = rates.learning_rate, rates.min_learning_rate
        if rates.schedule == "cosine":
            self.rate = schedule.restarted_cosine(*limits, rates.period, rates.periods, rates.warmup)
        else:
            self.rate = schedule.constant_with_cooldown(*limits, config.num_train_steps, rates.cooldown, rates.warmup)
        self.optimizer = schedule.make_optimizer(
            self.rate, name=rates.name, b1=rates.b1, b2=rates.b2, max_grad_norm=rates.max_grad_norm
        )
        self.metrics = TrainMetrics.empty()
        self.pending = None  # the last step and its metrics, not looked at yet: JAX may still be computing them
        self.evaluated = None  # the last step that was evaluated
        self.scores, self.pictures = {}, []
        self._start(held)
        if jax.process_index() == 0:
            self.log = writers.RunLog(workdir, step=self.done)
            self.progress = writers.ProgressLine(config.num_train_steps, config.batch_size)
        else:
            self.log = self.progress = _Silence()

    def go(self):
        config, total = self.config, self.config.num_train_steps
        with contextlib.ExitStack() as stack:
            stack.callback(self.batches.close)
            stack.enter_context(_closing(self.checkpoints.close))
            stack.enter_context(_closing(self.log.close))
            stack.enter_context(self.progress)
            stopped = stack.enter_context(_Stop())
            self._introduce()
            if self.done == 0:
                self._evaluate()
            while self.done < total:
                self._train_step()
                last, stop = self.done == total, stopped(self.done)
                if self.done % config.log_every == 0 or last:
                    self._write_metrics()
                if self.done % config.eval_every == 0 or last:
                    self._evaluate()
                if self.done % config.checkpoint_every == 0 or last or stop:
                    self._save()
                if stop and not last:
                    self.checkpoints.wait()
                    self.progress.say(f"stopped, step {self.done} is saved; the same command goes on from there")
                    return self.state, None
            self.checkpoints.wait()
            self._finish()
        return self.state, self.scores

    def _start(self, held):
        """Takes the state to go on from, by the first of these that there is."""
        config = self.config
        model = initialization.draw(self.model_config, initialization=config.initialization, seed=config.seed)
        graph, params = nnx.split(model, nnx.Param)
        if config.init_from is not None:
            params = self._weights(config.init_from)
        # An array made from a Python number is weakly typed until it has been through a step or a checkpoint; JAX would
        # compile the step for both kinds.
        params = jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), params)
        initial = state.create(params, self.optimizer, ema=config.ema_decay is not None, seed=config.seed)
        shardings = sharding.state_shardings(self.mesh, initial)
        self.workdir.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            held.enter_context(alone_in(self.workdir))
        self.checkpoints = checkpoints.Checkpoints(self.workdir, keep_last=config.keep_last, keep_best=config.keep_best)
        latest = self.checkpoints.latest()
        self.notes = []
        if latest is not None:
            # 1. The run's newest checkpoint: parameters, optimizer, average, key, place in the data, open means.
            progress = self.checkpoints.progress(latest)
            self.notes = configuration.changes(config.to_dict(), progress["config"], workdir=self.workdir, step=latest)
            self.state = self.checkpoints.restore(latest, checkpoints.abstract(initial, shardings))
            self.batches.set_state(progress["data"])
            empty, structure = jax.tree.flatten(self.metrics)
            values = [jnp.asarray(value, old.dtype) for value, old in zip(progress["metrics"], empty, strict=True)]
            self.metrics = jax.tree.unflatten(structure, values)
            self.notes.append(f"going on from step {latest} in {self.checkpoints.folder}")
        else:
            # 2. Given weights, with a fresh optimizer. 3. Weights drawn from the seed.
            self.state = jax.device_put(initial, shardings)
            self.notes.append(f"starting from {config.init_from or f'random weights, seed {config.seed}'}")
        self.done = int(self.state.step)
        self.first = self.done + 1
        self.graph = graph
        self.train_step = step.make_train_step(
            graph,
            self.optimizer,
            self.mesh,
            shardings,
            compute_dtype=config.compute_dtype,
            remat=config.remat,
            ema_decay=config.ema_decay,
            loss=losses.LOSSES[config.loss],
        )
        self.eval_step = step.make_eval_step(graph, self.mesh, shardings.params)

    def _weights(self, path):
        model = weights.load(path)
        for name, expected in dataclasses.asdict(self.model_config).items():
            found = getattr(model.config, name)
            if found != expected and name != "stochastic_depth":  # no weights depend on that
                raise ValueError(
                    f"`init_from` (={path!r}): was made with `model.{name}` {found!r}, expected {expected!r}"
                )
        return nnx.state(model, nnx.Param)

    def _introduce(self):
        params, say = self.state.params, self.progress.say
        if jax.process_index() == 0:
            table = clu.parameter_overview.get_parameter_overview(nnx.to_pure_dict(params), include_stats=False)
            path = self.workdir / "parameters.txt"
            atomic.write(path, lambda file: file.write(table.encode() + b"\n"))
            say(_parameter_table(nnx.to_pure_dict(params)))
            say(f"array by array: {path}")
        say(sharding.describe(self.mesh))
        source = self.data.dir or "synthetic clips (`data.dir` is not set)"
        say(f"{self.config.batch_size} clips a step from {source}, degradation {self.data.degradation}")
        for note in self.notes:
            say(note)

    def _train_step(self):
        if self.done + 1 == self.first:
            self.progress.say("compiling the training step, which takes up to a minute")
        batch = sharding.global_batch(self.mesh, next(self.batches))
        self.state, metrics = self.train_step(self.state, batch)
        self._account()
        self.done += 1
        self.pending = self.done, metrics
        if self.done == self.first:
            self._account()
            self.progress.update(self.done, self._means())

    def _account(self):
        """Looks at the metrics of the last step, one step late, so that devices need not wait."""
        if self.pending is None:
            return
        (at, metrics), self.pending = self.pending, None
        metrics = jax.tree.map(jnp.asarray, jax.device_get(metrics))
        if not all(math.isfinite(value) for value in metrics.values()):
            names = " and ".join(name for name, value in metrics.items() if not math.isfinite(value))
            raise NotFinite(f"{names} not finite at step {at}; {self._last_good()}. {_REMEDIES}")
        self.metrics = self.metrics.merge(TrainMetrics.single_from_model_output(**metrics))

    def _last_good(self):
        """Waits for the checkpoint that is being saved, which comes from before the step that failed."""
        try:
            self.checkpoints.wait()
        except OSError as error:
            return str(error)
        latest = self.checkpoints.latest()
        return (
            "there is no checkpoint yet"
            if latest is None
            else f"last checkpoint: {self.checkpoints.folder / str(latest)}"
        )

    def _means(self):
        means = {f"train/{name}": float(value) for name, value in self.metrics.compute().items()}
        return means | {"train/learning_rate": float(self.rate(self.done))}

    def _write_metrics(self):
        self._account()
        means = self._means()
        self.log.scalars(self.done, means)
        self.progress.update(self.done, means)
        self.metrics = TrainMetrics.empty()

    def _evaluate(self):
        self._account()
        with self.progress.paused():
            self.scores, self.pictures = self.validate(self.eval_step, self.state.scored)
            if not self.scores:
                return
            self.evaluated = self.done
            self.log.scalars(self.done, {f"eval/{name}": value for name, value in self.scores.items()})
            for name, row in zip(("input", "synthesized"), self.pictures, strict=False):
                self.log.images(self.done, {f"eval_{name}/{title}": picture for title, picture in row.items()})
        scores, base = self.scores, self.model_config.base
        self.progress.say(
            f"step {self.done}: {len(self.validate)} validation clips ({self.validation_split}), "
            f"PSNR-Y {scores['psnr_y']:.3f} dB ({base} {scores['psnr_y_base']:.3f}), "
            f"SSIM-Y {scores['ssim_y']:.4f} ({base} {scores['ssim_y_base']:.4f})"
        )

    def _save(self):
        self._account()
        with self.progress.paused():
            progress = {
                "config": self.config.to_dict(),
                "data": self.batches.get_state(),
                "metrics": [float(value) for value in jax.tree.leaves(self.metrics)],
            }
            score = self.scores["psnr_y"] if self.evaluated == self.done else None
            self.checkpoints.save(self.done, self.state, progress, score)

    def _finish(self):
        """Writes the weights and the report; also for a run that was finished before."""
        if self.evaluated != self.done:
            self.scores, self.pictures = self.validate(self.eval_step, self.state.scored)
        params = sharding.gather(self.mesh, self.state.scored)
        if jax.process_index() == 0:
            path = self.workdir / "model.safetensors"
            model = nnx.merge(self.graph, params)
            self.progress.say("measuring how far tiles must overlap, which takes a minute or two")
            weights.write(model, {"degradation": self.data.degradation, "training_step": str(self.done)}, path)
            drawn = report.draw(self.workdir, self.pictures, f"{self.workdir.name}: {self.done} steps")
            self.progress.say(f"weights: {path}\nreport: {drawn}")
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("finished")


_REMEDIES = (
    "Try a lower --config.optimizer.learning_rate, --config.optimizer.max_grad_norm=1000, "
    "or --config.compute_dtype=float32"
)


@contextlib.contextmanager
def _closing(close):
    """Calls `close` at the end; where something has failed already, that is told and not what closing then raises."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):
            close()
        raise
    close()


class _Stop:
    """Notices SIGTERM and Ctrl-C, and says between steps whether to stop. A second signal ends the process at once."""

    def __init__(self):
        self._noticed = False
        self._before = {}

    def __enter__(self):
        # Several processes must stop at the same step: there JAX's own service listens for SIGTERM.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._before = {which: signal.signal(which, self._notice) for which in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_):
        for which, handler in self._before.items():
            signal.signal(which, handler)

    def _notice(self, which, _):
        self._noticed = True
        signal.signal(which, self._before[which])

    def __call__(self, done):
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(done)
        return self._noticed


class _Silence:
    """In place of log and progress on all hosts but the first."""

    def scalars(self, step, values): ...

    def images(self, step, pictures): ...

    def update(self, step, values): ...

    def say(self, text): ...

    def close(self): ...

    def paused(self):
        return contextlib.nullcontext()

    def __enter__(self):
        return self

    def __exit__(self, *_): ...


def _parameter_table(params):
    """Parameters by part of the network."""
    counts = {name: sum(leaf.size for leaf in jax.tree.leaves(part)) for name, part in params.items()}
    counts["all"] = sum(counts.values())
    return "\n".join(f"{name:<20}{count:>12,} parameters" for name, count in counts.items())
