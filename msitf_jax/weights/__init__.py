"""Weights in files: ours (safetensors) and the published network's (.pth)."""

from msitf_jax.weights.files import convert, find, load, read_metadata, save, tile_margin, write
from msitf_jax.weights.torch_format import from_torch, to_torch

__all__ = ["convert", "find", "from_torch", "load", "read_metadata", "save", "tile_margin", "to_torch", "write"]
