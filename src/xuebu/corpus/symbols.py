"""Anonymised token ids as text: each id is one private-use character, so that every step made for text takes ids too.

Cleaning apart, nothing in a corpus asks what a character means: equal sentences, shared runs, near-duplicates, word
statistics and counts need only to know which characters are equal. Id 0 is U+F0000, id 65,533 U+FFFFD, id 65,534
U+100000, and so on to U+10FFFD. Unicode gives these code points no meaning, no normal form touches them, and they sort
as their ids.

Source: The Unicode Standard, section 23.5 (Supplementary Private Use Area-A and -B).
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from xuebu.errors import InputError

_FIRST = 0xF0000
_IN_FIRST_PLANE = 0xFFFE  # the last two code points of a plane are no characters
MAX_ID = 2 * _IN_FIRST_PLANE - 1
_DIGITS = len(str(MAX_ID))
_NUMBER = re.compile("[0-9]+")
_NO_SYMBOL = re.compile("[^\U000f0000-\U000ffffd\U00100000-\U0010fffd]+")


def symbols_of(ids: npt.ArrayLike) -> str:
    """Return one private-use character an id.

    Args:
        ids: integers in 0 to `MAX_ID`.
    """
    array = np.asarray(ids, dtype=np.int64)
    codes = _FIRST + array + 2 * (array >= _IN_FIRST_PLANE)
    return codes.astype("<u4").tobytes().decode("utf-32-le")


def ids_of(symbols: str) -> npt.NDArray[np.int64]:
    """Return the id of each character of what `symbols_of` gave, int64[len(symbols)]; -1 for any other character."""
    codes = np.frombuffer(symbols.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.int64) - _FIRST
    ids = codes - 2 * (codes > _IN_FIRST_PLANE)
    in_plane = (codes & 0xFFFF) < _IN_FIRST_PLANE
    return np.where((codes >= 0) & in_plane, ids, -1)


def read_ids(text: str, where: str) -> str:
    """Return the symbols of ids in decimal digits, parted by white space; "" where there is none.

    Raises:
        InputError: something else stands there, or an id above `MAX_ID`; begins with `where`.
    """
    words = text.split()
    wrong = next((word for word in words if not is_number(word)), None)
    if wrong is not None:
        shown = wrong if len(wrong) <= 20 else wrong[:17] + "..."
        raise InputError(
            f"{where}: {shown!a} is no token id; ids are decimal numbers without zeros before them, parted by spaces"
        )
    if any(len(word) > _DIGITS or int(word) > MAX_ID for word in words):
        raise InputError(f"{where}: an id above {MAX_ID:,}; number the tokens anew from 0")
    return symbols_of([int(word) for word in words])


def is_number(word: str) -> bool:
    """Return whether a word is a number in ASCII digits without zeros before it."""
    return word.isascii() and word.isdecimal() and (word[0] != "0" or word == "0")


def spell_ids(text: str) -> str:
    """Return a text in which each run of digits is the symbol of that id; U+FFFD where there is none so great."""
    return _NUMBER.sub(lambda number: _symbol(number[0]), text)


def only_symbols(text: str) -> str:
    """Return the symbols of a text alone, numbers spelled as such."""
    return _NO_SYMBOL.sub("", spell_ids(text))


def _symbol(digits: str) -> str:
    known = is_number(digits) and len(digits) <= _DIGITS and int(digits) <= MAX_ID
    return symbols_of([int(digits)]) if known else "\ufffd"
