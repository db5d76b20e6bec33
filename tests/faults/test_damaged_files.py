"""200 damaged files of each kind: a sentence that names the file, or what the whole file gives; never anything else."""

import pathlib

import cv2
import pytest

from msitf_jax import weights
from msitf_jax.video import job, sinks
from msitf_jax.weights import files
from tests import tiny_config, training
from tests.faults import mutation, subjects
from tests.faults.trials import count
from tests.test_septuplets import write_vimeo
from tests.tiny_network import tiny_network
from tests.video import Sound, Text, noise, write_video

pytestmark = pytest.mark.slow

COUNT = 200
SEGMENTS = [f"{number:05}.{ending}" for number in range(4) for ending in ("json", "nut")]


def write_frames(folder, frames):
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, 1):
        cv2.imwrite(str(folder / f"{number}.png"), frame)
    return folder / "2.png"


@pytest.mark.parametrize("checksums", ["wrong", "right"])
def test_frames_to_upscale(checksums, tmp_path):
    frame = write_frames(tmp_path / "frames", noise(4))
    mutate = {"wrong": None, "right": mutation.damage_png}[checksums]
    damaged = mutation.mutants([frame], COUNT, "png", mutate)
    count("frame_to_upscale", tmp_path, damaged, altered=checksums == "right")


@pytest.mark.parametrize("checksums", ["wrong", "right"])
def test_frames_to_score(checksums, tmp_path):
    frame = write_frames(tmp_path / "clips" / "one", noise(7, height=48, width=48))
    mutate = {"wrong": None, "right": mutation.damage_png}[checksums]
    damaged = mutation.mutants([frame], COUNT, "png", mutate)
    count("frame_to_score", tmp_path, damaged, altered=checksums == "right")


def test_frames_to_prepare(tmp_path):
    raw = write_vimeo(tmp_path / "raw", train=["00001/0001"], test=["00001/0001"])
    frame = raw / "sequences/00001/0001/im2.png"
    damaged = mutation.mutants([frame], COUNT, "png")
    count("frame_to_prepare", tmp_path, damaged, altered=False)


@pytest.mark.parametrize(
    ("ending", "codec", "sound", "text"),
    [
        (".mp4", "libx264", "aac", "mov_text"),
        (".mkv", "libx264", "flac", "subrip"),
        (".webm", "libvpx-vp9", "libopus", "webvtt"),
        (".avi", "mpeg4", "mp2", None),
    ],
)
def test_videos(ending, codec, sound, text, tmp_path):
    tracks = [Sound(sound, end=0.2)] + [Text(((0, 100, "first"), (120, 200, "second")), text)] * (text is not None)
    frames = list(noise(5, height=16))
    path = write_video(tmp_path / f"clip{ending}", frames, codec=codec, pix_fmt="yuv420p", tracks=tracks)
    damaged = mutation.mutants([path], COUNT, ending)
    count("video", tmp_path, damaged, altered=True)


@pytest.mark.parametrize("mutate", [mutation.damage, mutation.damage_safetensors_header])
def test_safetensors(mutate, tmp_path):
    path = tmp_path / "weights.safetensors"
    weights.save(tiny_network(), path, degradation="bi", tile_margin="24")
    damaged = mutation.mutants([path], COUNT, "safetensors", mutate)
    count("weight_file", tmp_path, damaged, altered=False)


@pytest.mark.parametrize("checksums", ["wrong", "right", "none"])
def test_pth(checksums, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pth"
    files.save_torch(tiny_network(), path)
    if checksums == "none":
        torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=False)
    mutate = mutation.damage_pickle if checksums == "right" else None
    damaged = mutation.mutants([path], COUNT, "pth", mutate)
    count("weight_file", tmp_path, damaged, altered=checksums != "wrong")


def test_unfinished_jobs(tmp_path, monkeypatch):
    clip = write_video(tmp_path / "clip.mkv", list(noise(12)), tracks=[Sound("flac", end=0.4)])
    with monkeypatch.context() as change:
        change.setattr(sinks, "SEGMENT", subjects.SEGMENT)
        change.setattr(sinks.joining, "join", interrupt)
        with pytest.raises(KeyboardInterrupt):
            job.run(clip, tmp_path / "upscaled.mkv", weights="bicubic", progress=False)
    template = (tmp_path / "upscaled.mkv.part").rename(tmp_path / "template")
    paths = sorted(path for path in template.iterdir() if path.suffix != ".part")
    assert [path.name for path in paths] == [*SEGMENTS, "job.json"]
    damaged = mutation.mutants(paths, COUNT, "job", mutation.damage_record)
    count("unfinished_job", tmp_path, damaged, altered=False)


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def interrupted_run(tmp_path_factory):
    """The files of a checkpoint of a run that is not finished."""
    workdir = tmp_path_factory.mktemp("training") / "run"
    finished = training.script(workdir, "--config.num_train_steps=2", "--config.eval_clips=0")
    assert finished.returncode == 0, finished.stderr
    return sorted(path for path in (workdir / "checkpoints").rglob("*") if path.is_file() and path.stat().st_size)


def test_checkpoints(interrupted_run, tmp_path):
    damaged = mutation.mutants(interrupted_run, COUNT, "checkpoint", mutation.damage_record)
    count("checkpoint", tmp_path, damaged, altered=False)


@pytest.mark.parametrize("mutate", [mutation.damage, mutation.damage_text])
def test_configurations(mutate, tmp_path):
    path = tmp_path / "config.py"
    path.write_text(pathlib.Path(tiny_config.__file__).read_text())
    damaged = mutation.mutants([path], COUNT, "config", mutate)
    count("configuration", tmp_path, damaged, altered=True)
