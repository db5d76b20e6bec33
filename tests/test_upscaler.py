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
from msitf_jax.video import upscaler as module
from msitf_jax.video.color import RGB
from msitf_jax.video.reader import Picture
from msitf_jax.video.upscaler import OVERHEAD, Upscaler, upscale
from tests.tiny_network import quick_compilation, tiny_network

LEVELS = {np.uint8: 255, np.uint16: 65535, np.float32: 1}
HEIGHT, WIDTH = 9, 14  # of most frames here, so that little is compiled


@pytest.fixture(scope="module", autouse=True)
def compile_quickly():
    with quick_compilation():
        yield


@pytest.fixture(scope="module")
def bicubic():
    """Gives every frame as if it were alone, and means between, so that expectations are simple."""
    return Upscaler("bicubic", scenes=False)


@pytest.fixture(scope="module")
def weight_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("upscaler") / "model.safetensors"
    weights.save(tiny_network(), path)
    return path


@pytest.fixture(scope="module")
def network(weight_file):
    return Upscaler(weight_file)


def noise(count, dtype=np.uint8, height=HEIGHT, width=WIDTH):
    frames = np.random.default_rng(0).random((count, height, width, 3), np.float32)
    return frames if dtype == np.float32 else (frames * LEVELS[dtype]).astype(dtype)


def moving(count, seed=0):
    """Frames of one scene."""
    return synthetic.clip(seed, frames=count, height=16, width=16)[:, :HEIGHT, :WIDTH]


enlarge = jax.jit(bicubic_base)


def at_once(frames):
    """All frames through the bicubic base, quantised in NumPy."""
    levels = LEVELS[frames.dtype.type]
    large = np.asarray(enlarge(frames.astype(np.float32)[None] / np.float32(levels))[0]).clip(0, 1)
    return large if levels == 1 else np.rint(large * np.float32(levels)).astype(frames.dtype)


def difference(a, b):
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    return np.abs(a.astype(np.float64) - b).max()


@pytest.mark.parametrize("dtype", LEVELS)
def test_frames_keep_their_type_and_become_what_the_method_makes_of_them(bicubic, dtype):
    # One level was measured for uint16, from float32's rounding before that to integers, and nothing for the others.
    bound = {np.uint8: 1, np.uint16: 1, np.float32: 2.4e-7}[dtype]
    for count in (2, 4, 5, 8):
        frames = noise(count, dtype)
        out = bicubic(frames)
        assert out.shape == (2 * count - 1, 4 * HEIGHT, 4 * WIDTH, 3)
        assert difference(out, at_once(frames)) <= bound


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_whole_levels_of_grey_stay_what_they_are(bicubic, dtype):
    for level in (0, 1, LEVELS[dtype]):
        assert (bicubic(np.full((2, HEIGHT, WIDTH, 3), level, dtype)) == level).all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (7, 3)])
def test_frames_of_any_size(bicubic, height, width):
    frames = noise(3, height=height, width=width)
    assert difference(bicubic(frames), at_once(frames)) <= 1


def test_one_frame_gives_one_frame(bicubic, network):
    frames = noise(1)
    assert difference(bicubic(frames), at_once(frames)) <= 1
    assert network(frames).shape == (1, 4 * HEIGHT, 4 * WIDTH, 3)


def test_scale_2_is_scale_4_with_each_2x2_pixels_averaged(bicubic):
    frames = 0.25 + noise(4, np.float32) / 2  # so that nothing is clipped before it is averaged
    means = bicubic(frames).reshape(7, 2 * HEIGHT, 2, 2 * WIDTH, 2, 3).mean((2, 4))
    # 6e-8 was measured, float32's rounding.
    assert difference(Upscaler("bicubic", scale=2, scenes=False)(frames), means) <= 1.2e-7


def test_without_interpolation_there_are_as_many_frames_as_there_were(bicubic):
    frames = noise(5)
    alone = Upscaler("bicubic", interpolate=False, scenes=False)(frames)
    np.testing.assert_array_equal(alone, bicubic(frames)[::2])


def test_a_network_gives_what_its_method_gives(network, weight_file):
    frames = moving(4)
    expected = methods.method(weight_file)(frames)
    np.testing.assert_array_equal(network(frames), expected)
    assert difference(expected, methods.method("trilinear")(frames)) > 5  # it does something


def test_more_frames_than_a_window_are_windows_that_share_a_frame(network):
    frames = moving(6)
    out = network(frames)
    assert len(out) == 11
    np.testing.assert_array_equal(out[:7], network(frames[:4]))
    np.testing.assert_array_equal(out[7:], network(frames[2:])[3:])


