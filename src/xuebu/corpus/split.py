"""Which side of the held-out split a group falls on: a fact of its name, before anything looks at the text."""

from __future__ import annotations

from xuebu.rng import key_of

# Never change: it would move every group of every corpus to another side.
_NAME = "xuebu held-out split"


def group_place(group: str) -> float:
    """Return where a group stands in [0, 1], evenly spread over groups; a function of its name alone.

    No seed enters: all runs hold out the same text, whatever their seed, so their figures can be compared; and a group
    held out at one fraction is held out at every larger one.
    """
    return key_of(_NAME, group) / 2**64


def is_held_out(group: str, fraction: float) -> bool:
    """Return whether a group is held out when this fraction (0 to 1) of the groups is."""
    return group_place(group) < fraction
