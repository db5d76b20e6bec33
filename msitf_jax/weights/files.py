"""Weight files: safetensors with the published names and a description, and published `.pth` files.

A safetensors file of ours holds the trained tensors under their published names and in PyTorch's layout (float32,
OIHW), so other tools can read it, and in its metadata the configuration, a SHA-256 of the tensors, by which damage is
found, the tile margin (see `margin`), and what else `save` was told. `.pth` files are read with `weights_only=True`:
nothing in them is executed.
"""

import dataclasses
import hashlib
import json
import pathlib
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping

import numpy as np
import safetensors
import safetensors.numpy

from msitf_jax import atomic
from msitf_jax.atomic import FilePath
from msitf_jax.model.config import MSITFConfig
from msitf_jax.model.msitf import MSITF
from msitf_jax.weights import margin, pretrained
from msitf_jax.weights.torch_format import from_torch, infer_config, published_parameters, to_torch

_TORCH_SUFFIXES = (".pth", ".pt")
_OWN_METADATA = {"config": "the model's own configuration", "sha256": "the tensors' own digest"}


def find(name_or_path: FilePath) -> pathlib.Path:
    """The file of weights that are given by a name, such as "msitf-small" (see `pretrained`), or by their path.

    Raises:
      ValueError: no such file, or one of the package's own that is damaged.
    """
    if str(name_or_path) in pretrained.SHA256:
        return pretrained.find(str(name_or_path))
    path = pathlib.Path(name_or_path)
    if not path.is_file():
        raise ValueError(
            f"weights {path}: no such file, and no such name, expected one of {', '.join(pretrained.SHA256)}"
        )
    return path


def load(name_or_path: FilePath) -> MSITF:
    """Reads a model from a `.safetensors` file of `save`, or from a published `.pth` file (needs PyTorch).

    Args:
      name_or_path: see `find`; the file's ending decides how it is read.

    Returns:
      `MSITF` with the file's weights, float32.

    Raises:
      ValueError: no such file, another ending, no checkpoint, truncated, damaged, executable pickle code, or tensors
        that do not fit; one message that names the file.
    """
    path = find(name_or_path)
    if path.suffix == ".safetensors":
        tensors, metadata = _read_safetensors(path)
        if metadata.get("sha256") not in (None, _digest(tensors)):
            raise ValueError(f"weights {path}: damaged, its tensors are not those that were saved")
        config = _config(path, metadata)
    elif path.suffix in _TORCH_SUFFIXES:
        tensors, config = _read_torch(path), None
    else:
        raise ValueError(f"weights {path}: expected a file that ends in .safetensors, .pth or .pt")
    try:
        return from_torch(tensors, config)
    except ValueError as error:
        raise ValueError(f"weights {path}: {error}") from None


def read_metadata(name_or_path: FilePath) -> dict[str, str]:
    """What `save` noted in a safetensors file: `{name: string}`; empty for a `.pth` file, which has no such place.

    Raises:
      ValueError: no such file, not a safetensors file, or a `tile_margin` that is none.
    """
    path = find(name_or_path)
    return _read_safetensors(path, only_metadata=True)[1] if path.suffix == ".safetensors" else {}


def tile_margin(name_or_path: FilePath) -> int:
    """Input pixels beside a cut where tiles differ from the whole frame: what the file says, or `margin.default`.

    Raises:
      ValueError: see `read_metadata`; a configuration that is none.
    """
    metadata = read_metadata(name_or_path)
    if "tile_margin" in metadata:
        return margin.parse(metadata["tile_margin"])
    return margin.default(_config(find(name_or_path), metadata) or MSITFConfig())


def save(model: MSITF, path: FilePath, *, half: bool = False, **metadata: str) -> None:
    """Writes a model's weights as safetensors: to a temporary name first, so a file is there whole or not at all.

    The file says nothing about when, where or by whom it was written: equal weights and metadata are equal bytes.

    Args:
      model: `MSITF`.
      path: ends in `.safetensors`.
      half: round to float16, which takes half the space; `load` gives float32 all the same.
      **metadata: strings to keep, such as `degradation`, `training_step`, `licence`, `tile_margin`; `config` and
        `sha256`, of the tensors, are added.

    Raises:
      ValueError: another ending, metadata that are not strings or are added, a `tile_margin` that is none, or a number
        that float16 can't hold.
      OSError: the file can't be written.
    """
    path = pathlib.Path(path)
    _check_description(path, metadata)
    tensors = published_parameters(model)
    if half:
        tensors = {name: _rounded(path, name, tensor) for name, tensor in tensors.items()}
    config = json.dumps(dataclasses.asdict(model.config), sort_keys=True)
    content = safetensors.numpy.save(tensors, metadata | {"config": config, "sha256": _digest(tensors)})
    atomic.write(path, lambda file: file.write(_with_sorted_header(content)))


def save_torch(model: MSITF, path: FilePath) -> None:
    """Writes a model as a `.pth` state dict that the published network loads strictly; needs PyTorch.

    Raises:
      ValueError: no PyTorch, or a configuration that such a file can't tell: one that `from_torch` would not read back.
      OSError: the file can't be written.
    """
    torch = _import_torch(path)
    tensors = to_torch(model)
    read_back = infer_config(tensors)
    # Nothing but training depends on the stochastic depth.
    lost = dataclasses.replace(model.config, stochastic_depth=read_back.stochastic_depth)
    if read_back != lost:
        raise ValueError(f"weights {path}: a .pth file can't hold {model.config}: it would be read as {read_back}")
    tensors = {name: torch.from_numpy(array) for name, array in tensors.items()}
    atomic.write(path, lambda file: torch.save(tensors, file))


