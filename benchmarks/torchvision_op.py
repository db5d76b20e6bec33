"""torchvision's deformable convolution at the shape of `benchmarks/op.py`: prints JSON.

Runs in an environment of its own with torch and torchvision, so it imports nothing of this project.
"""

import json
import resource
import statistics
import time

import torch
import torchvision

HEIGHT, WIDTH, CHANNELS, GROUPS, TAPS = 144, 184, 64, 8, 9
OFFSET_PIXELS = 3.0
RUNS = 20


def peak_memory():
    """In MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.no_grad()
def main():
    """Times the op as `benchmarks.op` does."""
    torch.manual_seed(0)
    x = torch.randn(1, CHANNELS, HEIGHT, WIDTH)
    offset = OFFSET_PIXELS * torch.randn(1, 2 * GROUPS * TAPS, HEIGHT, WIDTH)
    mask = torch.rand(1, GROUPS * TAPS, HEIGHT, WIDTH)
    weight, bias = torch.randn(CHANNELS, CHANNELS, 3, 3), torch.zeros(CHANNELS)
    before = peak_memory()
    times = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        torchvision.ops.deform_conv2d(x, offset, weight, bias, padding=1, mask=mask)
        times.append(time.perf_counter() - start)
    print(
        json.dumps(
            {
                "seconds": statistics.median(times[1:]),
                "memory_mb": peak_memory() - before,
                "version": f"torchvision {torchvision.__version__}, {torch.get_num_threads()} threads",
            }
        )
    )


if __name__ == "__main__":
    main()
