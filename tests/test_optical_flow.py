"""Warps against values by hand and against what their kernels promise; the flow on motion that is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msitf_jax.ops.optical_flow import bilinear_warp, cubic_warp, optical_flow, seen_from

WARPS = {"bilinear": bilinear_warp, "cubic": cubic_warp}
flow_of = jax.jit(optical_flow)


def from_middle(height, width):
    """`[height, width, 2]`: where each pixel lies."""
    return np.stack(np.mgrid[:height, :width], -1) - (np.array([height, width]) - 1) / 2


def constant(dy, dx, height, width):
    """A flow `[1, height, width, 2]` that is the same everywhere."""
    return jnp.broadcast_to(jnp.array([dy, dx], jnp.float32), (1, height, width, 2))


def texture(height, width, dy=0.0, dx=0.0, *, zoom=1.0):
    """Waves of several lengths, zoomed about the middle and moved by (dy, dx) pixels: `[1, height, width, 3]`, 0..1."""
    y, x = (from_middle(height, width) / zoom).transpose(2, 0, 1)
    rng, total = np.random.default_rng(0), 0
    for _ in range(24):
        length, angle, phase = rng.uniform(5, 30), *rng.uniform(0, 2 * np.pi, 2)
        total = total + np.sin(2 * np.pi / length * ((y - dy) * np.sin(angle) + (x - dx) * np.cos(angle)) + phase)
    gray = np.clip(0.5 + total / 16, 0, 1).astype(np.float32)
    return jnp.asarray(np.repeat(gray[None, ..., None], 3, -1))


@pytest.mark.parametrize("name", WARPS)
def test_whole_pixels_move_and_borders_repeat(name):
    x = jnp.arange(12.0).reshape(1, 3, 4, 1)
    moved = WARPS[name](x, constant(1.0, -2.0, 3, 4))[0, :, :, 0]
    np.testing.assert_array_equal(moved, [[4, 4, 4, 5], [8, 8, 8, 9], [8, 8, 8, 9]])


def test_bilinear_warp_by_hand():
    x = jnp.array([[0.0, 4.0], [8.0, 12.0]])[None, ..., None]
    assert bilinear_warp(x, constant(0.5, 0.25, 2, 2))[0, 0, 0, 0] == 0.5 * (1 + 9)


def test_cubic_warp_reproduces_parabolas():
    y, x = np.mgrid[:8, :9].astype(np.float32)
    parabola = lambda y, x: 0.5 * y**2 - x**2 + 2 * y - 1  # noqa: E731
    image = jnp.asarray(parabola(y, x))[None, ..., None]
    moved = cubic_warp(image, constant(0.375, -0.25, 8, 9))[0, 2:-2, 2:-2, 0]
    np.testing.assert_allclose(moved, parabola(y + 0.375, x - 0.25)[2:-2, 2:-2], rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", WARPS)
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 3)])
def test_warps_of_few_pixels_stay_within_them(name, size):
    x = jnp.asarray(np.random.default_rng(0).random((2, *size, 3), np.float32))
    far = jnp.asarray(np.random.default_rng(1).normal(0, 50, (2, *size, 2)).astype(np.float32))
    moved = WARPS[name](x, far)
    assert moved.shape == x.shape
    assert bool(jnp.isfinite(moved).all())
    np.testing.assert_allclose(WARPS[name](jnp.full_like(x, 0.5), far), 0.5, rtol=0, atol=1e-6)


def test_flow_of_a_moving_texture():
    dy, dx = 1.5, -2.25
    flow = flow_of(texture(60, 77), texture(60, 77, dy, dx))
    assert flow.shape == (1, 60, 77, 2)
    error = np.abs(np.asarray(flow)[0, 8:-8, 8:-8] - [dy, dx])
    # Of a pixel; at most .04 and .17 were measured, the more where waves have long crests along the motion.
    assert np.median(error) < 0.08
    assert np.percentile(error, 95) < 0.34


def test_flow_of_large_motion():
    flow = flow_of(texture(96, 96), texture(96, 96, 6.0, 7.0))
    assert np.median(np.abs(np.asarray(flow)[0, 16:-16, 16:-16] - [6, 7])) < 0.2


def test_nothing_moves_and_nothing_is_seen():
    still = texture(24, 31)
    np.testing.assert_array_equal(flow_of(still, still), np.zeros((1, 24, 31, 2)))
    gray = jnp.full((1, 5, 6, 3), 0.3)
    np.testing.assert_array_equal(flow_of(gray, gray + 0.1), np.zeros((1, 5, 6, 2)))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2)])
def test_flow_of_few_pixels_is_finite(size):
    rng = np.random.default_rng(0)
    flow = flow_of(*(jnp.asarray(rng.random((2, *size, 3), np.float32)) for _ in range(2)))
    assert flow.shape == (2, *size, 2)
    assert bool(jnp.isfinite(flow).all())


def test_flow_turned_round_in_time():
    a, b = texture(40, 40), texture(40, 40, 1.0, 2.0)
    np.testing.assert_allclose(flow_of(a, b), -flow_of(b, a), rtol=0, atol=1e-4)


def test_images_get_no_gradient_from_the_flow():
    a, b = texture(16, 16), texture(16, 16, 1.0, 0.0)
    gradient = jax.grad(lambda a: jnp.sum(optical_flow(a, b)))(a)
    np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


def test_flow_seen_from_another_frame():
    # g(p) = f(p - step g(p)) for f(p) = rate p + shift is (rate p + shift) / (1 + step rate).
    y, x = np.mgrid[:20, :20].astype(np.float32)
    rate, shift, step = 0.1, 0.5, 0.5
    flow = jnp.asarray(np.stack([rate * y + shift, rate * x + shift], -1))[None]
    expected = flow / (1 + step * rate)
    seen = functools.partial(seen_from, flow)(step)
    # Each iteration leaves `step * rate` of the error, after two .0025 of the first, which is .12 at most.
    np.testing.assert_allclose(seen[0, 4:-4, 4:-4], expected[0, 4:-4, 4:-4], rtol=0, atol=1e-3)
