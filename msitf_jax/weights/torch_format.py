"""The published PyTorch checkpoint format: its names and layouts, and ours.

Layouts: convolutions OIHW <-> HWIO, linears [out, in] <-> [in, out]. The two convolutions before a pixel shuffle count
their output channels (c, i, j) there and (i, j, c) here. PyTorch is never imported: tensors come and go as NumPy
arrays.
"""

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx

from msitf_jax.model.alignment import TAPS
from msitf_jax.model.config import MSITFConfig
from msitf_jax.model.msitf import MSITF
from msitf_jax.model.swin import WINDOW, relative_coordinates, relative_index, shift_mask, shift_regions

# From our parameter paths to published names; all are applied, in this order.
_RENAMES = (
    (r"\.(kernel|scale)$", ".weight"),
    (r"\balign\.l(\d)\.deform", r"pcd_align.L\1_dcnpack_1"),
    (r"\balign\.l(\d)\.(\w+)", r"pcd_align.L\1_\2_1"),
    (r"\bpyramid\.l(\d)", r"fea_L\1"),
    (r"^temporal_fusion\.cell\.gates", "ConvBLSTM.forward_net.cell_list.0.conv"),
    (r"^temporal_fusion\.cell\.align_", "ConvBLSTM.forward_net.pcd_"),
    (r"^temporal_fusion\.merge", "ConvBLSTM.conv_1x1"),
    (r"^context", "attn"),
    (r"^trunk", "recon_trunk"),
    (r"\bgroups\b", "layers"),
    (r"\bblocks\b", "residual_group.blocks"),
    (r"\bembed_norm", "patch_embed.norm"),
    (r"\bembed\b", "patch_embed.proj"),
    (r"\bbias_fc1", "cpb_mlp.0"),
    (r"\bbias_fc2", "cpb_mlp.2"),
    (r"\bfc(\d)", r"mlp.fc\1"),
    (r"^reconstruction\.(conv_hr)?", lambda match: "HRconv" if match[1] else ""),
)
_SHUFFLED = ("upconv1", "upconv2")
# The published network builds its shift masks for frames of this size and others when it meets them.
_MASK_SIZE = 32
_BUFFER_TOLERANCE = 1e-5


def published_name(path: Iterable[Hashable]) -> str:
    """Our parameter path, a tuple -> the published name: `("conv_first", "kernel")` -> `"conv_first.weight"`."""
    name = ".".join(map(str, path))
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _to_published_layout(name, array):
    if name.startswith(_SHUFFLED):
        array = array.reshape(*array.shape[:-1], 4, -1).swapaxes(-1, -2).reshape(array.shape)
    if name.endswith("logit_scale"):
        return array[:, None, None]
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def _from_published_layout(name, array):
    if name.endswith("logit_scale"):
        return array[:, 0, 0]
    array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    if name.startswith(_SHUFFLED):
        array = array.reshape(*array.shape[:-1], -1, 4).swapaxes(-1, -2).reshape(array.shape)
    return array


def published_parameters(model: MSITF) -> dict[str, npt.NDArray[Any]]:
    """The model's trained arrays under their published names and in the published layout, as NumPy arrays."""
    tensors = {}
    for path, parameter in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        name = published_name(path)
        tensors[name] = np.array(_to_published_layout(name, np.asarray(parameter[...])), order="C")
    return tensors


def published_buffers(config: MSITFConfig) -> dict[str, npt.NDArray[Any]]:
    """The arrays that a published state dict carries and nobody trains: position tables, indices and shift masks."""
    side = 2 * WINDOW - 1
    regions = shift_regions(_MASK_SIZE, _MASK_SIZE).reshape(-1, WINDOW**2)
    buffers: dict[str, npt.NDArray[Any]] = {}
    for group in range(config.trunk_groups if config.trunk == "swin" else 0):
        for block in range(config.trunk_blocks):
            prefix = f"recon_trunk.layers.{group}.residual_group.blocks.{block}."
            table = relative_coordinates().reshape(1, side, side, 2)
            buffers[prefix + "attn.relative_coords_table"] = table.astype(np.float32)
            buffers[prefix + "attn.relative_position_index"] = relative_index().astype(np.int64)
            if block % 2 == 1:
                buffers[prefix + "attn_mask"] = np.array(shift_mask(regions), np.float32)
    return buffers


def to_torch(model: MSITF) -> dict[str, npt.NDArray[Any]]:
    """A state dict that the published network loads strictly.

    Returns:
      `{published name: NumPy array}`, trained arrays and buffers; hand each to `torch.from_numpy`.
    """
    return published_parameters(model) | published_buffers(model.config)


