"""The recurrence and the attention over time."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend.core import jaxprs_in_params

from msitf_jax.model.temporal import BidirectionalFusion, TemporalAttention
from tests.conftest import randomised


def test_attention_over_time_against_its_definition():
    # At this size a jitted scaled sum of products was miscompiled by XLA's CPU backend; small clips do not show it.
    attention = TemporalAttention(64, 8, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (1, 7, 32, 32, 64))
    result = jax.jit(attention)(x)
    qkv = np.asarray(x, np.float64) @ np.asarray(attention.qkv.kernel[...], np.float64) + np.asarray(
        attention.qkv.bias[...]
    )
    q, k, v = np.moveaxis(qkv.reshape(1, 7, 32, 32, 3, 8, 8), 4, 0)
    logits = np.einsum("bthwnd,bshwnd->bhwnts", q, k) / np.sqrt(8)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    context = np.einsum("bhwnts,bshwnd->bthwnd", weights, v).reshape(x.shape)
    reference = context @ np.asarray(attention.proj.kernel[...], np.float64) + np.asarray(attention.proj.bias[...])
    np.testing.assert_allclose(result, reference, rtol=0, atol=2e-6)


def fusion():
    # Untrained offsets are zero, and the state only steers offsets.
    return randomised(lambda: BidirectionalFusion(8, 2, rngs=nnx.Rngs(0)), 0.1)


def test_directions_equal_a_loop_over_each():
    module = fusion()
    features = jax.random.normal(jax.random.key(0), (2, 3, 8, 8, 8))

    cell = nnx.jit(lambda cell, x, state: cell(cell.prepare(x), state))

    def run(times):
        state, hidden = (jnp.zeros((2, 8, 8, 8)),) * 2, {}
        for t in times:
            state = cell(module.cell, features[:, t], state)
            hidden[t] = state[0]
        return hidden

    forward, backward = run((0, 1, 2)), run((2, 1, 0))
    result = nnx.jit(lambda module, x: module(x))(module, features)
    for t in range(3):
        np.testing.assert_allclose(result[:, t], module.merge(forward[t], backward[t]), rtol=0, atol=1e-6)
    # The state matters: the same frame with nothing before or after it fares differently.
    alone = cell(module.cell, features[:, 1], (jnp.zeros((2, 8, 8, 8)),) * 2)[0]
    assert np.abs(alone - forward[1]).max() > 1e-3


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from _equations(inner)


def test_one_scan_takes_both_directions_and_only_what_needs_the_state():
    module, features = fusion(), jnp.zeros((1, 5, 8, 8, 8))
    (scan,) = (e for e in jax.make_jaxpr(module)(features).eqns if e.primitive.name == "scan")
    assert scan.params["length"] == 5
    counts = collections.Counter()
    for equation in _equations(scan.params["jaxpr"].jaxpr):
        kind, shape = equation.primitive.name, equation.outvars[0].aval.shape
        counts[kind] += 1
        assert kind != "conv_general_dilated" or shape[0] == 2
    # Per alignment: 4 of the state's pyramid, 3 halves of offset convolutions, 1 + 2 + 2 further offset convolutions,
    # 3 pairs for offsets and masks, 2 feature convolutions; and the gates.
    assert counts["conv_general_dilated"] == 2 * (4 + 3 + 5 + 6 + 2) + 1
    # Per alignment: 3 deformable convolutions, each in two halves, and a 1x1 fusion.
    assert counts["dot_general"] == 2 * (3 * 2 + 1)
