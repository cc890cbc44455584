"""Where words start in a text, for whole-word masking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xuebu.errors import InputError, MissingExtraError, StoreError
from xuebu.tokens.settings import SegmenterKind
from xuebu.tokens.vocab import WHITESPACE, code_points, normalize

# Letters of alphabets, digits, and the combining marks that sit on them: a run of these is never cut. Segmenters made
# for Chinese cut full-width and accented letters one by one.
_RUN_RANGES = (
    (0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A), (0xAA, 0xAA), (0xBA, 0xBA), (0xC0, 0xD6), (0xD8, 0xF6),
    (0xF8, 0x2AF), (0x300, 0x374), (0x376, 0x377), (0x37B, 0x37D), (0x37F, 0x37F), (0x386, 0x386), (0x388, 0x52F),
    (0x1DC0, 0x1FFF), (0x2C60, 0x2C7F), (0xA720, 0xA7FF), (0xAB30, 0xAB6F),
    (0xFF10, 0xFF19), (0xFF21, 0xFF3A), (0xFF41, 0xFF5A),
)  # fmt: skip

_OTHER, _RUN, _SPACE = 0, 1, 2


def _make_classes() -> npt.NDArray[np.uint8]:
    """Return the class of each code point; the last entry stands for all greater ones."""
    classes = np.full(0x10000, _OTHER, dtype=np.uint8)
    for first, last in _RUN_RANGES:
        classes[first : last + 1] = _RUN
    classes[list(WHITESPACE)] = _SPACE
    return classes


_CLASSES = _make_classes()


@dataclass(frozen=True, slots=True)
class Segmenter:
    """Something that cuts text into words.

    Attributes:
        name: what a store records, with the version, e.g. "rjieba 0.2.2".
        cut: the words of a text, in order, white space included; None where each character is a word.
    """

    name: str
    cut: Callable[[str], list[str]] | None


def make_segmenter(kind: SegmenterKind) -> Segmenter:
    """Return the segmenter of a kind.

    Raises:
        MissingExtraError: rjieba is asked for and not installed.
    """
    match kind:
        case "none":
            return Segmenter("none", None)
        case "rjieba":
            try:
                import rjieba
            except ImportError:
                raise MissingExtraError.of("train", 'segmenter = "rjieba"') from None
            from importlib.metadata import version

            return Segmenter(f"rjieba {version('rjieba')}", rjieba.cut)


def word_starts(text: str, segmenter: Segmenter) -> npt.NDArray[np.bool_]:
    """Return True for each token of `Vocabulary.encode(text)` that begins a word.

    The first token begins one, and so does a token after white space. A run of letters of an alphabet or of digits is
    never cut inside.

    Returns:
        bool[number of characters of the NFC text that are not white space].

    Raises:
        InputError: the text holds half of a surrogate pair, which a segmenter cannot read.
        StoreError: the segmenter's words do not rejoin to the text.
    """
    text = normalize(text)
    classes = _CLASSES.take(code_points(text), mode="clip")
    space = classes == _SPACE
    if segmenter.cut is None:
        return np.ones(len(text) - int(space.sum()), dtype=np.bool_)
    try:
        words = segmenter.cut(text)
    except UnicodeEncodeError as error:
        around = text[max(error.start - 10, 0) : error.end + 10]
        raise InputError(f"half of a surrogate pair in {around!a}; build the corpus again") from None
    if "".join(words) != text:
        raise StoreError(f"segmenter {segmenter.name} changed the text {text[:40]!a}; its words must rejoin to it")
    starts = np.zeros(len(text), dtype=np.bool_)
    starts[:1] = True
    starts[np.cumsum([len(word) for word in words], dtype=np.int64)[:-1]] = True
    run = classes == _RUN
    starts[1:] &= ~(run[1:] & run[:-1])
    starts[1:] |= space[:-1]
    kept: npt.NDArray[np.bool_] = starts[~space]
    return kept
