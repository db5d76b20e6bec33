"""Times the op, the network, a video and a training step, counts what eight devices exchange, and prints tables.

`--write` also replaces, when all is measured, benchmarks/RESULTS.md, on a GPU benchmarks/RESULTS_GPU.md.
`--torchvision_python` names a Python that has torch and torchvision, for comparison: of the op, the two taking turns,
and of the network with the sum of its layers in eager PyTorch. On a GPU float32, TF32 and bfloat16 are measured, and
the op as a kernel and in plain JAX, but fewer networks and rounds, as it may be lent for minutes, and no exchanges,
which need eight virtual CPU devices. Every measurement is a process of its own, so that its peak memory is its own.
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
from msitf_jax import atomic

ROOT = pathlib.Path(__file__).parent.parent
# Convolutions, linears and attentions of the published network a low-resolution pixel, for 4 frames to 7: what `share`
# counts for it. Its deformable convolutions would add 80 GFLOP to the 1990 of a Vid4 window.
PUBLISHED_GFLOP = 1990 / (144 * 184)
OP_ROUNDS, GPU_OP_ROUNDS = 3, 1
REFERENCE_GFLOPS = 212  # matrix-product rate of the machine on which the published code took 5.3 s a clip
TORCHVISION_TYPES = {"bfloat16": "float16"}  # the nearest that its op has
SECTIONS = ("op", "network", "video", "training", "exchanges")


def main():
    """Measures, prints each section as it is done, and writes them all if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--torchvision_python", metavar="PYTHON", help="an interpreter with torch and torchvision")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="this section; may be repeated")
    parser.add_argument("--write", action="store_true", help="replace the file of results")
    options = parser.parse_args()
    if options.only and options.write:
        parser.error("--write takes all sections: leave --only out")
    asked = "import jax, json; print(json.dumps([jax.default_backend(), jax.devices()[0].device_kind]))"
    backend, device = _run([sys.executable, "-c", asked])  # in a process of its own: it holds the device
    gpu, torchvision = backend == "gpu", options.torchvision_python
    measurements = {
        "op": lambda: _op(gpu, torchvision),
        "network": lambda: _network(gpu, torchvision),
        "video": _video,
        "training": lambda: _training(gpu),
        "exchanges": _exchanges,
    }
    parts = ["# Benchmarks\n\nMade by `python -m benchmarks --write`.", _machine(device if gpu else backend)]
    print(*parts, sep="\n\n", end="\n\n", flush=True)
    for name in SECTIONS:
        if name not in (options.only or SECTIONS) or (gpu and name == "exchanges"):
            continue
        parts.append(measurements[name]())
        print(parts[-1], end="\n\n", flush=True)
    if options.write:
        text = "\n\n".join(parts) + "\n"
        path = ROOT / "benchmarks" / ("RESULTS_GPU.md" if gpu else "RESULTS.md")
        atomic.write(path, lambda file: file.write(text.encode()))


def _types(gpu):
    return ("float32", "tf32", "bfloat16") if gpu else ("float32",)


def _machine(device):
    processor = platform.processor() or platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        processor = names[0] if names else processor
    versions = f"Python {platform.python_version()}, jax {jax.__version__}, flax {flax.__version__}"
    return f"{datetime.date.today()}, {os.cpu_count()} cores of {processor}, {device}; {versions}."


