"""Which ids of a vocabulary are not text: the five tokens that BERT knows, and entries that no text is encoded to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""In every vocabulary; ids 0 to 4 of those that are made here, 0 and 100 to 103 of Google's Chinese one."""

CONTINUATION = "##"
"""What a WordPiece entry begins with that goes on with a word."""

_BRACKETED = re.compile(r"\[.+\]|<.+>", re.DOTALL)
_CJK_RANGES = (
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF), (0x2F800, 0x2FA1F),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """The ids that are no text.

    Attributes:
        pad, unk, cls, sep, mask: the five special tokens.
        extra: further entries that no text is encoded to, increasing: other special tokens such as <S>, [unused1] and
            its like, and, where Chinese characters are set apart, continuations of them such as "##一".
    """

    pad: int
    unk: int
    cls: int
    sep: int
    mask: int
    extra: tuple[int, ...] = ()

    @property
    def five(self) -> tuple[int, int, int, int, int]:
        """The ids of `SPECIAL_TOKENS`, in that order."""
        return self.pad, self.unk, self.cls, self.sep, self.mask

    def is_special(self, num_tokens: int) -> npt.NDArray[np.bool_]:
        """Return bool[num_tokens]: True for each id that is not text, [UNK] included.

        Args:
            num_tokens: entries of the vocabulary; above every special id.
        """
        special = np.zeros(num_tokens, dtype=np.bool_)
        special[[*self.five, *self.extra]] = True
        return special

    def ordinary_ids(self, num_tokens: int) -> npt.NDArray[np.int32]:
        """Return the ids that may be chosen for prediction and drawn as replacements, int32[K], increasing.

        Google's code draws replacements from the whole vocabulary, [PAD] and [MASK] included; of its 21,128 Chinese
        entries 7,428 are special or never occur in text, so a third of its random tokens give themselves away. Here a
        replacement is always something that a text might hold.

        Args:
            num_tokens: entries of the vocabulary; above every special id.

        Source: `create_masked_lm_predictions` in Google's create_pretraining_data.py, for what is not done here.
        """
        return np.flatnonzero(~self.is_special(num_tokens)).astype(np.int32)


def find_special(tokens: Sequence[str]) -> SpecialIds:
    """Return the special ids of a WordPiece vocabulary.

    The rule reads the entries alone, so that it is the same on every machine: what stands in brackets, [..] or <..>,
    is no text (brackets are punctuation and always tokens of their own), and neither is a continuation that holds an
    ideograph (which is set apart by spaces before words are cut into pieces).

    Args:
        tokens: with each of `SPECIAL_TOKENS` once.

    Raises:
        ValueError: one of them is missing.

    Source: `BasicTokenizer._tokenize_chinese_chars` of Google's tokenization.py, with the ranges of `tokenizers`.
    """
    pad, unk, cls, sep, mask = (tokens.index(token) for token in SPECIAL_TOKENS)
    extra = tuple(
        index
        for index, token in enumerate(tokens)
        if token not in SPECIAL_TOKENS and (_BRACKETED.fullmatch(token) or _goes_on_with_ideograph(token))
    )
    return SpecialIds(pad, unk, cls, sep, mask, extra)


def _goes_on_with_ideograph(token: str) -> bool:
    return token.startswith(CONTINUATION) and any(map(is_ideograph, token[len(CONTINUATION) :]))


def is_ideograph(character: str) -> bool:
    """Return whether BERT's tokenizers set a character apart by spaces.

    Source: `is_chinese_char` of tokenizers' BertNormalizer, which begins CJK extension E at U+2B920.
    """
    code = ord(character)
    return code >= 0x3400 and any(first <= code <= last for first, last in _CJK_RANGES)
