"""File names with blanks, line breaks, leading dashes, letters of all scripts, and what programs take for patterns."""

import json
import os
import pathlib

import cv2
import pytest

from input_pipeline import prepare, synthetic
from msitf_jax import cli, weights
from msitf_jax.cli import upscale
from tests.test_benchmark import write_clip
from tests.test_septuplets import write_vimeo
from tests.tiny_network import tiny_network
from tests.training import script
from tests.video import noise, read, write_video

NAMES = (
    "two words",
    " ",
    "new\nline",
    "-dash",
    "--weights=trilinear",
    "%d",
    "%08d%s%n",
    "$(touch oops);`touch oops`&|",
    "quote'\"\\",
    "héllo 世界 🎬",
    "[a]*?{b}",
    "pipe:0",
    "file:a",
)
pytestmark = pytest.mark.parametrize("name", NAMES, ids=ascii)


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Names without folders, in an empty one; nothing may appear there that nobody named."""
    monkeypatch.setattr(upscale, "keep_compiled", lambda: None)
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "oops").exists()


def test_upscale_files(name):
    pathlib.Path(name).mkdir()
    write_video("plain.mkv", noise(3))
    os.rename("plain.mkv", f"{name}.mkv")
    page = f"{name}.html"
    arguments = ["upscale", "--weights=bicubic", f"--compare={page}", "--", f"{name}.mkv", f"{name}/{name}.mp4"]
    assert cli.main(arguments) == 0
    assert len(read(f"{name}/{name}.mp4")) == 5
    assert {path.name for path in pathlib.Path().iterdir()} == {name, f"{name}.mkv", page}
    assert {path.name for path in pathlib.Path(name).iterdir()} == {f"{name}.mp4"}


def test_upscale_folders(name):
    folder = pathlib.Path(name)
    folder.mkdir()
    for number, frame in enumerate(noise(3)):
        (folder / f"{name}{number}.png").write_bytes(cv2.imencode(".png", frame)[1].tobytes())
    assert cli.main(["upscale", "--weights=bicubic", "--", name, f"{name}_4x"]) == 0
    assert len(list(pathlib.Path(f"{name}_4x").iterdir())) == 5


@pytest.mark.slow
def test_weights(name):
    weights.save(tiny_network(), f"{name}.safetensors", tile_margin="24")
    assert cli.main(["convert", "--", f"{name}.safetensors", f"{name}2.safetensors"]) == 0
    assert pathlib.Path(f"{name}.safetensors").read_bytes() == pathlib.Path(f"{name}2.safetensors").read_bytes()


def test_evaluate(name):
    write_clip(pathlib.Path(name).absolute() / name, synthetic.clip(0, height=32, width=48))
    arguments = [f"--dataset={name}", "--weights=bicubic", f"--json={name}.json", f"--save_images={name}_out"]
    assert cli.main(["evaluate", *arguments]) == 0
    assert list(json.loads(pathlib.Path(f"{name}.json").read_text())["clips"]) == [name]
    assert len(list(pathlib.Path(f"{name}_out", name).iterdir())) == 7


@pytest.mark.slow
def test_prepare(name):
    raw = write_vimeo(pathlib.Path(name).absolute(), train=["00001/0001"], test=["00001/0001"])
    assert prepare.main(["vimeo90k", f"--manual_dir={raw}", f"--data_dir={name}_data"]) == 0
    assert prepare.main(["lr", f"--manual_dir={name}", f"--out={name}_low", "--degradation=bi"]) == 0
    workdir = pathlib.Path(f"{name}_run").absolute()
    flags = (f"--config.data.dir={pathlib.Path(f'{name}_data').absolute()}",)
    flags += (f"--config.data.lr_dir={pathlib.Path(f'{name}_low').absolute()}", "--config.data.degradation=bi")
    done = script(workdir, *flags, "--config.num_train_steps=1")
    assert done.returncode == 0, done.stderr
    assert (workdir / "model.safetensors").exists()
