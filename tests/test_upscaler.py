"""Frames in arrays, upscaled: what comes out, how much is held and compiled, and what is refused."""

import dataclasses
import itertools
import re
import weakref

import jax
import numpy as np
import pytest

from input_pipeline import synthetic
from msitf_jax import methods, weights
from msitf_jax.ops.resize import bicubic_base
from msitf_jax.video.color import RGB
from msitf_jax.video.upscaler import OVERHEAD, Upscaler, upscale
from tests.tiny_network import tiny_network

LEVELS = {np.uint8: 255, np.uint16: 65535, np.float32: 1}
HEIGHT, WIDTH = 9, 14  # of most frames here, so that little is compiled


@pytest.fixture(scope="module")
def bicubic():
    return Upscaler("bicubic")


@pytest.fixture(scope="module")
def weight_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("upscaler") / "model.safetensors"
    weights.save(tiny_network(), path)
    return path


@pytest.fixture(scope="module")
def network(weight_file):
    return Upscaler(weight_file)


def noise(count, dtype=np.uint8, height=HEIGHT, width=WIDTH, seed=0):
    """Frames of one scene, since each differs from the others as much as the next."""
    frames = np.random.default_rng(seed).random((count, height, width, 3), np.float32)
    return frames if dtype == np.float32 else (frames * LEVELS[dtype]).astype(dtype)


def plainly(frames):
    """All frames at once through the bicubic base, quantised in NumPy."""
    levels = LEVELS[frames.dtype.type]
    large = np.clip(np.asarray(enlarge(frames.astype(np.float32)[None] / np.float32(levels))[0]), 0, 1)
    return large if levels == 1 else np.rint(large * np.float32(levels)).astype(frames.dtype)


enlarge = jax.jit(bicubic_base)


def difference(a, b):
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    return np.abs(a.astype(np.float64) - b).max()


@pytest.mark.parametrize("dtype", LEVELS)
@pytest.mark.parametrize("count", [2, 4, 6])
def test_frames_keep_their_type_and_become_what_the_method_makes_of_them(bicubic, dtype, count):
    frames = noise(count, dtype)
    out = bicubic(frames)
    assert out.shape == (2 * count - 1, 4 * HEIGHT, 4 * WIDTH, 3)
    assert difference(out, plainly(frames)) <= {np.uint8: 0, np.uint16: 0, np.float32: 0}[dtype]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (7, 3)])
@pytest.mark.parametrize("weights", ["trilinear", "bicubic"])
def test_frames_of_any_size(weights, height, width):
    upscaler = Upscaler(weights)
    grey = np.full((3, height, width, 3), 100, np.uint8)
    assert_equal(upscaler(grey), np.full((5, 4 * height, 4 * width, 3), 100, np.uint8))
    assert upscaler(noise(1, height=height, width=width)).shape == (1, 4 * height, 4 * width, 3)


def assert_equal(a, b):
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    np.testing.assert_array_equal(a, b)


def test_one_frame_gives_one_frame(bicubic):
    frames = noise(1)
    assert_equal(bicubic(frames), plainly(frames))


def test_scale_2_is_scale_4_with_each_2x2_pixels_averaged(bicubic):
    # Away from 0 and 1, so that nothing is clipped before it is averaged.
    frames = 0.25 + noise(4, np.float32) / 2
    large = bicubic(frames)
    means = large.reshape(7, 2 * HEIGHT, 2, 2 * WIDTH, 2, 3).mean((2, 4))
    small = Upscaler("bicubic", scale=2)(frames)
    assert difference(small, means) < 1e-9


def test_without_interpolation_there_are_as_many_frames_as_there_were(bicubic):
    frames = noise(5)
    assert_equal(Upscaler("bicubic", interpolate=False)(frames), bicubic(frames)[::2])


def test_a_network_gives_what_the_method_gives(network, weight_file):
    frames = synthetic.clip(0, frames=4, height=16, width=16)[:, :HEIGHT, :WIDTH]
    assert_equal(network(frames), methods.method(weight_file)(frames))
    assert difference(network(frames), methods.method("trilinear")(frames)) > 3
    E
