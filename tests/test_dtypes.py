"""Narrow types are widened, others kept."""

import jax
import jax.numpy as jnp
import pytest

from msitf_jax.ops.dtypes import at_least_float32


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("bfloat16", "float32"), ("float16", "float32"), ("float32", "float32"), ("float64", "float64")],
)
def test_at_least_float32(dtype, expected):
    with jax.enable_x64(True):
        assert at_least_float32(jnp.dtype(dtype)) == expected
