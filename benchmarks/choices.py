"""What the choices of configs/msitf_small.py are worth: `python -m benchmarks.choices --data_dir=DATA`.

Trains a small network for each row of the table below by one recipe, on one core, for the same CPU time, which other
work on the machine does not shorten, and scores it on whole frames of the split `val`. Two rows at a time by default,
on a core each. `--rows=NAME,...` trains some of them, `--seed` others of the same kind; rows that are in the results
already are not trained again. Prints a Markdown table, from the results of all runs so far.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "choices.jsonl"
BATCH, CROP, RATE, WARMUP = 4, 24, 1e-3, 0.05  # clips, pixels, peak learning rate, part of the time that it rises
MAX_GRAD_NORM = 45_000.0
VALIDATION_SEPTUPLETS = 30  # spread over the clips, which count alike
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
ROWS = {
    "0.1.0": FIRST,
    "0.1.0, flow base": FIRST | {"base": "flow"},
    "flow": FLOW,
    "24 channels": FLOW | {"channels": 24, "offset_groups": 3},
    "48 channels": FLOW | {"channels": 48},
    "swin trunk": FLOW | {"trunk": "swin", "trunk_blocks": 2},
    "two steps": FLOW | {"upsampling": "two_steps"},
    "context": FLOW | {"context": True, "temporal_heads": 4},
    "4 propagation blocks": FLOW | {"propagation_blocks": 4},
    "6 trunk blocks": FLOW | {"trunk_blocks": 6},
    "shipped": FLOW | {"residual_blocks": 3, "propagation_blocks": 3, "trunk_blocks": 5},
    "4 residual blocks": FLOW | {"residual_blocks": 4},
}


def main():
    """Trains what is missing and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choices", description=__doc__)
    parser.add_argument("--data_dir", required=True, help="prepared septuplets with a split val")
    parser.add_argument("--rows", default=";".join(ROWS), help="names of rows, separated by semicolons")
    parser.add_argument("--minutes", type=float, default=10, help="of CPU time that each row is trained for")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--core", type=int, help="train the one row here, on this core")
    options = parser.parse_args()
    names = options.rows.split(";")
    if options.core is not None:
        os.sched_setaffinity(0, [options.core])
        print(json.dumps(train(names[0], options)), flush=True)
        return
    done = {(row["row"], row["minutes"], row["seed"]) for row in results()}
    missing = [name for name in names if (name, options.minutes, options.seed) not in done]
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
    lines = ["| network | minutes | seed | PSNR-Y | input | synthesized | SSIM-Y | steps | GFLOP | ms a window |"]
    lines.append("|---" * 10 + "|")
    for r in sorted(rows, key=lambda r: (r["minutes"], -r["psnr_y"])):
        lines.append(
            f"| {r['row']} | {r['minutes']:g} | {r['seed']} | {r['psnr_y']:.3f} | {r['psnr_y_input']:.3f} | "
            f"{r['psnr_y_synthesized']:.3f} | {r['ssim_y']:.4f} | {r['steps']} | {r['gflop']:.0f} | {r['ms']:.0f} |"
        )
    return "\n".join(lines)


def train(name, options):
    """Trains one row in this process: its scores, and what it took."""
    import jax
    import numpy as np
    import optax
    from flax import nnx

    from benchmarks import flops
    from input_pipeline import loader
    from msitf_jax import MSITFConfig, sharding
    from msitf_jax.evaluation.benchmark import score_outputs
    from msitf_jax.training import initialization, state, step

    config = MSITFConfig(**ROWS[name])
    data = loader.DataConfig(dir=options.data_dir, degradation="bi", crop=CROP, threads=1)
    batches = loader.train_batches(data, seed=options.seed, batch_size=BATCH)
    mesh = sharding.make_mesh()
    graph, params = nnx.split(initialization.draw(config, initialization="he", seed=options.seed), nnx.Param)

    @optax.inject_hyperparams
    def optimizer(learning_rate):
        return optax.chain(optax.clip_by_global_norm(MAX_GRAD_NORM), optax.adam(learning_rate, 0.9, 0.99))

    optimizer = optimizer(learning_rate=0.0)
    trained = state.create(params, optimizer, ema=False, seed=options.seed)
    shardings = sharding.state_shardings(mesh, trained)
    trained = jax.device_put(trained, shardings)
    train_step = step.make_train_step(graph, optimizer, mesh, shardings)
    batch = sharding.global_batch(mesh, next(batches))
    wall = time.perf_counter()
    train_step = train_step.lower(trained, batch).compile()
    compiled = time.perf_counter() - wall
    seconds, steps, start = 60 * options.minutes, 0, time.process_time()
    while (spent := (time.process_time() - start) / seconds) < 1:
        rate = RATE * min(spent / WARMUP, (1 + np.cos(np.pi * spent)) / 2)
        trained.opt_state.hyperparams["learning_rate"] = jax.numpy.float32(rate)
        trained, metrics = train_step(trained, batch)
        batch = sharding.global_batch(mesh, next(batches))
        steps += 1
        if steps % 100 == 0:
            print(f"{name}: {steps} steps, {spent:.0%}, {float(metrics['psnr']):.2f} dB", file=sys.stderr, flush=True)
        jax.block_until_ready(trained)
    eval_step = step.make_eval_step(graph, mesh, shardings.params)
    by_clip = {}
    for septuplet in loader.validation_clips(data, VALIDATION_SEPTUPLETS):
        found = score_outputs(np.asarray(eval_step(trained.params, septuplet["low"][None]))[0], septuplet["high"])
        by_clip.setdefault(septuplet["key"].partition("/")[0], []).append(found)
    means = [{key: np.mean([row[key] for row in rows]) for key in rows[0]} for rows in by_clip.values()]
    scores = {key: float(np.mean([row[key] for row in means])) for key in means[0]}
    clip = np.zeros((1, 4, *VID4, 3), np.uint8)
    window = jax.jit(lambda params, clip: nnx.merge(graph, params)(clip / np.float32(255)))
    gflop = flops.count(window, trained.params, clip) / 1e9
    window(trained.params, clip).block_until_ready()
    start = time.process_time()
    window(trained.params, clip).block_until_ready()
    return {
        "row": name,
        "minutes": options.minutes,
        "seed": options.seed,
        **{key: scores[key] for key in ("psnr_y", "ssim_y", "psnr_y_input", "psnr_y_synthesized")},
        "steps": steps,
        "gflop": gflop,
        "ms": 1e3 * (time.process_time() - start),
        "compile_s": compiled,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
    }


if __name__ == "__main__":
    main()
