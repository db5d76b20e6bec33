"""Scoring clips on disk: what is found, what counts, and what is refused."""

import cv2
import numpy as np
import pytest

from input_pipeline import synthetic
from msitf_jax import methods
from msitf_jax.evaluation import benchmark
from msitf_jax.evaluation.clips import find_clips
from msitf_jax.evaluation.metrics import luma, psnr, ssim


def write_clip(folder, frames, name="im{}.png"):
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, 1):
        cv2.imwrite(str(folder / name.format(number)), frame[..., ::-1])


@pytest.fixture
def clips(tmp_path):
    for seed, (name, frames) in enumerate((("b", 13), ("a", 7))):
        write_clip(tmp_path / "clips" / name, synthetic.clip(seed, frames=frames, height=32, width=50))
    (tmp_path / "clips" / "notes.txt").write_text("not a clip")
    return tmp_path / "clips"


def test_scores_are_means_over_the_frames_that_count():
    truth = synthetic.clip(0, frames=15, height=32, width=50)
    outputs = {}
    scores = benchmark.score_clip(
        truth,
        methods.method("bicubic"),
        degradation="bi",
        rule="all",
        on_frame=lambda i, frame: outputs.update({i: frame}),
    )
    assert list(outputs) == list(range(15))
    truth = truth[:, :, :48]
    values = np.array([[psnr(luma(outputs[i]), luma(truth[i])), psnr(outputs[i], truth[i])] for i in range(15)])
    assert scores == pytest.approx(
        {
            "frames": 15,
            "psnr_y": values[:, 0].mean(),
            "psnr_rgb": values[:, 1].mean(),
            "ssim_y": np.mean([ssim(luma(outputs[i]), luma(truth[i])) for i in range(15)]),
            "psnr_y_input": values[::2, 0].mean(),
            "psnr_y_synthesized": values[1::2, 0].mean(),
        }
    )


def test_each_output_is_compared_with_its_own_frame():
    # Frames of one grey each: what a perfect method makes of inputs 0, 2, 4, ... equals the truth everywhere.
    truth = np.broadcast_to(10 * np.arange(1, 16, dtype=np.uint8)[:, None, None, None], (15, 16, 16, 3))
    seen = []

    def perfect(inputs):
        greys = inputs[:, 0, 0, 0].astype(int)
        seen.append(greys.tolist())
        return np.broadcast_to(
            np.arange(greys[0], greys[-1] + 1, 10, dtype=np.uint8)[:, None, None, None], (2 * len(greys) - 1, 16, 16, 3)
        )

    scores = benchmark.score_clip(truth, perfect, degradation="bi", rule="all")
    assert scores["psnr_y"] == float("inf")
    assert seen == [[10, 30, 50, 70], [70, 90, 110, 130], [90, 110, 130, 150]]


def test_mean_is_over_clips_and_images_are_kept(clips, tmp_path, capsys):
    found, _ = find_clips(clips)
    out = tmp_path / "out" / "images"
    result = benchmark.evaluate(
        found, methods.method("bicubic"), degradation="bd_matlab", rule="published", save_images=out
    )
    a, b = result["clips"]["a"], result["clips"]["b"]
    assert (a["frames"], b["frames"], result["mean"]["frames"]) == (7, 13, 20)
    assert result["mean"]["ssim_y"] == pytest.approx((a["ssim_y"] + b["ssim_y"]) / 2)
    assert "20/20" in capsys.readouterr().err

    assert sorted(path.name for path in (out / "a").iterdir()) == sorted(f"im{n}.png" for n in range(1, 8))
    saved = cv2.imread(str(out / "b" / "im9.png"))[..., ::-1]
    truth = synthetic.clip(0, frames=13, height=32, width=50)
    expected = methods.method("bicubic")(np.stack([benchmark.degrade(truth[i], "bd_matlab") for i in (6, 8, 10, 12)]))[
        2
    ]
    np.testing.assert_array_equal(saved, expected)


def test_outputs_never_replace_the_originals(clips):
    found, _ = find_clips(clips)
    before = (clips / "a" / "im3.png").read_bytes()
    with pytest.raises(ValueError, match=r"`save_images` .* must not be where the original frames are"):
        benchmark.evaluate(
            found, methods.method("bicubic"), degradation="bi", rule="all", save_images=clips, progress=False
        )
    assert (clips / "a" / "im3.png").read_bytes() == before


def test_baselines_agree_where_they_must():
    # Values from 64 to 191, so that nothing is clipped.
    frames = synthetic.clip(3, frames=4, height=16, width=24) // 2 + 64
    for name in methods.BASELINES:
        out = methods.method(name)(frames)
        assert out.shape == (7, 64, 96, 3)
        assert out.dtype == np.uint8
        flat = methods.method(name)(np.full((2, 5, 6, 3), 200, np.uint8))
        np.testing.assert_array_equal(flat, 200)
    halves = methods.method("bicubic")(frames)[1].astype(float)
    neighbors = methods.method("bicubic")(frames)[:3:2].astype(float)
    assert np.abs(halves - neighbors.mean(0)).max() <= 1


def test_outputs_are_rounded_to_the_nearest_and_clipped():
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    frames[1] = 1
    # Trilinear times 0, .5 (a tie, to even) and 1; a mean of .5 likewise.
    for name in methods.BASELINES:
        assert methods.method(name)(frames)[:, 0, 0, 0].tolist() == [0, 0, 1]
    # Bicubic overshoots a step by 7 % and must neither wrap nor leave the range.
    frames[:, :, 2:] = 255
    frames[:, :, :2] = 0
    line = methods.method("bicubic")(frames)[0, 0, :, 0].astype(int)
    assert line[:6].tolist() == [0] * 6
    assert line[-6:].tolist() == [255] * 6


def evaluate(folder, rule="published"):
    found, _ = find_clips(folder)
    benchmark.evaluate(found, methods.method("bicubic"), degradation="bi", rule=rule, progress=False)


def test_clips_that_are_too_short_are_named(clips):
    for number in range(3, 8):
        (clips / "a" / f"im{number}.png").unlink()
    with pytest.raises(ValueError, match="clip a: has 2 frames, expected at least 7 for frames=published"):
        evaluate(clips)
    with pytest.raises(ValueError, match="clip a: has 2 frames, expected at least 3 for frames=all"):
        evaluate(clips, rule="all")
    (clips / "empty").mkdir()
    (clips / "a" / "im3.png").write_bytes((clips / "a" / "im1.png").read_bytes())
    with pytest.raises(ValueError, match="clip empty: has 0 frames"):
        evaluate(clips, rule="all")
    with pytest.raises(ValueError, match="clip of frames: has 2 frames"):
        benchmark.score_clip(
            np.zeros((2, 16, 16, 3), np.uint8), methods.method("bicubic"), degradation="bi", rule="all"
        )


def test_a_bad_frame_is_found_before_anything_is_scored(clips):
    (clips / "b" / "im13.png").write_bytes(b"")
    found, _ = find_clips(clips)
    with pytest.raises(ValueError, match=r"im13\.png: not a readable image"):
        benchmark.evaluate(found, lambda frames: pytest.fail("scored"), degradation="bi", rule="all", progress=False)
