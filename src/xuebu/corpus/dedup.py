"""Exact duplicates over a whole corpus: documents, paragraphs and sentences, by digest.

What a document, a paragraph or a sentence is here is what the sieve kept of it. Memory does not grow with the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from xuebu.corpus.document import SentenceDocument
from xuebu.corpus.overlap import character_keys, code_points
from xuebu.corpus.settings import Unit
from xuebu.rng import draw_bits, key_of

UInt64 = npt.NDArray[np.uint64]
Int64 = npt.NDArray[np.int64]

UNITS: tuple[Unit, ...] = ("document", "paragraph", "sentence")
"""What can be repeated as a whole, the largest first."""


class Mark(IntEnum):
    """What a document, a paragraph or a sentence is among its equals; see `equals.find_repeats`."""

    FIRST = 0
    REPEATED = 1
    IN_TRAINING = 2


_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_BATCH_CHARACTERS = 1 << 16  # what fits into the second-level cache


def digests_of(sentences: Sequence[str]) -> UInt64:
    """Return 64 bits that stand for each sentence, its spaces left out: the vocabulary leaves them out too.

    Two different sentences of a corpus of n share a digest with probability about n**2 / 2**65: 3e-8 for a million
    sentences, 3e-4 for a hundred million. See `digests_of_runs`.

    Args:
        sentences: cleaned, so that their only white space is U+0020.

    Returns:
        uint64[sentences].
    """
    found = [np.empty(0, dtype=np.uint64)]
    for batch in _batches(sentences):
        text = "".join(batch)
        codes = code_points(text)
        sizes = np.fromiter(map(len, batch), dtype=np.int64, count=len(batch))
        if " " in text:
            is_kept = codes != ord(" ")
            codes = codes[is_kept]
            sizes = np.diff(np.append(0, np.cumsum(is_kept))[np.append(0, np.cumsum(sizes))])
        found.append(digests_of_runs(character_keys()[codes], sizes))
    return np.concatenate(found)


def digests_of_runs(values: UInt64, sizes: Int64) -> UInt64:
    """Return 64 bits that stand for each of the runs that values are cut into.

    Args:
        values: uint64[n], as random as hashes are.
        sizes: int64[runs], how many values each has; their sum is n.

    Returns:
        uint64[runs].

    Source: Karp and Rabin 1987: a polynomial in an odd base modulo 2**64. All runs are summed at once: each value times
    the base to the power of its place, and each sum divided by the power of the run's start. Then SplitMix64's output
    function, so that the first bits are as good as the last.
    """
    starts = np.cumsum(sizes) - sizes
    powers, inverses = _powers(1 << max(16, len(values).bit_length()))
    sums = np.zeros(len(sizes), dtype=np.uint64)
    filled = np.flatnonzero(sizes)  # reduceat gives an empty run the next run's first value
    if len(filled):
        sums[filled] = np.add.reduceat(values * powers[: len(values)], starts[filled]) * inverses[starts[filled]]
    return draw_bits(key_of("xuebu digest"), sums ^ (sizes.astype(np.uint64) << np.uint64(40)))


@lru_cache(maxsize=2)
def _powers(count: int) -> tuple[UInt64, UInt64]:
    """Return the powers of the base, from 0 on, and of its inverse."""
    inverse = pow(_BASE, -1, 1 << 64)
    tables = []
    for base in (_BASE, inverse):
        table = np.ones(count, dtype=np.uint64)
        width, power = 1, base
        while width < count:
            table[width : 2 * width] = table[:width][: count - width] * np.uint64(power)
            width, power = 2 * width, power * power % (1 << 64)
        tables.append(table)
    return tables[0], tables[1]


def _batches(sentences: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield runs of the sentences, each of one sentence or of at most so many characters."""
    start = held = 0
    for place, size in enumerate(map(len, sentences)):
        if held and held + size > _BATCH_CHARACTERS:
            yield sentences[start:place]
            start, held = place, 0
        held += size
    if start < len(sentences):
        yield sentences[start:]


def copies_in(
    document: SentenceDocument,
    mark: int,
    paragraph_marks: Sequence[int],
    sentence_marks: Sequence[int],
    unit: Unit | None,
) -> list[tuple[str, int, int]]:
    """Return what goes of a document as (reason, start, end) of its sentences, in order; the largest unit is named.

    Args:
        document: with its paragraphs.
        mark: `Mark` of the document.
        paragraph_marks: of its paragraphs.
        sentence_marks: of its sentences.
        unit: the smallest of which copies are dropped, with all that are larger; None drops none. What is held out and
            also in training goes whatever is asked.
    """
    count = len(sentence_marks)
    if unit and mark == Mark.REPEATED:
        return [("duplicate_document", 0, count)]
    found: list[tuple[str, int, int]] = []
    bounds = (0, *document.paragraphs, count)
    for paragraph_mark, (start, end) in zip(paragraph_marks, pairwise(bounds), strict=True):
        if unit in ("paragraph", "sentence") and paragraph_mark == Mark.REPEATED:
            found.append(("duplicate_paragraph", start, end))
            continue
        for place in range(start, end):
            if sentence_marks[place] == Mark.IN_TRAINING:
                found.append(("held_out_sentence_in_training", place, place + 1))
            elif sentence_marks[place] == Mark.REPEATED and unit == "sentence":
                found.append(("duplicate_sentence", place, place + 1))
    return found


def keep_sentences(
    sentences: Sequence[str], gaps: Sequence[int], keep: Sequence[bool]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the sentences that are kept, and the gaps between them: those there were, and one for each loss.

    Args:
        sentences: n sentences in order.
        gaps: increasing indices in [1, n), as in SentenceDocument.
        keep: n flags.

    Returns:
        Sentences and gaps as in SentenceDocument. What is lost before the first or after the last leaves no gap.
    """
    kept: list[str] = []
    left: list[int] = []
    broken = False
    had_gap = set(gaps)
    for index, (sentence, wanted) in enumerate(zip(sentences, keep, strict=True)):
        broken = broken or index in had_gap
        if not wanted:
            broken = True
            continue
        if broken and kept:
            left.append(len(kept))
        kept.append(sentence)
        broken = False
    return tuple(kept), tuple(left)
