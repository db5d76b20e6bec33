"""What weights are drawn at the start of a training run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from msitf_jax import MSITF, MSITFConfig
from msitf_jax.ops.resize import trilinear_base
from msitf_jax.training import initialization

CONFIG = MSITFConfig(channels=16, residual_blocks=1, trunk_groups=1, offset_groups=2, temporal_heads=2)


@pytest.fixture(scope="module")
def drawn():
    return {name: initialization.draw(CONFIG, initialization=name, seed=3) for name in initialization.INITIALIZATIONS}


def spread(features):
    """Of features over the pixels of a frame, what biases add left out."""
    return float(jnp.std(features.reshape(-1, *features.shape[-3:]), axis=(1, 2)).mean())


def test_published_is_what_the_network_draws_itself(drawn):
    model = MSITF(CONFIG, rngs=nnx.Rngs(3))
    for a, b in zip(*(jax.tree.leaves(nnx.state(m)) for m in (model, drawn["published"])), strict=True):
        np.testing.assert_array_equal(a, b)


def test_he_begins_with_the_base_alone(drawn):
    clip = jax.random.uniform(jax.random.key(0), (1, 2, 8, 8, 3))
    np.testing.assert_array_equal(nnx.jit(MSITF.__call__)(drawn["he"], clip), trilinear_base(clip))


def test_he_keeps_an_image_alive_through_the_network(drawn):
    clip = jax.random.uniform(jax.random.key(0), (1, 3, 16, 16, 3))

    @nnx.jit
    def fused(model, clip):
        return model.temporal_fusion(model.interpolate(model.shallow_features(clip)))

    published, he = (spread(fused(drawn[name], clip)) for name in ("published", "he"))
    assert published < 0.02
    assert 0.1 < he < 1


def test_kernels_have_hes_variance(drawn):
    model = drawn["he"]
    for conv in (model.conv_first, model.temporal_fusion.cell.gates, model.reconstruction.upconv2):
        fan_in = np.prod(conv.kernel.shape[:3])
        assert np.std(conv.kernel[...]) == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
        assert not np.any(conv.bias[...])
    deform = model.align.l1.deform
    assert np.std(deform.kernel[...]) == pytest.approx(2 * (2 / (9 * 16)) ** 0.5, rel=0.1)
