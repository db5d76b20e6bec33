"""Full disks and such as can't be written to: one sentence that names the file, and work that can be gone on with."""

import subprocess
import sys

import pytest

from input_pipeline import synthetic
from msitf_jax import weights
from tests import training
from tests.faults.disks import mounted
from tests.test_benchmark import write_clip
from tests.test_septuplets import write_vimeo
from tests.tiny_network import tiny_network
from tests.video import noise, read, write_video

pytestmark = pytest.mark.slow

READ_ONLY = ("-o", "ro")


def run(*command):
    """A command to its end, in a process of its own."""
    command = [sys.executable, *map(str, command)]
    return subprocess.run(
        command,
        cwd=training.ROOT,
        env=training.environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def assert_told(done, path):
    """It ended with status 2 and a last line that names a file or folder, and no traceback."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert str(path) in done.stderr.splitlines()[-1]
    print(f"\n{done.stderr.splitlines()[-1]}")


@pytest.mark.parametrize("size", ["200k", "1500k", "2500k"])  # a checkpoint takes 1.2 MB
def test_training_on_a_full_disk_goes_on_when_there_is_space(size, tmp_path):
    whole, _, _ = training.uninterrupted()
    disk = tmp_path / "disk"
    with mounted(disk, "-o", f"size={size}"):
        assert_told(training.script(disk / "run"), disk)
        subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        done = training.script(disk / "run")
        assert done.returncode == 0, done.stderr
        training.assert_same_files(disk / "run", whole)


def test_training_on_a_disk_that_cannot_be_written_to(tmp_path):
    with mounted(tmp_path / "disk", *READ_ONLY):
        assert_told(training.script(tmp_path / "disk" / "run"), tmp_path / "disk" / "run")


def test_upscaling_on_a_full_disk_goes_on_when_there_is_space(tmp_path):
    frames = list(noise(260, 24, 32))  # which no codec makes small: two segments are 3 MB
    source = write_video(tmp_path / "in.mkv", frames)
    disk = tmp_path / "disk"
    command = ("upscale.py", source, disk / "out.mp4", "--weights=bicubic", "--crf=1")
    with mounted(disk, "-o", "size=4m"):
        assert_told(run(*command), disk / "out.mp4")
        assert not (disk / "out.mp4").exists()
        assert (disk / "out.mp4.part" / "00000.json").exists()
        subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        assert run(*command).returncode == 0
        assert len(read(disk / "out.mp4")) == 519
        assert [path.name for path in disk.iterdir()] == ["out.mp4"]


def test_upscaling_to_a_folder_on_a_full_disk_goes_on_when_there_is_space(tmp_path):
    source = write_video(tmp_path / "in.mkv", list(noise(100, 24, 32)))
    disk = tmp_path / "disk"
    command = ("upscale.py", source, disk / "out", "--weights=bicubic")
    with mounted(disk, "-o", "size=3m"):
        assert_told(run(*command), disk / "out")
        assert not (disk / "out").exists()
        subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        assert run(*command).returncode == 0
        assert len(list((disk / "out").iterdir())) == 199
        assert [path.name for path in disk.iterdir()] == ["out"]


def test_upscaling_on_a_disk_that_cannot_be_written_to(tmp_path):
    source = write_video(tmp_path / "in.mkv", list(noise(3)))
    with mounted(tmp_path / "disk", *READ_ONLY):
        assert_told(run("upscale.py", source, tmp_path / "disk" / "out.mp4", "--weights=trilinear"), "out.mp4")


@pytest.mark.parametrize("kind", ["vimeo90k", "lr"])
def test_preparation_on_a_full_disk_can_be_made_again(kind, tmp_path):
    raw = write_vimeo(tmp_path / "raw", train=[f"00001/{n:04}" for n in range(30)], test=["00002/0001"])
    disk = tmp_path / "disk"
    flags = {"vimeo90k": (f"--data_dir={disk}",), "lr": (f"--out={disk / 'low'}", "--degradation=bi")}[kind]
    command = ("-m", "input_pipeline.prepare", kind, f"--manual_dir={raw}", *flags)
    with mounted(disk, "-o", "size=200k"):
        assert_told(run(*command), disk)
        assert not (disk / "low").exists()
        assert not (disk / "vimeo90k" / "1.0.0").exists()
        subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        done = run(*command)
        assert done.returncode == 0, done.stderr
        assert {path.name for path in disk.iterdir()} == {"vimeo90k" if kind == "vimeo90k" else "low"}
    with mounted(tmp_path / "other", *READ_ONLY):
        assert_told(run(*(str(word).replace(str(disk), str(tmp_path / "other")) for word in command)), "other")


@pytest.mark.parametrize("options", [("-o", "size=4k"), READ_ONLY], ids=["full", "read-only"])
def test_scores_and_weights_that_cannot_be_written(options, tmp_path):
    write_clip(tmp_path / "clips" / "one", synthetic.clip(0, height=32, width=48))
    weights.save(tiny_network(), tmp_path / "tiny.safetensors", tile_margin="24")
    disk = tmp_path / "disk"
    with mounted(disk, *options):
        if options != READ_ONLY:
            (disk / "full").write_bytes(bytes(4096))
        scored = ("evaluate.py", f"--dataset={tmp_path / 'clips'}", "--weights=bicubic")
        assert_told(run(*scored, f"--json={disk / 'scores.json'}"), disk / "scores.json")
        assert_told(run(*scored, f"--save_images={disk / 'images'}"), disk / "images")
        script = "import sys; from msitf_jax import cli; sys.exit(cli.main(sys.argv[1:]))"
        converted = run("-c", script, "convert", tmp_path / "tiny.safetensors", disk / "out.safetensors")
        assert_told(converted, disk / "out.safetensors")
        assert not {path.name for path in disk.rglob("*") if path.is_file()} - {"full"}
