"""The command line of evaluate.py, from flags to table, JSON and exit status."""

import json

import pytest
from flax import nnx

import evaluate
from input_pipeline import synthetic
from msitf_jax import MSITF, MSITFConfig, weights
from tests.conftest import shared
from tests.test_benchmark import write_clip


@pytest.fixture
def clips(tmp_path):
    write_clip(tmp_path / "clips" / "one", synthetic.clip(0, height=32, width=48))
    return tmp_path / "clips"


def run(*arguments, **flags):
    return evaluate.main([*arguments, *(f"--{name}={value}" for name, value in flags.items())])


@pytest.mark.parametrize("degradation", ["bi", "bd_matlab"])
def test_trilinear_base_on_vid4(degradation, tmp_path, capsys):
    data = shared("data/vid4")
    reference = json.loads(shared("parity/vid4_trilinear.json").read_text())["clips"]
    out = tmp_path / "scores.json"
    assert run(dataset="vid4", data_dir=data, weights="trilinear", degradation=degradation, json=out) == 0
    assert "left out of the mean: city, foliage" in capsys.readouterr().err
    report = json.loads(out.read_text())
    for clip in ("calendar", "walk"):
        scores, wanted = report["clips"][clip], reference[f"{clip}_{degradation}"]
        assert scores["frames"] == wanted["frames"]
        assert scores["ssim_y"] == pytest.approx(wanted["ssim_y"], abs=1e-5)
        for ours, theirs in (
            ("psnr_rgb", "psnr"),
            ("psnr_y", "psnr_y"),
            ("psnr_y_input", "psnr_y_input"),
            ("psnr_y_synthesized", "psnr_y_synth"),
        ):
            assert scores[ours] == pytest.approx(wanted[theirs], abs=0.001)


def test_weights_score_clips_and_bring_their_degradation(clips, tmp_path, capsys):
    config = MSITFConfig(channels=8, residual_blocks=1, trunk_groups=1, offset_groups=2)
    path, out = tmp_path / "w.safetensors", tmp_path / "scores.json"
    weights.save(MSITF(config, rngs=nnx.Rngs(0)), path, degradation="bd_duf")
    assert run(dataset=clips, weights=path, json=out, save_images=tmp_path / "images") == 0
    captured = capsys.readouterr()
    assert "warning" not in captured.err
    report = json.loads(out.read_text())
    clip_scores = {key: report.pop(key) for key in ("clips", "mean")}
    assert report == {
        "dataset": str(clips),
        "degradation": "bd_duf",
        "frames_rule": "published",
        "weights": str(path),
    }
    report = clip_scores
    assert report["clips"]["one"] == report["mean"]
    assert len(list((tmp_path / "images" / "one").iterdir())) == 7
    assert f"{report['mean']['psnr_y']:.3f}" in captured.out

    assert run(dataset=clips, weights=path, degradation="bi") == 0
    assert "warning: these weights were made for bd_duf, and bi is asked for" in capsys.readouterr().err


def test_every_frame_counts_if_asked_and_the_published_blur_is_the_default(clips, tmp_path):
    (clips / "one" / "im7.png").unlink()
    out = tmp_path / "scores.json"
    assert run(dataset=clips, weights="bicubic", frames="all", json=out) == 0
    report = json.loads(out.read_text())
    assert (report["degradation"], report["frames_rule"], report["mean"]["frames"]) == ("bd_matlab", "all", 5)
    assert run(dataset=clips, weights="bicubic", degradation="bi", frames="all", json=out) == 0
    assert json.loads(out.read_text())["mean"]["psnr_y"] != report["mean"]["psnr_y"]


def test_weights_made_for_an_unknown_blur_ask_for_a_choice(clips, tmp_path, capsys):
    config = MSITFConfig(channels=8, residual_blocks=1, trunk_groups=1, offset_groups=2)
    weights.save(MSITF(config, rngs=nnx.Rngs(0)), tmp_path / "w.safetensors", degradation="BD")
    assert run(dataset=clips, weights=tmp_path / "w.safetensors") == 2
    assert "w.safetensors: made for 'BD', expected one of bi, bd_matlab, bd_duf" in capsys.readouterr().err


def test_errors_are_one_sentence_and_exit_status_2(clips, tmp_path, capsys):
    (clips / "one" / "im2.png").write_bytes(b"")
    assert run(dataset=clips, weights="bicubic") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("evaluate.py: frame ")
    assert error.endswith("im2.png: not a readable image")
    assert run(dataset=clips, weights=tmp_path / "no.pth") == 2
    assert "no.pth: no such file" in capsys.readouterr().err
    assert run(dataset=clips, weights=tmp_path / "no.safetensors") == 2
    assert "no.safetensors: no such file" in capsys.readouterr().err
    assert run(dataset=clips, weights="bicubic", json=tmp_path / "absent" / "a.json") == 2
    assert "absent/a.json') must be a file in a folder that exists" in capsys.readouterr().err
    assert run(dataset=clips, weights="bicubic", json="") == 2
    with pytest.raises(SystemExit) as stop:
        run(dataset=clips, weights="bicubic", degradation="blur")
    assert stop.value.code == 2
