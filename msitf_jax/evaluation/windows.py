"""Which frames of a clip go through the network together, and which of its outputs count."""

import dataclasses
from typing import Literal, TypeAlias, get_args

Rule: TypeAlias = Literal["published", "all"]
RULES: tuple[Rule, ...] = get_args(Rule)
LENGTH = 7  # output frames of a whole window: 4 frames in, 7 out
STRIDE = LENGTH - 1  # windows share the frame where they meet


@dataclasses.dataclass(frozen=True)
class Window:
    """Consecutive frames of the full-rate clip: every other one is an input, all are outputs.

    Attributes:
      outputs: indices into the full-rate clip.
      scored: those of them that no earlier window holds.
    """

    outputs: range
    scored: range

    @property
    def inputs(self) -> range:
        """Indices into the full-rate clip of the frames that the network is given."""
        return self.outputs[::2]


def windows(frames: int, rule: Rule) -> list[Window]:
    """Cuts a full-rate clip into windows.

    Args:
      frames: how many the clip has. Inputs are frames 0, 2, 4, ...; an even clip's last frame has no later neighbor.
      rule: "published" takes whole windows of 7, every 6 frames, and drops what is left; "all" adds a window that ends
        on the last frame that can be scored, and takes clips of 3 to 6 frames as one short window.

    Returns:
      A list of `Window`, in order; empty if the clip is too short.

    Raises:
      ValueError: an unknown rule.
    """
    if rule not in RULES:
        raise ValueError(f"`rule` (={rule!r}) must be one of {', '.join(RULES)}")
    usable = frames - (frames + 1) % 2
    ranges = [range(start, start + LENGTH) for start in range(0, usable - STRIDE, STRIDE)]
    if rule == "all" and usable >= 3 and (not ranges or ranges[-1].stop < usable):
        ranges.append(range(max(0, usable - LENGTH), usable))
    starts = [0] + [outputs.stop for outputs in ranges]
    return [Window(outputs, range(start, outputs.stop)) for start, outputs in zip(starts, ranges, strict=False)]
