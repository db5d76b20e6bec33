"""Computing in bfloat16 with parameters that stay float32.

Narrowed kernels make the whole network compute in their type, except for what bfloat16's 8 bits would spoil: sampling
positions, attention logits and softmax, normalisation, sums inside products, the image that the network adds to, and
whatever is a number a channel, such as biases, whose gradients are sums over all pixels. Training narrows a copy in
every step: gradients and updates are those of the float32 parameters.
"""

from typing import Literal, TypeAlias, get_args

import jax
from flax import nnx
from jax.typing import DTypeLike

ComputeDtype: TypeAlias = Literal["float32", "bfloat16"]
COMPUTE_DTYPES: tuple[ComputeDtype, ...] = get_args(ComputeDtype)
# Their kernels make attention logits, of which the exponential is taken.
_PRECISE = frozenset({"bias_fc1", "bias_fc2"})


def narrow(params: nnx.State, dtype: DTypeLike) -> nnx.State:
    """Parameters of `MSITF` with the kernels in `dtype`, but for the two that make attention logits.

    Args:
      params: `nnx.State` of the model.
      dtype: floating point, such as `jnp.bfloat16`; the parameters' own changes nothing.

    Returns:
      The same structure.
    """

    def convert(path, value):
        precise = value.ndim < 2 or _PRECISE.intersection(getattr(key, "key", None) for key in path)
        return value if precise else value.astype(dtype)

    return jax.tree_util.tree_map_with_path(convert, params)
