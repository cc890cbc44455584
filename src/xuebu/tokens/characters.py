"""One token a character: ids by one look-up in a table, and the vocabulary of some texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from xuebu.tokens.settings import VocabularySettings
from xuebu.tokens.special import SPECIAL_TOKENS
from xuebu.tokens.text import NUM_CODE_POINTS, WHITESPACE, code_points, normalize

_COUNT_CHUNK = 1 << 20  # characters counted at once


class CharacterEncoder:
    """Ids of characters.

    Args:
        tokens: the special tokens, then one character each.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        codes = code_points("".join(tokens[len(SPECIAL_TOKENS) :]))
        size = int(codes.max(initial=max(WHITESPACE))) + 2  # the last entry stands for all greater code points
        self._table = np.full(size, SPECIAL_TOKENS.index("[UNK]"), dtype=np.int32)
        self._table[codes] = np.arange(len(SPECIAL_TOKENS), len(tokens), dtype=np.int32)
        self._table[list(WHITESPACE)] = -1

    def normalize(self, text: str) -> str:
        """Return the text in NFC."""
        return normalize(text)

    def locate(self, text: str) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Return the ids of a normalized text, and the place of the character of each."""
        ids = self._table.take(code_points(text), mode="clip")
        places = np.flatnonzero(ids >= 0)
        return (ids, places) if len(places) == len(ids) else (ids.take(places), places)


def count_characters(texts: Iterable[str]) -> npt.NDArray[np.int64]:
    """Return int64[0x110000], how often each code point stands in the normalized texts, read once in bounded memory."""
    counts = np.zeros(NUM_CODE_POINTS, dtype=np.int64)
    waiting: list[str] = []
    num_waiting = 0
    for text in texts:
        waiting.append(normalize(text))
        num_waiting += len(waiting[-1])
        if num_waiting >= _COUNT_CHUNK:
            counts += np.bincount(code_points("".join(waiting)), minlength=NUM_CODE_POINTS)
            waiting, num_waiting = [], 0
    return counts + np.bincount(code_points("".join(waiting)), minlength=NUM_CODE_POINTS)


def frequent_characters(texts: Iterable[str], settings: VocabularySettings) -> list[str]:
    """Return the characters of some texts by falling frequency, ties by code point, as the settings bound them.

    White space, control characters and halves of surrogate pairs are left out.
    """
    counts = count_characters(texts)
    counts[list(WHITESPACE)] = 0
    counts[:0x20] = counts[0x7F:0xA0] = counts[0xD800:0xE000] = 0
    found = np.flatnonzero(counts >= settings.min_count)
    by_frequency = found[np.argsort(-counts[found], kind="stable")]
    return list(map(chr, by_frequency[: settings.max_size - len(SPECIAL_TOKENS)].tolist()))
