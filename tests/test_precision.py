"""Which parameters are narrowed, and how far the network's output then is from float32's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from msitf_jax import MSITF
from msitf_jax.model.precision import narrow
from msitf_jax.training.losses import clip_psnr
from tests.conftest import channels_last, golden


def test_kernels_are_narrowed_but_for_those_that_make_attention_logits(golden_model):
    params = nnx.state(golden_model, nnx.Param)
    narrowed = narrow(params, jnp.bfloat16)
    assert jax.tree.structure(narrowed) == jax.tree.structure(params)
    kept = [path for path, leaf in nnx.to_flat_state(narrowed) if leaf.dtype != jnp.bfloat16]
    assert {path[-1] for path in kept} == {"bias", "scale", "q_bias", "v_bias", "logit_scale", "kernel"}
    # 6 groups of 2 blocks.
    kernels = [path[-2] for path in kept if path[-1] == "kernel"]
    assert sorted(kernels) == ["bias_fc1"] * 12 + ["bias_fc2"] * 12
    for path, leaf in nnx.to_flat_state(narrowed):
        assert leaf.dtype == (jnp.float32 if path in kept else jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_to_their_own_type_changes_nothing(golden_model):
    params = nnx.state(golden_model, nnx.Param)
    jax.tree.map(np.testing.assert_array_equal, params, narrow(params, jnp.float32))


@pytest.mark.slow
def test_the_output_in_bfloat16_is_close_to_that_in_float32(golden_model):
    clip = jnp.asarray(channels_last(golden("forward_ragged_13x18_n2")["x"]))
    graph, golden_params = nnx.split(golden_model, nnx.Param)
    fresh = nnx.state(MSITF(rngs=nnx.Rngs(0)), nnx.Param)
    # Without LLVM's optimizations, which take half the time.
    run = jax.jit(
        lambda params, clip: nnx.merge(graph, params)(clip), compiler_options={"xla_backend_optimization_level": 0}
    )
    # Measured: 25.6 and 72.5 dB; 6 dB less is twice the error. The golden weights are rough: they magnify any rounding,
    # the published code's float32 too, about thirtyfold (relative 2e-6, of which 6e-8 is the type's own).
    for params, decibels in ((golden_params, 19.5), (fresh, 66)):
        wide, narrowed = run(params, clip), run(narrow(params, jnp.bfloat16), clip)
        assert narrowed.dtype == jnp.float32
        assert clip_psnr(narrowed, wide).min() > decibels
