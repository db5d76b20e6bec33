"""Tables and JSON of scores."""

import json

from msitf_jax.evaluation import report

SCORES = {
    "frames": 7,
    "psnr_rgb": 20.0,
    "psnr_y": 21.23456,
    "ssim_y": 0.5,
    "psnr_y_input": float("inf"),
    "psnr_y_synthesized": 19.0,
}


def test_table_has_a_heading_and_a_row_each():
    lines = report.table({"one": SCORES, "mean": SCORES}, SCORES | {"frames": 14}).splitlines()
    assert lines[0].split() == ["frames", "PSNR-Y", "SSIM-Y", "PSNR-RGB", "Y", "input", "Y", "synth."]
    assert lines[1].split() == ["one", "7", "21.235", "0.5000", "20.000", "inf", "19.000"]
    assert [line.split()[:2] for line in lines[2:]] == [["mean", "7"], ["mean", "14"]]
    assert len({len(line) for line in lines}) == 1


def test_json_is_strict_and_whole(tmp_path):
    path = tmp_path / "scores.json"
    report.write_json(path, {"clips": {"one": SCORES}})
    scores = json.loads(path.read_text(), parse_constant=lambda name: 1 / 0)["clips"]["one"]
    assert scores == SCORES | {"psnr_y_input": None}
    assert [p.name for p in tmp_path.iterdir()] == ["scores.json"]
