"""Space-time video super-resolution in JAX: four times the size and twice the frame rate, in one network."""

from typing import TYPE_CHECKING

from msitf_jax.model.config import MSITFConfig
from msitf_jax.model.msitf import MSITF

if TYPE_CHECKING:
    from msitf_jax.video.upscaler import Upscaler, upscale

__all__ = ["MSITF", "MSITFConfig", "Upscaler", "upscale"]


def __getattr__(name: str) -> object:
    # Only when asked for: it brings FFmpeg and scene detection, which the network needs not.
    if name in ("Upscaler", "upscale"):
        from msitf_jax.video import upscaler

        return getattr(upscaler, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
