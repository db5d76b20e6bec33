"""What of the network can be chosen."""

import dataclasses
from typing import Literal, TypeAlias, get_args

from msitf_jax.ops.resize import BASES, Base

Interpolation: TypeAlias = Literal["first", "mean", "both"]
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)
Alignment: TypeAlias = Literal["pcd", "flow", "deformable_flow"]
Trunk: TypeAlias = Literal["swin", "conv"]
Upsampling: TypeAlias = Literal["two_steps", "one_step"]

MOST_BLOCKS = 1000  # laying out a network of a mistyped or hostile number of them would never end


@dataclasses.dataclass(frozen=True)
class MSITFConfig:
    """The network's dimensions; the defaults are the published ones (5,585,611 parameters).

    Attributes:
      channels: width of every feature map; a multiple of `offset_groups`, `temporal_heads` and `window_heads`.
      residual_blocks: residual blocks of the shallow feature extraction.
      offset_groups: channel groups of a deformable convolution, each with offsets and a mask of its own.
      temporal_heads: heads of the attention over time.
      trunk_groups: residual groups (RSTB) of the trunk.
      trunk_blocks: window-attention blocks in each group, unshifted and shifted in turn.
      window_heads: heads of the window attention.
      mlp_ratio: hidden width of the trunk's MLPs, in multiples of `channels`.
      stochastic_depth: rate of dropping the last trunk block in training; it rises linearly from 0.
      base: the enlarged clip that the network adds to, see `msitf_jax.ops.resize`: "trilinear" (published weights need
        it), or "bicubic", which is sharper and, unlike it, true to the outputs' times.
      interpolation: what is sampled for the frame between two neighbours: "first" (published weights need it)
        is the earlier one's features, "mean" the average of both, "both" each of them with offsets of its own.

    Raises:
      ValueError: a field that is out of range or does not divide the channels, or more than `MOST_BLOCKS` blocks.
    """

    channels: int = 64
    residual_blocks: int = 5
    offset_groups: int = 8
    temporal_heads: int = 8
    trunk_groups: int = 6
    trunk_blocks: int = 2
    window_heads: int = 4
    mlp_ratio: int = 2
    stochastic_depth: float = 0.1
    base: Base = "trilinear"
    interpolation: Interpolation = "first"
    alignment: Alignment = "pcd"
    propagation_blocks: int = 2
    interpolation_blocks: int = 2
    trunk: Trunk = "swin"
    upsampling: Upsampling = "two_steps"
    context: bool = True
    moments: bool = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and (not isinstance(value, int) or value < 1):
                raise ValueError(f"`{field.name}` (={value!r}) must be an int of at least 1")
        for name in ("offset_groups", "temporal_heads", "window_heads"):
            if self.channels % getattr(self, name):
                raise ValueError(
                    f"`channels` (={self.channels}) must be divisible by `{name}` (={getattr(self, name)})"
                )
        blocks = self.residual_blocks + self.trunk_groups * self.trunk_blocks
        if blocks > MOST_BLOCKS:
            raise ValueError(
                f"`residual_blocks` (={self.residual_blocks}) + `trunk_groups` (={self.trunk_groups}) * `trunk_blocks` "
                f"(={self.trunk_blocks}) must be at most {MOST_BLOCKS}"
            )
        if not 0 <= self.stochastic_depth < 1:
            raise ValueError(f"`stochastic_depth` (={self.stochastic_depth!r}) must be at least 0 and below 1")
        for name, choices in (("base", BASES), ("interpolation", INTERPOLATIONS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"`{name}` (={getattr(self, name)!r}) must be one of {', '.join(choices)}")
