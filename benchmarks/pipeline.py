"""How many training clips a second the pipeline gives: `python -m benchmarks.pipeline --dir=DIR [--lr_dir=LR_DIR]`.

Without `--dir`, synthetic clips only. The rows take turns, so that whatever else the machine does meets them all alike;
where it does much, CPU time says more.
"""

import argparse
import contextlib
import statistics
import time
from unittest import mock

from input_pipeline import loader, transforms
from input_pipeline.degradation import DEGRADATIONS

ROUNDS = 3


def main():
    """Prints a line for each way to get at the low-resolution frames."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=__doc__)
    parser.add_argument("--dir", help="the prepared vimeo90k set")
    parser.add_argument("--lr_dir", help="low-resolution frames prepared from the same clips")
    parser.add_argument("--lr_degradation", default="bd_matlab", help="what they were prepared by")
    parser.add_argument("--crop", type=int, default=32)
    parser.add_argument("--frames", type=int, default=4, help="that go in")
    parser.add_argument("--crop_candidates", type=int, default=1)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, default=20, help=f"timed of each row in each of {ROUNDS} rounds")
    options = parser.parse_args()
    crops = f"{options.frames} frames, crop {options.crop}, best of {options.crop_candidates}"
    print(f"{crops}, batches of {options.batch_size}, {options.threads} threads")
    rows = list(_rows(options))
    taken = {name: [] for name, *_ in rows}
    for seed in range(ROUNDS):
        for name, data, context in rows:
            with context:
                taken[name].append(_seconds(options, seed, data))
    clips = options.batches * options.batch_size
    for name, seconds in taken.items():
        wall, cpu = (statistics.median(column) / clips for column in zip(*seconds, strict=True))
        print(f"{name:28}{1 / wall:6.0f} clips/s{1e3 * cpu:8.1f} ms of CPU time a clip")


def _rows(options):
    """(name, fields of the configuration, context to read in)."""
    if options.dir:
        yield "crops alone", {"dir": options.dir}, mock.patch.object(transforms, "degrade_inputs", _cut_inputs)
        for degradation in DEGRADATIONS:
            yield degradation, {"dir": options.dir, "degradation": degradation}, contextlib.nullcontext()
    if options.lr_dir:
        data = {"dir": options.dir, "lr_dir": options.lr_dir, "degradation": options.lr_degradation}
        yield "low-resolution files", data, contextlib.nullcontext()
    yield "synthetic, drawn before", {"synthetic_clips": options.batch_size}, contextlib.nullcontext()


def _cut_inputs(frames, _, window):
    """Frames of the right size, but not made by any filter."""
    return transforms.cut(frames[transforms.INPUTS], window)


def _seconds(options, seed, data):
    """(Wall, CPU) seconds of `options.batches` batches, after those that fill the buffer or wait for the last row's."""
    crops = {"crop": options.crop, "frames": options.frames, "crop_candidates": options.crop_candidates}
    config = loader.DataConfig(threads=options.threads, **crops, **data)
    batches = loader.train_batches(config, seed=seed, batch_size=options.batch_size)
    for _ in range(2 * options.threads + 1):
        next(batches)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(options.batches):
        next(batches)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    batches.close()
    return wall, cpu


if __name__ == "__main__":
    main()
