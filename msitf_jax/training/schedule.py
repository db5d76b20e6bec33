"""The learning rate and the optimizer."""

from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import optax
from optax import contrib

OptimizerName: TypeAlias = Literal["adam", "muon"]
OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)
Schedule: TypeAlias = Literal["cosine", "constant"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)


def restarted_cosine(
    learning_rate: float, minimum: float, period: int, periods: int, warmup: int = 0
) -> optax.Schedule:
    """Cosine annealing with warm restarts (SGDR, Loshchilov and Hutter, ICLR 2017), all periods alike.

    Args:
      learning_rate: at the start of each period.
      minimum: at the end of the last one and from then on.
      period: length in steps.
      periods: how many.
      warmup: steps at the beginning over which the rate rises to the cosine's, in proportion to the step.

    Returns:
      An Optax schedule: 0 -> `learning_rate`, and at each multiple of `period` but the last again.

    >>> rate = restarted_cosine(2e-4, 1e-7, 150_000, 4)
    >>> [f"{rate(step):.3g}" for step in (0, 75_000, 149_999, 150_000, 600_000, 700_000)]
    ['0.0002', '0.0001', '1e-07', '0.0002', '1e-07', '1e-07']
    """
    cosine = optax.cosine_decay_schedule(learning_rate, period, alpha=minimum / learning_rate)
    restarted = optax.join_schedules([cosine] * periods, [period * number for number in range(1, periods)])
    return lambda step: restarted(step) * jnp.minimum(step / warmup, 1) if warmup else restarted(step)


def constant_with_cooldown(
    learning_rate: float, minimum: float, steps: int, cooldown: int, warmup: int = 0
) -> optax.Schedule:
    """A constant rate, which falls linearly at the end (warmup-stable-decay; Hu et al., 2024, MiniCPM).

    A run at a constant rate has no end of its own: any of its checkpoints can be cooled down.

    Args:
      learning_rate: until the cooldown.
      minimum: at its end and from then on.
      steps: of the whole run.
      cooldown: the last of them, over which the rate falls; 0 for none.
      warmup: steps at the beginning over which the rate rises from 0, in proportion to the step.

    Returns:
      An Optax schedule.

    >>> rate = constant_with_cooldown(1e-3, 1e-5, steps=100, cooldown=20, warmup=10)
    >>> [f"{rate(step):.3g}" for step in (0, 5, 10, 80, 90, 100, 200)]
    ['0', '0.0005', '0.001', '0.001', '0.000505', '1e-05', '1e-05']
    """

    def rate(step):
        left = jnp.clip((steps - step) / cooldown, 0, 1) if cooldown else 1.0
        risen = jnp.minimum(step / warmup, 1) if warmup else 1.0
        return risen * (minimum + (learning_rate - minimum) * left)

    return rate


def make_optimizer(
    schedule: optax.Schedule,
    *,
    name: OptimizerName = "adam",
    b1: float = 0.9,
    b2: float = 0.99,
    max_grad_norm: float | None = None,
) -> optax.GradientTransformation:
    """Adam or Muon, after clipping by the gradients' global norm where `max_grad_norm` is given.

    Args:
      schedule: step s, counted from 1, is taken at the rate `schedule(s)`, as the published training does.
      name: "adam" (Kingma and Ba, ICLR 2015), or "muon" (Jordan et al., 2024): the momentum of each kernel, as a matrix
        from what it sees to what it gives, is made orthogonal, and biases go by NAdam. Muon's steps have the size of
        Adam's (root mean square 0.2 times the rate; Liu et al., 2025), so the same rates suit both.
      b1, b2: decay of Adam's moments.
      max_grad_norm: of all gradients together, or None.

    Returns:
      An Optax gradient transformation.
    """

    def rate(steps_before):
        return schedule(steps_before + 1)

    if name == "adam":
        steps = optax.adam(rate, b1, b2)
    else:
        steps = contrib.muon(
            rate, adam_b1=b1, adam_b2=b2, muon_weight_dimension_numbers=_as_matrices, consistent_rms=0.2
        )
    return steps if max_grad_norm is None else optax.chain(optax.clip_by_global_norm(max_grad_norm), steps)


def _as_matrices(params):
    """Which axes of each parameter are a matrix's rows and which its columns; None for those of one axis."""
    return jax.tree.map(
        lambda x: contrib.MuonDimensionNumbers(tuple(range(x.ndim - 1)), x.ndim - 1) if x.ndim > 1 else None, params
    )
