"""Working through a batch in parts changes nothing but the order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msitf_jax.ops.chunks import map_chunks


@pytest.mark.parametrize("limit", [0, 1, 2, 4, 6, 100])
def test_any_limit_gives_the_whole(limit):
    x, y = jnp.arange(12.0).reshape(6, 2), jnp.arange(6.0)
    out = map_chunks(lambda arrays: arrays[0] * arrays[1][:, None], (x, y, None), limit)
    np.testing.assert_array_equal(out, x * y[:, None])


def test_no_more_than_the_limit_at_a_time():
    seen = []
    map_chunks(lambda x: seen.append(x.shape[0]) or x, jnp.zeros((7 * 6, 3)), 8)
    assert set(seen) == {7}


def test_a_whole_batch_needs_no_loop():
    assert "scan" not in str(jax.make_jaxpr(lambda x: map_chunks(jnp.sin, x, 4))(jnp.zeros((4, 2))))
