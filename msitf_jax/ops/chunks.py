"""Work done a part of the batch at a time."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax

_T = TypeVar("_T")


def on_cpu(value: _T, elsewhere: _T) -> _T:
    """`value` where JAX's default device is a CPU, whose cache holds little, else the other: few and large launches."""
    return value if jax.default_backend() == "cpu" else elsewhere


def map_chunks(function: Callable[[Any], jax.Array], arrays: Any, limit: int) -> jax.Array:
    """`function(arrays)`, computed for at most `limit` entries of the first axis at a time.

    Fewer entries keep intermediate results small enough for the cache, or the peak memory low.

    Args:
      function: maps a pytree of arrays that share their first axis to an array with that first axis.
      arrays: such a pytree; None stays None.
      limit: entries at a time; the largest divisor of their number that is not above it is taken, at least 1.

    Returns:
      What `function` gives for all of them.
    """
    count = jax.tree.leaves(arrays)[0].shape[0]
    size = max(divisor for divisor in range(1, max(1, min(limit, count)) + 1) if count % divisor == 0)
    if size == count:
        return function(arrays)
    chunks = jax.tree.map(lambda x: x.reshape(count // size, size, *x.shape[1:]), arrays)
    out = jax.lax.map(function, chunks)
    return out.reshape(count, *out.shape[2:])
