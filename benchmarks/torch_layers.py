"""What the layers of the published network take in eager PyTorch, for one window: prints JSON.

The network written down plainly, layer by layer as the paper has it, each layer's time measured by itself and counted
as often as it runs; what lies between layers (activations, additions, resizing, pixel shuffles) is left out, so a
PyTorch network takes longer than this. Where the rest is in bfloat16, deformable convolution is in float16, as
torchvision has none in bfloat16. Runs in an environment of its own with torch and torchvision, so of this project it
imports only the file beside it.
"""

import argparse
import collections
import itertools
import json

import torch
import torch.nn.functional as F
import torchvision
from torchvision_op import DEVICE, seconds  # beside this file

C, GROUPS, TAPS, FRAMES, WINDOW = 64, 8, 9, 4, 8
RUNS = 3


def layers(height, width):
    """`{(kind, sizes): times that it runs}` for `FRAMES` frames of this size."""
    found = collections.Counter()
    times = 2 * FRAMES - 1
    padded = (-(-height // WINDOW) * WINDOW, -(-width // WINDOW) * WINDOW)
    levels = [tuple(n // 2**level for n in padded) for level in range(3)]

    def conv(batch, size, inputs, outputs, kernel=3, stride=1, count=1):
        found["conv", batch, *size, inputs, outputs, kernel, stride] += count

    def pyramid(batch, count=1):
        for finer, coarser in itertools.pairwise(levels):
            conv(batch, finer, C, C, stride=2, count=count)
            conv(batch, coarser, C, C, count=count)

    def align(batch, count=1):
        for level, size in enumerate(levels):
            conv(batch, size, 2 * C, C, count=count)
            coarsest = level == 2
            conv(batch, size, C if coarsest else 2 * C, C, count=count)
            if not coarsest:
                conv(batch, size, C, C, count=count)
                conv(batch, size, 2 * C, C, count=count)
            conv(batch, size, C, 3 * GROUPS * TAPS, count=count)
            found["deform", batch, *size] += count

    conv(FRAMES, (height, width), 3, C)
    conv(FRAMES, levels[0], C, C, count=10)
    pyramid(FRAMES)
    align(FRAMES - 1)
    conv(FRAMES - 1, levels[0], C, C, kernel=1)

    steps = 2 * times  # both directions
    pyramid(1, 4 * steps)  # of input and state, for hidden and cell state
    align(1, 2 * steps)
    conv(1, levels[0], C, C, kernel=1, count=2 * steps)
    conv(1, levels[0], 2 * C, 4 * C, count=steps)
    conv(times, levels[0], 2 * C, C, kernel=1)

    pixels = levels[0][0] * levels[0][1]
    windows = times * pixels // WINDOW**2
    found["linear", times * pixels, C, 3 * C] += 1
    found["attention", pixels, 8, times, C // 8] += 1
    found["linear", times * pixels, C, C] += 1
    conv(times, levels[0], C, C, count=2)  # first and last of the trunk
    conv(times, levels[0], C, C, kernel=1)
    conv(times, levels[0], C, C, count=6)
    conv(times, levels[0], C, C, kernel=1, count=6)
    found["linear", times * pixels, C, 3 * C] += 12
    found["attention", windows, 4, WINDOW**2, C // 4] += 12
    found["linear", times * pixels, C, C] += 12
    found["linear", times * pixels, C, 2 * C] += 12
    found["linear", times * pixels, 2 * C, C] += 12

    conv(times, (height, width), C, 4 * C)
    conv(times, (2 * height, 2 * width), C, 4 * C)
    conv(times, (4 * height, 4 * width), C, C)
    conv(times, (4 * height, 4 * width), C, 3)
    return found


def call(kind, sizes, dtype):
    """A function that runs a layer on random numbers."""

    def noise(*shape):
        return torch.randn(shape, device=DEVICE, dtype=dtype)

    if kind == "conv":
        batch, height, width, inputs, outputs, kernel, stride = sizes
        x, weight, bias = noise(batch, inputs, height, width), noise(outputs, inputs, kernel, kernel), noise(outputs)
        return lambda: F.conv2d(x, weight, bias, stride, kernel // 2)
    if kind == "deform":
        batch, height, width = sizes
        dtype = torch.float16 if dtype == torch.bfloat16 else dtype
        x, offset = noise(batch, C, height, width), 3 * noise(batch, 2 * GROUPS * TAPS, height, width)
        mask, weight, bias = noise(batch, GROUPS * TAPS, height, width).sigmoid(), noise(C, C, 3, 3), noise(C)
        return lambda: torchvision.ops.deform_conv2d(x, offset, weight, bias, padding=1, mask=mask)
    if kind == "linear":
        rows, inputs, outputs = sizes
        x, weight, bias = noise(rows, inputs), noise(outputs, inputs), noise(outputs)
        return lambda: F.linear(x, weight, bias)
    q, k, v = (noise(*sizes) for _ in range(3))
    return lambda: (q @ k.transpose(-2, -1)).softmax(-1) @ v


@torch.no_grad()
def main():
    """Times every layer once and adds up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--height", type=int, default=144)
    parser.add_argument("--width", type=int, default=180)
    parser.add_argument("--type", default="float32", choices=["float32", "tf32", "bfloat16"])
    options = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = options.type == "tf32"
    dtype = torch.bfloat16 if options.type == "bfloat16" else torch.float32
    sums = collections.Counter()
    for (kind, *sizes), count in layers(options.height, options.width).items():
        sums[kind] += count * seconds(call(kind, sizes, dtype), RUNS)
    print(json.dumps({"seconds": sum(sums.values()), "by_kind": sums, "version": f"torch {torch.__version__}"}))


if __name__ == "__main__":
    main()
