"""Classes of tokens that figures are told apart by: Han characters, letters, digits, punctuation."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from xuebu.corpus.clean import HAN
from xuebu.tokens.special import CONTINUATION
from xuebu.tokens.vocab import Vocabulary

OTHER = "other"
_HAN = re.compile(f"[{HAN}]")
# Written out, as in corpus.clean: unicodedata answers differently from one Python to the next.
PATTERNS = (
    (
        "latin",
        re.compile(
            "[A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff\uff21-\uff3a\uff41-\uff5a]"
        ),
    ),
    ("digit", re.compile("[0-9\uff10-\uff19]")),
    (
        "punctuation",
        re.compile(
            "[!-/:-@\\[-`{-~\u00a1\u00a7\u00ab\u00b7\u00bb\u00bf\u2010-\u2027\u2030-\u205e\u3001-\u3003\u3008-\u3011"
            "\u3014-\u301f\u30fb\ufe30-\ufe4f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65]"
        ),
    ),
)
"""Name and pattern of each class beside Han, of single characters."""

CLASSES = ("han", *(name for name, _ in PATTERNS), OTHER)


def class_of(text: str) -> str:
    """Return the class of a token's text: that of its first character, without "##"."""
    first = text.removeprefix(CONTINUATION)[:1] or text[:1]
    if _HAN.match(first):
        return "han"
    return next((name for name, pattern in PATTERNS if pattern.match(first)), OTHER)


def token_classes(vocabulary: Vocabulary) -> npt.NDArray[np.int8]:
    """Return int8[tokens], for each token the index of its class in CLASSES; special tokens are of class "other"."""
    is_special = vocabulary.special.is_special(vocabulary.num_tokens)
    names = (OTHER if special else class_of(text) for text, special in zip(vocabulary.tokens, is_special, strict=True))
    return np.fromiter(map(CLASSES.index, names), dtype=np.int8, count=vocabulary.num_tokens)