def from_torch(state_dict: Mapping[str, Any], config: MSITFConfig | None = None) -> MSITF:
    """Builds a model from a published state dict.

    Args:
      state_dict: `{name: array}`, NumPy arrays or PyTorch tensors, OIHW; names may begin with `module.`. Buffers may be
        missing; those present must hold what the network computes.
      config: `MSITFConfig`; None reads the dimensions from names and shapes. `temporal_heads`, `base`,
        `stochastic_depth` and an `interpolation` of "mean" leave no trace there and are then the published ones.

    Returns:
      `MSITF` with float32 parameters.

    Raises:
      ValueError: one message that lists every missing, unexpected, wrongly shaped, non-finite and (buffers) wrong
        tensor; or values that are no real numbers.
    """
    tensors = {}
    for name, value in state_dict.items():
        name = str(name).removeprefix("module.")
        if name in tensors:
            raise ValueError(f"tensor {name} is there twice, with and without `module.`")
        tensors[name] = _as_array(name, value)
    config = config or infer_config(tensors)
    graph, state = nnx.split(nnx.eval_shape(lambda: MSITF(config, rngs=nnx.Rngs(0))))
    parameters = {published_name(path): (path, value.shape) for path, value in nnx.to_flat_state(state)}
    if not parameters.keys() & tensors.keys():
        raise ValueError(f"none of the network's {len(parameters)} tensors is among the {len(tensors)} given")
    problems = list(_problems(tensors, {name: shape for name, (_, shape) in parameters.items()}, config))
    if problems:
        raise ValueError("these tensors do not fit the network:\n  " + "\n  ".join(problems))
    values = [
        (path, nnx.Param(jnp.asarray(_from_published_layout(name, tensors[name]), jnp.float32)))
        for name, (path, _) in parameters.items()
    ]
    return nnx.merge(graph, nnx.from_flat_state(values))


def _as_array(name, value):
    if hasattr(value, "detach"):  # a PyTorch tensor, perhaps of a type that NumPy lacks (bfloat16) or on a GPU
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"tensor {name} has dtype {array.dtype}, expected real numbers")
    return array


def _problems(tensors, shapes, config):
    """One line for each tensor that keeps `tensors` from filling a network of these parameter shapes (ours)."""
    buffers = published_buffers(config)
    shapes = {name: _to_published_layout(name, np.broadcast_to(0.0, shape)).shape for name, shape in shapes.items()}
    for name in sorted(shapes.keys() - tensors.keys()):
        yield f"missing: {name} {list(shapes[name])}"
    for name, tensor in tensors.items():
        if name in buffers:
            if tensor.shape != buffers[name].shape or not _equal_buffers(tensor, buffers[name]):
                yield f"not what the network computes: {name}"
        elif name not in shapes:
            yield f"unexpected: {name} {list(tensor.shape)}"
        elif tensor.shape != shapes[name]:
            yield f"wrong shape: {name} is {list(tensor.shape)}, expected {list(shapes[name])}"
        elif not np.all(np.isfinite(tensor)):
            yield f"not finite: {name}"


def _equal_buffers(tensor, expected):
    # Half-precision checkpoints round their buffers too: a number below 1 to 8 bits, in bfloat16.
    for precision in (None, np.float16, jnp.bfloat16):
        rounded = expected if precision is None else expected.astype(precision).astype(np.float32)
        if np.abs(tensor - rounded).max() <= _BUFFER_TOLERANCE:
            return True
    return False


def infer_config(tensors: Mapping[str, npt.NDArray[Any]]) -> MSITFConfig:
    """The published configuration with every dimension that the names and shapes of a state dict tell.

    Where tensors disagree the most frequent size counts, so that one of a wrong shape can be named later.
    """

    def count(pattern):
        return max((int(m[1]) + 1 for name in tensors if (m := re.match(pattern, name))), default=None)

    def size(pattern):
        sizes = Counter(len(tensor) for name, tensor in tensors.items() if tensor.ndim and re.fullmatch(pattern, name))
        return sizes.most_common(1)[0][0] if sizes else None

    channels = size(r"(\w+\.)*(conv1|conv2|fusion|conv_1x1|proj|norm\d?)\.bias")
    offsets = size(r".*conv_offset\.bias")
    hidden = size(r".*mlp\.fc1\.bias")
    found = {
        "channels": channels,
        "residual_blocks": count(r"feature_extraction\.(\d+)\."),
        "offset_groups": offsets and offsets // (3 * TAPS),
        "trunk_groups": count(r"recon_trunk\.layers\.(\d+)\."),
        "trunk_blocks": count(r"recon_trunk\.layers\.\d+\.residual_group\.blocks\.(\d+)\."),
        "window_heads": size(r".*logit_scale"),
        "mlp_ratio": hidden and channels and hidden // channels,
    }
    if channels and "fusion.weight" in tensors and tensors["fusion.weight"].shape[1:2] == (2 * channels,):
        found["interpolation"] = "both"
    try:
        return MSITFConfig(**{field: value for field, value in found.items() if value is not None})
    except ValueError:  # no such network: compare with the published one
        return MSITFConfig()
