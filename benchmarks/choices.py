"""What the choices of configs/msitf_small.py are worth: `python -m benchmarks.choices --data_dir=DATA`.

Trains each row of the table below from nothing, on one core, and scores it on whole frames of the split `val`. All rows
get equal time: so many training steps as fit into that of `--steps` steps of the row "flow". What a step and a window
cost, as a multiple of that row's, is measured at the start of each, in turns with it; so rows of different machines and
hours can be compared. Two rows at a time by default, on a core each. `--rows=NAME;...` trains some of them, `--seed`
others of the same kind; rows that are in the results already are not trained again. Prints a Markdown table, from the
results of all runs so far.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "choices.jsonl"
REFERENCE = "flow"
WARMUP = 0.05  # part of the steps over which the rate rises; then it falls as a cosine
MAX_GRAD_NORM = 45_000.0  # of four clips of four 24x24 frames
TURNS = 5  # in which costs are measured
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


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of a training: its share of the time, and what is trained on.

    Attributes:
      share: of the row's time.
      frames, crop, candidates, thirds: of `input_pipeline.loader.DataConfig`.
      loss: "charbonnier", "squares" or "frequencies", see `losses_by_name`.
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
    """A network and how it is trained; `model` are fields of `MSITFConfig`."""

    model: dict
    phases: tuple[Phase, ...] = (Phase(),)
    batch: int = 4
    rate: float = 1e-3
    optimizer: str = "adam"  # or muon


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
    "shipped": Row(FLOW | {"residual_blocks": 3, "propagation_blocks": 3, "trunk_blocks": 5}),
    "rate 5e-4": Row(FLOW, rate=5e-4),
    "rate 2e-3": Row(FLOW, rate=2e-3),
    "muon": Row(FLOW, optimizer="muon"),
    "batches of 2": Row(FLOW, batch=2),
    "crops of 16": Row(FLOW, (Phase(crop=16),)),
    "crops of 32": Row(FLOW, (Phase(crop=32),)),
    "crops of 16, 24, 32": Row(FLOW, tuple(Phase(1 / 3, crop=crop) for crop in (16, 24, 32))),
    "best of 4 crops": Row(FLOW, (Phase(candidates=4),)),
    "2 frames, then 4": Row(FLOW, (Phase(1 / 3, frames=2), Phase(2 / 3))),
    "2 frames": Row(FLOW, (Phase(frames=2),)),
    "3 frames": Row(FLOW, (Phase(frames=3),)),
    "3 frames, thirds": Row(FLOW, (Phase(frames=3, thirds=0.5),)),
    "squares at the end": Row(FLOW, (Phase(0.7), Phase(0.3, loss="squares"))),
    "frequencies": Row(FLOW, (Phase(loss="frequencies"),)),
    "blanked frames first": Row(FLOW, (Phase(0.25, blanked=True), Phase(0.75))),
}


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
        os.sched_setaffinity(0, [options.core])
        print(json.dumps(train(names[0], options)), flush=True)
        return
    done = {(row["row"], row["budget"], row["seed"]) for row in results()}
    missing = [name for name in names if (name, options.steps, options.seed) not in done]
    free = list(range(os.cpu_count()))

    def run(name):
        core = free.pop()
        arguments = [f"--{key}={value}" for key, value in vars(options).items() if key not in ("rows", "core")]
        command = [sys.executable, "-m", "benchmarks.choices", *arguments, f"--rows={name}", f"--core={core}"]
        line = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
        free.append(core)
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


def train(name, options):
    """Trains one row in this process: its scores, and what it took."""
    import jax
    import numpy as np
    from flax import nnx

    from benchmarks import flops
    from input_pipeline import loader
    from msitf_jax import MSITFConfig, sharding
    from msitf_jax.evaluation.benchmark import score_outputs
    from msitf_jax.training import initialization, state, step

    mesh = sharding.make_mesh()

    def network(row):
        return nnx.split(
            initialization.draw(MSITFConfig(**row.model), initialization="he", seed=options.seed), nnx.Param
        )

    def batches(row, phase, number):
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
        for batch in loader.train_batches(data, seed=100 * number + options.seed, batch_size=row.batch):
            if phase.blanked:
                batch["low"][np.arange(row.batch), rng.integers(phase.frames, size=row.batch)] = 0
            yield sharding.global_batch(mesh, batch)

    def compiled(row, phase, graph, trained, optimizer, batch):
        shardings = sharding.state_shardings(mesh, trained)
        train_step = step.make_train_step(graph, optimizer, mesh, shardings, loss=losses_by_name()[phase.loss])
        return train_step.lower(trained, batch).compile()

    row = ROWS[name]
    graph, params = network(row)
    optimizer = make_optimizer(row)
    trained = jax.device_put(state.create(params, optimizer, ema=False, seed=options.seed))
    streams = [batches(row, phase, number) for number, phase in enumerate(row.phases)]
    firsts = [next(stream) for stream in streams]
    programs = [
        compiled(row, phase, graph, trained, optimizer, batch) for phase, batch in zip(row.phases, firsts, strict=True)
    ]
    clip = np.zeros((1, 4, *VID4, 3), np.uint8)

    def window_of(graph):
        return jax.jit(lambda params, clip: nnx.merge(graph, params)(clip / np.float32(255)))

    # Costs, beside those of the reference.
    reference = ROWS[REFERENCE]
    other_graph, other_params = network(reference)
    other_optimizer = make_optimizer(reference)
    other = state.create(other_params, other_optimizer, ema=False, seed=0)
    other_batch = next(batches(reference, reference.phases[0], 0))
    other_program = compiled(reference, reference.phases[0], other_graph, other, other_optimizer, other_batch)
    window, other_window = window_of(graph), window_of(other_graph)
    calls = [
        lambda: other_program(jax.tree.map(jax.numpy.copy, other), other_batch),
        *(
            lambda program=program, batch=batch: program(jax.tree.map(jax.numpy.copy, trained), batch)
            for program, batch in zip(programs, firsts, strict=True)
        ),
        lambda: other_window(other_params, clip),
        lambda: window(trained.params, clip),
    ]
    costs = in_turns(calls)
    step_costs, window_cost = [cost / costs[0] for cost in costs[1:-2]], costs[-1] / costs[-2]
    del other, other_program, other_window, calls

    counts = [round(options.steps * phase.share / cost) for phase, cost in zip(row.phases, step_costs, strict=True)]
    total = sum(counts)
    done = 0
    for count, program, stream in zip(counts, programs, streams, strict=True):
        for batch, _ in zip(stream, range(count), strict=False):
            progress = done / total
            rate = row.rate * min(progress / WARMUP, (1 + np.cos(np.pi * progress)) / 2)
            trained.opt_state.hyperparams["learning_rate"] = jax.numpy.float32(rate)
            trained, metrics = program(trained, batch)
            done += 1
            if done % 100 == 0:
                print(f"{name}: {done}/{total}, {float(metrics['psnr']):.2f} dB", file=sys.stderr, flush=True)
    eval_step = step.make_eval_step(graph, mesh, sharding.state_shardings(mesh, trained).params)
    by_clip = {}
    for septuplet in loader.validation_clips(
        loader.DataConfig(dir=options.data_dir, degradation="bi"), VALIDATION_SEPTUPLETS
    ):
        found = score_outputs(np.asarray(eval_step(trained.params, septuplet["low"][None]))[0], septuplet["high"])
        by_clip.setdefault(septuplet["key"].rpartition("/")[0], []).append(found)
    means = [{key: np.mean([row[key] for row in rows]) for key in rows[0]} for rows in by_clip.values()]
    scores = {key: float(np.mean([row[key] for row in means])) for key in means[0]}
    return {
        "row": name,
        "budget": options.steps,
        "seed": options.seed,
        **{key: scores[key] for key in ("psnr_y", "ssim_y", "psnr_y_input", "psnr_y_synthesized")},
        "steps": total,
        "step_cost": options.steps / total,
        "window_cost": window_cost,
        "gflop": flops.count(window, trained.params, clip) / 1e9,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(trained.params)),
    }


def make_optimizer(row):
    """Its rate is set before each step."""
    import jax
    import optax
    from optax import contrib

    area = sum(phase.share * phase.crop**2 * (2 * phase.frames - 1) for phase in row.phases)
    limit = MAX_GRAD_NORM * row.batch * area / (4 * 24**2 * 7)  # the loss is a sum

    def matrices(params):
        """All kernels, as matrices from what they see to what they give."""
        return jax.tree.map(
            lambda x: contrib.MuonDimensionNumbers(tuple(range(x.ndim - 1)), x.ndim - 1) if x.ndim > 1 else None, params
        )

    @optax.inject_hyperparams
    def make(learning_rate):
        if row.optimizer == "muon":
            steps = contrib.muon(learning_rate, muon_weight_dimension_numbers=matrices, consistent_rms=0.2)
        else:
            steps = optax.adam(learning_rate, 0.9, 0.99)
        return optax.chain(optax.clip_by_global_norm(limit), steps)

    return make(learning_rate=0.0)


def losses_by_name():
    """Sums over all values, as steep as each other where errors are of the usual size, 0.03."""
    import jax.numpy as jnp

    from msitf_jax.training.losses import charbonnier

    def squares(output, truth):
        return jnp.sum(16 * (output - truth) ** 2)

    def frequencies(output, truth):
        spectrum = jnp.fft.rfft2(output - truth, axes=(-3, -2), norm="ortho")
        return charbonnier(output, truth) + 0.1 * jnp.sum(jnp.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-6))

    return {"charbonnier": charbonnier, "squares": squares, "frequencies": frequencies}


def in_turns(calls):
    """CPU seconds of each of some functions, by the median of `TURNS` rounds after one that compiles."""
    import jax

    def seconds(call):
        start = time.process_time()
        jax.block_until_ready(call())
        return time.process_time() - start

    rounds = [[seconds(call) for call in calls] for _ in range(TURNS + 1)][1:]
    return [statistics.median(turn[place] for turn in rounds) for place in range(len(calls))]


if __name__ == "__main__":
    main()
