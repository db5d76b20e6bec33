"""The weights in the package: whole, described, and better than a resize."""

import json

import pytest

from configs import msitf_small
from msitf_jax import MSITFConfig, cli, methods, weights
from msitf_jax.evaluation.benchmark import evaluate
from msitf_jax.evaluation.clips import find_clips
from msitf_jax.weights import margin, pretrained
from tests.conftest import shared

NAMES = list(pretrained.SHA256)


@pytest.mark.parametrize("name", NAMES)
def test_they_are_described_and_small(name):
    path = weights.find(name)
    assert path.stat().st_size < 4 << 20
    metadata = weights.read_metadata(name)
    assert json.loads(metadata.pop("config")).keys() == vars(MSITFConfig()).keys()
    assert metadata.keys() == {"degradation", "licence", "sha256", "tile_margin", "training_step", "trained_on"}
    assert metadata["licence"] == "Apache-2.0"


def test_the_small_network_is_that_of_its_configuration():
    assert weights.load("msitf-small").config == MSITFConfig(**msitf_small.get_config().model)
    assert weights.read_metadata("msitf-small")["degradation"] == msitf_small.get_config().data.degradation


def test_tiles_of_the_small_network_overlap_as_its_file_says():
    assert weights.tile_margin("msitf-small") == 80
    assert methods.method("msitf-small").margin == 80


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_their_tile_margin_is_what_is_measured(name):
    assert margin.measure(weights.load(name)) == weights.tile_margin(name)


def test_a_name_is_as_good_as_a_file(capsys, tmp_path):
    assert cli.main(["info", "msitf-small"]) == 0
    by_name = capsys.readouterr().out
    assert cli.main(["info", str(weights.find("msitf-small"))]) == 0
    assert capsys.readouterr().out == by_name
    assert by_name.startswith("parameters     321,748\n")
    assert "\ntile_margin    80\n" in by_name

    assert cli.main(["convert", "msitf-small", str(tmp_path / "copy.safetensors"), "--half"]) == 0
    assert (tmp_path / "copy.safetensors").read_bytes() == weights.find("msitf-small").read_bytes()


@pytest.mark.parametrize(("content", "fault"), [(None, "is missing"), (b"damaged", "is damaged")])
def test_a_file_other_than_the_published_one_is_refused(content, fault, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "__file__", str(tmp_path / "__init__.py"))
    if content is not None:
        (tmp_path / "msitf-small.safetensors").write_bytes(content)
    for use in (weights.load, weights.read_metadata):
        with pytest.raises(ValueError, match=rf"weights msitf-small: .*msitf-small.safetensors {fault}, install"):
            use("msitf-small")


def test_an_unknown_name_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match="weights msitf-large: no such file, and no such name, expected one of msitf-"):
        weights.load("msitf-large")


@pytest.mark.slow
def test_scores_are_those_of_the_model_card():
    clips, _ = find_clips("vid4", shared("data/vid4"))
    found = evaluate(clips, methods.method("msitf-small"), degradation="bi", rule="published", progress=False)["clips"]
    for clip, psnr_y, ssim_y in (("calendar", 22.306, 0.7307), ("walk", 27.696, 0.8575)):
        assert found[clip]["psnr_y"] == pytest.approx(psnr_y, abs=1e-3)
        assert found[clip]["ssim_y"] == pytest.approx(ssim_y, abs=1e-4)
