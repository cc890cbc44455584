"""Words of a text that has none marked: sequences that stand together more often than chance would have them.

Works on numbers, so on anything that is written as tokens: characters, or ids that somebody else made anonymous.

Source: Levine et al. 2021, "PMI-Masking: Principled masking of correlated spans", section 3.2 (the measure).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xuebu.corpus.symbols import symbols_of
from xuebu.tokens.text import code_points

_WORD_RANGES = (
    (0x0E01, 0x0EDF), (0x1000, 0x109F), (0x1780, 0x17D3), (0x3005, 0x3007), (0x3041, 0x30FA), (0x30FC, 0x30FF),
    (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0x20000, 0x3FFFD),
)  # fmt: skip
_IS_WORD = np.zeros(0x40001, dtype=np.bool_)
for _first, _last in _WORD_RANGES:
    _IS_WORD[_first : _last + 1] = True

_FIRST_SYMBOL = ord(symbols_of([0]))

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

BREAK = -1
MAX_CHARACTERS = 1 << 25
"""Most characters that words are learned from: about 100 MB of text, which takes some 2 GB of memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Collocations:
    """Sequences of n tokens that occur often enough, for one n.

    Attributes:
        first: int64[K], where each stands for the first time.
        counts: int64[K], how often it occurs.
        pmi: float64[K], log2 of its share over the most that chance gives it: the likeliest way to put it together
            from shorter sequences that are independent of each other.
    """

    first: Int64
    counts: Int64
    pmi: Float64


def find_collocations(tokens: Int64, *, max_length: int, min_count: int) -> list[Collocations]:
    """Count sequences of tokens and return their pointwise mutual information, for lengths 2 to `max_length`.

    A sequence is looked at only if both its parts without the first and without the last token occur often enough.

    Args:
        tokens: int64[N], numbers from 0; BREAK where a text ends, which no sequence crosses.
        max_length: longest sequence, at least 2.
        min_count: least number of occurrences.

    Returns:
        One `Collocations` for each length.
    """
    kept = tokens[tokens != BREAK]
    if not len(kept):
        empty = np.zeros(0, dtype=np.int64)
        return [Collocations(empty, empty, np.zeros(0)) for _ in range(2, max_length + 1)]
    total = len(kept)
    levels: list[Int64] = []  # of length n: the number of the sequence that begins at each place, or -1
    best: list[Float64] = []  # log2 of its likeliest share, whole or in parts
    found: list[Collocations] = []
    keys = tokens
    for length in range(1, max_length + 1):
        places = np.flatnonzero(keys >= 0)
        _, first, index, counts = np.unique(keys[places], return_index=True, return_inverse=True, return_counts=True)
        frequent = counts >= min_count
        numbers = np.where(frequent, np.cumsum(frequent) - 1, -1)
        level = np.full(len(tokens), -1, dtype=np.int64)
        level[places] = numbers[index]
        first, counts = places[first[frequent]], counts[frequent]
        share = np.log2(counts / total)
        if length == 1:
            levels.append(level)
            best.append(share)
        else:
            by_chance = np.full(len(first), -np.inf)
            for left in range(1, length):
                parts = (
                    best[left - 1][levels[left - 1][first]]
                    + best[length - left - 1][levels[length - left - 1][first + left]]
                )
                np.maximum(by_chance, parts, out=by_chance)
            found.append(Collocations(first, counts, share - by_chance))
            levels.append(level)
            best.append(np.maximum(share, by_chance))
        follows = np.append(level[1:], -1)
        keys = np.where((level >= 0) & (follows >= 0), level * (int(level.max(initial=0)) + 1) + follows, -1)
    return found


def learn_words(
    texts: Iterable[str],
    *,
    max_length: int = 4,
    min_count: int = 5,
    min_pmi: float = 3.0,
    max_characters: int = MAX_CHARACTERS,
) -> dict[str, int]:
    """Return words of several characters with their counts, most frequent first, ties by code point.

    A word is a sequence of characters of a script that is written without spaces (Han, kana, Hangul, Thai, Lao,
    Burmese, Khmer), or of the symbols of token ids, whose pointwise mutual information is high.

    Args:
        texts: read in their order, up to `max_characters`.
        max_length: longest word in characters, from 2.
        min_count: least number of occurrences.
        min_pmi: least information in bits.
        max_characters: bounds memory.
    """
    parts: list[str] = []
    num_characters = 0
    for text in texts:
        parts.append(text)
        num_characters += len(text) + 1
        if num_characters >= max_characters:
            break
    text = "\n".join(parts)[:max_characters]
    codes = code_points(text).astype(np.int64)
    codes[~(_IS_WORD.take(codes, mode="clip") | (codes >= _FIRST_SYMBOL))] = BREAK
    words: dict[str, int] = {}
    levels = find_collocations(codes, max_length=max_length, min_count=min_count)
    for length, level in enumerate(levels, start=2):
        chosen = np.flatnonzero(level.pmi >= min_pmi)
        words |= {
            text[place : place + length]: count
            for place, count in zip(level.first[chosen].tolist(), level.counts[chosen].tolist(), strict=True)
        }
    return dict(sorted(words.items(), key=lambda item: (-item[1], item[0])))
