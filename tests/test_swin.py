"""Windows, shift masks, position tables and stochastic depth, against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from msitf_jax.model import swin
from msitf_jax.model.config import MSITFConfig
from tests.conftest import randomised

TINY = MSITFConfig(channels=8, offset_groups=2, trunk_groups=2, residual_blocks=1)


def test_relative_coordinates_are_log_spaced():
    table = swin.relative_coordinates().reshape(15, 15, 2)
    np.testing.assert_allclose(table[0, 7], [-np.log2(9) / 3, 0])
    np.testing.assert_allclose(table[7, 8], [0, np.log2(8 / 7 + 1) / 3])


def test_relative_index_counts_query_minus_key():
    index = swin.relative_index()
    # Query in row 2, column 3; key in row 5, column 1.
    assert index[2 * 8 + 3, 5 * 8 + 1] == (2 - 5 + 7) * 15 + (3 - 1 + 7)


def test_windows_round_trip_and_order():
    x = jnp.arange(2 * 8 * 16 * 1.0).reshape(2, 8, 16, 1)
    windows = swin.to_windows(x)
    assert windows.shape == (4, 64, 1)
    np.testing.assert_array_equal(windows[1, :9, 0], [8, 9, 10, 11, 12, 13, 14, 15, 24])
    np.testing.assert_array_equal(swin.from_windows(windows, 16), x)


@pytest.mark.parametrize("size", [(8, 8), (16, 24)])
def test_shift_mask_separates_what_the_roll_brought_together(size):
    height, width = size
    rows = (np.arange(height) + swin.SHIFT) % height
    columns = (np.arange(width) + swin.SHIFT) % width
    mask = swin.shift_mask(swin.shift_regions(height, width))
    for row, column in np.ndindex(height // 8, width // 8):
        # Where each token of this window stood; neighbors within the frame are less than 8 apart.
        y = np.repeat(rows[8 * row : 8 * row + 8], 8)
        x = np.tile(columns[8 * column : 8 * column + 8], 8)
        apart = (np.abs(y[:, None] - y) >= 8) | (np.abs(x[:, None] - x) >= 8)
        # A window of the full size of the frame holds pixels from both its halves.
        if height == 8:
            apart |= (y[:, None] < 4) != (y < 4)
        if width == 8:
            apart |= (x[:, None] < 4) != (x < 4)
        np.testing.assert_array_equal(mask[row, column], np.where(apart, -100, 0))


def attention(module, windows, mask):
    """Swin V2's window attention in float64, head by head."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), nnx.to_pure_dict(nnx.state(module)))
    count, tokens, channels = windows.shape
    bias = np.concatenate([p["q_bias"], np.zeros(channels), p["v_bias"]])
    qkv = (windows @ p["qkv"]["kernel"] + bias).reshape(count, tokens, 3, module.heads, -1)
    table = np.maximum(swin.relative_coordinates() @ p["bias_fc1"]["kernel"] + p["bias_fc1"]["bias"], 0)
    table = 16 / (1 + np.exp(-(table @ p["bias_fc2"]["kernel"])))
    out = np.zeros((count, tokens, module.heads, channels // module.heads))
    for w, h in np.ndindex(count, module.heads):
        q, k, v = (qkv[w, :, part, h] for part in range(3))
        cosine = (q / np.linalg.norm(q, axis=1, keepdims=True)) @ (k / np.linalg.norm(k, axis=1, keepdims=True)).T
        logits = cosine * np.exp(min(p["logit_scale"][h], np.log(100))) + table[swin.relative_index(), h] + mask[w]
        weights = np.exp(logits - logits.max(1, keepdims=True))
        out[w, :, h] = weights / weights.sum(1, keepdims=True) @ v
    return out.reshape(windows.shape) @ p["proj"]["kernel"] + p["proj"]["bias"]


def test_window_attention_against_its_definition():
    module = randomised(lambda: swin.WindowAttention(8, 2, rngs=nnx.Rngs(0)), 0.5)
    # The second is beyond its bound.
    module.logit_scale[...] = jnp.array([1.5, 6.0])
    windows = jax.random.normal(jax.random.key(1), (4, 64, 8))
    regions = swin.shift_regions(16, 16).reshape(4, 64)
    result = module(windows, jnp.asarray(regions))
    reference = attention(module, np.asarray(windows, np.float64), np.asarray(swin.shift_mask(regions)))
    # Logits of up to 116 carry float32 errors of 8e-6, and as much goes into the weights.
    np.testing.assert_allclose(result, reference, rtol=0, atol=5e-5)


def test_unit_length_of_zero_is_zero_and_has_a_gradient():
    assert not np.any(swin.unit_length(jnp.zeros((2, 4))))
    gradient = jax.grad(lambda x: swin.unit_length(x).sum())(jnp.zeros((2, 4)))
    assert np.all(np.isfinite(gradient))


def test_strips_see_their_own_regions_and_survival(monkeypatch):
    trunk = randomised(lambda: swin.SwinTrunk(TINY, rngs=nnx.Rngs(0)), 0.2)
    x = jax.random.normal(jax.random.key(0), (3, 24, 16, 8))
    survival = jax.random.uniform(jax.random.key(1), (3, 2, 2, 2))
    whole = trunk(x, survival)
    monkeypatch.setattr(swin, "STRIP_PIXELS", 8 * 16)
    np.testing.assert_allclose(trunk(x, survival), whole, rtol=0, atol=1e-5 * np.abs(whole).max())


def test_each_group_block_and_branch_has_its_own_survival():
    trunk = randomised(lambda: swin.SwinTrunk(TINY, rngs=nnx.Rngs(0)), 0.2)
    x = jax.random.normal(jax.random.key(0), (1, 8, 8, 8))
    outputs = [trunk(x, jnp.ones((1, 2, 2, 2)).at[0, g, b, i].set(0.0)) for g, b, i in np.ndindex(2, 2, 2)]
    outputs.append(trunk(x))
    for i, one in enumerate(outputs):
        assert all(np.abs(one - other).max() > 1e-3 for other in outputs[:i])


def test_stochastic_depth_rates_rise_to_the_configured_one():
    trunk = swin.SwinTrunk(MSITFConfig(stochastic_depth=0.5, channels=8, offset_groups=2), rngs=nnx.Rngs(0))
    survival = trunk.draw_survival(20_000, jax.random.key(0), jnp.float32).reshape(-1, 12, 2)
    rates = np.linspace(0, 0.5, 12)
    np.testing.assert_allclose((survival == 0).mean((0, 2)), rates, atol=0.01)
    np.testing.assert_allclose(survival.max((0, 2)), 1 / (1 - rates), rtol=1e-6)
    # The two branches of a block are drawn apart.
    assert (survival[:, -1, 0] != survival[:, -1, 1]).mean() == pytest.approx(0.5, abs=0.02)


def test_a_dropped_branch_adds_nothing():
    block = randomised(lambda: swin.SwinBlock(8, 2, 2, shifted=False, rngs=nnx.Rngs(0)), 0.5)
    x = jnp.broadcast_to(jax.random.normal(jax.random.key(0), (1, 8, 16, 8)), (4, 8, 16, 8))
    attended = block.norm1(swin.from_windows(block.attn(swin.to_windows(x)), 16))[0]

    def mlp(x):
        return block.norm2(block.fc2(jax.nn.gelu(block.fc1(x), approximate=False)))

    out = block(x, jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]))
    x = x[0]
    for result, expected in zip(out, (x, x + attended, x + 2 * mlp(x), block(x[None], None)[0]), strict=True):
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)
