"""What the choices of configs/msitf_small.py are worth: `python -m benchmarks.choices --data_dir=DATA`.

Trains each row of the table below from nothing, on one core, and scores it on whole frames of the split `val`. All rows
get equal time: so many training steps as fit into that of `--steps` steps of the row "flow". What a step and a window
cost, as a multiple of that row's, is measured at the start of each, in turns with it; so rows of different machines and
hours can be compared. As many rows at a time as there are cores. `--rows=NAME;...` trains some of them, `--seed`
others of the same kind; rows that are in the results already are not trained again. Prints a Markdown table, from the
results of all runs so far.
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import itertools
import json
import os
import pathlib
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks import flops
from input_pipeline import loader
from input_pipeline.degradation import degrade
from msitf_jax import MSITFConfig, sharding
from msitf_jax.evaluation.benchmark import score_outputs
from msitf_jax.evaluation.metrics import luma, psnr
from msitf_jax.training import initialization, losses, schedule, state, step

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "choices.jsonl"
REFERENCE = "flow"
WARMUP = 0.05  # part of the steps over which the rate rises; then it falls as a cosine
BATCH = 4  # clips a step
MAX_GRAD_NORM = 45_000.0  # of as many of four 24x24 frames
TURNS = 7  # in which costs are measured
VALIDATION_SEPTUPLETS = 15  # spread over the clips, which count alike
VID4 = (144, 180)  # height, width of the window that is timed

# The network of version 0.1.0, and networks along optical flow.
FIRST = {
    "channels": 24,
    "residual_blocks": 3,
    "offset_groups": 3,
    "temporal_heads": 3,
    "trunk_groups": 1,
    "window_heads": 3,
    "stochastic_depth": 0.0,
    "base": "bicubic",
    "interpolation": "both",
}
FLOW = {
    "channels": 32,
    "residual_blocks": 2,
    "trunk": "conv",
    "trunk_groups": 1,
    "trunk_blocks": 3,
    "alignment": "flow",
    "base": "flow",
    "upsampling": "one_step",
    "context": False,
    "offset_groups": 4,
    "stochastic_depth": 0.0,
}
SHIPPED = FLOW | {"residual_blocks": 3, "propagation_blocks": 3, "trunk_blocks": 5}


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of a training: its share of the time, and what is trained on.

    Attributes:
      share: of the row's time.
      frames, crop, candidates, thirds: of `input_pipeline.loader.DataConfig`.
      loss: one of `LOSSES`.
      blanked: one of each clip's frames is black.
    """

    share: float = 1.0
    frames: int = 4
    crop: int = 24
    candidates: int = 1
    thirds: float = 0.0
    loss: str = "charbonnier"
    blanked: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """A network and how it is trained.

    Attributes:
      model: fields of `MSITFConfig`.
      phases: parts of the training, in order.
      rate: the highest learning rate.
      optimizer: "adam" or "muon".
      average: decay of a moving average of the parameters, which is scored in their place; the rate then stays at its
        highest.
      score_thirds: frames a third and two thirds of the way between are scored, too.
    """

    model: dict
    phases: tuple[Phase, ...] = (Phase(),)
    rate: float = 1e-3
    optimizer: str = "adam"
    average: float | None = None
    score_thirds: bool = False


PAYS = tuple(
    Phase(share, frames=3, candidates=4, thirds=0.5, loss=loss)
    for share, loss in ((0.7, "charbonnier"), (0.3, "squares"))
)
ROWS = {
    "0.1.0": Row(FIRST),
    "0.1.0, flow base": Row(FIRST | {"base": "flow"}),
    "flow": Row(FLOW),
    "24 channels": Row(FLOW | {"channels": 24, "offset_groups": 3}),
    "48 channels": Row(FLOW | {"channels": 48, "offset_groups": 6}),
    "swin trunk": Row(FLOW | {"trunk": "swin", "trunk_blocks": 2}),
    "two steps": Row(FLOW | {"upsampling": "two_steps"}),
    "context": Row(FLOW | {"context": True, "temporal_heads": 4}),
    "4 propagation blocks": Row(FLOW | {"propagation_blocks": 4}),
    "6 trunk blocks": Row(FLOW | {"trunk_blocks": 6}),
    "4 residual blocks": Row(FLOW | {"residual_blocks": 4}),
    "shipped": Row(SHIPPED),
    "rate 5e-4": Row(FLOW, rate=5e-4),
    "rate 2e-3": Row(FLOW, rate=2e-3),
    "muon": Row(FLOW, optimizer="muon"),
    "crops of 16": Row(FLOW, (Phase(crop=16),)),
    "crops of 32": Row(FLOW, (Phase(crop=32),)),
    "crops of 16, 24, 32": Row(FLOW, tuple(Phase(1 / 3, crop=crop) for crop in (16, 24, 32))),
    "best of 4 crops": Row(FLOW, (Phase(candidates=4),)),
    "2 frames, then 4": Row(FLOW, (Phase(1 / 3, frames=2), Phase(2 / 3))),
    "3 frames": Row(FLOW, (Phase(frames=3),), score_thirds=True),
    "3 frames, thirds": Row(FLOW, (Phase(frames=3, thirds=0.5),), score_thirds=True),
    "squares at the end": Row(FLOW, (Phase(0.7), Phase(0.3, loss="squares"))),
    "frequencies": Row(FLOW, (Phase(loss="frequencies"),)),
    "average .999": Row(FLOW, average=0.999),
    "average .9995": Row(FLOW, average=0.9995),
    "best of 16 crops": Row(FLOW, (Phase(candidates=16),)),
    "blanked frames first": Row(FLOW, (Phase(0.25, blanked=True), Phase(0.75))),
    "all that pays": Row(FLOW, PAYS),
    "all that pays, muon": Row(FLOW, PAYS, optimizer="muon"),
    "all that pays, shipped": Row(SHIPPED, PAYS),
    "all that pays, 48 channels": Row(FLOW | {"channels": 48, "offset_groups": 6}, PAYS),
}


