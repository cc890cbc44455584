"""Where words start in a text, for whole-word masking.

A segmenter says where words begin in a text. On top of it, the same for all segmenters: a word begins where a text or
a paragraph does and after white space, and a run of letters of an alphabet and digits is never cut inside. A token
begins a word if a word begins at its first character, or after the first character of the token before it: a piece
belongs to the word of its first character, a boundary inside it counts at the next token. With no segmenter, each token
is a word, with the pieces that go on with it ("##ing"), as in Google's whole-word masking.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xuebu.errors import InputError, StoreError
from xuebu.tokens.segmenters import Segmenter, make_segmenter
from xuebu.tokens.text import WHITESPACE, code_points, normalize

__all__ = ["Segmenter", "character_starts", "make_segmenter", "token_word_starts", "word_starts"]

# Letters of alphabets, digits, and the combining marks that sit on them: a run of these is never cut. Segmenters made
# for Chinese cut full-width and accented letters one by one.
_RUN_RANGES = (
    (0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A), (0xAA, 0xAA), (0xBA, 0xBA), (0xC0, 0xD6), (0xD8, 0xF6),
    (0xF8, 0x2AF), (0x300, 0x374), (0x376, 0x377), (0x37B, 0x37D), (0x37F, 0x37F), (0x386, 0x386), (0x388, 0x52F),
    (0x1DC0, 0x1FFF), (0x2C60, 0x2C7F), (0xA720, 0xA7FF), (0xAB30, 0xAB6F),
    (0xFF10, 0xFF19), (0xFF21, 0xFF3A), (0xFF41, 0xFF5A),
)  # fmt: skip

_OTHER, _RUN, _SPACE = 0, 1, 2

Bool = npt.NDArray[np.bool_]


def _make_classes() -> npt.NDArray[np.uint8]:
    """Return the class of each code point; the last entry stands for all greater ones."""
    classes = np.full(0x10000, _OTHER, dtype=np.uint8)
    for first, last in _RUN_RANGES:
        classes[first : last + 1] = _RUN
    classes[list(WHITESPACE)] = _SPACE
    return classes


_CLASSES = _make_classes()


def character_starts(text: str, segmenter: Segmenter) -> Bool:
    """Return bool[len(text)], True for each character that begins a word; white space may be marked or not.

    Raises:
        InputError: the text holds half of a surrogate pair, which a segmenter cannot read.
        StoreError: the segmenter's words do not rejoin to the text.
    """
    if segmenter.cut is None:
        return np.ones(len(text), dtype=np.bool_)
    try:
        words = segmenter.cut(text)
    except UnicodeEncodeError as error:
        around = text[max(error.start - 10, 0) : error.end + 10]
        raise InputError(f"half of a surrogate pair in {around!a}; build the corpus again") from None
    if "".join(words) != text:
        raise StoreError(_not_rejoined(text, words, segmenter))
    starts = np.zeros(len(text) + 1, dtype=np.bool_)
    starts[0] = True
    starts[np.cumsum(np.fromiter(map(len, words), dtype=np.int64, count=len(words)))] = True
    starts = np.asarray(starts[:-1], dtype=np.bool_)
    classes = _CLASSES.take(code_points(text), mode="clip")
    run, space = classes == _RUN, classes == _SPACE
    starts[1:] &= ~(run[1:] & run[:-1])
    starts[1:] |= space[:-1]
    return starts


def _not_rejoined(text: str, words: list[str], segmenter: Segmenter) -> str:
    """Return the line that says where the words leave the text."""
    joined = "".join(words)
    place = next((i for i, (a, b) in enumerate(zip(text, joined, strict=False)) if a != b), min(len(text), len(joined)))
    line = text.count("\n", 0, place) + 1
    around = slice(max(place - 10, 0), place + 10)
    return (
        f"segmenter {segmenter.name} changed the text in sentence {line}: {text[around]!r} became {joined[around]!r}; "
        "its words must rejoin to it, white space included"
    )


def word_starts(text: str, segmenter: Segmenter) -> Bool:
    """Return for each character of a text that is not white space whether it begins a word.

    Returns:
        bool[number of characters of the NFC text that are not white space].

    Raises:
        InputError, StoreError: as `character_starts`.
    """
    text = normalize(text)
    kept: Bool = character_starts(text, segmenter)[_CLASSES.take(code_points(text), mode="clip") != _SPACE]
    return kept


def token_word_starts(
    text: str,
    ids: npt.NDArray[np.int32],
    places: npt.NDArray[np.int64],
    continues_word: Bool,
    segmenter: Segmenter,
) -> Bool:
    """Return bool[N], True for each token that begins a word.

    Args:
        text: that was encoded.
        ids: int32[N], its tokens.
        places: int64[N], the first character of each.
        continues_word: bool[V], of `Vocabulary.continues_word`: read where there is no segmenter.
        segmenter: what finds words.

    Raises:
        InputError, StoreError: as `character_starts`.
    """
    if segmenter.cut is None:
        return ~continues_word[ids]
    words = np.cumsum(character_starts(text, segmenter))[places]
    starts = np.ones(len(ids), dtype=np.bool_)
    starts[1:] = words[1:] != words[:-1]
    return starts
