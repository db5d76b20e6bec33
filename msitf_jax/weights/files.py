"""Weight files: safetensors with the published names and a description, and published `.pth` files.

A safetensors file of ours holds the trained tensors under their published names and in PyTorch's layout (float32,
OIHW), so other tools can read it, and in its metadata the configuration and what else `save` was told. `.pth` files are
read with `weights_only=True`: nothing in them is executed.
"""

import dataclasses
import json
import os
import pathlib
import pickle
import struct
import tempfile
import warnings
import zipfile

import safetensors
import safetensors.numpy

from msitf_jax.model.config import MSITFConfig
from msitf_jax.weights.torch_format import from_torch, published_parameters, to_torch

_TORCH_SUFFIXES = (".pth", ".pt")


def load(path):
    """Reads a model from a `.safetensors` file of `save`, or from a published `.pth` file (needs PyTorch).

    Args:
      path: the file; the ending decides how it is read.

    Returns:
      `MSITF` with the file's weights, float32.

    Raises:
      ValueError: no such file, another ending, no checkpoint, truncated, executable pickle code, or tensors that do not
        fit; one message that names the file.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"weights {path}: no such file")
    if path.suffix == ".safetensors":
        tensors, metadata = _read_safetensors(path)
        config = _config(path, metadata)
    elif path.suffix in _TORCH_SUFFIXES:
        tensors, config = _read_torch(path), None
    else:
        raise ValueError(f"weights {path}: expected a file that ends in .safetensors, .pth or .pt")
    try:
        return from_torch(tensors, config)
    except ValueError as error:
        raise ValueError(f"weights {path}: {error}") from None


def read_metadata(path):
    """What `save` noted in a safetensors file: `{name: string}`; empty for a `.pth` file, which has no such place."""
    path = pathlib.Path(path)
    return _read_safetensors(path)[1] if path.suffix == ".safetensors" else {}


def save(model, path, **metadata):
    """Writes a model's weights as safetensors: to a temporary name first, so a file is there whole or not at all.

    The file says nothing about when, where or by whom it was written: equal weights and metadata are equal bytes.

    Args:
      model: `MSITF`.
      path: ends in `.safetensors`.
      **metadata: strings to keep, such as `degradation`, `training_step`, `licence`; the configuration is added.

    Raises:
      ValueError: another ending, or metadata that are not strings.
    """
    path = pathlib.Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"weights {path}: expected a name that ends in .safetensors")
    for name, value in metadata.items():
        if not isinstance(value, str):
            raise ValueError(f"metadata `{name}` (={value!r}) must be a string")
    metadata["config"] = json.dumps(dataclasses.asdict(model.config), sort_keys=True)
    content = safetensors.numpy.save(published_parameters(model), metadata)
    _write(path, lambda file: file.write(_with_sorted_header(content)))


def save_torch(model, path):
    """Writes a model as a `.pth` state dict that the published network loads strictly; needs PyTorch."""
    torch = _import_torch(path)
    tensors = {name: torch.from_numpy(array) for name, array in to_torch(model).items()}
    _write(pathlib.Path(path), lambda file: torch.save(tensors, file))


def convert(source, target):
    """Converts between `.pth` and `.safetensors`, as the endings say; raises what `load` and `save` raise."""
    model = load(source)
    if pathlib.Path(target).suffix in _TORCH_SUFFIXES:
        save_torch(model, target)
    else:
        save(model, target, **{k: v for k, v in read_metadata(source).items() if k != "config"})


def _write(path, write):
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _with_sorted_header(content):
    """The same safetensors file with its JSON header in sorted order: the library's own order changes by the run."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def _read_safetensors(path):
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"weights {path}: not a whole safetensors file ({error})") from None


def _config(path, metadata):
    if "config" not in metadata:
        return None
    try:
        return MSITFConfig(**json.loads(metadata["config"]))
    except (ValueError, TypeError) as error:
        raise ValueError(f"weights {path}: its metadata hold no configuration of this network ({error})") from None


def _import_torch(path):
    try:
        import torch
    except ImportError:
        raise ValueError(f"weights {path}: needs PyTorch, which `pip install 'msitf-jax[convert]'` brings") from None
    return torch


def _read_torch(path):
    torch = _import_torch(path)
    try:
        # PyTorch also warns of what it then refuses, and asks to be told about it.
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"weights {path}: not a plain PyTorch state dict, but truncated or a pickle that would run code; "
            "nothing was executed"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"weights {path}: not a whole PyTorch file ({reason})") from None
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ValueError(
            f"weights {path}: expected a state dict, names with tensors, and found {type(content).__name__}"
        )
    return content
