"""Scoring clips on disk: what is found, what counts, and what is refused."""

import cv2
import numpy as np
import pytest

from input_pipeline import synthetic
from msitf_jax.evaluation import benchmark, methods
from msitf_jax.evaluation.metrics import luma, psnr


def write_clip(folder, frames, name="im{}.png"):
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, 1):
        cv2.imwrite(str(folder / name.format(number)), frame[..., ::-1])


@pytest.fixture
def clips(tmp_path):
    for seed, name in enumerate(("b", "a")):
        write_clip(tmp_path / name, synthetic.clip(seed, frames=13, height=32, width=50))
    (tmp_path / "notes.txt").write_text("not a clip")
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_frames_come_in_the_order_of_their_numbers(clips):
    found, absent = benchmark.find_clips(clips)
    assert [clip.name for clip in found] == ["a", "b"]
    assert absent == []
    assert [path.name for path in found[0].paths] == [f"im{n}.png" for n in range(1, 14)]
    np.testing.assert_array_equal(found[1][12], synthetic.clip(0, frames=13, height=32, width=50)[12])


def test_vid4_names_what_is_absent(tmp_path):
    write_clip(tmp_path / "GT" / "walk", synthetic.clip(0, height=16, width=16))
    found, absent = benchmark.find_clips("vid4", tmp_path)
    assert [clip.name for clip in found] == ["walk"]
    assert absent == ["calendar", "city", "foliage"]


def test_scores_are_means_over_the_frames_that_count(clips):
    truth = synthetic.clip(0, frames=9, height=32, width=50)
    outputs = {}
    scores = benchmark.score_clip(
        truth, methods.bicubic, degradation="bi", rule="all", on_frame=lambda i, frame: outputs.update({i: frame})
    )
    assert list(outputs) == list(range(9))
    values = [psnr(luma(outputs[i]), luma(truth[i][:, :48])) for i in range(9)]
    assert scores["frames"] == 9
    assert scores["psnr_y"] == pytest.approx(np.mean(values))
    assert scores["psnr_y_input"] == pytest.approx(np.mean(values[::2]))
    assert scores["psnr_y_synthesized"] == pytest.approx(np.mean(values[1::2]))


def test_mean_is_over_clips_and_images_are_kept(clips, tmp_path):
    found, _ = benchmark.find_clips(clips)
    out = tmp_path / "out" / "images"
    result = benchmark.evaluate(
        found, methods.method("bicubic"), degradation="bd_matlab", rule="published", save_images=out, progress=False
    )
    a, b = result["clips"]["a"], result["clips"]["b"]
    assert (a["frames"], b["frames"], result["mean"]["frames"]) == (13, 13, 26)
    assert result["mean"]["ssim_y"] == pytest.approx((a["ssim_y"] + b["ssim_y"]) / 2)
    assert sorted(path.name for path in (out / "a").iterdir()) == sorted(f"im{n}.png" for n in range(1, 14))
    assert cv2.imread(str(out / "b" / "im1.png")).shape == (32, 48, 3)


def test_baselines_agree_where_they_must():
    # Values from 64 to 191, so that nothing is clipped.
    frames = synthetic.clip(3, frames=4, height=16, width=24) // 2 + 64
    for name in methods.BASELINES:
        out = methods.method(name)(frames)
        assert out.shape == (7, 64, 96, 3)
        assert out.dtype == np.uint8
        flat = methods.method(name)(np.full((2, 5, 6, 3), 200, np.uint8))
        np.testing.assert_array_equal(flat, 200)
    halves = methods.bicubic(frames)[1].astype(float)
    neighbours = methods.bicubic(frames)[:3:2].astype(float)
    assert np.abs(halves - neighbours.mean(0)).max() <= 1


def evaluate(folder, rule="published"):
    found, _ = benchmark.find_clips(folder)
    benchmark.evaluate(found, methods.bicubic, degradation="bi", rule=rule, progress=False)


def test_bad_clips_are_named(clips):
    bad = clips / "a" / "im3.png"
    cv2.imwrite(str(bad), np.zeros((32, 48, 3), np.uint8))
    with pytest.raises(ValueError, match=r"frame .*im3\.png: is 48x32, expected 50x32 as im1\.png"):
        evaluate(clips)
    for content in (b"", b"no image", (clips / "a" / "im4.png").read_bytes()[:60]):
        bad.write_bytes(content)
        with pytest.raises(ValueError, match=r"frame .*im3\.png: not a readable image"):
            evaluate(clips)
    for number in range(3, 14):
        (clips / "a" / f"im{number}.png").unlink()
    with pytest.raises(ValueError, match="clip a: has 2 frames, expected at least 7 for frames=published"):
        evaluate(clips)
    with pytest.raises(ValueError, match="clip a: has 2 frames, expected at least 3 for frames=all"):
        evaluate(clips, rule="all")


def test_frames_too_small_for_the_metrics_are_named(tmp_path):
    write_clip(tmp_path / "tiny", np.zeros((7, 8, 40, 3), np.uint8))
    with pytest.raises(ValueError, match=r"im1\.png: is 40x8, expected at least 12x12"):
        evaluate(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vid4", None), r"`data_dir` \(=None\) must be the folder that holds GT"),
        (("no/such/folder", None), r"`dataset` \(='no/such/folder'\) must be vid4 or a folder"),
        (("clips", "elsewhere"), r"`data_dir` \(='elsewhere'\) goes with dataset vid4"),
    ],
)
def test_bad_datasets_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        benchmark.find_clips(*arguments)


def test_a_folder_without_clips_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no clips in .*: expected one folder a clip"):
        benchmark.find_clips(tmp_path)
