"""Weights that come with the package, known by name; what they are good for: MODEL_CARD.md."""

import hashlib
import pathlib

SHA256 = {
    "msitf-small": "219c02a24fe3d07c23c495692574d1209ecb72264d7b445047039bd314f9fd56",
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
