"""Files made to do harm: pickles that run commands, and small ones that declare to be enormous."""

import contextlib
import json
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib

import pytest

from tests.faults.mutation import png_chunk
from tests.training import ROOT

LARGEST_GROWTH = 300  # MB, of the process while it refuses; the bombs would take gigabytes


class Command:
    """Unpickled, it runs a command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        import os

        return os.system, (self.command,)


def refused(*arguments):
    """What `msitf` says, in one sentence, in a process of its own that stays small."""
    script = (
        "import resource, sys; from msitf_jax import cli\n"
        "from msitf_jax.cli import convert, evaluate, info, upscale\n"
        "upscale.keep_compiled = lambda: None\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "status = cli.main(sys.argv[1:])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
        "sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    said = done.stderr.splitlines()[-1]  # after progress
    assert said.startswith("msitf "), done.stderr
    growth = int(done.stdout.split()[-1]) / 1024
    assert growth < LARGEST_GROWTH
    print(f"\n{said} (grew by {growth:.0f} MB)")
    return said


@pytest.mark.slow
@pytest.mark.parametrize("archive", [True, False], ids=["zip", "plain"])
def test_a_pickle_that_runs_a_command_does_not(archive, tmp_path):
    torch = pytest.importorskip("torch")
    mark, path = tmp_path / "executed", tmp_path / "weights.pth"
    content = {"conv_first.weight": torch.zeros(2), "then": Command(f"touch {mark}")}
    if archive:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(Command(f"touch {mark}")))
    assert "nothing was executed" in refused("convert", path, tmp_path / "out.safetensors")
    assert not mark.exists()
    with contextlib.suppress(Exception):
        torch.load(path, weights_only=False)  # as it would be without the program's care
    assert mark.exists()


def png(width, height, rows):
    """A PNG file that declares a size and holds some rows of black."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = png_chunk(b"IDAT", zlib.compress(bytes((1 + 3 * width) * rows), 9))
    return b"\x89PNG\r\n\x1a\n" + header + data + png_chunk(b"IEND", b"")


@pytest.mark.slow
@pytest.mark.parametrize("side", [15_000, 60_000])
def test_frames_of_enormous_size(side, tmp_path):
    for clip in ("clips/one", "frames"):
        (tmp_path / clip).mkdir(parents=True)
        for number in range(7):
            (tmp_path / clip / f"{number}.png").write_bytes(png(side, side, rows=200))
    said = refused("upscale", tmp_path / "frames", tmp_path / "out.mp4", "--weights=bicubic")
    assert "0.png: not a readable image of at most 67,108,864 pixels" in said
    said = refused("evaluate", f"--dataset={tmp_path / 'clips'}", "--weights=bicubic")
    assert "0.png: not a readable image of at most 67,108,864 pixels" in said
    said = refused("info", tmp_path / "frames" / "0.png")
    assert "no frame of at most 67,108,864 pixels can be decoded" in said


@pytest.mark.slow
def test_a_video_of_enormous_size(tmp_path):
    path = tmp_path / "clip.y4m"
    path.write_bytes(b"YUV4MPEG2 W12000 H12000 F25:1 C420\nFRAME\n" + bytes(100_000))
    assert "no frame of at most 67,108,864 pixels can be decoded" in refused("info", path)


@pytest.mark.slow
def test_weights_of_enormous_size(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "header.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    assert "not a whole safetensors file" in refused("info", path)
    tensor = {"dtype": "F32", "shape": [1 << 20, 1 << 20], "data_offsets": [0, 1 << 42]}
    header = json.dumps({"conv_first.weight": tensor}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    assert "not a whole safetensors file" in refused("info", path)
    torch.save({"conv_first.weight": torch.zeros(1 << 28)}, tmp_path / "zeros.pth")
    with (
        zipfile.ZipFile(tmp_path / "zeros.pth") as whole,
        zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in whole.namelist():
            bomb.writestr(name, whole.read(name))
    print(f"\n{(tmp_path / 'small.pth').stat().st_size:,} bytes for {(tmp_path / 'zeros.pth').stat().st_size:,}")
    assert "compressed, which PyTorch's files are not" in refused("info", tmp_path / "small.pth")
