"""What of the network can be chosen."""

import dataclasses
from typing import Literal, TypeAlias, get_args

from msitf_jax.ops.resize import BASES, Base

Interpolation: TypeAlias = Literal["first", "mean", "both"]
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)
Alignment: TypeAlias = Literal["pcd", "flow"]
ALIGNMENTS: tuple[Alignment, ...] = get_args(Alignment)
Trunk: TypeAlias = Literal["swin", "conv"]
TRUNKS: tuple[Trunk, ...] = get_args(Trunk)
Upsampling: TypeAlias = Literal["two_steps", "one_step"]
UPSAMPLINGS: tuple[Upsampling, ...] = get_args(Upsampling)

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
        it); "bicubic", which is sharper and, unlike it, true to the outputs' times; or "flow", bicubic with frames
        between that are moved along the optical flow.
      interpolation: what is sampled for the frame between two neighbors: "first" (published weights need it)
        is the earlier one's features, "mean" the average of both, "both" each of them with offsets of its own.
      alignment: how features of different times are brought together: "pcd" (published weights need it) is the pyramid
        of deformable convolutions and the ConvLSTM, see `msitf_jax.model.alignment`; "flow" moves them along the
        optical flow as learned offsets correct it, see `msitf_jax.model.flow`. It needs `base="flow"`, and
        `interpolation` says nothing then.
      propagation_blocks: residual blocks of each step of the recurrence along the flow.
      interpolation_blocks: residual blocks of the frames between, along the flow.
      trunk: "swin" (published weights need it), window attention; or "conv", `trunk_groups * trunk_blocks` residual
        blocks of 3x3 convolutions.
      upsampling: "two_steps" (published weights need it), sub-pixel convolutions by 2 and 2 and convolutions at full
        size; or "one_step", one sub-pixel convolution by 4.
      context: attention over time before the trunk (published weights need it).

    Raises:
      ValueError: a field that is out of range or does not divide the channels, fields that exclude each other, or more
        than `MOST_BLOCKS` blocks.
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

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and (not isinstance(value, int) or value < 1):
                raise ValueError(f"`{field.name}` (={value!r}) must be an int of at least 1")
        used = {
            "offset_groups": True,
            "temporal_heads": self.context,
            "window_heads": self.trunk == "swin",
        }
        for name in used:
            if used[name] and self.channels % getattr(self, name):
                raise ValueError(
                    f"`channels` (={self.channels}) must be divisible by `{name}` (={getattr(self, name)})"
                )
        blocks = self.residual_blocks + self.propagation_blocks + self.interpolation_blocks
        blocks += self.trunk_groups * self.trunk_blocks
        if blocks > MOST_BLOCKS:
            raise ValueError(
                f"`residual_blocks` (={self.residual_blocks}) + `propagation_blocks` (={self.propagation_blocks}) + "
                f"`interpolation_blocks` (={self.interpolation_blocks}) + `trunk_groups` (={self.trunk_groups}) * "
                f"`trunk_blocks` (={self.trunk_blocks}) must be at most {MOST_BLOCKS}"
            )
        if not 0 <= self.stochastic_depth < 1:
            raise ValueError(f"`stochastic_depth` (={self.stochastic_depth!r}) must be at least 0 and below 1")
        fields = {
            "base": BASES,
            "interpolation": INTERPOLATIONS,
            "alignment": ALIGNMENTS,
            "trunk": TRUNKS,
            "upsampling": UPSAMPLINGS,
        }
        for name, choices in fields.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"`{name}` (={getattr(self, name)!r}) must be one of {', '.join(choices)}")
        if not isinstance(self.context, bool):
            raise ValueError(f"`context` (={self.context!r}) must be True or False")
        if self.alignment != "pcd" and self.base != "flow":
            raise ValueError(f"`base` (={self.base!r}) must be flow with `alignment` {self.alignment!r}")
