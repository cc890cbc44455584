"""Equal keys among the parts of a corpus of any size, found on disk: what repeats what.

Each part writes the keys of its items as a sorted table. The range of all keys is cut into buckets, and a bucket is
read from every table: equal keys lie in one bucket, so buckets are searched one by one, or by many processes at once.
Memory is that of one bucket, some 60 bytes a key.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xuebu.corpus.work import missing
from xuebu.files import naming, write_bytes

UInt64 = npt.NDArray[np.uint64]
UInt32 = npt.NDArray[np.uint32]

BUCKET_KEYS = 1 << 21


def write_table(path: Path, keys: UInt64, values: UInt32, *, sync: bool = False) -> None:
    """Write keys, sorted, with their values: 8 bytes a key, then 4 a value. Equal keys keep their order.

    Args:
        path: of the table.
        keys: uint64[n].
        values: uint32[n].
        sync: whether it must survive a power cut.
    """
    order = np.argsort(keys, kind="stable")
    write_bytes(path, keys[order].astype("<u8").tobytes() + values[order].astype("<u4").tobytes(), sync=sync)


def read_table(path: Path, low: int = 0, high: int = (1 << 64) - 1) -> tuple[UInt64, UInt32]:
    """Return the keys from `low` to `high`, both included, and their values.

    Raises:
        InputError: the table is not there, or not whole.
    """
    with naming(path):
        size = path.stat().st_size if path.exists() else -1
        count = size // 12
        if size < 0 or size % 12:
            raise missing(path)
        if not count:
            return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.uint32)
        keys = np.memmap(path, dtype="<u8", mode="r", shape=(count,))
        values = np.memmap(path, dtype="<u4", mode="r", shape=(count,), offset=8 * count)
    start = int(np.searchsorted(keys, np.uint64(low), side="left"))
    end = int(np.searchsorted(keys, np.uint64(high), side="right"))
    return np.array(keys[start:end]), np.array(values[start:end])


def num_buckets(keys: int) -> int:
    """Return into how many buckets so many keys should be cut; no result depends on it."""
    return keys // BUCKET_KEYS + 1


@dataclass(frozen=True, slots=True)
class Repeats:
    """Items whose key occurred before, in the order of parts.

    Attributes:
        part, place: uint32[n] each: the item.
        rank: uint32[n], how many equal ones come before it, 1 or more.
        crosses: bool[n], whether it is held out and the first of them is in training.
    """

    part: UInt32
    place: UInt32
    rank: UInt32
    crosses: npt.NDArray[np.bool_]

    def write(self, path: Path, *, sync: bool = False) -> None:
        """Write a table for `read_repeats`; see `write_table`."""
        items = self.part.astype(np.uint64) << np.uint64(32) | self.place
        write_table(path, items, self.rank << np.uint32(1) | self.crosses, sync=sync)


def read_repeats(part: int, tables: Iterable[Path]) -> Repeats:
    """Return the repeats of one part, from tables that `Repeats.write` wrote."""
    found = [read_table(path, part << 32, (part + 1 << 32) - 1) for path in tables]
    items = np.concatenate([np.empty(0, dtype=np.uint64), *(each[0] for each in found)])
    values = np.concatenate([np.empty(0, dtype=np.uint32), *(each[1] for each in found)])
    places = (items & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    return Repeats(np.full(len(items), part, np.uint32), places, values >> np.uint32(1), (values & 1).astype(bool))


def find_repeats(training: Sequence[Path], held_out: Sequence[Path], bucket: int, buckets: int) -> tuple[Repeats, int]:
    """Return the repeats in one bucket, and how many different keys it holds.

    What is in training comes before what is held out, wherever it stands in the input: so what a model may have seen is
    never asked of it, and training text does not depend on what is held out with it.

    Args:
        training: tables of (key, place) of the training items, one a part, in order.
        held_out: those of the held-out items.
        bucket: 0 to buckets - 1.
        buckets: into which the range of keys is cut.
    """
    width = -(-(1 << 64) // buckets)
    low, high = bucket * width, min((bucket + 1) * width, 1 << 64) - 1
    found = [[read_table(path, low, high) for path in side] for side in (training, held_out)]
    keys = np.concatenate([np.empty(0, dtype=np.uint64), *(each[0] for side in found for each in side)])
    places = np.concatenate([np.empty(0, dtype=np.uint32), *(each[1] for side in found for each in side)])
    sizes = [len(each[0]) for side in found for each in side]
    parts = np.repeat([number for side in found for number in range(len(side))], sizes).astype(np.uint32)
    is_held_out = np.arange(len(keys)) >= sum(sizes[: len(training)])
    del found
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    is_first = np.ones(len(keys), dtype=bool)
    is_first[1:] = keys[1:] != keys[:-1]
    leaders = np.maximum.accumulate(np.where(is_first, np.arange(len(keys)), 0))
    chosen = np.flatnonzero(~is_first)
    items, leaders = order[chosen], leaders[chosen]
    repeats = Repeats(
        part=parts[items],
        place=places[items],
        rank=(chosen - leaders).astype(np.uint32),
        crosses=is_held_out[items] & ~is_held_out[order[leaders]],
    )
    return repeats, int(is_first.sum())
