"""Weights that come with the package, known by name; what they are good for: MODEL_CARD.md."""

import hashlib
import pathlib

SHA256 = {
    "msitf-small": "b35a9984f9e8e6047d05d16309a01ef9f90b1de536e0ece29dffb958c55a8cbc",
}


def find(name: str) -> pathlib.Path:
    """The file of weights in the package.

    Args:
      name: a key of `SHA256`.

    Raises:
      ValueError: it is not the file that was published.
    """
    path = pathlib.Path(__file__).parent / f"{name}.safetensors"
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
    if found != SHA256[name]:
        fault = "is damaged" if found else "is missing"
        raise ValueError(f"weights {name}: {path} {fault}, install msitf-jax again")
    return path
