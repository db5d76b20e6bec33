"""Which parameters are narrowed, and how far the network's output then is from float32's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from msitf_jax.model.precision import at_least_float32, narrow
from msitf_jax.training.losses import clip_psnr
from tests.conftest import channels_last, golden


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("bfloat16", "float32"), ("float16", "float32"), ("float32", "float32"), ("float64", "float64")],
)
def test_at_least_float32(dtype, expected):
    with jax.enable_x64(True):
        assert at_least_float32(jnp.dtype(dtype)) == expected


def test_all_but_what_makes_attention_logits_is_narrowed(golden_model):
    params = nnx.state(golden_model, nnx.Param)
    narrowed = narrow(params, jnp.bfloat16)
    assert jax.tree.structure(narrowed) == jax.tree.structure(params)
    kept = [path for path, leaf in nnx.to_flat_state(narrowed) if leaf.dtype != jnp.bfloat16]
    # 6 groups of 2 blocks: a scale, the first layer's kernel and bias, the second's kernel.
    assert len(kept) == 12 * 4
    assert {".".join(map(str, path[-2:])) for path in kept} == {
        "attn.logit_scale",
        "bias_fc1.kernel",
        "bias_fc1.bias",
        "bias_fc2.kernel",
    }
    for path, leaf in nnx.to_flat_state(narrowed):
        assert leaf.dtype == (jnp.float32 if path in kept else jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_to_their_own_type_changes_nothing(golden_model):
    params = nnx.state(golden_model, nnx.Param)
    jax.tree.map(np.testing.assert_array_equal, params, narrow(params, jnp.float32))


def test_the_output_in_bfloat16_is_close_to_that_in_float32(golden_model, forward):
    graph, params = nnx.split(golden_model, nnx.Param)
    clip = jnp.asarray(channels_last(golden("forward_ragged_13x18_n2")["x"]))
    narrowed = narrow(params, jnp.bfloat16)
    with jax.numpy_dtype_promotion("standard"):  # Flax's LayerNorm promotes them with float32
        out = jax.jit(lambda params, clip: nnx.merge(graph, params)(clip))(narrowed, clip)
    assert out.dtype == jnp.float32
    print(clip_psnr(out, forward(clip)))
