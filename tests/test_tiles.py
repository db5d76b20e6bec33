"""Tiles cover a frame once over, and what a network makes of them shows no seam."""

import itertools

import jax
import numpy as np
import pytest

from input_pipeline import synthetic
from msitf_jax import methods
from msitf_jax.video.tiles import BLEND, Grid, choose, smallest
from tests.tiny_network import quick_compilation, tiny_network

SIZES = (1, 7, 8, 40, 63, 64, 65, 79, 80, 81, 107, 128, 130, 255)
MARGINS = (0, 3, 24)
STEP = 8


def grids(height, width, margin):
    """Every grid that can be chosen: the best one with tiles of at most so many pixels, for all numbers."""
    found = {choose(height, width, lambda *tile: True, margin=margin, alignment=STEP)}
    areas = []
    choose(height, width, lambda *tile: areas.append(tile[0] * tile[1]), margin=margin, alignment=STEP)
    for most in areas:
        grid = choose(height, width, lambda h, w, most=most: h * w <= most, margin=margin, alignment=STEP)
        found.add(grid)
    return found


def all_grids():
    for (height, width), margin in itertools.product(itertools.product(SIZES, repeat=2), MARGINS):
        yield from grids(height, width, margin)


def enlarged(clip, scale=4):
    return np.asarray(clip, np.float32).repeat(scale, axis=1).repeat(scale, axis=2)


