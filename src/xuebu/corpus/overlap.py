"""Held-out documents that share long runs of characters with training: found exactly, in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from unicodedata import is_normalized, normalize

import numpy as np
import numpy.typing as npt

from xuebu.files import write_bytes
from xuebu.rng import draw_bits, key_of

UInt64 = npt.NDArray[np.uint64]

RUN_CHARACTERS = 20
MIN_SHARED_RUNS = 3

_END = "\0"  # parts documents; cleaned text never holds it
_BATCH_CHARACTERS = 1 << 19
_NO_LETTER = re.compile(r"[\W_]+")


@cache
def _character_keys() -> UInt64:
    return draw_bits(key_of("xuebu run hash"), np.arange(0x110000))


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """Return the code points of a text, uint32[characters]."""
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)


def bare_text(text: str) -> str:
    """Return a text's letters and digits alone, in form NFKC and lower case: how it is compared.

    Evaluation sets differ from a corpus in their spaces, in full-width forms and in the marks that cleaning changed.
    """
    if not is_normalized("NFKC", text):
        text = normalize("NFKC", text)
    return _NO_LETTER.sub("", text).lower()


def run_hashes(text: str, length: int = RUN_CHARACTERS) -> UInt64:
    """Return a 64-bit hash of each run of characters of a text.

    Args:
        text: of any length.
        length: of a run, at least 1.

    Returns:
        uint64[max(0, characters - length + 1)]; equal runs have equal hashes, unequal ones differ but for chance
        (2**-64).

    Source: Karp and Rabin 1987: a polynomial in an odd base modulo 2**64 over random keys of the characters; windows of
    1, 2, 4, ... characters are built from each other, and the run's from those that its length is the sum of.
    """
    width, power = 1, np.uint64(0x9E3779B97F4A7C15)
    hashes = _character_keys()[code_points(text)]
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


def comparable_text(sentences: Sequence[str]) -> str:
    """Return a document's text as a model sees it: spaces are no tokens."""
    return "".join(sentences).replace(" ", "")


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


def shown_runs(texts: Iterable[str], index: RunIndex, length: int = RUN_CHARACTERS) -> UInt64:
    """Return the run hashes of an index that the texts show, sorted, each once.

    Args:
        texts: training texts, each of one document, as `comparable_text` gives them. No run reaches over two of them.
        index: of the held-out text.
        length: of its runs.
    """
    found = [np.empty(0, dtype=np.uint64)]
    found += [index.find(run_hashes(batch, length)) for batch in _batches(texts)]
    return np.unique(np.concatenate(found))


def shares_text(text: str, shown: UInt64, length: int = RUN_CHARACTERS) -> bool:
    """Return whether a held-out text shares three or more runs of so many characters with the training texts.

    A text of fewer runs shares text where all are shared. Runs are counted once each, and over all training texts
    together: stricter than text by text, and what a model can have learned by heart does not care in which document it
    stood.

    Args:
        text: of a document, as `comparable_text` gives it.
        shown: the runs that training text shows, sorted.
        length: of these runs.
    """
    own = np.unique(run_hashes(text, length))
    if not len(own) or not len(shown):
        return False
    places = np.minimum(np.searchsorted(shown, own), len(shown) - 1)
    return int((shown[places] == own).sum()) >= min(len(own), MIN_SHARED_RUNS)


def _batches(texts: Iterable[str]) -> Iterator[str]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text) + 1
        if size >= _BATCH_CHARACTERS:
            yield _END.join(batch)
            batch, size = [], 0
    if batch:
        yield _END.join(batch)
