"""Times the op, the network and a training step, counts what eight devices exchange, and prints tables.

`--write` also replaces benchmarks/RESULTS.md. `--torchvision_python` names a Python that has torch and torchvision, for
the comparison of the op: the two take turns in one run. Every measurement is a process of its own, so that its peak
memory is its own.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

import flax
import jax

ROOT = pathlib.Path(__file__).parent.parent
PUBLISHED_GFLOP = 1990  # convolutions of the published network on this window; what `share` counts, whoever computes
OP_ROUNDS = 5
REFERENCE_GFLOPS = 212  # matrix-product rate of the machine on which the published code took 5.3 s a clip


def main():
    """Runs everything, prints it, and writes it if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--torchvision_python", metavar="PYTHON", help="an interpreter with torch and torchvision")
    parser.add_argument("--write", action="store_true", help="replace benchmarks/RESULTS.md")
    options = parser.parse_args()
    sections = [_machine(), _op(options.torchvision_python), _network(), _training(), _exchanges()]
    text = "# Benchmarks\n\nMade by `python -m benchmarks --write`.\n\n" + "\n\n".join(sections) + "\n"
    print(text)
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
    ours, theirs = [], []
    for _ in range(OP_ROUNDS):
        ours.append(_run([sys.executable, "-m", "benchmarks.op"]))
        if torchvision_python:
            theirs.append(_run([torchvision_python, "benchmarks/torchvision_op.py"]))
    rows = [_op_row("`msitf_jax.ops.deform_conv2d`, plain JAX", ours)]
    if theirs:
        rows.append(_op_row(f"`torchvision.ops.deform_conv2d` ({theirs[0]['version']})", theirs))
        ratios = [b["seconds"] / a["seconds"] for a, b in zip(ours, theirs, strict=True)]
        rows.append(f"\nRatio, round by round: median {statistics.median(ratios):.2f}, least {min(ratios):.2f}.")
    return (
        "## Deformable convolution, forward\n\n"
        "`[1, 144, 184, 64]`, 8 groups, 3x3, float32; median of 20 calls after the first, then of "
        f"{OP_ROUNDS} processes; memory is what the calls added to the process's peak.\n\n"
        "| | ms | MB |\n|---|---|---|\n" + "\n".join(rows)
    )


def _op_row(name, results):
    seconds, memory = (statistics.median(r[key] for r in results) for key in ("seconds", "memory_mb"))
    return f"| {name} | {1e3 * seconds:.0f} | {memory:.0f} |"


def _network():
    result = _run([sys.executable, "-m", "benchmarks.network"])
    share = PUBLISHED_GFLOP / (result["seconds"] * result["matmul_gflops"])
    return (
        "## The network, a Vid4 window\n\n"
        "4 frames of 180x144 to 7 of 720x576, float32; median of 3 calls after the first.\n\n"
        "| seconds | peak memory, MB | compilation, s | GFLOP counted | matmul, GFLOP/s | share |\n"
        "|---|---|---|---|---|---|\n"
        f"| {result['seconds']:.1f} | {result['peak_mb']:.0f} | {result['compile_s']:.1f} | {result['gflop']:.0f} "
        f"| {result['matmul_gflops']:.0f} | {share:.2f} |\n\n"
        f"Share = {PUBLISHED_GFLOP} GFLOP / (seconds x GFLOP/s of a 2048x2048 float32 matrix product in the same run). "
        f"{PUBLISHED_GFLOP} is what the published network's convolutions take for this window; the count beside it is "
        "ours: convolutions and matrix products as traced, two operations for each multiply-add."
    )


def _training():
    rows = []
    for batch, remat in ((2, False), (16, True)):
        command = [sys.executable, "-m", "benchmarks.training", f"--batch={batch}", *["--remat"] * remat]
        result = _run(command)
        scaled = result["seconds_per_clip"] * result["matmul_gflops"] / REFERENCE_GFLOPS
        rows.append(
            f"| {batch}{', rematerialised' if remat else ''} | {result['seconds_per_clip']:.2f} | {scaled:.2f} "
            f"| {result['peak_mb']:.0f} | {result['compile_s']:.0f} | {result['matmul_gflops']:.0f} |"
        )
    return (
        "## A training step\n\n"
        "The published network, 32x32 crops, float32; median of 3 steps after the first; the process's peak memory.\n\n"
        f"| batch | seconds a clip | scaled to {REFERENCE_GFLOPS} GFLOP/s | peak memory, MB | compilation, s "
        "| matmul, GFLOP/s |\n|---|---|---|---|---|---|\n" + "\n".join(rows)
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
