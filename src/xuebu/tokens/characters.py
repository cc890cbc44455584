"""One token a character: ids by one look-up in a table, and the vocabulary of some texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from xuebu.tokens.settings import VocabularySettings
from xuebu.tokens.special import SPECIAL_TOKENS
from xuebu.tokens.text import NUM_CODE_POINTS, WHITESPACE, code_points, normalize

_COUNT_CHUNK = 1 << 20  # characters counted at once


class CharacterEncoder:
    """Ids of characters.

    Args:
        characters: of the entries after the special tokens.
        normal_form: what a text is brought to before it is looked up.
    """

    def __init__(self, characters: Sequence[str], normal_form: Callable[[str], str] = normalize) -> None:
        self.normalize = normal_form
        codes = code_points("".join(characters))
        size = int(codes.max(initial=max(WHITESPACE))) + 2  # the last entry stands for all greater code points
        self._table = np.full(size, SPECIAL_TOKENS.index("[UNK]"), dtype=np.int32)
        self._table[codes] = np.arange(len(codes), dtype=np.int32) + len(SPECIAL_TOKENS)
        self._table[list(WHITESPACE)] = -1

    def locate(self, text: str) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Return the ids of a normalized text, and the place of the character of each."""
        ids = self._table.take(code_points(text), mode="clip")
        places = np.flatnonzero(ids >= 0)
        return (ids, places) if len(places) == len(ids) else (ids.take(places), places)


def count_characters(texts: Iterable[str], first: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.int64]:
    """Return int64[0x110000], how often each code point stands in the normalized texts, read once in bounded memory.

    Args:
        texts: read in their order.
        first: int64[0x110000], receives the place of the first occurrence of each code point that occurs.
    """
    counts = np.zeros(NUM_CODE_POINTS, dtype=np.int64)
    num_read = 0
    for codes in _in_chunks(texts):
        if first is not None:
            found, places = np.unique(codes, return_index=True)
            is_new = counts[found] == 0
            first[found[is_new]] = num_read + places[is_new]
            num_read += len(codes)
        counts += np.bincount(codes, minlength=NUM_CODE_POINTS)
    return counts


def _in_chunks(texts: Iterable[str]) -> Iterator[npt.NDArray[np.uint32]]:
    """Yield the code points of normalized texts, many at once."""
    waiting: list[str] = []
    num_waiting = 0
    for text in texts:
        waiting.append(normalize(text))
        num_waiting += len(waiting[-1])
        if num_waiting >= _COUNT_CHUNK:
            yield code_points("".join(waiting))
            waiting, num_waiting = [], 0
    yield code_points("".join(waiting))


def frequent_characters(texts: Iterable[str], settings: VocabularySettings) -> list[str]:
    """Return the characters of some texts by falling frequency, as the settings bound them.

    White space, control characters and halves of surrogate pairs are left out. Ties go by code point, or by first
    occurrence: token ids that somebody drew at random have no order of their own.
    """
    by_occurrence = settings.kind == "ids" or settings.ties == "first"
    first = np.zeros(NUM_CODE_POINTS, dtype=np.int64) if by_occurrence else None
    counts = count_characters(texts, first)
    counts[list(WHITESPACE)] = 0
    counts[:0x20] = counts[0x7F:0xA0] = counts[0xD800:0xE000] = 0
    found = np.flatnonzero(counts >= settings.min_count)
    order = np.lexsort((found if first is None else first[found], -counts[found]))
    return list(map(chr, found[order][: settings.max_size - len(SPECIAL_TOKENS)].tolist()))