def write(
    model: MSITF,
    metadata: Mapping[str, str],
    path: FilePath,
    *,
    half: bool = False,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Writes a model as `.safetensors` or `.pth`, as the path's ending says.

    A safetensors file gets a tile margin: that of the metadata or notes, or else it is measured, which takes half a
    minute for a small network on two CPU cores.

    Args:
      model: `MSITF`.
      metadata: what is known of the weights, see `save`; a `.pth` file has no place for it.
      path: see `save` and `save_torch`.
      half: see `save`.
      notes: metadata that go before the others.

    Raises:
      ValueError: what `save` and `save_torch` raise; or `half` or `notes` for a `.pth` file.
      OSError: the file can't be written.
    """
    path, notes = pathlib.Path(path), notes or {}
    if path.suffix in _TORCH_SUFFIXES:
        if half or notes:
            raise ValueError(f"weights {path}: half precision and notes are for .safetensors files")
        save_torch(model, path)
        return
    known = {**metadata, **notes}
    _check_description(path, known)  # before measuring
    if "tile_margin" not in known:
        known["tile_margin"] = str(margin.measure(model))
    save(model, path, half=half, **known)


def convert(source: FilePath, target: FilePath, *, half: bool = False, notes: Mapping[str, str] | None = None) -> None:
    """Converts between `.pth` and `.safetensors`, as the target's ending says.

    Args:
      source: see `load`.
      target, half: see `write`.
      notes: metadata to add to the source's, see `save`.

    Raises:
      ValueError: what `load` and `write` raise.
      OSError: the file can't be written.
    """
    kept = {name: note for name, note in read_metadata(source).items() if name not in _OWN_METADATA}
    write(load(source), kept, target, half=half, notes=notes)


def _digest(tensors):
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tensor.shape} ".encode())
        total.update(np.ascontiguousarray(tensor).data)
    return total.hexdigest()


def _with_sorted_header(content):
    """The same safetensors file with its JSON header in sorted order: the library's own order changes by the run."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def _rounded(path, name, tensor):
    with np.errstate(over="ignore"):
        rounded = tensor.astype(np.float16)
    if not np.isfinite(rounded).all():
        raise ValueError(f"weights {path}: {name} holds {np.abs(tensor).max():.3g}, expected at most 65504 for float16")
    return rounded


def _check_description(path, metadata):
    if path.suffix != ".safetensors":
        raise ValueError(f"weights {path}: expected a name that ends in .safetensors")
    for name, value in metadata.items():
        if name in _OWN_METADATA:
            raise ValueError(f"metadata `{name}` is {_OWN_METADATA[name]}, which is added by itself")
        if not isinstance(value, str):
            raise ValueError(f"metadata `{name}` (={value!r}) must be a string")
    _check_margin(path, metadata)


def _check_margin(path, metadata):
    try:
        margin.parse(metadata.get("tile_margin", "0"))
    except ValueError as error:
        raise ValueError(f"weights {path}: {error}") from None


def _read_safetensors(path, only_metadata=False):
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names = [] if only_metadata else file.keys()
            tensors, metadata = {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"weights {path}: not a whole safetensors file ({error})") from None
    except (AttributeError, TypeError):  # bfloat16 and the 8-bit floats, which NumPy lacks
        raise ValueError(f"weights {path}: holds a number type that NumPy lacks, expected float32 or float16") from None
    _check_margin(path, metadata)
    return tensors, metadata


def _config(path, metadata):
    if "config" not in metadata:
        return None
    try:
        return MSITFConfig(**json.loads(metadata["config"]))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"weights {path}: its metadata hold no configuration of this network ({error})") from None


def _import_torch(path):
    try:
        import torch
    except ImportError:
        raise ValueError(f"weights {path}: needs PyTorch, which `pip install 'msitf-jax[convert]'` brings") from None
    return torch


def _check_archive(path):
    """Raises one thing or another for a damaged ZIP archive, and for one that would take more space than the file."""
    if not zipfile.is_zipfile(path):
        return  # PyTorch's older format, which has no checksums
    with zipfile.ZipFile(path) as archive:
        if any(member.file_size > member.compress_size for member in archive.infolist()):
            raise ValueError("compressed, which PyTorch's files are not")
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"{damaged} is damaged")


def _read_torch(path):
    torch = _import_torch(path)
    try:
        # PyTorch also warns of what it then refuses, and asks to be told about it.
        with warnings.catch_warnings(action="ignore"):
            _check_archive(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"weights {path}: not a plain PyTorch state dict, but truncated or a pickle that would run code; "
            "nothing was executed"
        ) from None
    except Exception as error:  # damaged bytes make the reader fail in any way
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"weights {path}: not a whole PyTorch file ({reason})") from None
    if not isinstance(content, dict):
        raise ValueError(f"weights {path}: expected a state dict, names with tensors, found {type(content).__name__}")
    others = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise ValueError(
            f"weights {path}: expected a state dict, names with tensors, found other things in {others[:5]}"
        )
    odd = [
        str(name)
        for name, value in content.items()
        if value.layout != torch.strided
        or value.is_quantized
        or value.is_meta
        or value.is_complex()
        or 0 in value.stride()
    ]
    if odd:
        raise ValueError(f"weights {path}: expected plain dense tensors, found others in {odd[:5]}")
    return content
