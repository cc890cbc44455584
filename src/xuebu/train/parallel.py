"""The one place that knows about other processes. This version trains in one; the loop already asks here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from xuebu.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class World:
    """Which process this is, of how many."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes history and checkpoints."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return the items that fall to this process; the shares of all processes together are the items."""
        return items[self.rank :: self.size]

    def sum_in_place(self, tensors: Sequence[Tensor]) -> None:
        """Add up gradients or counts over all processes; alone, they are the sums already."""


def join_world() -> World:
    """Return this process's place.

    Raises:
        ConfigError: a launcher started several processes, which this version cannot use.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1:
        raise ConfigError(f"started as one of {size} processes (WORLD_SIZE), but this version trains in one; start one")
    return World()
