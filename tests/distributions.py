"""Builds the source distribution and the wheel, and tries each in an environment that holds nothing else.

    make dist-check PYTHON=python3.12

Nothing of the checkout is in the way: what is installed runs in a folder of its own, and upscales a drawn clip, a video
and an array with the weights that it brings.
"""

import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile

ROOT = pathlib.Path(__file__).parent.parent
LARGEST = {"wheel": 2_000_000, "source distribution": 10_000_000}  # bytes; the weights have 1.4 MB, the goldens 7
NEEDED = {
    "wheel": (
        "input_pipeline/py.typed",
        "msitf_jax/ops/deform_conv/blocks.json",
        "msitf_jax/py.typed",
        "msitf_jax/video/compare.html",
        "msitf_jax/weights/pretrained/msitf-small.safetensors",
    ),
    "source distribution": (
        "LICENSE",
        "README.md",
        "benchmarks/exchanges.py",
        "configs/msitf.py",
        "tests/conftest.py",
        "tests/golden/gradients.npz",
        "train.py",
    ),
}
UPSCALE = """
import pathlib, sys
import numpy as np
import msitf_jax
assert pathlib.Path(msitf_jax.__file__).is_relative_to(sys.prefix), msitf_jax.__file__
frames = np.random.default_rng(0).integers(0, 256, (4, 24, 32, 3), np.uint8)
large = msitf_jax.upscale(frames)
assert large.shape == (7, 96, 128, 3) and large.dtype == np.uint8, (large.shape, large.dtype)
print("an array of", *frames.shape, "upscaled to", *large.shape)
"""


def build(folder):
    """{kind: file} of what `python -m build` makes: the wheel from the source distribution."""
    command = [sys.executable, "-m", "build", "--outdir", folder, ROOT]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(done.stdout)
    return {"source distribution": next(folder.glob("*.tar.gz")), "wheel": next(folder.glob("*.whl"))}


def check_contents(kind, file):
    """Ends the program unless the file holds what it must, and nothing that it must not."""
    if kind == "wheel":
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
        packages = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
        if packages != {"msitf_jax", "input_pipeline"} or not any(name.endswith("/LICENSE") for name in names):
            sys.exit(f"{file.name}: holds {', '.join(sorted(packages))}, expected two packages and the licence")
    else:
        with tarfile.open(file) as archive:
            names = [name.partition("/")[2] for name in archive.getnames()]
    if missing := [name for name in NEEDED[kind] if name not in names]:
        sys.exit(f"{file.name}: lacks {', '.join(missing)}")
    if file.stat().st_size > LARGEST[kind]:
        sys.exit(f"{file.name}: has {file.stat().st_size:,} bytes, expected at most {LARGEST[kind]:,}")
    print(f"{file.name}: {len(names)} files, {file.stat().st_size / 1e6:.1f} MB", flush=True)


def check_installed(file, python, folder):
    """Installs the file with a Python in a new environment below a folder, and runs there what users run first."""
    folder.mkdir()
    begin = time.monotonic()
    subprocess.run([python, "-m", "venv", folder / "venv"], check=True)
    programs = folder / "venv" / "bin"
    # Nothing of the caller's: neither its modules nor what it has compiled.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment["JAX_COMPILATION_CACHE_DIR"] = str(folder / "compiled")
    for command in (
        [programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", file],
        [programs / "msitf", "--version"],
        [programs / "msitf", "--help"],
        [programs / "msitf", "info"],
        [programs / "msitf", "demo"],
        [programs / "msitf", "export", "msitf-small", "network.jaxexport"],
        [programs / "python", "-c", UPSCALE.strip()],
    ):
        done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
        shown = " ".join([command[0].name, *map(str, command[1:])]).partition("\n")[0]
        if done.returncode:
            sys.exit(f"{file.name}, {shown}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        last = done.stdout.strip().rpartition("\n")[2]
        print(f"{time.monotonic() - begin:6.0f} s  {shown}{f': {last}' if last else ''}", flush=True)
    for name in ("demo/upscaled.mp4", "demo/compare.html", "network.jaxexport"):
        if not (folder / name).stat().st_size:
            sys.exit(f"{file.name}: {name} is empty")


def main():
    """Checks everything with the Python that the command line names, or with the one that runs this."""
    python = sys.argv[1] if len(sys.argv) > 1 else sys.executable
    with tempfile.TemporaryDirectory(prefix="distributions") as temporary:
        folder = pathlib.Path(temporary)
        files = build(folder)
        for kind, file in files.items():
            check_contents(kind, file)
        version = subprocess.run([python, "--version"], check=True, capture_output=True, text=True).stdout.strip()
        for kind, file in files.items():
            print(f"\nthe {kind} in an empty environment of {version}:", flush=True)
            check_installed(file, python, folder / kind)


if __name__ == "__main__":
    main()
