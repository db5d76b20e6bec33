"""Strict numerics for every test, and where the golden numbers are."""

import json
import pathlib

import jax
import numpy as np
import pytest
from flax import nnx

from msitf_jax.weights import from_torch
from tests.golden import recipe

GOLDEN = pathlib.Path(__file__).parent / "golden"
# Real video and larger goldens, kept beside the checkout where there is room for them.
SHARED = pathlib.Path(__file__).parents[2] / "shared"

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")


def golden(name):
    """The arrays of a file in tests/golden, or of one in shared/parity; skips where only the latter would have it."""
    for path in (GOLDEN / f"{name}.npz", SHARED / "parity" / f"{name}.npz"):
        if path.exists():
            with np.load(path) as arrays:
                return dict(arrays)
    return pytest.skip(f"needs {name}.npz of the larger goldens")


def shared(path):
    """A path below the folder of shared data; skips where it is absent."""
    return SHARED / path if (SHARED / path).exists() else pytest.skip(f"needs {path} of the shared data")


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
