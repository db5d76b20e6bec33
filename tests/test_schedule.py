"""The learning rate at every step, read off what the optimizer does to a parameter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from msitf_jax.training.schedule import constant_with_cooldown, make_optimizer, restarted_cosine
from tests.conftest import golden


@pytest.fixture(autouse=True)
def optax_promotes():
    """Optax promotes counts of steps to floating point by itself."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def applied_rates(optimizer, steps):
    """`[steps]`: what each step takes off a parameter whose gradient is always 1, which is Adam's rate."""
    state = optimizer.init(jnp.zeros(()))

    def step(state, _):
        update, state = optimizer.update(jnp.ones(()), state)
        return state, -update

    return jax.jit(functools.partial(jax.lax.scan, step, length=steps))(state, None)[1]


def test_every_applied_rate_is_that_of_the_published_training():
    published = golden("lr_schedule")
    (period,) = set(published["periods"].tolist())
    assert published["restarts"].tolist() == [period, 2 * period, 3 * period]
    largest, smallest = float(published["base_lr"]), float(published["eta_min"])
    schedule = restarted_cosine(largest, smallest, period, len(published["periods"]))
    wanted = published["lr_at_iteration_1_onward"]
    with jax.enable_x64(True):  # in float32 Adam's own rounding, 1e-7 of the rate, would be within 1e-9 too, barely
        rates = applied_rates(make_optimizer(schedule), len(wanted))
    # Adam's 1e-8 beside a gradient of 1 makes 2e-12 of it.
    np.testing.assert_allclose(rates, wanted, rtol=0, atol=1e-9)


def test_the_rate_rises_at_the_beginning_only():
    plain, warm = (np.array(restarted_cosine(1e-3, 1e-5, 50, 2, warmup)(np.arange(100))) for warmup in (0, 20))
    np.testing.assert_allclose(warm[:20], plain[:20] * np.arange(20) / 20, rtol=1e-6)
    np.testing.assert_array_equal(warm[20:], plain[20:])


def test_a_constant_rate_falls_in_the_last_steps_only():
    steps = np.arange(130)
    endless = np.array(constant_with_cooldown(1e-3, 1e-5, 10**9, 0, warmup=20)(steps))
    np.testing.assert_allclose(endless, 1e-3 * np.minimum(steps / 20, 1), rtol=1e-6)
    cooled = np.array(constant_with_cooldown(1e-3, 1e-5, 100, 25, warmup=20)(steps))
    np.testing.assert_allclose(cooled[:76], endless[:76], rtol=1e-6)
    wanted = np.maximum(1e-3 - (1e-3 - 1e-5) * (steps[75:] - 75) / 25, 1e-5)
    np.testing.assert_allclose(cooled[75:], wanted, rtol=1e-5)


@pytest.mark.parametrize("steps", [range(1, 601), range(149_990, 150_010), range(599_990, 600_010)])
def test_the_rate_by_the_formula(steps):
    period = 150 if steps.start == 1 else 150_000
    schedule = restarted_cosine(2e-4, 1e-7, period, 4)
    steps = np.array(steps)
    # A restart takes the full rate at once; the last period ends at the smallest and stays there.
    phase = np.where(steps < 4 * period, steps % period, period) / period
    wanted = 1e-7 + (2e-4 - 1e-7) * (1 + np.cos(np.pi * phase)) / 2
    np.testing.assert_allclose(jax.vmap(schedule)(jnp.asarray(steps)), wanted, rtol=0, atol=1e-10)


def test_a_rate_that_does_not_change():
    schedule = restarted_cosine(1e-3, 1e-3, 5, 1)
    np.testing.assert_allclose([schedule(step) for step in (0, 1, 4, 5, 9)], 1e-3, rtol=1e-6)


def test_two_steps_of_adam_by_hand():
    rates = {1: 0.5, 2: 0.25}
    optimizer = make_optimizer(lambda step: jnp.where(step == 1, rates[1], rates[2]), b1=0.9, b2=0.99)
    params = jnp.asarray([1.0, 2.0])
    state = optimizer.init(params)
    mean, square, by_hand = np.zeros(2), np.zeros(2), np.array([1.0, 2.0])
    for step, gradient in ((1, np.array([3.0, -0.5])), (2, np.array([-1.0, 4.0]))):
        updates, state = optimizer.update(jnp.asarray(gradient, jnp.float32), state, params)
        params = optax.apply_updates(params, updates)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.99 * square + 0.01 * gradient**2
        corrected = mean / (1 - 0.9**step), square / (1 - 0.99**step)
        by_hand -= rates[step] * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
        np.testing.assert_allclose(params, by_hand, rtol=1e-5)


def test_muon_turns_kernels_alike_in_all_directions_and_takes_adams_steps():
    rng, rate = np.random.default_rng(0), 0.01
    stretched = rng.standard_normal((3, 3, 8, 16)) * np.geomspace(1, 100, 16)
    gradients = {"kernel": jnp.asarray(stretched, jnp.float32), "bias": jnp.asarray([-3.0, 0.5])}
    optimizer = make_optimizer(lambda step: jnp.where(step == 1, rate, jnp.nan), name="muon")
    update, _ = optimizer.update(gradients, optimizer.init(gradients), gradients)
    ahead = rate * (1 + 0.9 * 0.1 / (1 - 0.9**2))  # of NAdam's first step
    np.testing.assert_allclose(update["bias"], [ahead, -ahead], rtol=1e-4)
    matrix = np.asarray(update["kernel"]).reshape(72, 16)
    lengths = np.linalg.svd(matrix, compute_uv=False)
    # Five iterations of Newton and Schulz bring all into about 0.7 to 1.2 (Jordan et al.), from 1 to 100 here.
    assert lengths.max() / lengths.min() < 1.8
    assert 0.7 < np.sqrt(np.mean(matrix**2)) / (0.2 * rate) < 1.2
    assert np.sum(matrix * stretched.reshape(72, 16)) < 0


def first_moments(gradients, **options):
    """Adam's first moments after one step: a tenth of the gradients that it was given."""
    optimizer = make_optimizer(lambda step: 1.0, **options)
    _, state = optimizer.update(gradients, optimizer.init(gradients))
    return optax.tree.get(state, "mu")


def test_clipping_goes_by_the_norm_of_all_gradients_together():
    gradients = {"a": jnp.asarray([3.0, 0.0]), "b": jnp.asarray(4.0)}  # of norm 5
    for limit, factor in ((1.0, 1 / 5), (4.9, 4.9 / 5), (5.1, 1), (None, 1)):
        moments = first_moments(gradients, max_grad_norm=limit)
        np.testing.assert_allclose(moments["a"], [0.3 * factor, 0], rtol=1e-6)
        np.testing.assert_allclose(moments["b"], 0.4 * factor, rtol=1e-6)
