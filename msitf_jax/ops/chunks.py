"""Work done a part of the batch at a time."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
from jax.export import is_symbolic_dim

_T = TypeVar("_T")
_Carry = TypeVar("_Carry")
_platform: contextvars.ContextVar[str | None] = contextvars.ContextVar("platform", default=None)


@contextlib.contextmanager
def traced_for(platform: str) -> Iterator[None]:
    """While it lasts, what is traced will run on `platform`, such as "cuda", and not on JAX's default device.

    A `jax.jit` keeps what it traced before for the same shapes, whatever it was traced for: take a new one.
    """
    token = _platform.set(platform)
    try:
        yield
    finally:
        _platform.reset(token)


def on_cpu(value: _T, elsewhere: _T) -> _T:
    """`value` for a CPU, whose cache holds little, else the other: few and large launches. See `traced_for`."""
    return value if (_platform.get() or jax.default_backend()) == "cpu" else elsewhere


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is not above `limit`, at least 1; a symbolic limit is taken as 1.

    Of a symbolic number, as `8 * rows`, the largest that is known to divide it whatever it will be.
    """
    if is_symbolic_dim(limit):
        return 1
    top = limit if is_symbolic_dim(number) else min(limit, number)
    return max(divisor for divisor in range(1, max(1, top) + 1) if number % divisor == 0)


def map_chunks(function: Callable[[Any], jax.Array], arrays: Any, limit: int) -> jax.Array:
    """`function(arrays)`, computed for at most `limit` entries of the first axis at a time.

    Fewer entries keep intermediate results small enough for the cache, or the peak memory low.

    Args:
      function: maps a pytree of arrays that share their first axis to an array with that first axis.
      arrays: such a pytree; None stays None.
      limit: entries at a time, see `largest_divisor`; all if it is their number.

    Returns:
      What `function` gives for all of them.
    """
    count, chunks = _cut(arrays, limit)
    if chunks is None:
        return function(arrays)
    out = jax.lax.map(function, chunks)
    return out.reshape(count, *out.shape[2:])


def fold_chunks(
    function: Callable[[_Carry, Any], tuple[_Carry, Any]], carry: _Carry, arrays: Any, limit: int
) -> tuple[_Carry, Any]:
    """Like `map_chunks`, with a carry that passes from one chunk to the next.

    Args:
      function: of the carry and a chunk of the arrays; returns the next carry and a pytree of arrays that share their
        first axis with the chunk.
      carry: a pytree of arrays, the first carry.
      arrays, limit: as for `map_chunks`.

    Returns:
      The last carry, and what `function` gives for all entries.
    """
    count, chunks = _cut(arrays, limit)
    if chunks is None:
        return function(carry, arrays)
    carry, out = jax.lax.scan(function, carry, chunks)
    return carry, jax.tree.map(lambda x: x.reshape(count, *x.shape[2:]), out)


def _cut(arrays, limit):
    """The number of entries of the first axis, and the arrays with that axis cut in chunks, or None if one will do."""
    count = jax.tree.leaves(arrays)[0].shape[0]
    size = count if limit == count else largest_divisor(count, limit)
    if size == count:
        return count, None
    return count, jax.tree.map(lambda x: x.reshape(count // size, size, *x.shape[1:]), arrays)
