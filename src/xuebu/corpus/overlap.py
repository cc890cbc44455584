"""Held-out documents that share long runs of letters with training: found exactly, in bounded memory.

Marks and spaces are left out on both sides (`bare_text`), so that a copy with other marks is a copy too; token ids are
compared as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from unicodedata import category, is_normalized, normalize

import numpy as np
import numpy.typing as npt

from xuebu.files import write_bytes
from xuebu.rng import draw_bits, key_of

UInt64 = npt.NDArray[np.uint64]
UInt32 = npt.NDArray[np.uint32]
Int32 = npt.NDArray[np.int32]

RUN_CHARACTERS = 20
MIN_SHARED_RUNS = 3

_END = "\0"  # parts documents; cleaned text never holds it
_BATCH_CHARACTERS = 1 << 16  # what fits into the second-level cache
_NO_LETTER = re.compile(r"[\W_]+")


_UNKNOWN, _DROPPED, _INVOLVED = -1, -2, -3  # in the table of `_foldings`, besides code points


@cache
def character_keys() -> UInt64:
    """Return 64 random bits for each code point, the same always: uint64[0x110000]."""
    return draw_bits(key_of("xuebu run hash"), np.arange(0x110000))


def code_points(text: str) -> UInt32:
    """Return the code points of a text, uint32[characters]."""
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)


def bare_text(text: str) -> str:
    """Return a text's letters and digits alone, in form NFKC and lower case: how it is compared.

    Evaluation sets differ from a corpus in their spaces, in full-width forms and in the marks that cleaning changed.
    """
    if not is_normalized("NFKC", text):
        text = normalize("NFKC", text)
    return _NO_LETTER.sub("", text).lower()


@cache
def _foldings() -> Int32:
    """Return the table of what `bare_text` makes of each code point; entries are filled in when first met."""
    return np.full(0x110000, _UNKNOWN, dtype=np.int32)


def _folding(character: str) -> int:
    """Return what is left of a character wherever it stands, `_DROPPED`, or `_INVOLVED` if that is not so simple.

    Involved are characters that become several, may join with their neighbors (combining marks, Korean letters, letters
    of the second plane), or depend on them (the last sigma of a word).
    """
    plain = normalize("NFKC", character)
    bare = _NO_LETTER.sub("", plain).lower()
    joins = any(category(each)[0] == "M" or 0x1100 <= ord(each) <= 0x11FF for each in plain)
    if joins or len(bare) > 1 or character == "\u03a3" or (bare and 0x10000 <= ord(bare) < 0x20000):
        return _INVOLVED
    return ord(bare) if bare else _DROPPED


def bare_codes(texts: Sequence[str]) -> UInt32:
    """Return the code points of the `bare_text` of each text, parted by 0, some twenty times as fast.

    Args:
        texts: without U+0000.
    """
    codes = code_points(_END.join(texts))
    table = _foldings()
    folded = table[codes]
    if (folded == _UNKNOWN).any():
        for code in np.unique(codes[folded == _UNKNOWN]).tolist():
            table[code] = _folding(chr(code)) if code else 0
        folded = table[codes]
    involved = np.flatnonzero(folded == _INVOLVED)
    if not len(involved):
        return folded[folded >= 0].astype(np.uint32)
    ends = np.append(np.flatnonzero(codes == 0), len(codes))
    pieces, done = [], 0
    for number in np.unique(np.searchsorted(ends, involved)).tolist():
        simple = folded[done : int(ends[number - 1]) + 1 if number else 0]
        pieces += [simple[simple >= 0].astype(np.uint32), code_points(bare_text(texts[number]))]
        done = int(ends[number])
    rest = folded[done:]
    return np.concatenate([*pieces, rest[rest >= 0].astype(np.uint32)])


def compared_codes(texts: Sequence[str], *, exact: bool) -> UInt32:
    """Return the code points by which texts are compared, parted by 0.

    Args:
        texts: without U+0000.
        exact: as they are, as token ids want it; else letters and digits alone.
    """
    return code_points(_END.join(texts)) if exact else bare_codes(texts)


def run_hashes(codes: UInt32, length: int = RUN_CHARACTERS) -> UInt64:
    """Return a 64-bit hash of each run of characters.

    Args:
        codes: uint32[characters], code points.
        length: of a run, at least 1.

    Returns:
        uint64[max(0, characters - length + 1)]; equal runs have equal hashes, unequal ones differ but for chance
        (2**-64).

    Source: Karp and Rabin 1987: a polynomial in an odd base modulo 2**64 over random keys of the characters; windows of
    1, 2, 4, ... characters are built from each other, and the run's from those that its length is the sum of.
    """
    width, power = 1, np.uint64(0x9E3779B97F4A7C15)
    hashes = character_keys()[codes]
    if len(hashes) < length:
        return np.empty(0, dtype=np.uint64)
    parts: list[tuple[int, np.uint64, UInt64]] = []
    with np.errstate(over="ignore"):
        while 2 * width <= length:
            parts += [(width, power, hashes)] if length & width else []
            hashes = hashes[:-width] * power + hashes[width:]
            width, power = 2 * width, power * power
        covered = width
        for more, power_of_more, windows in reversed(parts):
            hashes = hashes[:-more] * power_of_more + windows[covered:]
            covered += more
    return hashes


class RunIndex:
    """The different runs of some held-out text, in files, of which processes share what they read.

    Memory: 8 bytes a run, and 16 to 32 for a table over the first bits of the hash, which settles most look-ups without
    a search.
    """

    def __init__(self, path: Path) -> None:
        """Open an index that `write` wrote."""
        count = path.stat().st_size // 8
        self._hashes = np.memmap(path, dtype="<u8", mode="r", shape=(count,))
        self._shift = np.uint64(64 - _table_bits(count))
        self._table = np.memmap(_table_path(path), dtype=bool, mode="r")

    @staticmethod
    def write(path: Path, hashes: UInt64, *, sync: bool = False) -> None:
        """Write an index of run hashes, of which there is at least one; repeats are dropped.

        Args:
            path: of the index.
            hashes: uint64[n].
            sync: whether it must survive a power cut.
        """
        hashes = np.unique(hashes)
        bits = _table_bits(len(hashes))
        table = np.zeros(1 << bits, dtype=bool)
        table[hashes >> np.uint64(64 - bits)] = True
        write_bytes(path, hashes.astype("<u8").tobytes(), sync=sync)
        write_bytes(_table_path(path), table.tobytes(), sync=sync)

    def find(self, hashes: UInt64) -> UInt64:
        """Return those of the hashes that are in the index, sorted, each once."""
        hashes = np.unique(hashes[self._table[hashes >> self._shift]])  # sorted, they are searched much faster
        places = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        found: UInt64 = hashes[self._hashes[places] == hashes]
        return found


def _table_bits(count: int) -> int:
    return max(10, (16 * count).bit_length())


def _table_path(path: Path) -> Path:
    return path.with_name(path.name + ".table")


def shown_runs(
    texts: Iterable[str], indexes: Sequence[Path], length: int = RUN_CHARACTERS, *, exact: bool = False
) -> list[UInt64]:
    """Return the run hashes that the texts show, of each index its own, sorted, each once.

    Texts stream by; of the indexes, one is open at a time.

    Args:
        texts: training texts, each of one document. No run reaches over two of them.
        indexes: of the held-out text, that `RunIndex.write` wrote.
        length: of their runs.
        exact: as in `compared_codes`.
    """
    found = [[np.empty(0, dtype=np.uint64)] for _ in indexes]
    for batch in _batches(texts):
        hashes = run_hashes(compared_codes(batch, exact=exact), length)
        for path, own in zip(indexes, found, strict=True):
            own.append(RunIndex(path).find(hashes))
    return [np.unique(np.concatenate(own)) for own in found]


def shares_text(codes: UInt32, shown: UInt64, length: int = RUN_CHARACTERS) -> bool:
    """Return whether a held-out text shares three or more runs of so many characters with the training texts.

    A text of fewer runs shares text where all are shared. Runs are counted once each, and over all training texts
    together: stricter than text by text, and what a model can have learned by heart does not care in which document it
    stood.

    Args:
        codes: of a document, as `compared_codes` gives them.
        shown: the runs that training text shows, sorted.
        length: of these runs.
    """
    own = np.unique(run_hashes(codes, length))
    if not len(own) or not len(shown):
        return False
    places = np.minimum(np.searchsorted(shown, own), len(shown) - 1)
    return int((shown[places] == own).sum()) >= min(len(own), MIN_SHARED_RUNS)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text) + 1
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
