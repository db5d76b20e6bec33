"""One step of training, and the forward pass of validation, compiled for a mesh."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from msitf_jax import sharding
from msitf_jax.model.msitf import MSITF
from msitf_jax.model.precision import ComputeDtype, narrow
from msitf_jax.training.losses import charbonnier, clip_psnr
from msitf_jax.training.state import TrainState

# (parameters, `[B, N, h, w, 3]` uint8) -> `[B, 2N-1, 4h, 4w, 3]` uint8
EvalStep: TypeAlias = Callable[[nnx.State, jax.Array], jax.Array]


def _unit_range(frames, dtype):
    """uint8 0..255 -> 0..1."""
    return frames.astype(dtype) / 255


def make_train_step(
    graph: nnx.GraphDef[MSITF],
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    shardings: TrainState,
    *,
    compute_dtype: ComputeDtype = "float32",
    remat: bool = False,
    ema_decay: float | None = None,
    stochastic_depth: bool = True,
    loss: Callable[[jax.Array, jax.Array], jax.Array] = charbonnier,
) -> Callable[[TrainState, Mapping[str, jax.Array]], tuple[TrainState, dict[str, jax.Array]]]:
    """Compiles a training step.

    Every device computes loss and gradients of its own clips with the whole parameters; one sum over all devices is the
    only communication, besides gathering parameters that are cut up.

    Args:
      graph: `nnx.GraphDef` of the model.
      optimizer: an Optax gradient transformation.
      mesh: see `msitf_jax.sharding`.
      shardings: of the `TrainState`.
      compute_dtype: "float32" or "bfloat16" (see `msitf_jax.model.precision`); parameters are float32 in both.
      remat: recompute instead of keeping, see `MSITF.forward`.
      ema_decay: of the moving average, for a state that has one.
      stochastic_depth: False turns it off.
      loss: a function of (output, truth), summed over clips, see `msitf_jax.training.losses`.

    Returns:
      A function (state, batch) -> (state, metrics) that takes the old state's memory. `batch` is
      `{"low": [B, N, h, w, 3], "high": [B, 2N-1, 4h, 4w, 3]}`, uint8 RGB, or floats in 0..1, with `"time": [B]` if it
      is not halfway (`MSITF.forward`); metrics are scalars: `loss` (sum over the batch), `psnr` (dB, mean over clips,
      as `losses.clip_psnr`), `grad_norm` (before any clipping).
    """

    def loss_and_gradients(params, low, high, time, survival):
        dtype = jax.tree.leaves(params)[0].dtype
        low, high = (_unit_range(x, dtype) if x.dtype == jnp.uint8 else x for x in (low, high))

        def loss_and_psnr(params):
            if compute_dtype == "bfloat16":
                params = narrow(params, jnp.bfloat16)
            output = nnx.merge(graph, params).forward(low, survival, time=time, remat=remat)
            return loss(output, high), jnp.sum(clip_psnr(output, high))

        (summed_loss, psnr), gradients = jax.value_and_grad(loss_and_psnr, has_aux=True)(params)
        return summed_loss, psnr, gradients

    summed = sharding.per_device(mesh, loss_and_gradients, summed=True)

    def train_step(state, batch):
        clips, frames = batch["low"].shape[:2]
        survival = None
        if stochastic_depth:
            # Drawn for the whole batch at once, so that it does not depend on how many devices share it.
            key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
            survival = nnx.merge(graph, state.params).draw_survival(clips, frames, key)
        summed_loss, psnr, gradients = summed(state.params, batch["low"], batch["high"], batch.get("time"), survival)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:
            ema = optax.incremental_update(params, ema, 1 - ema_decay)  # type: ignore[operator]  # given with such a state
        metrics = {"loss": summed_loss, "psnr": psnr / clips, "grad_norm": optax.tree.norm(gradients)}
        return TrainState(state.step + 1, params, opt_state, ema, state.key), metrics

    return jax.jit(
        train_step,
        in_shardings=(shardings, sharding.batch(mesh)),
        out_shardings=(shardings, sharding.replicated(mesh)),
        donate_argnums=0,
    )


def make_eval_step(graph: nnx.GraphDef[MSITF], mesh: Mesh, shardings: nnx.State) -> EvalStep:
    """Compiles the forward pass of validation.

    Args:
      graph, mesh, shardings: see `make_train_step`.

    Returns:
      A function (params, `[B, N, h, w, 3]` uint8 RGB) -> `[B, 2N-1, 4h, 4w, 3]` uint8 RGB; B is a multiple of the
      number of devices.
    """

    def outputs(params, low):
        output = nnx.merge(graph, params)(_unit_range(low, jax.tree.leaves(params)[0].dtype))
        return jnp.clip(jnp.rint(255 * output), 0, 255).astype(jnp.uint8)

    return jax.jit(
        sharding.per_device(mesh, outputs, summed=False),
        in_shardings=(shardings, sharding.batch(mesh)),
        out_shardings=sharding.batch(mesh),
    )
