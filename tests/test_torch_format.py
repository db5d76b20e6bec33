"""Published checkpoints in and out: bit for bit, and every mismatch named."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from msitf_jax import MSITFConfig
from msitf_jax.weights import from_torch, to_torch
from tests.conftest import GOLDEN
from tests.tiny_network import tiny_network

TINY = MSITFConfig(channels=16, residual_blocks=2, offset_groups=4, trunk_groups=3, window_heads=2, mlp_ratio=3)


@pytest.fixture(scope="module")
def tiny_state():
    return to_torch(tiny_network(TINY))


def test_names_and_shapes_are_the_published_ones(golden_model):
    shapes = {name: list(tensor.shape) for name, tensor in to_torch(golden_model).items()}
    parameters = json.loads((GOLDEN / "reference_shapes.json").read_text())
    buffers = json.loads((GOLDEN / "reference_buffers.json").read_text())
    assert shapes == parameters | buffers


def test_round_trip_is_bit_exact(published_state, golden_model):
    result = to_torch(golden_model)
    for name, tensor in published_state.items():
        assert result[name].dtype == np.float32
        np.testing.assert_array_equal(result[name], tensor, err_msg=name)


def test_round_trip_of_a_model_is_bit_exact(tiny_state):
    model = tiny_network(TINY)
    again = from_torch(tiny_state)
    for a, b in zip(*(jax.tree.leaves(nnx.state(m)) for m in (model, again)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_configuration_is_read_from_the_shapes(tiny_state):
    assert from_torch(tiny_state).config == TINY


def test_that_both_neighbors_are_sampled_is_read_from_the_shapes():
    config = MSITFConfig(**(vars(TINY) | {"interpolation": "both"}))
    assert from_torch(to_torch(tiny_network(config))).config == config


def test_a_configuration_may_be_given(tiny_state):
    config = MSITFConfig(**(vars(TINY) | {"temporal_heads": 2, "interpolation": "mean"}))
    assert from_torch(tiny_state, config).config == config
    with pytest.raises(ValueError, match=r"unexpected: feature_extraction\.1"):
        from_torch(tiny_state, MSITFConfig(**(vars(TINY) | {"residual_blocks": 1})))


def test_data_parallel_prefix_and_missing_buffers_are_accepted(tiny_state):
    prefixed = {f"module.{name}": tensor for name, tensor in tiny_state.items() if "attn_mask" not in name}
    np.testing.assert_array_equal(to_torch(from_torch(prefixed))["HRconv.weight"], tiny_state["HRconv.weight"])


def test_tensors_of_pytorch_are_accepted(tiny_state):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(array) for name, array in tiny_state.items()}
    tensors["conv_first.weight"] = torch.nn.Parameter(tensors["conv_first.weight"].bfloat16())
    result = to_torch(from_torch(tensors))
    expected = tensors["conv_first.weight"].detach().float().numpy()
    np.testing.assert_array_equal(result["conv_first.weight"], expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_checkpoints_are_accepted_with_their_buffers(tiny_state, dtype):
    half = {name: np.asarray(jnp.asarray(tensor, dtype), np.float32) for name, tensor in tiny_state.items()}
    result = to_torch(from_torch(half))
    np.testing.assert_array_equal(result["HRconv.weight"], half["HRconv.weight"])


def test_one_wrong_shape_is_one_line(tiny_state):
    for name in ("conv_first.weight", "recon_trunk.layers.0.residual_group.blocks.0.attn.logit_scale"):
        with pytest.raises(ValueError, match=f"wrong shape: {name}") as error:
            from_torch(tiny_state | {name: np.zeros((3, 3, 3, 3), np.float32)})
        assert len(str(error.value).splitlines()) == 2


def test_odd_values_are_named(tiny_state):
    mask = "recon_trunk.layers.0.residual_group.blocks.1.attn_mask"
    with pytest.raises(ValueError, match=f"not what the network computes: {mask}"):
        from_torch(tiny_state | {mask: np.full_like(tiny_state[mask], np.nan)})
    with pytest.raises(ValueError, match=r"not finite: HRconv\.bias"):
        from_torch(tiny_state | {"HRconv.bias": np.full(16, np.nan, np.float32)})
    with pytest.raises(ValueError, match=r"tensor HRconv\.bias has dtype complex128, expected real numbers"):
        from_torch(tiny_state | {"HRconv.bias": np.zeros(16, complex)})
    with pytest.raises(ValueError, match=r"tensor HRconv\.bias is there twice"):
        from_torch(tiny_state | {"module.HRconv.bias": tiny_state["HRconv.bias"]})


def test_every_mismatch_is_listed_in_one_error(tiny_state):
    state = dict(tiny_state)
    del state["HRconv.bias"], state["attn.proj.weight"]
    state["extra.weight"] = np.zeros((2, 3), np.float32)
    state["conv_last.weight"] = state["conv_last.weight"][:, :8]
    block = "recon_trunk.layers.1.residual_group.blocks.1."
    state[block + "attn_mask"] = np.zeros_like(state[block + "attn_mask"])
    state[block + "attn.relative_position_index"] = np.zeros((4, 4), np.int64)
    with pytest.raises(ValueError, match="do not fit the network") as error:
        from_torch(state)
    assert sorted(line.strip() for line in str(error.value).splitlines()[1:]) == [
        "missing: HRconv.bias [16]",
        "missing: attn.proj.weight [16, 16]",
        f"not what the network computes: {block}attn.relative_position_index",
        f"not what the network computes: {block}attn_mask",
        "unexpected: extra.weight [2, 3]",
        "wrong shape: conv_last.weight is [3, 8, 3, 3], expected [3, 16, 3, 3]",
    ]


def test_a_state_dict_of_something_else_is_one_sentence():
    with pytest.raises(ValueError, match="none of the network's 402 tensors is among the 1 given"):
        from_torch({"fc.weight": np.zeros((2, 2))})
