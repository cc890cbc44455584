"""Equal keys among parts on disk, against a dictionary."""

from pathlib import Path

import numpy as np
import pytest

from xuebu.corpus.equals import find_repeats, num_buckets, read_repeats, read_table, write_table
from xuebu.errors import InputError


def write_parts(folder: Path, parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[list[Path], list[Path]]:
    """Write the tables of parts of (keys, is held out); returns the paths of the training and the held-out tables."""
    sides = []
    for name, wanted in (("train", False), ("held_out", True)):
        sides.append([folder / f"{number}.{name}" for number in range(len(parts))])
        for path, (keys, is_held_out) in zip(sides[-1], parts, strict=True):
            places = np.flatnonzero(is_held_out == wanted)
            write_table(path, keys[places], places.astype(np.uint32))
    return sides[0], sides[1]


def expected_repeats(parts: list[tuple[np.ndarray, np.ndarray]]) -> dict[tuple[int, int], tuple[int, bool]]:
    """Return (part, place) -> (rank, crosses) by a dictionary, all training before all that is held out."""
    seen: dict[int, tuple[bool, int]] = {}
    found = {}
    for side in (False, True):
        for part, (keys, is_held_out) in enumerate(parts):
            for place in np.flatnonzero(is_held_out == side).tolist():
                first_side, count = seen.get(int(keys[place]), (side, 0))
                if count:
                    found[part, place] = (count, side and not first_side)
                seen[int(keys[place])] = (first_side, count + 1)
    return found


@pytest.mark.parametrize("buckets", [1, 2, 3, 7])
def test_repeats_are_those_of_a_dictionary_however_keys_are_cut(tmp_path: Path, buckets: int) -> None:
    chooser = np.random.default_rng(buckets)
    keys = chooser.integers(0, 2**64, size=300, dtype=np.uint64)
    keys[:3] = 0, 2**64 - 1, 2**63
    parts = [(keys[chooser.integers(0, 300, size=size)], chooser.random(size) < 0.3) for size in (200, 0, 150, 1)]
    training, held_out = write_parts(tmp_path, parts)
    tables, different = [], 0
    for bucket in range(buckets):
        repeats, count = find_repeats(training, held_out, bucket, buckets)
        tables.append(tmp_path / f"bucket.{bucket}")
        repeats.write(tables[-1])
        different += count
    found = {}
    for part in range(len(parts)):
        own = read_repeats(part, tables)
        assert set(own.part.tolist()) <= {part}
        rows = zip(own.place.tolist(), own.rank.tolist(), own.crosses.tolist(), strict=True)
        found |= {(part, place): (rank, crosses) for place, rank, crosses in rows}
    assert found == expected_repeats(parts)
    assert different == len(np.unique(np.concatenate([keys for keys, _ in parts])))


def test_nothing_has_no_repeats(tmp_path: Path) -> None:
    repeats, count = find_repeats([], [], 0, 1)
    assert (len(repeats.part), count) == (0, 0)
    repeats.write(tmp_path / "empty")
    assert len(read_repeats(0, [tmp_path / "empty"]).place) == 0
    assert find_repeats([tmp_path / "empty"], [], 0, 1)[1] == 0


def test_a_table_that_is_missing_or_torn_is_not_an_empty_one(tmp_path: Path) -> None:
    torn = tmp_path / ".unfinished" / "parts" / "torn"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(bytes(13))
    for path in (torn, torn.with_name("missing")):
        with pytest.raises(InputError, match=f"^{path}: missing or damaged.*remove {tmp_path}/.unfinished and build"):
            find_repeats([path], [], 0, 1)


def test_a_table_keeps_the_order_of_equal_keys_and_gives_ranges(tmp_path: Path) -> None:
    keys = np.array([5, 2**64 - 1, 5, 0], dtype=np.uint64)
    write_table(tmp_path / "table", keys, np.arange(4, dtype=np.uint32))
    assert [each.tolist() for each in read_table(tmp_path / "table")] == [[0, 5, 5, 2**64 - 1], [3, 0, 2, 1]]
    assert read_table(tmp_path / "table", 1, 5)[1].tolist() == [0, 2]
    assert read_table(tmp_path / "table", 6, 2**64 - 2)[1].tolist() == []


def test_buckets_grow_with_the_keys() -> None:
    assert [num_buckets(keys) for keys in (0, 10**6, 10**9)] == [1, 1, 477]
