"""Loss and PSNR of a few pixels, worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msitf_jax.training.losses import charbonnier, clip_psnr, squares


def test_charbonnier_is_a_sum_over_everything():
    output = jnp.asarray([[0.5, 0.25], [1.0, 0.0]])
    truth = jnp.asarray([[0.5, 0.75], [0.0, 0.0]])
    # Two pixels are right and cost the root of 1e-6 each.
    by_hand = 0.001 + np.sqrt(0.25 + 1e-6) + np.sqrt(1 + 1e-6) + 0.001
    assert float(charbonnier(output, truth)) == pytest.approx(by_hand, rel=1e-6)
    twice = charbonnier(jnp.stack([output] * 2), jnp.stack([truth] * 2))
    assert float(twice) == pytest.approx(2 * by_hand, rel=1e-6)


def test_charbonnier_has_a_slope_of_nearly_one_either_way_and_none_at_zero():
    slope = jax.grad(charbonnier)(jnp.asarray([0.75, 0.0, 0.5, 0.001]), jnp.asarray([0.25, 1.0, 0.5, 0.0]))
    np.testing.assert_allclose(slope, [0.5 / np.sqrt(0.25 + 1e-6), -1 / np.sqrt(1 + 1e-6), 0, 0.5**0.5], rtol=1e-6)


def test_squares_by_hand_and_as_steep_as_charbonnier_at_the_usual_error():
    output, truth = jnp.asarray([0.5, 0.25, 1.0]), jnp.asarray([0.5, 0.75, 0.0])
    assert float(squares(output, truth)) == pytest.approx(16 * 1.25)
    slopes = [float(jax.grad(loss)(jnp.asarray(0.5 + 1 / 32), 0.5)) for loss in (squares, charbonnier)]
    assert slopes == pytest.approx([1, 1], abs=1e-3)


def test_psnr_of_each_clip_by_hand():
    truth = jnp.zeros((3, 2, 1, 1, 2))
    output = truth.at[0].set(0.1).at[1, 0, 0, 0, 1].set(0.5)
    # 0.1 off everywhere: 20 dB. One of four 0.5 off: a mean of 1/16. Nothing off: the largest value that is given.
    np.testing.assert_allclose(clip_psnr(output, truth), [20, 10 * np.log10(16), 100], rtol=1e-6)


def test_psnr_is_that_of_the_clipped_output():
    truth = jnp.asarray([[0.0, 1.0]])
    np.testing.assert_allclose(clip_psnr(jnp.asarray([[-0.7, 3.0]]), truth), [100])
    np.testing.assert_allclose(clip_psnr(jnp.asarray([[-0.7, 0.9]]), truth), [10 * np.log10(200)], rtol=1e-6)


@pytest.mark.parametrize("function", [charbonnier, squares, clip_psnr])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_type_is_kept(function, dtype):
    with jax.enable_x64(True):
        assert function(jnp.ones((2, 3), dtype), jnp.zeros((2, 3), dtype)).dtype == dtype