def frequencies(output, truth):
    """The Charbonnier loss, and the same of the frames' spectra."""
    spectrum = jnp.fft.rfft2(output - truth, axes=(-3, -2), norm="ortho")
    size = jnp.sqrt(spectrum.real**2 + spectrum.imag**2 + losses.EPSILON)
    return losses.charbonnier(output, truth) + 0.1 * jnp.sum(size)


LOSSES = losses.LOSSES | {"frequencies": frequencies}


def main():
    """Trains what is missing and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choices", description=__doc__)
    parser.add_argument("--data_dir", required=True, help="prepared septuplets with a split val")
    parser.add_argument("--rows", default=";".join(ROWS), help="names of rows, separated by semicolons")
    parser.add_argument("--steps", type=int, default=1250, help="of the row flow, whose time each row is trained for")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--core", type=int, help="train the one row here, on this core")
    options = parser.parse_args()
    names = options.rows.split(";")
    if options.core is not None:
        os.sched_setaffinity(0, [options.core])  # before JAX counts cores
        print(json.dumps(train(names[0], options)), flush=True)
        return
    done = {(row["row"], row["budget"], row["seed"]) for row in results()}
    missing = [name for name in names if (name, options.steps, options.seed) not in done]
    free = sorted(os.sched_getaffinity(0))

    def run(name):
        core = free.pop()
        arguments = [f"--{key}={value}" for key, value in vars(options).items() if key not in ("rows", "core")]
        command = [sys.executable, "-m", "benchmarks.choices", *arguments, f"--rows={name}", f"--core={core}"]
        try:
            output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
        finally:
            free.append(core)
        line = output.splitlines()[-1]
        with RESULTS.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)

    with concurrent.futures.ThreadPoolExecutor(len(free)) as pool:
        list(pool.map(run, missing))
    print(table(results()))


def results():
    """Rows trained so far."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def table(rows):
    """Markdown."""
    lines = ["| row | seed | steps | PSNR-Y | input | synthesized | SSIM-Y | parameters | GFLOP | window | step |"]
    lines.append("|---" * 11 + "|")
    for r in sorted(rows, key=lambda r: (r["budget"], -r["psnr_y"])):
        lines.append(
            f"| {r['row']} | {r['seed']} | {r['steps']} | {r['psnr_y']:.3f} | {r['psnr_y_input']:.3f} | "
            f"{r['psnr_y_synthesized']:.3f} | {r['ssim_y']:.4f} | {r['parameters']:,} | {r['gflop']:.0f} | "
            f"{r['window_cost']:.2f} | {r['step_cost']:.2f} |"
        )
    return "\n".join(lines)


