"""Array operations: deformable convolution and fixed resizes. Nothing here has weights of its own."""

from msitf_jax.ops.deform_conv.api import deform_conv2d

__all__ = ["deform_conv2d"]
