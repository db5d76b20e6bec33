"""Computing in bfloat16 with parameters that stay float32.

Narrowed parameters make the whole network compute in their type, except for what bfloat16's 8 bits would spoil:
sampling positions, attention logits and softmax, normalisation statistics, sums inside products, and the image that
the network adds to. Training narrows a copy in every step: gradients and updates are those of the float32 parameters.
"""

import jax
import jax.numpy as jnp

# They make attention logits, of which the exponential is taken.
_PRECISE = frozenset({"logit_scale", "bias_fc1", "bias_fc2"})


def at_least_float32(dtype):
    """float32 in place of a narrower floating-point type."""
    # Not `jnp.promote_types`, which strict promotion forbids here.
    return dtype if jnp.dtype(dtype).itemsize >= 4 else jnp.dtype(jnp.float32)


def narrow(params, dtype):
    """Parameters of `MSITF` in `dtype`, but for the few that make attention logits.

    Args:
      params: `nnx.State` of the model.
      dtype: floating point, such as `jnp.bfloat16`; the parameters' own changes nothing.

    Returns:
      The same structure.
    """

    def convert(path, value):
        return value if _PRECISE.intersection(getattr(key, "key", None) for key in path) else value.astype(dtype)

    return jax.tree_util.tree_map_with_path(convert, params)
