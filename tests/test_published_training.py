"""The published run's first steps: the gradients of every parameter, and the losses."""

import typing

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from msitf_jax.training import schedule
from msitf_jax.weights.torch_format import published_parameters
from tests.conftest import channels_last, golden, relative_error
from tests.test_step import prepare


class Run(typing.NamedTuple):
    dtype: str
    losses: list
    gradients: dict  # of the first step, by published name


@pytest.fixture(scope="module", params=["float64", pytest.param("float32", marks=pytest.mark.slow)])
def run(request, golden_model):
    """Six steps on the golden batch in a type; the training step takes a minute to compile, so both tests look at one.

    The gradients are read off Adam's first moment, which after a step is 1 - b1 times as large.
    """
    dtype, b1 = request.param, 0.9
    clips = golden("gradients")
    batch = {"low": channels_last(clips["x"]).astype(dtype), "high": channels_last(clips["gt"]).astype(dtype)}
    with jax.enable_x64(dtype == "float64"), jax.numpy_dtype_promotion("standard"):
        optimizer = schedule.make_optimizer(lambda step: 2e-4, b1=b1, b2=0.99)
        initial, train_step = prepare(golden_model, optimizer, dtype=dtype, stochastic_depth=False)
        state, metrics = train_step(initial(), batch)
        moments = jax.tree.map(lambda leaf: np.asarray(leaf) / (1 - b1), optax.tree.get(state.opt_state, "mu"))
        losses = [float(metrics["loss"])]
        for _ in range(5):
            state, metrics = train_step(state, batch)
            losses.append(float(metrics["loss"]))
        graph, _ = nnx.split(golden_model, nnx.Param)
        return Run(dtype, losses, published_parameters(nnx.merge(graph, moments)))


def test_published_gradients(run):
    tolerance, loss_tolerance = {"float64": (1e-6, 1e-9), "float32": (1e-2, 1e-5)}[run.dtype]
    batch = golden("gradients")
    assert run.losses[0] == pytest.approx(float(batch["loss"]), rel=loss_tolerance)
    assert {gradient.dtype for gradient in run.gradients.values()} == {np.dtype(run.dtype)}
    assert sorted(run.gradients) == sorted(batch["names"])
    for name, norm in zip(batch["names"], batch["l2"], strict=True):
        assert np.linalg.norm(run.gradients[name].astype(np.float64)) == pytest.approx(norm, rel=tolerance), name
    whole = [key for key in batch if key.startswith("grad/")]
    assert len(whole) == 9
    for key in whole:
        assert relative_error(run.gradients[key.removeprefix("grad/")], batch[key]) < tolerance, key


def test_losses_of_the_published_training(run):
    # Measured: 5.9e-6 at the last step, 2.5e-10 until the fourth, and 2.2e-4.
    tolerance = {"float64": 1e-5, "float32": 1e-3}[run.dtype]
    np.testing.assert_allclose(run.losses, golden("trajectory")["loss"], rtol=tolerance)
