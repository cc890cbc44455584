"""Text as numbers: normal form, code points, white space."""

from __future__ import annotations

import unicodedata

import numpy as np
import numpy.typing as npt

WHITESPACE = (
    *range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000
)  # fmt: skip
"""Code points that encoding drops. Source: White_Space of Unicode's PropList.txt, which tokenizers' WhitespaceSplit
follows too; `str.isspace` also counts U+001C to U+001F, which are control characters here."""

NUM_CODE_POINTS = 0x110000


def normalize(text: str) -> str:
    """Return the text in NFC, the form that the corpus is cleaned to and that every character is looked up in."""
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """Return uint32[len(text)], the code point of each character; lone surrogates pass."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
