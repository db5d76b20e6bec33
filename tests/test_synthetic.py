import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from input_pipeline import synthetic


@pytest.fixture(scope="module", params=range(5), ids="seed{}".format)
def scene(request):
    return synthetic.clip(request.param, frames=3)


def displacements(frames):
    """Returns where corners of the first frame went in each other one, float32 of shape [others, corners, 2].

    Sparse optical flow (pyramidal Lucas-Kanade) is right to about a tenth of a pixel; only corners that it also tracks
    back to where they came from are kept, so that occlusion does not enter.
    """
    first, *others = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames)
    corners = cv2.goodFeaturesToTrack(first, 200, 0.05, 8)
    options = {"winSize": (15, 15), "maxLevel": 2, "criteria": (3, 40, 0.001)}
    kept = np.ones(len(corners), bool)
    moved = []
    for other in others:
        there, found, _ = cv2.calcOpticalFlowPyrLK(first, other, corners, None, **options)
        back, _, _ = cv2.calcOpticalFlowPyrLK(other, first, there, None, **options)
        kept &= (found[:, 0] == 1) & (np.linalg.norm(back - corners, axis=-1)[:, 0] < 0.05)
        moved.append((there - corners)[:, 0])
    assert kept.sum() >= 40
    return np.array(moved)[:, kept]


def difference(first, second):
    return np.abs(first.astype(np.int16) - second).mean()


def test_a_seed_gives_the_same_bytes_and_another_seed_another_scene():
    clip = synthetic.clip(11, frames=2, height=96, width=128)
    np.testing.assert_array_equal(clip, synthetic.clip(11, frames=2, height=96, width=128))
    assert difference(clip, synthetic.clip(12, frames=2, height=96, width=128)) > 20


def test_threads_do_not_change_the_bytes():
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        one = synthetic.clip(4, frames=2, height=128, width=160)
        cv2.setNumThreads(4)
        np.testing.assert_array_equal(one, synthetic.clip(4, frames=2, height=128, width=160))
    finally:
        cv2.setNumThreads(threads)


@pytest.mark.parametrize("seed", range(3))
def test_a_longer_clip_begins_with_the_shorter_one(seed):
    long = synthetic.clip(seed, frames=5, height=72, width=100)
    for frames in (1, 3):
        np.testing.assert_array_equal(long[:frames], synthetic.clip(seed, frames=frames, height=72, width=100))


def test_pictures_use_the_range_without_saturating(scene):
    assert scene.dtype == np.uint8
    assert scene.shape == (3, 256, 448, 3)
    low, high = np.percentile(scene[0], (1, 99))
    assert low < 60
    assert high > 190
    assert scene.std() > 30
    assert np.mean((scene == 0) | (scene == 255)) < 0.01
    assert np.ptp(scene[0].astype(np.int16), axis=-1).mean() > 15, "nearly grey"


def test_there_is_detail_at_every_scale(scene):
    level = scene[0].astype(np.float32)
    for _ in range(6):
        rows, columns = (side // 2 for side in level.shape[:2])
        level = level[: 2 * rows, : 2 * columns]
        half = cv2.resize(level, (columns, rows), interpolation=cv2.INTER_AREA)
        lost = level - cv2.resize(half, level.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        assert lost.std() > 6, f"a {level.shape[1]} pixels wide picture is as good as half as wide"
        level = half


def test_the_middle_frame_lies_half_way(scene):
    half, full = displacements(scene)
    # The paths curve by a few hundredths of a pixel in two frames; the rest is the error of the flow.
    assert np.median(np.linalg.norm(full - 2 * half, axis=-1)) < 0.15
    assert difference(scene[0], scene[2]) > 1.2 * max(difference(scene[0], scene[1]), difference(scene[1], scene[2]))


def test_motion_is_sub_pixel_varied_and_bounded(scene):
    (moved,) = displacements(scene[:2])
    off_grid = np.abs(moved - np.round(moved)).max(axis=-1)
    assert np.median(off_grid) > 0.1
    slow, typical, fast = np.percentile(np.linalg.norm(moved, axis=-1), (5, 50, 95))
    assert typical > 0.5, "the scene stands still"
    assert fast - slow > 0.7, "everything moves alike"
    assert fast < 6.5


def test_content_never_leaves_a_long_clip():
    clip = synthetic.clip(2, frames=240, height=32, width=48)
    assert clip[-1].std() > 25
    steps = [difference(clip[t], clip[t + 1]) for t in range(239)]
    assert min(steps) > 0.3
    assert max(steps) < 6 * np.median(steps), "a jump"


@pytest.mark.parametrize(("height", "width"), [(16, 16), (33, 47), (47, 33), (16, 200), (200, 16), (131, 64)])
def test_any_size_from_sixteen(height, width):
    for seed in range(4):
        clip = synthetic.clip(seed, frames=2, height=height, width=width)
        assert clip.shape == (2, height, width, 3)
        assert clip.std() > 15
        assert difference(clip[0], clip[1]) > 0.5


@pytest.mark.parametrize(
    ("argument", "value"), [("seed", -1), ("frames", 0), ("frames", -3), ("height", 15), ("width", 15), ("width", -64)]
)
def test_errors_name_the_argument_and_its_value(argument, value):
    with pytest.raises(ValueError, match=rf"^`{argument}` \(={value}\) must be .* at least \d+$"):
        synthetic.clip(**{"seed": 0, "frames": 2, "height": 64, "width": 64, argument: value})


def test_importing_it_imports_no_jax():
    code = "import sys, input_pipeline.synthetic; sys.exit(not {'jax', 'msitf_jax'}.isdisjoint(sys.modules))"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=True)
