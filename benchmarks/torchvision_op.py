"""torchvision's deformable convolution at the shapes of `benchmarks/op.py`: prints JSON.

Runs in an environment of its own with torch and torchvision, so it imports nothing of this project.
"""

import argparse
import json
import pathlib
import re
import statistics
import time

import torch
import torchvision

SHAPES = ((1, 144, 184, 64), (7, 144, 184, 64), (16, 32, 32, 64))
GROUPS, TAPS = 8, 9
OFFSET_PIXELS = 3.0
RUNS = 5
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CALLS = 20 if DEVICE == "cuda" else 1  # without waiting in between


def peak_memory():
    """In MB, since it was forgotten."""
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1024


def forget_peak():
    """Counts anew from what is held now."""
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        pathlib.Path("/proc/self/clear_refs").write_text("5")


def seconds(function, runs):
    """Median wall time of a call, after one that is not counted."""
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        for _ in range(CALLS):
            function()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        times.append((time.perf_counter() - start) / CALLS)
    return statistics.median(times[1:])


def main():
    """Times the op as `benchmarks.op` does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, default=0, choices=range(len(SHAPES)))
    parser.add_argument("--type", default="float32", choices=["float32", "tf32", "float16"])  # there is no bfloat16
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = options.type == "tf32"
    dtype = torch.float16 if options.type == "float16" else torch.float32
    batch, height, width, channels = SHAPES[options.shape]
    x = torch.randn(batch, channels, height, width)
    offset = OFFSET_PIXELS * torch.randn(batch, 2 * GROUPS * TAPS, height, width)
    mask = torch.rand(batch, GROUPS * TAPS, height, width)
    weight, bias = torch.randn(channels, channels, 3, 3), torch.zeros(channels)
    arguments = [a.to(DEVICE, dtype) for a in (x, offset, weight, bias, mask)]

    def forward():
        x, offset, weight, bias, mask = arguments
        return torchvision.ops.deform_conv2d(x, offset, weight, bias, padding=1, mask=mask)

    result = {"version": f"torchvision {torchvision.__version__}"}
    forget_peak()
    before = peak_memory()
    with torch.no_grad():
        result["forward"] = seconds(forward, RUNS)
    result["forward_mb"] = peak_memory() - before
    for a in arguments:
        a.requires_grad_()

    def backward():
        value = forward()
        return torch.autograd.grad(value, arguments, value.detach())

    result["backward"] = seconds(backward, RUNS)
    result["backward_mb"] = peak_memory() - before
    print(json.dumps(result))


if __name__ == "__main__":
    main()
