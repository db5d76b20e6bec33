"""The command line of evaluate.py, from flags to table, JSON and exit status."""

import json

import pytest

import evaluate
from input_pipeline import synthetic
from msitf_jax import weights
from tests.conftest import shared
from tests.test_benchmark import write_clip
from tests.test_septuplets import write_vimeo
from tests.tiny_network import tiny_network


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


def test_septuplets_are_scored_under_their_keys(tmp_path, capsys):
    keys = ["00002/0003", "00001/0001"]
    write_vimeo(tmp_path / "raw", test=["00009/0009"], test_slow=keys)
    flags = {"dataset": "vimeo90k_slow", "data_dir": tmp_path / "raw", "weights": "bicubic"}
    assert run(**flags, json=tmp_path / "scores.json", save_images=tmp_path / "images") == 0
    report = json.loads((tmp_path / "scores.json").read_text())
    assert report["dataset"] == "vimeo90k_slow"
    assert list(report["clips"]) == keys
    assert [report["clips"][key]["frames"] for key in keys] == [7, 7]
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == [*keys, "mean"]
    for key in keys:
        assert sorted(path.name for path in (tmp_path / "images" / key).iterdir()) == [
            f"im{n}.png" for n in range(1, 8)
        ]

    original = tmp_path / "raw" / "sequences"
    before = (original / keys[0] / "im1.png").read_bytes()
    assert run(**flags, save_images=original) == 2
    refusal = f"`save_images` (={str(original)!r}) must not be where the original frames are"
    assert refusal in capsys.readouterr().err
    assert (original / keys[0] / "im1.png").read_bytes() == before


@pytest.mark.parametrize(("count", "rows"), [(20, 21), (21, 1)])
def test_of_many_clips_only_the_mean_is_printed(count, rows, tmp_path, capsys):
    frames = synthetic.clip(0, frames=7, height=16, width=16)
    for number in range(count):
        write_clip(tmp_path / "clips" / f"clip{number}", frames)
    assert run(dataset=tmp_path / "clips", weights="bicubic", json=tmp_path / "scores.json") == 0
    printed = capsys.readouterr().out.splitlines()[2:]
    assert len(printed) == rows
    assert printed[-1].split()[:2] == ["mean", str(7 * count)]
    assert len(json.loads((tmp_path / "scores.json").read_text())["clips"]) == count


def test_weights_score_clips_and_bring_their_degradation(clips, tmp_path, capsys):
    path, out = tmp_path / "w.safetensors", tmp_path / "scores.json"
    weights.save(tiny_network(), path, degradation="bd_duf")
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


@pytest.mark.slow
def test_a_network_computes_in_bfloat16_if_asked(clips, tmp_path, capsys):
    path = tmp_path / "w.safetensors"
    weights.save(tiny_network(), path)
    scores = {}
    for compute_dtype in ("float32", "bfloat16"):
        out = tmp_path / f"{compute_dtype}.json"
        assert run(dataset=clips, weights=path, compute_dtype=compute_dtype, json=out) == 0
        report = json.loads(out.read_text())
        assert report.get("compute_dtype", "float32") == compute_dtype
        assert (", computed in bfloat16" in capsys.readouterr().out) == (compute_dtype == "bfloat16")
        scores[compute_dtype] = report["mean"]
    assert scores["bfloat16"] != scores["float32"]
    assert scores["bfloat16"]["psnr_rgb"] == pytest.approx(scores["float32"]["psnr_rgb"], abs=0.02)


@pytest.mark.parametrize("name", ["bicubic", "trilinear"])
def test_a_baseline_has_nothing_to_narrow(name, clips, capsys):
    assert run(dataset=clips, weights=name, compute_dtype="bfloat16") == 2
    assert f"`compute_dtype` (='bfloat16') is for networks; {name} needs float32" in capsys.readouterr().err


def test_every_frame_counts_if_asked_and_the_published_blur_is_the_default(clips, tmp_path):
    (clips / "one" / "im7.png").unlink()
    out = tmp_path / "scores.json"
    assert run(dataset=clips, weights="bicubic", frames="all", json=out) == 0
    report = json.loads(out.read_text())
    assert (report["degradation"], report["frames_rule"], report["mean"]["frames"]) == ("bd_matlab", "all", 5)
    assert run(dataset=clips, weights="bicubic", degradation="bi", frames="all", json=out) == 0
    assert json.loads(out.read_text())["mean"]["psnr_y"] != report["mean"]["psnr_y"]


def test_weights_made_for_an_unknown_blur_ask_for_a_choice(clips, tmp_path, capsys):
    weights.save(tiny_network(), tmp_path / "w.safetensors", degradation="BD")
    assert run(dataset=clips, weights=tmp_path / "w.safetensors") == 2
    assert "w.safetensors: made for 'BD', expected one of bi, bd_matlab, bd_duf" in capsys.readouterr().err


def test_errors_are_one_sentence_and_exit_status_2(clips, tmp_path, capsys):
    (clips / "one" / "im2.png").write_bytes(b"")
    assert run(dataset=clips, weights="bicubic") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("evaluate.py: frame ")
    assert error.endswith("im2.png: not a readable image of at most 67,108,864 pixels")
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
