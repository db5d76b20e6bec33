"""Working through a batch in parts changes nothing but the order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msitf_jax.ops.chunks import fold_chunks, largest_divisor, map_chunks, on_cpu, traced_for


@pytest.mark.parametrize("limit", [0, 1, 2, 4, 6, 100])
def test_any_limit_gives_the_whole(limit):
    x, y = jnp.arange(12.0).reshape(6, 2), jnp.arange(6.0)
    out = map_chunks(lambda arrays: arrays[0] * arrays[1][:, None], (x, y, None), limit)
    np.testing.assert_array_equal(out, x * y[:, None])


@pytest.mark.parametrize("limit", [0, 1, 2, 4, 6, 100])
def test_a_carry_passes_through_all_parts_in_order(limit):
    def add(total, part):
        sums = total + jnp.cumsum(part)
        return sums[-1], {"sums": sums}

    total, out = fold_chunks(add, jnp.float32(1), jnp.arange(6.0), limit)
    np.testing.assert_array_equal(out["sums"], 1 + np.cumsum(np.arange(6.0)))
    assert total == 16


def test_no_more_than_the_limit_at_a_time():
    seen = []
    map_chunks(lambda x: seen.append(x.shape[0]) or x, jnp.zeros((7 * 6, 3)), 8)
    assert set(seen) == {7}


def test_a_whole_batch_needs_no_loop():
    assert "scan" not in str(jax.make_jaxpr(lambda x: map_chunks(jnp.sin, x, 4))(jnp.zeros((4, 2))))


@pytest.mark.parametrize(("number", "limit", "divisor"), [(12, 5, 4), (12, 0, 1), (12, 100, 12), (7, 6, 1)])
def test_largest_divisor(number, limit, divisor):
    assert largest_divisor(number, limit) == divisor


def test_largest_divisor_of_what_is_not_known_yet_divides_whatever_it_will_be():
    rows, columns = jax.export.symbolic_shape("rows, columns")
    assert largest_divisor(8 * rows, 100) == 8
    assert largest_divisor(8 * rows, 7) == 4
    assert largest_divisor(rows, 7) == 1
    assert largest_divisor(12, 100 // columns) == 1


def test_a_platform_to_trace_for_stands_in_for_the_one_that_is_here():
    assert on_cpu(1, 2) == (1 if jax.default_backend() == "cpu" else 2)
    with traced_for("cuda"):
        assert on_cpu(1, 2) == 2
        with traced_for("cpu"):
            assert on_cpu(1, 2) == 1
    assert on_cpu(1, 2) == (1 if jax.default_backend() == "cpu" else 2)
