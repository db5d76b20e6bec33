"""The command `msitf`: its commands, its messages and its exit status."""

import argparse
import fractions
import pathlib
import subprocess
import sys
import tomllib

import jax
import numpy as np
import pytest

import evaluate
import upscale
from input_pipeline import synthetic
from msitf_jax import cli, weights
from msitf_jax.cli import upscale as upscale_command
from msitf_jax.video import job
from tests.test_benchmark import write_clip
from tests.tiny_network import quick_compilation, tiny_network
from tests.video import noise, write_video


@pytest.fixture
def clip(tmp_path):
    return write_video(tmp_path / "clip.mkv", list(noise(3)))


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    upscale_command.add_arguments(parser)
    return parser.parse_args(["in.mp4", "out.mp4", *arguments])


def test_upscale_as_script_and_as_command_do_the_same(clip, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(upscale_command, "keep_compiled", lambda: None)
    with quick_compilation():
        assert cli.main(["upscale", str(clip), str(tmp_path / "a.mkv")]) == 0
        assert upscale.main([str(clip), str(tmp_path / "b.mkv")]) == 0
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()
    captured = capsys.readouterr()
    assert "out: 5 frames, 64x48, 50 frames/s" in captured.out
    assert "preparing the network for frames of 16x12" in captured.err
    assert cli.main(["upscale", str(clip), str(tmp_path / "c.mkv"), "--weights=trilinear"]) == 0
    assert "trilinear only resizes: no network is used" in capsys.readouterr().err


def test_the_version_is_that_of_the_project(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    project = tomllib.loads((pathlib.Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert capsys.readouterr().out == f"msitf {project['version']}\n"


def test_an_interruption_is_status_130(clip, tmp_path, capsys, monkeypatch):
    def stopped(**options):
        raise job.Interrupted("stopped after 3 frames; the same command goes on")

    monkeypatch.setattr(job, "run", stopped)
    monkeypatch.setattr(upscale_command, "keep_compiled", lambda: None)
    assert upscale.main([str(clip), str(tmp_path / "a.mkv")]) == 130
    assert capsys.readouterr().err == "upscale.py: stopped after 3 frames; the same command goes on\n"


def test_evaluate_and_convert_are_commands_too(tmp_path, capsys):
    write_clip(tmp_path / "clips" / "one", synthetic.clip(0, height=32, width=32))
    arguments = [f"--dataset={tmp_path / 'clips'}", "--weights=bicubic"]
    assert cli.main(["evaluate", *arguments]) == 0
    table = capsys.readouterr().out
    assert evaluate.main(arguments) == 0
    assert capsys.readouterr().out == table

    path = tmp_path / "w.safetensors"
    weights.save(tiny_network(), path, tile_margin="24")
    assert cli.main(["convert", str(path), str(tmp_path / "copy.safetensors")]) == 0
    assert (tmp_path / "copy.safetensors").read_bytes() == path.read_bytes()
    assert cli.main(["convert", str(tmp_path / "no.pth"), str(path)]) == 2
    assert capsys.readouterr().err.startswith("msitf convert: weights ")


def test_info_tells_of_the_installation_videos_and_weights(clip, tmp_path, capsys):
    assert cli.main(["info"]) == 0
    text = capsys.readouterr().out
    assert jax.__version__ in text
    assert "libx264" in text

    assert cli.main(["info", str(clip)]) == 0
    text = capsys.readouterr().out
    assert "16x12" in text
    assert "25 frames/s" in text
    assert "video, ffv1" in text

    path = tmp_path / "w.safetensors"
    weights.save(tiny_network(), path, degradation="bi")
    assert cli.main(["info", str(path)]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["degradation"] == "bi"
    assert int(lines["parameters"].replace(",", "")) > 1000

    assert cli.main(["info", "absent.mp4"]) == 2
    assert capsys.readouterr().err == "msitf info: input absent.mp4: no such file or folder\n"


def test_unknown_commands_and_options_are_status_2(capsys):
    for arguments in ([], ["shrink"], ["upscale"], ["upscale", "a", "b", "--scale=3"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert stop.value.code == 2
    assert "usage: msitf" in capsys.readouterr().err


def test_sizes_times_and_rates_as_people_write_them():
    assert [parsed(f"--memory={text}").memory for text in ("800M", "1.5G", "2GiB", "512kb", "1000")] == [
        800 << 20,
        3 << 29,
        2 << 30,
        1 << 19,
        1000,
    ]
    assert [parsed(f"--start={text}").start for text in ("90", "1:30", "0:01:30.5")] == [
        90,
        90,
        fractions.Fraction(181, 2),
    ]
    assert [parsed(f"--fps={text}").fps for text in ("25", "30000/1001")] == [25, fractions.Fraction(30000, 1001)]


@pytest.mark.parametrize(
    "argument", ["--memory=much", "--memory=0", "--start=-1", "--end=1:2:3:4", "--fps=0", "--fps=1/0", "--fps=a"]
)
def test_what_is_none_is_refused_by_name(argument, capsys):
    with pytest.raises(SystemExit):
        parsed(argument)
    name, value = argument.split("=")
    assert f"argument {name}: '{value}': expected" in capsys.readouterr().err


def test_what_is_compiled_is_kept_for_the_next_start(clip, tmp_path):
    # In processes of their own: a cache is opened once.
    command = [sys.executable, upscale.__file__, clip, tmp_path / "out.mkv", "--overwrite", "--weights=trilinear"]
    environment = {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PATH": "",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    found = []
    for _ in range(2):
        subprocess.run(command, check=True, env=environment, capture_output=True)
        found.append({path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "msitf-jax").glob("*-cache")})
    assert found[0]
    assert found[0] == found[1]


def test_the_library_in_two_lines():
    import msitf_jax

    frames = noise(4)
    with quick_compilation():
        assert msitf_jax.upscale(frames).shape == (7, 48, 64, 3)
    np.testing.assert_array_equal(msitf_jax.Upscaler("bicubic")(frames[:1])[0].shape, (48, 64, 3))
    with pytest.raises(AttributeError, match="module 'msitf_jax' has no attribute 'downscale'"):
        msitf_jax.downscale  # noqa: B018