def blends(starts, tile, scale=4):
    """Where on an axis of the output one tile fades into the next."""
    middles = [scale * (first + tile + second) // 2 for first, second in itertools.pairwise(starts)]
    return [slice(middle - scale * BLEND // 2, middle + scale * BLEND // 2) for middle in middles]


def outside(grid, scale=4):
    """True where a pixel of the output is of one tile."""
    alone = np.ones((scale * grid.height, scale * grid.width), bool)
    for rows in blends(grid.rows, grid.tile_height, scale):
        alone[rows] = False
    for columns in blends(grid.columns, grid.tile_width, scale):
        alone[:, columns] = False
    return alone


def test_tiles_begin_at_multiples_and_reach_from_border_to_border():
    seen = set()
    for grid in all_grids():
        for starts, tile, size in (
            (grid.rows, grid.tile_height, grid.height),
            (grid.columns, grid.tile_width, grid.width),
        ):
            assert starts[0] == 0
            assert starts[-1] + tile == size
            assert all(start % STEP == 0 for start in starts)
            for first, second in itertools.pairwise(starts):
                assert first < second
                assert first + tile - second >= 2 * grid.margin + BLEND
            seen.add(len(starts))
    assert {1, 2, 3, 4, 24} <= seen


@pytest.mark.parametrize("scale", [2, 4])
def test_weights_sum_to_one_and_bands_are_the_frame_from_top_to_bottom(scale):
    for height, width, margin in ((81, 107, 24), (130, 65, 24), (63, 255, 3), (107, 79, 3), (40, 41, 0)):
        clip = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
        for grid in grids(height, width, margin):
            bands = list(grid.bands(clip, lambda tile: enlarged(tile, scale), scale))
            assert len(bands) == len(grid.rows)
            assert all(band.dtype == np.float32 and band.shape[1] for band in bands)
            # Weights are multiples of 1/64, so that nothing is rounded.
            np.testing.assert_array_equal(np.concatenate(bands, 1), enlarged(clip, scale))


def test_a_pixel_is_of_one_tile_far_from_its_cuts_except_where_two_fade():
    for height, width, margin in ((81, 107, 24), (130, 65, 24), (63, 130, 3)):
        for grid in grids(height, width, margin):
            number = itertools.count()
            tile = (4, 4 * grid.tile_height, 4 * grid.tile_width, 3)
            bands = grid.bands(np.zeros((4, height, width, 3)), lambda _, n=number, t=tile: np.full(t, next(n)), 4)
            places = np.concatenate(list(bands), 1)[0, ..., 0]
            alone = outside(grid)
            assert alone.any()
            for place, (top, left) in enumerate(itertools.product(grid.rows, grid.columns)):
                rows, columns = np.nonzero((places == place) & alone)
                assert is_inside(rows, top, grid.tile_height, height, margin)
                assert is_inside(columns, left, grid.tile_width, width, margin)
            assert set(places[alone]) <= set(range(len(grid)))


def is_inside(positions, start, tile, size, margin):
    """Whether positions in the output lie in a tile, at least a margin from where it was cut."""
    first = start + margin if start else 0
    last = start + tile - (margin if start + tile < size else 0)
    return ((positions >= 4 * first) & (positions < 4 * last)).all()


def test_one_tile_fades_evenly_into_the_next():
    grid = Grid(8, 88, 8, 72, 24, STEP)
    levels = iter((0, 32))
    (band,) = grid.bands(
        np.zeros((1, 8, 88, 3)), lambda tile: np.full((1, *(4 * side for side in tile.shape[1:3]), 3), next(levels)), 4
    )
    # The tiles are 0..72 and 16..88, so they share 16..72, whose middle is 44: 176 in the output.
    np.testing.assert_array_equal(band[0, 0, :, 0], [0] * 160 + [level + 0.5 for level in range(32)] + [32] * 160)


def test_a_frame_that_fits_is_one_tile():
    for height, width in itertools.product(SIZES, repeat=2):
        grid = choose(height, width, lambda *tile: True, margin=24, alignment=STEP)
        assert grid == Grid(height, width, height, width, 24, STEP)
        assert len(grid) == 1
    clip = np.zeros((4, 5, 7, 3), np.uint8)
    (band,) = choose(5, 7, lambda *tile: True, margin=24, alignment=STEP).bands(clip, lambda tile: tile, 4)
    assert band is clip


@pytest.mark.parametrize("most", [64 * 64, 72 * 80, 9000])
@pytest.mark.parametrize(("height", "width"), [(81, 107), (128, 128), (130, 200), (40, 300)])
def test_the_grid_with_the_fewest_pixels_is_chosen(height, width, most):
    def fits(tile_height, tile_width):
        return tile_height * tile_width <= most

    grid = choose(height, width, fits, margin=24, alignment=STEP)
    # By trial, over every shape that leaves two margins and a fade in each overlap.
    shapes = [
        Grid(height, width, tile_height, tile_width, 24, STEP)
        for tile_height in range(height, 0, -STEP)
        for tile_width in range(width, 0, -STEP)
        if fits(tile_height, tile_width)
        and (tile_height == height or tile_height >= 2 * 24 + BLEND + STEP)
        and (tile_width == width or tile_width >= 2 * 24 + BLEND + STEP)
    ]
    if not shapes:
        assert grid is None
        return
    assert fits(grid.tile_height, grid.tile_width)
    assert pixels(grid) == min(map(pixels, shapes))


def pixels(grid):
    return len(grid) * grid.tile_height * grid.tile_width


def test_nothing_is_chosen_where_not_even_the_smallest_tile_fits():
    for size in SIZES:
        least = smallest(size, 24, STEP)
        assert least == size if size < 64 else least in range(64, 72)
        for side in (least - 1, least):
            grid = choose(size, size, lambda *tile, side=side: max(tile) <= side, margin=24, alignment=STEP)
            assert (grid is None) == (side < least)


@pytest.fixture(scope="module")
def outputs():
    """A network's with random weights: of a whole clip, of its tiles, of the first of them; and the resized clip."""
    method = methods.network(tiny_network(), tile_margin=24)
    run = jax.jit(lambda clip: method.forward(method.state, clip[None])[0])
    # Of the tiles that fit, those with the least overlap are taken: two margins, what fades, and an odd pixel.
    clip = synthetic.clip(3, frames=2, height=73, width=73).astype(np.float32) / 255
    grid = choose(73, 73, lambda *tile: max(tile) <= 65, margin=method.margin, alignment=method.alignment)
    assert (grid.rows, grid.columns) == ([0, 8], [0, 8])
    tiles = []
    with quick_compilation():
        whole = run(clip)
        bands = grid.bands(clip, lambda tile: tiles.append(run(tile)) or tiles[-1], 4)
        tiled = np.concatenate(list(bands), 1)
    base = methods.BASELINES["trilinear"](clip[None])[0]
    return tuple(map(np.asarray, (whole, tiled, tiles[0], base)))


def test_a_network_gives_the_same_in_tiles(outputs):
    whole, tiled, tile, base = outputs
    assert np.abs(whole - base).mean() > 5 / 255  # it does something,
    assert np.abs(tile - whole[:, :260, :260])[:, -4:].mean() > 1 / 255  # and something else beside a cut
    # Also where tiles fade into one another; 1.2e-7 was measured, which is float32's rounding.
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=2.4e-7)


@pytest.mark.parametrize("axis", [1, 2])
def test_no_seam_is_seen_where_tiles_meet(outputs, axis):
    whole, tiled, _, _ = outputs
    # Tiles are 0..65 and 8..73: their overlap begins, fades over 8 pixels and ends.
    for place in (8, 32.5, 36.5, 40.5, 65):
        expected, step = (step_across(clip, axis, int(4 * place)) for clip in (whole, tiled))
        assert step == pytest.approx(expected, rel=1e-5)  # 1e-7 was measured; a seam of 1/255 is 0.1


def step_across(clip, axis, place):
    """How far pixels on one side of a place are from those on the other, on average."""
    return np.abs(np.take(clip, place, axis) - np.take(clip, place - 1, axis)).mean()
