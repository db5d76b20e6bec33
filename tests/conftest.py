"""Strict numerics for every test, compiled programs for all of them, and where the golden numbers are."""

import json
import os
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from msitf_jax.weights import from_torch
from tests.golden import recipe

GOLDEN = pathlib.Path(__file__).parent / "golden"
# Real video and larger goldens, kept beside the checkout where there is room for them.
LARGE_GOLDENS = ("activations_tall_24x16",)
SHARED = pathlib.Path(__file__).parents[2] / "shared"

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")


def pytest_configure(config):
    """Keeps what is compiled until the tests end, for all processes that run them or that they start.

    Untrained weights alone are eighty programs, compiled again for every way of promoting types.
    """
    if not hasattr(config, "workerinput"):
        folder = tempfile.TemporaryDirectory(prefix="compiled")
        config.add_cleanup(folder.cleanup)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def golden(name):
    """The arrays of a file in tests/golden, or of a larger one among the shared data, which may be absent."""
    path = shared(f"parity/{name}.npz") if name in LARGE_GOLDENS else GOLDEN / f"{name}.npz"
    with np.load(path) as arrays:
        return dict(arrays)


def shared(path):
    """A path below the folder of shared data; skips where it is absent."""
    return SHARED / path if (SHARED / path).exists() else pytest.skip(f"needs {path} of the shared data")


def randomised(make, scale, seed=0):
    """What `make()` gives, a module, with normal numbers as parameters: none is zero or uniform as at the start.

    Nothing is compiled for it, whereas drawing weights as the network does takes eighty programs and ten seconds.
    """
    module, rng = nnx.eval_shape(make), np.random.default_rng(seed)
    state = nnx.state(module, nnx.Param)
    nnx.update(module, jax.tree.map(lambda a: jnp.asarray(scale * rng.standard_normal(a.shape, np.float32)), state))
    return module


def channels_last(clip):
    """`[B, N, C, H, W]` -> `[B, N, H, W, C]`."""
    return np.moveaxis(clip, 2, -1)


def relative_error(value, reference):
    """|value - reference| / |reference|, Euclidean."""
    value, reference = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    return np.linalg.norm(value - reference) / np.linalg.norm(reference)


@pytest.fixture(scope="session")
def published_state():
    """The state dict of the published network with the recipe's weights."""
    return recipe.state_dict(json.loads((GOLDEN / "reference_shapes.json").read_text()))


@pytest.fixture(scope="session")
def golden_model(published_state):
    """The published network with the recipe's weights."""
    return from_torch(published_state)


@pytest.fixture(scope="session")
def forward(golden_model):
    """`clip -> output` of the golden model, compiled."""
    graph, state = nnx.split(golden_model)
    compiled = jax.jit(lambda state, clip: nnx.merge(graph, state)(clip))
    return lambda clip: compiled(state, clip)