class Trial:
    """A row that is ready to be trained.

    Attributes:
      state: `TrainState`.
      streams: of batches, one for each phase of the row.
      steps: compiled training steps, likewise.
      window: (parameters, clip, time=None) -> the enlarged clip, jitted; clips hold 0..255.
    """

    def __init__(self, row, options):
        self.row, self.mesh = row, sharding.make_mesh()
        model = initialization.draw(MSITFConfig(**row.model), initialization="he", seed=options.seed)
        self.graph, params = nnx.split(model, nnx.Param)
        optimizer = make_optimizer(row)
        trained = state.create(params, optimizer, ema=row.average is not None, seed=options.seed)
        self.shardings = sharding.state_shardings(self.mesh, trained)
        self.state = jax.device_put(trained, self.shardings)
        self.streams = [self._batches(phase, number, options) for number, phase in enumerate(row.phases)]
        self._first = [next(stream) for stream in self.streams]
        self.steps = []
        for phase, batch in zip(row.phases, self._first, strict=True):
            loss = LOSSES[phase.loss]
            train_step = step.make_train_step(
                self.graph, optimizer, self.mesh, self.shardings, ema_decay=row.average, loss=loss
            )
            self.steps.append(train_step.lower(self.state, batch).compile())
        self.window = jax.jit(
            lambda params, clip, time=None: nnx.merge(self.graph, params)(clip / np.float32(255), time=time)
        )

    def _batches(self, phase, number, options):
        data = loader.DataConfig(
            dir=options.data_dir,
            degradation="bi",
            frames=phase.frames,
            crop=phase.crop,
            crop_candidates=phase.candidates,
            thirds=phase.thirds,
            threads=1,
        )
        rng = np.random.default_rng(options.seed)
        for batch in loader.train_batches(data, seed=100 * number + options.seed, batch_size=BATCH):
            if phase.blanked:
                batch["low"][np.arange(BATCH), rng.integers(phase.frames, size=BATCH)] = 0
            yield sharding.global_batch(self.mesh, batch)

    def calls(self, clip):
        """Functions to time: a window, and a step of each phase, which leaves the state as it is."""
        copy = functools.partial(jax.tree.map, jnp.copy, self.state)  # a step takes its state's memory
        steps = [
            functools.partial(lambda train_step, batch: train_step(copy(), batch), train_step, batch)
            for train_step, batch in zip(self.steps, self._first, strict=True)
        ]
        return [functools.partial(self.window, self.state.params, clip), *steps]

    def train(self, counts):
        """So many steps of each phase."""
        total, done = sum(counts), 0
        for count, train_step, stream in zip(counts, self.steps, self.streams, strict=True):
            for batch in itertools.islice(stream, count):
                falling = 1 if self.row.average else (1 + np.cos(np.pi * done / total)) / 2
                rate = self.row.rate * min(done / total / WARMUP, falling)
                self.state.opt_state.hyperparams["learning_rate"] = jnp.float32(rate)
                self.state, metrics = train_step(self.state, batch)
                done += 1
                if done % 100 == 0:
                    print(f"{done}/{total}, {float(metrics['psnr']):.2f} dB", file=sys.stderr, flush=True)

    def scores(self, data_dir):
        """Means over the clips of the split `val`."""
        upscale = step.make_eval_step(self.graph, self.mesh, self.shardings.params)
        by_clip = {}
        data = loader.DataConfig(dir=data_dir, degradation="bi")
        for septuplet in loader.validation_clips(data, VALIDATION_SEPTUPLETS):
            output = np.asarray(upscale(self.state.scored, septuplet["low"][None]))[0]
            scored = score_outputs(output, septuplet["high"])
            if self.row.score_thirds:
                scored["psnr_y_thirds"] = self._score_thirds(septuplet["high"])
            by_clip.setdefault(septuplet["key"].rpartition("/")[0], []).append(scored)
        means = [{key: np.mean([row[key] for row in rows]) for key in rows[0]} for rows in by_clip.values()]
        return {key: float(np.mean([row[key] for row in means])) for key in means[0]}

    def _score_thirds(self, high):
        """PSNR-Y of the four frames that the first, fourth and seventh of seven leave out."""
        low = np.stack([degrade(frame, "bi") for frame in high[::3]])[None]
        found = []
        for between in (1, 2):
            output = np.asarray(self.window(self.state.scored, low, np.float32(between / 3)))[0, 1::2]
            drawn = np.clip(np.rint(255 * output), 0, 255).astype(np.uint8)
            found += [psnr(luma(a), luma(b)) for a, b in zip(drawn, high[between::3], strict=True)]
        return np.mean(found)


def train(name, options):
    """Trains one row in this process: its scores, and what it took."""
    trial, reference = Trial(ROWS[name], options), Trial(ROWS[REFERENCE], options)
    clip = np.zeros((1, 4, *VID4, 3), np.uint8)
    window, *steps = trial.calls(clip)
    reference_window, reference_step = reference.calls(clip)
    seconds = in_turns([reference_window, window, reference_step, *steps])
    del reference, reference_window, reference_step
    costs = [cost / seconds[2] for cost in seconds[3:]]
    counts = [round(options.steps * phase.share / cost) for phase, cost in zip(trial.row.phases, costs, strict=True)]
    trial.train(counts)
    scores = trial.scores(options.data_dir)
    return {
        "row": name,
        "budget": options.steps,
        "seed": options.seed,
        **{key: score for key, score in scores.items() if key not in ("frames", "psnr_rgb")},
        "steps": sum(counts),
        "step_cost": options.steps / sum(counts),
        "window_cost": seconds[1] / seconds[0],
        "gflop": flops.count(trial.window, trial.state.params, clip) / 1e9,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(trial.state.params)),
    }


def make_optimizer(row):
    """Adam or Muon for a row; its rate is set before each step."""
    area = sum(phase.share * phase.crop**2 * (2 * phase.frames - 1) for phase in row.phases)
    limit = MAX_GRAD_NORM * area / (24**2 * 7)  # the loss is a sum

    @optax.inject_hyperparams
    def make(learning_rate):
        return schedule.make_optimizer(lambda _: learning_rate, name=row.optimizer, max_grad_norm=limit)

    return make(learning_rate=0.0)


def in_turns(calls):
    """CPU seconds of each of some functions: the least of `TURNS` rounds, after one that compiles."""

    def seconds(call):
        start = time.process_time()
        jax.block_until_ready(call())
        return time.process_time() - start

    rounds = [[seconds(call) for call in calls] for _ in range(TURNS + 1)][1:]
    return [min(turn[place] for turn in rounds) for place in range(len(calls))]


if __name__ == "__main__":
    main()
