"""Where the time of a training step or of a window goes: `python -m benchmarks.profile {step,window}`.

Runs a configuration in configs/ on one core, as training does on each device of a CPU, under JAX's profiler, and prints
two Markdown tables: milliseconds by parts of the network (`jax.named_scope`), forward and for gradients, and by kinds
of operation. Several operations that XLA has fused count as the heaviest kind among them.
"""

import argparse
import collections
import os
import pathlib
import re
import tempfile

import jax

from benchmarks import turns
from msitf_jax.training.huge_pages import restart_with_huge_pages

# Kinds of operation, the heaviest first, and the HLO operations that each stands for.
KINDS = {
    "convolutions": ("convolution",),
    "matrix products": ("dot",),
    "scattering": ("scatter",),
    "gathering": ("gather",),
    "sums": ("reduce", "reduce-window"),
    "moving": ("copy", "transpose", "concatenate", "pad", "slice", "dynamic-slice", "dynamic-update-slice"),
}
PARTS = (
    "shallow_features",
    "motion",
    "interpolation",
    "propagation",
    "temporal_fusion",
    "context",
    "trunk",
    "reconstruction",
    "bicubic",
)
OTHER = "element by element"
CONTROL = ("while", "call", "conditional")  # their time is that of what they hold
ROUNDS = 10


def main():
    """Compiles the step, times it, and runs it again under the profiler."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("what", choices=("step", "window"), help="of training, or 4 frames of 180x144")
    parser.add_argument("--config", default="msitf_small", help="a file in configs/, without .py")
    parser.add_argument("--batch", type=int, default=4, help="clips of a training step")
    parser.add_argument("--crop", type=int, default=24, help="side of its crops, in low-resolution pixels")
    options = parser.parse_args()
    restart_with_huge_pages()
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])  # before JAX counts cores
    contender = turns.prepare(options.config, options.batch, options.crop)
    run = contender[options.what]
    without = min(turns.seconds(run) for _ in range(ROUNDS))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(ROUNDS):
                jax.block_until_ready(run())
        (trace,) = pathlib.Path(folder).rglob("*.xplane.pb")
        runs = read_trace(trace)
    operations = read_program(contender[f"{options.what}_program"].as_text())
    total = sum(seconds for seconds, _ in runs.values())
    count = sum(count for _, count in runs.values())
    print(f"{1e3 * without:.0f} ms a {options.what}; under the profiler {1e3 * total:.0f}, in {count:.0f} operations\n")

    by_part, by_kind = collections.defaultdict(lambda: [0.0, 0.0]), collections.Counter()
    for name, (seconds, _) in runs.items():
        part, of_gradients, kind = operations[name]
        by_part[part][of_gradients] += seconds
        by_kind[kind] += seconds
    print("| part | forward, ms | gradients, ms | share |\n|---|---|---|---|")
    for part, (forward, backward) in sorted(by_part.items(), key=lambda item: -sum(item[1])):
        print(f"| {part} | {1e3 * forward:.1f} | {1e3 * backward:.1f} | {(forward + backward) / total:.0%} |")
    print("\n| kind | ms | share |\n|---|---|---|")
    for kind, seconds in by_kind.most_common():
        print(f"| {kind} | {1e3 * seconds:.1f} | {seconds / total:.0%} |")


def read_program(text):
    """Of each operation of a compiled program, by name: its part, whether it is for gradients, and its kind."""
    line_pattern = re.compile(r"\s+(?:ROOT )?%(\S+) = .*? ([a-z][a-z-]*)\((.*)")
    bodies, found, body = collections.defaultdict(list), {}, None
    for line in text.splitlines():
        if start := re.match(r"(?:ENTRY )?%(\S+) \(.*\{$", line):
            body = start[1]
        elif match := line_pattern.match(line):
            name, operation, rest = match.groups()
            calls, scope = re.search(r"calls=%([\w.-]+)", rest), re.search(r'op_name="([^"]*)"', rest)
            bodies[body].append(operation)
            found[name] = operation, calls and calls[1], scope[1] if scope else ""
    operations = {}
    for name, (operation, calls, scope) in found.items():
        held = bodies[calls] if operation == "fusion" else [operation]
        kind = next((kind for kind, names in KINDS.items() if set(names) & set(held)), OTHER)
        part = next((name for name in PARTS if re.search(rf"\b{name}\b", scope)), "the rest")
        operations[name] = part, "transpose(" in scope, kind
    return operations


def read_trace(file):
    """Of each operation that ran: seconds and times in a round, without those that only hold others."""
    runs = collections.defaultdict(lambda: (0.0, 0.0))
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        for line in plane.lines:
            for event in line.events:
                if dict(event.stats).get("hlo_op") and not event.name.startswith(CONTROL):
                    seconds, count = runs[event.name]
                    runs[event.name] = seconds + event.duration_ns / 1e9 / ROUNDS, count + 1 / ROUNDS
    return runs


if __name__ == "__main__":
    main()