def _op(gpu, torchvision_python):
    rows, versions = [], set()
    count = GPU_OP_ROUNDS if gpu else OP_ROUNDS
    for shape, kind in itertools.product(range(len(op.SHAPES)), _types(gpu)):
        flags = [f"--shape={shape}", f"--type={kind}"]
        commands = {
            name: [sys.executable, "-m", "benchmarks.op", f"--implementation={name}", *flags]
            for name in (("triton", "xla") if gpu else ("xla",))
        }
        if torchvision_python:
            flags = [f"--shape={shape}", f"--type={TORCHVISION_TYPES.get(kind, kind)}"]
            commands["torchvision"] = [torchvision_python, "benchmarks/torchvision_op.py", *flags]
        rounds = [{name: _run(command) for name, command in commands.items()} for _ in range(count)]
        for name in commands:
            label = TORCHVISION_TYPES.get(kind, kind) if name == "torchvision" else kind
            rows.append(_op_row(op.SHAPES[shape], label, name, rounds))
            versions |= {r[name]["version"] for r in rounds if "version" in r[name]}
    return (
        "## Deformable convolution\n\n"
        f"8 groups, 3x3; median of {op.RUNS} measurements after the first call"
        f"{f', then of {count} processes, taking turns' if count > 1 else ', in one process'}. "
        f"{f'A measurement is {op.DEVICE_CALLS} calls in flight at a time. ' if gpu else ''}Backward is forward with "
        "all gradients; memory is what the calls take beside their arguments. Limit: the longer of products over the "
        "rate of matrix products and bytes over bandwidth, each array touched once, as a share of the time taken. "
        f"Ratio: torchvision's time to ours{', round by round, median and least' if count > 1 else ''}."
        f"{_named(versions)}\n\n"
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
            ratio = f"{statistics.median(ratios):.1f}" if ratios else ""
            ratio += f", {min(ratios):.1f}" if len(ratios) > 1 else ""
        cells += [f"{1e3 * seconds:.3g}", limit, f"{memory:.0f}", ratio]
    return f"| {' | '.join(cells)} |"


def _network(gpu, torchvision_python):
    rows, versions = [], set()
    for config, (width, height), kind in itertools.product(
        ("msitf", "msitf_small"), ((180, 144), (480, 270)), _types(gpu)
    ):
        if gpu and (config, width) == ("msitf_small", 480):
            continue
        size = [f"--width={width}", f"--height={height}", f"--type={kind}"]
        runs = 3 if gpu or width == 180 else 1
        result = _run([sys.executable, "-m", "benchmarks.network", f"--config={config}", f"--runs={runs}", *size])
        gflop, torch = result["gflop"], ""
        if config == "msitf":
            gflop = PUBLISHED_GFLOP * (-(-height // 8) * 8) * (-(-width // 8) * 8)
            if torchvision_python and (gpu or width == 180):
                layers = _run([torchvision_python, "benchmarks/torch_layers.py", *size])
                torch = f"{layers['seconds']:.3g}"
                versions.add(layers["version"])
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
        "convolutions, linears and attentions take is counted, without its deformable convolutions: "
        f"{1e3 * PUBLISHED_GFLOP:.1f} MFLOP a pixel. PyTorch's layers: the published network's convolutions, "
        "deformable convolutions, linears and attentions, each timed by itself in eager PyTorch in the same run and "
        f"counted as often as it runs; without anything in between.{_named(versions)}"
    )


def _video():
    rows = []
    for (width, height), frames in (((180, 144), 60), ((64, 48), 60), ((64, 48), 600)):
        size = [f"--width={width}", f"--height={height}", f"--frames={frames}"]
        result = _run([sys.executable, "-m", "benchmarks.video", *size])
        steady = result["seconds"] - result["warm_s"] + result["window_s"]
        rows.append(
            f"| {width}x{height} | {frames} | {result['seconds']:.1f} | {result['network_s']:.1f} "
            f"| {100 * result['overhead']:.0f} % | {100 * (steady / result['network_s'] - 1):.0f} % "
            f"| {result['peak_mb']:.0f} | {result['warm_s']:.1f} "
            f"| {result['window_s']:.2f} |"
        )
    return (
        "## A video\n\n"
        "`upscale.py` with msitf_small and H.264 in and out, the whole command from its start to its end. The network "
        "alone: as many windows, by the median of 5 after the first. A short one: the command on 4 frames, one window, "
        "with what it compiles on disk from before.\n\n"
        "| | frames | seconds | the network alone | beside it | without starting up | peak memory, MB "
        "| a short one, seconds "
        "| of which its window |\n|---|---|---|---|---|---|---|---|---|\n" + "\n".join(rows)
    )


def _training(gpu):
    rows = []
    kinds = ("tf32", "bfloat16") if gpu else ("float32",)
    for (batch, remat), kind in itertools.product(((2, False), (16, not gpu)), kinds):
        flags = [f"--batch={batch}", f"--type={kind}", *["--remat"] * remat]
        result = _run([sys.executable, "-m", "benchmarks.training", *flags])
        scaled = result["seconds_per_clip"] * result["matmul_gflops"] / REFERENCE_GFLOPS
        rows.append(
            f"| {batch}{', rematerialised' if remat else ''} | {kind} | {result['seconds_per_clip']:.3g} "
            f"| {'' if gpu else f'{scaled:.2f}'} | {result['peak_mb']:.0f} | {result['compile_s']:.0f} "
            f"| {result['matmul_gflops']:.0f} |"
        )
    return (
        "## A training step\n\n"
        "The published network, 32x32 crops; median of 3 steps after the first.\n\n"
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


def _named(versions):
    return "".join(f" {version}." for version in sorted(versions))


def _run(command):
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


if __name__ == "__main__":
    main()
