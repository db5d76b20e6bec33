"""Space-time video super-resolution in JAX: four times the size and twice the frame rate, in one network."""

from msitf_jax.model.config import MSITFConfig
from msitf_jax.model.msitf import MSITF

__all__ = ["MSITF", "MSITFConfig"]
