"""Weights that come with the package, known by name; what they are good for: MODEL_CARD.md."""

import hashlib
import pathlib

SHA256 = {
    "msitf-small": "b7c34f2bb6084b0c6b5f212138e047ceec81d1fce858d89c8916de37d7492286",
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
