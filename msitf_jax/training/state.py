"""What a training run carries from step to step."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """A pytree of arrays, all of which a checkpoint holds.

    Attributes:
      step: int32 scalar, how many steps are done.
      params: `nnx.State` of the model's parameters, float32.
      opt_state: of the optimizer.
      ema: exponential moving average of the parameters, of the same structure, or None.
      key: data of the random key, uint32, from which each step folds its own.
    """

    step: jax.Array
    params: nnx.State
    opt_state: Any
    ema: nnx.State | None
    key: jax.Array

    @property
    def scored(self) -> nnx.State:
        """The parameters that are evaluated and saved: the average where there is one."""
        return self.params if self.ema is None else self.ema


def create(params: nnx.State, optimizer: optax.GradientTransformation, *, ema: bool, seed: int) -> TrainState:
    """The state before the first step; `ema` says whether to keep an average, which starts at the parameters."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        ema=jax.tree.map(jnp.copy, params) if ema else None,
        key=jax.random.key_data(jax.random.key(seed)),
    )
