"""Times the op, the network and a training step, counts what eight devices exchange, and prints tables.

`--write` also replaces benchmarks/RESULTS.md. `--torchvision_python` names a Python that has torch and torchvision, for
comparison: of the op, the two taking turns, and of the network with the sum of its layers in eager PyTorch. On a GPU
float32, TF32 and bfloat16 are measured, and the op as a kernel and in plain JAX. Every measurement is a process of its
own, so that its peak memory is its own.
"""

import argparse
import datetime
import itertools
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

import flax
import jax

from benchmarks import op

ROOT = pathlib.Path(__file__).parent.parent
# Convolutions of the published network a low-resolution pixel, for 4 frames to 7; what `share` counts for it.
PUBLISHED_GFLOP = 1990 / (144 * 184)
OP_ROUNDS = 3
REFERENCE_GFLOPS = 212  # matrix-product rate of the machine on which the published code took 5.3 s a clip
GPU = jax.default_backend() == "gpu"
TORCHVISION_TYPES = {"bfloat16": "float16"}  # the nearest that its op has
TYPES = ("float32", "tf32", "bfloat16") if GPU else ("float32",)


def main():
    """Runs everything, prints it, and writes it if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--torchvision_python", metavar="PYTHON", help="an interpreter with torch and torchvision")
    parser.add_argument("--write", action="store_true", help="replace benchmarks/RESULTS.md")
    options = parser.parse_args()
    torchvision = options.torchvision_python
    text = "# Benchmarks\n\nMade by `python -m benchmarks --write`.\n"
    print(text)
    measurements = _machine, lambda: _op(torchvision), lambda: _network(torchvision), _training, _exchanges
    for measure in measurements:
        part = measure()
        print(part, end="\n\n", flush=True)
        text += f"\n{part}\n"
        if options.write:
            (ROOT / "benchmarks" / "RESULTS.md").write_text(text)


def _machine():
    processor = platform.processor() or platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        processor = names[0] if names else processor
    versions = f"Python {platform.python_version()}, jax {jax.__version__}, flax {flax.__version__}"
    return f"{datetime.date.today()}, {os.cpu_count()} cores of {processor}, {jax.default_backend()}; {versions}."


def _op(torchvision_python):
    rows = []
    for shape, kind in itertools.product(range(len(op.SHAPES)), TYPES):
        flags = [f"--shape={shape}", f"--type={kind}"]
        commands = {
            name: [sys.executable, "-m", "benchmarks.op", f"--implementation={name}", *flags]
            for name in (("triton", "xla") if GPU else ("xla",))
        }
        if torchvision_python:
            flags = [f"--shape={shape}", f"--type={TORCHVISION_TYPES.get(kind, kind)}"]
            commands["torchvision"] = [torchvision_python, "benchmarks/torchvision_op.py", *flags]
        rounds = [{name: _run(command) for name, command in commands.items()} for _ in range(OP_ROUNDS)]
        for name in commands:
            label = TORCHVISION_TYPES.get(kind, kind) if name == "torchvision" else kind
            rows.append(_op_row(op.SHAPES[shape], label, name, rounds))
    return (
        "## Deformable convolution\n\n"
        f"8 groups, 3x3; median of {op.RUNS} calls after the first, then of {OP_ROUNDS} processes, taking turns. "
        "Backward is forward with all gradients; memory is what the calls added to the peak. Limit: the longer of "
        "products over the rate of matrix products and bytes over bandwidth, each array touched once, as a share of "
        "the time taken. Ratio: torchvision's time to ours, round by round, median and least.\n\n"
        "| shape | type | | forward, ms | of limit | MB | ratio | backward, ms | of limit | MB | ratio |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|\n" + "\n".join(rows)
    )


def _op_row(shape, kind, name, rounds):
    cells = [str(list(shape)), kind, name]
    for part in ("forward", "backward"):
        seconds, memory = (statistics.median(r[name][key] for r in rounds) for key in (part, f"{part}_mb"))
        limit, ratio = "", ""
        if name != "torchvision":
            limit = f"{statistics.median(r[name][f'{part}_limit'] / r[name][part] for r in rounds):.2f}"
            ratios = [r["torchvision"][part] / r[name][part] for r in rounds if "torchvision" in r]
            ratio = f"{statistics.median(ratios):.1f}, {min(ratios):.1f}" if ratios else ""
        cells += [f"{1e3 * seconds:.3g}", limit, f"{memory:.0f}", ratio]
    return f"| {' | '.join(cells)} |"


def _network(torchvision_python):
    rows = []
    for config, (width, height), kind in itertools.product(("msitf", "msitf_small"), ((180, 144), (480, 270)), TYPES):
        size = [f"--width={width}", f"--height={height}", f"--type={kind}"]
        runs = 3 if GPU or width == 180 else 1
        result = _run([sys.executable, "-m", "benchmarks.network", f"--config={config}", f"--runs={runs}", *size])
        gflop, torch = result["gflop"], ""
        if config == "msitf":
            gflop = PUBLISHED_GFLOP * (-(-height // 8) * 8) * (-(-width // 8) * 8)
            if torchvision_python and (GPU or width == 180):
                layers = _run([torchvision_python, "benchmarks/torch_layers.py", *size])
                torch = f"{layers['seconds']:.3g}"
        share = gflop / (result["seconds"] * result["matmul_gflops"])
        rows.append(
            f"| {config} | {width}x{height} | {kind} | {result['seconds']:.3g} | {7 / result['seconds']:.3g} "
            f"| {result['peak_mb']:.0f} | {result['compile_s']:.1f} | {result['gflop']:.0f} "
            f"| {result['matmul_gflops']:.0f} | {share:.2f} | {torch} |"
        )
    return (
        "## The network\n\n"
        "4 frames to 7 of four times the size; median of 3 calls after the first, of 480x270 on a CPU the one call "
        "after the first.\n\n"
        "| | frames | type | seconds | frames/s | peak memory, MB | compilation, s | GFLOP | matmul, GFLOP/s | share "
        "| PyTorch's layers, seconds |\n|---|---|---|---|---|---|---|---|---|---|---|\n" + "\n".join(rows) + "\n\n"
        "GFLOP: convolutions and matrix products as traced, two operations for each multiply-add. Share: GFLOP / "
        "(seconds x GFLOP/s of a large matrix product in the same run); of msitf, only what the published network's "
        f"convolutions take is counted, {1e3 * PUBLISHED_GFLOP:.1f} MFLOP a pixel. PyTorch's layers: the published "
        "network's convolutions, deformable convolutions, linears and attentions, each timed by itself in eager "
        "PyTorch in the same run and counted as often as it runs; without anything in between."
    )


def _training():
    rows = []
    for (batch, remat), kind in itertools.product(((2, False), (16, True)), TYPES):
        flags = [f"--batch={batch}", f"--type={kind}", *["--remat"] * remat]
        result = _run([sys.executable, "-m", "benchmarks.training", *flags])
        scaled = result["seconds_per_clip"] * result["matmul_gflops"] / REFERENCE_GFLOPS
        rows.append(
            f"| {batch}{', rematerialised' if remat else ''} | {kind} | {result['seconds_per_clip']:.3g} "
            f"| {'' if GPU else f'{scaled:.2f}'} | {result['peak_mb']:.0f} | {result['compile_s']:.0f} "
            f"| {result['matmul_gflops']:.0f} |"
        )
    return (
        "## A training step\n\n"
        "The published network, 32x32 crops; median of 3 steps after the first; the process's peak memory.\n\n"
        f"| batch | type | seconds a clip | scaled to {REFERENCE_GFLOPS} GFLOP/s | peak memory, MB | compilation, s "
        "| matmul, GFLOP/s |\n|---|---|---|---|---|---|---|\n" + "\n".join(rows)
    )


def _exchanges():
    rows = []
    for mesh, kinds in _run([sys.executable, "-m", "benchmarks.exchanges"]).items():
        sent = [f"{1e-6 * kinds[kind]['bytes']:.1f}" if kind in kinds else "" for kind in ("all-reduce", "all-gather")]
        others = ", ".join(sorted(kinds.keys() - {"all-reduce", "all-gather"})) or "nothing"
        rows.append(f"| {mesh} | {' | '.join(sent)} | {others} |")
    return (
        "## What eight devices exchange in a training step\n\n"
        "The published network, float32; MB a step, whatever the batch, read off the compiled program.\n\n"
        "| mesh, data x model | sums (all-reduce) | parameters (all-gather) | other exchanges |\n|---|---|---|---|\n"
        + "\n".join(rows)
    )


def _run(command):
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


if __name__ == "__main__":
    main()
