"""Types to compute in."""

import jax.numpy as jnp
from jax.typing import DTypeLike


def at_least_float32(dtype: DTypeLike) -> jnp.dtype:
    """float32 in place of a narrower floating-point type."""
    # Not `jnp.promote_types`, which strict promotion forbids here.
    dtype = jnp.dtype(dtype)
    return dtype if dtype.itemsize >= 4 else jnp.dtype(jnp.float32)