def test_equal_frames_become_equal_frames(network):
    a, b, c, d = moving(4)
    out = network([a, a, b, c, c, c, d])
    expected = network([a, b, c, d])
    np.testing.assert_array_equal(out, expected[[0, 0, 0, 1, 2, 3, 4, 4, 4, 4, 4, 5, 6]])


def test_nothing_is_mixed_across_a_cut(bicubic):
    frames = np.concatenate([moving(3), 255 - moving(5, seed=1)])
    first, second = (at_once(part) for part in (frames[:3], frames[3:]))
    repeated = np.concatenate([first, first[-1:], second])
    assert difference(upscale(frames, "bicubic"), repeated) <= 1
    assert difference(upscale(frames, "bicubic", cut="hold"), np.delete(repeated, 5, 0)) <= 1
    assert difference(upscale(frames, "bicubic", interpolate=False), repeated[[0, 2, 4, 6, 8, 10, 12, 14]]) <= 1
    mixed = bicubic(frames)
    assert difference(mixed, at_once(frames)) <= 1
    assert difference(mixed[5:6], repeated[5:6]) > 50


def test_frames_come_before_the_input_ends_and_few_are_held(bicubic, monkeypatch):
    held, alive = [], []

    def picture(pixels, time):
        held.append(weakref.ref(pixels))
        return Picture(pixels, time)

    monkeypatch.setattr(module, "Picture", picture)
    upscaler = Upscaler("bicubic")
    stream = upscaler.stream(moving(1)[0] ^ np.uint8(time % 32) for time in itertools.count())
    for index, _ in zip(range(199), stream, strict=False):
        alive.append(sum(frame() is not None for frame in held))
        # A window's last frame, the next, which differs, the two that a cut is looked for in, and one on the way.
        assert len(held) <= max(4, index // 2 + 3) + 5
    assert len(alive) == 199
    assert max(alive) <= 8


def test_frames_may_be_given_in_one_buffer_and_written_to_afterwards(bicubic):
    frames = noise(5)[[0, 1, 2, 2, 3, 4]]
    buffer = np.empty_like(frames[0])

    def given():
        for frame in frames:
            buffer[:] = frame
            yield buffer

    out = []
    for frame in bicubic.stream(given()):
        out.append(frame.copy())
        frame[:] = 0
    np.testing.assert_array_equal(np.stack(out), bicubic(frames))


@pytest.fixture
def compiled(monkeypatch):
    """The shapes of all tiles that anything is compiled for."""
    tiles, compile_tile = [], Upscaler._compile
    monkeypatch.setattr(Upscaler, "_compile", lambda self, tile, *a: tiles.append(tile) or compile_tile(self, tile, *a))
    return tiles


def test_it_is_compiled_once_for_a_size_and_type(compiled):
    upscaler = Upscaler("bicubic")
    for count in (1, 5, 12):
        upscaler(noise(count))
    assert compiled == [(HEIGHT, WIDTH)]
    upscaler(noise(2, height=5))
    upscaler(noise(2))
    assert compiled == [(HEIGHT, WIDTH), (5, WIDTH)]
    upscaler(noise(2, np.uint16))
    assert compiled == [(HEIGHT, WIDTH), (5, WIDTH), (HEIGHT, WIDTH)]


# About 3,500 bytes a pixel are needed, so 8.1 million for these frames; it begins with a guess.
@pytest.mark.parametrize(("memory", "tiles"), [(5_000_000, 4), (6_500_000, 2)])
def test_frames_that_memory_is_too_little_for_are_cut_into_tiles(bicubic, compiled, memory, tiles):
    frames = noise(6, height=45, width=52)
    upscaler = Upscaler("bicubic", memory=OVERHEAD + memory, scenes=False)
    grid = upscaler.engine((45, 52), RGB(), RGB()).grid
    assert len(grid) == tiles
    tried = list(compiled)
    assert (grid.tile_height, grid.tile_width) in tried
    assert len(set(tried)) == len(tried)
    out = upscaler(frames)
    assert compiled == tried  # one for all windows and tiles
    assert len(bicubic.engine((45, 52), RGB(), RGB()).grid) == 1
    # Where tiles fade into one another float32's rounding tips some values to the next level.
    assert difference(out, bicubic(frames)) <= 1


def test_tiles_at_scale_2(bicubic):
    frames = noise(2, np.float32, height=45, width=52)
    small = Upscaler("bicubic", scale=2, memory=OVERHEAD + 5_000_000, scenes=False)
    tiled, whole = small(frames), Upscaler("bicubic", scale=2, scenes=False)(frames)
    assert tiled.shape == (3, 90, 104, 3)
    # 6e-8 was measured, float32's rounding.
    assert difference(tiled, whole) <= 1.2e-7


def test_too_little_memory_is_said_with_how_much_is_enough():
    frames = noise(2, height=45, width=45)
    with pytest.raises(ValueError, match=r"`memory` \(=1 MiB\) must be at least about \d+ MiB") as error:
        Upscaler("bicubic", memory=1 << 20)(frames)
    enough = int(re.search(r"about (\d+) MiB", str(error.value))[1])
    assert Upscaler("bicubic", memory=enough << 20)(frames).shape == (3, 180, 180, 3)
    with pytest.raises(ValueError, match=rf"`memory` \(={enough - 1} MiB\) must be at least about {enough} MiB"):
        Upscaler("bicubic", memory=(enough - 1) << 20)(frames)


def test_too_little_memory_is_said_when_only_compiling_shows_it():
    upscaler = Upscaler("bicubic", memory=OVERHEAD + 1_000_000)
    upscaler._method = dataclasses.replace(upscaler._method, bytes_per_pixel=1)
    with pytest.raises(ValueError, match=r"`memory` \(=192 MiB\) must be at least about 19[3-9] MiB for these weights"):
        upscaler(noise(2, height=45, width=45))


def test_bfloat16_runs_a_network(network, weight_file):
    frames = moving(4)
    out = Upscaler(weight_file, compute_dtype="bfloat16")(frames)
    assert 0 < difference(out, network(frames)) <= 2


@pytest.mark.parametrize(
    ("frames", "sentence"),
    [
        ([], "`frames` has no frame in it, expected at least one"),
        (
            np.zeros((2, 4, 5), np.uint8),
            r"`frames\[0\]` is uint8 \[4, 5\], expected uint8, uint16 or float32 \[h, w, 3\]",
        ),
        (np.zeros((2, 4, 5, 4), np.uint8), r"`frames\[0\]` is uint8 \[4, 5, 4\], expected"),
        (np.zeros((2, 0, 5, 3), np.uint8), r"`frames\[0\]` is uint8 \[0, 5, 3\], expected"),
        (np.zeros((2, 4, 5, 3)), r"`frames\[0\]` is float64 \[4, 5, 3\], expected"),
        (np.zeros((2, 4, 5, 3), np.int16), r"`frames\[0\]` is int16 \[4, 5, 3\], expected"),
        (np.zeros((1, 2, 4, 5, 3), np.uint8), r"`frames\[0\]` is uint8 \[2, 4, 5, 3\], expected"),
        (
            [*noise(2), noise(1, height=5)[0]],
            r"`frames\[2\]` is uint8 \[5, 14, 3\], expected uint8 \[9, 14, 3\] as the first",
        ),
        ([*noise(1), *noise(1, np.float32)], r"`frames\[1\]` is float32 \[9, 14, 3\], expected uint8 \[9, 14, 3\] as"),
    ],
)
def test_frames_that_do_not_fit_are_named(bicubic, frames, sentence):
    with pytest.raises(ValueError, match=sentence):
        bicubic(frames)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"scale": 3}, r"`scale` \(=3\) must be 4 or 2"),
        ({"cut": "mix"}, r"`cut` \(='mix'\) must be one of repeat, hold"),
        ({"memory": 0}, r"`memory` \(=0\) must be a number of bytes above 0, or None"),
        ({"memory": -1}, r"`memory` \(=-1\) must be"),
        ({"compute_dtype": "bfloat16"}, r"`compute_dtype` \(='bfloat16'\) is for networks; bicubic needs float32"),
        ({"compute_dtype": "float17"}, r"`compute_dtype` \(='float17'\) must be one of float32, bfloat16"),
        ({"weights": "absent.safetensors"}, "absent.safetensors"),
    ],
)
def test_arguments_that_do_not_fit_are_named(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Upscaler(**{"weights": "bicubic", **options})


def test_an_unknown_type_to_compute_in_is_named_for_a_network(weight_file):
    with pytest.raises(ValueError, match=r"`compute_dtype` \(='float16'\) must be one of float32, bfloat16"):
        Upscaler(weight_file, compute_dtype="float16")


def test_an_unknown_argument_is_refused():
    with pytest.raises(TypeError, match="zoom"):
        upscale(noise(1), "bicubic", zoom=4)
