"""Cleaning text: one spelling of each character, no invisible ones, one kind of space; twice is the same as once.

The tables below are written out rather than taken from `unicodedata.category`, whose answers change from one Python to
the next: the same input must give the same corpus everywhere.
"""

from __future__ import annotations

import re
from functools import lru_cache
from unicodedata import is_normalized, normalize

HAN = "\u2e80-\u2fd5\u3005\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Inside of a regular expression's class: ideographs, their radicals, 々 and 〇 (Unicode's script Han)."""

_BREAKS = re.compile("\r\n?|[\f\u2029]")
_SHOWS_NOTHING = (
    "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_INVISIBLE = re.compile(f"[{_SHOWS_NOTHING}]+")
_PLANE_ENDS = "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0x110000, 0x10000))
_NO_CHARACTER = re.compile(f"[\ud800-\udfff\ufdd0-\ufdef{_PLANE_ENDS}]")
# Whatever the three above may change and, to be quick, some characters more: one look at a text settles most.
_UNUSUAL = re.compile(
    f"[\r\f\u2029{_SHOWS_NOTHING}\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"
    "\U0001fffe-\U0001ffff\U0002fffe-\U0002ffff\U0003fffe-\U0010ffff]"
)
_UNREADABLE = re.compile("[\ue000-\uf8ff\ufffd\U000f0000-\U0010ffff]")
_SEPARATORS = r"(?:[，,；;、：:·/]|[^\S\n])*"
# What a template left in a bracket: separators, and labels without a value, （学名：；英语：）.
_NO_VALUE_UP_TO = rf"(?:[，,；;、：:·/]|[^\S\n]|[{HAN}]{{1,8}}[：:](?=[^\S\n]*(?:[，,；;、]|%s)))*"
_NO_VALUE = re.compile(_NO_VALUE_UP_TO % "$")
_EMPTY_BRACKETS = re.compile(f"[（(]{_NO_VALUE_UP_TO % '[）)]'}[）)]")
_BRACKETS = re.compile("[（）()]")
_BEFORE_HALF_WIDTH = re.compile(f"[{HAN}”’」』》]")
_FIRST_LABELS = re.compile(rf"(?<=（)(?:{_SEPARATORS}[{HAN}]{{1,8}}[：:](?=[^\S\n]*[，,；;、]))+")
_TWO_STOPS = re.compile("(?<!。)。。(?!。)")
_REPEATED_PAUSES = re.compile(r"[，、；](?:[^\S\n]*[，、；])+")
_PAUSE_AT_END = re.compile(r"[，、；](?:(?=[^\S\n]*[。！？）)])|(?<=[（《「『][，、；]))")
_NOT_HAN = re.compile(f"[^{HAN}]+")


def clean_text(text: str) -> str:
    r"""Return text as paragraphs parted by single line feeds; empty paragraphs are gone.

    In this order: "\r\n", "\r", form feed and U+2029 become paragraph breaks. Controls and characters that show
    nothing (U+00AD, U+200B to U+200F with the joiners, bidirectional marks, U+FEFF, variation selectors, tags) are
    dropped: a character vocabulary would spend an entry on each, and equal sentences would look different. Lone
    surrogates and code points that Unicode bars from text become U+FFFD. The rest is put in form NFC. What extractors
    leave behind, all over Wikipedia, is dropped: full-width brackets that hold only separators and labels without a
    value, such as （，；） and （学名：）, and half-width ones after a Han character; such labels at the start of a
    bracket; of several pauses in a row (，，) all but the strongest; a pause at the start of a bracket, and before a
    bracket's or a sentence's end; the second of two full stops. Runs of white space become one space and a
    paragraph is trimmed; U+2028, U+0085, vertical tab and tab are white space, because real texts carry them inside
    sentences.

    Idempotent, and linear in the text's length. Private-use characters and U+FFFD stay: they stand for a character that
    was lost, and `is_unreadable` lets the build refuse such a sentence rather than forge it. So does U+FFFC, which
    stands for a formula or another object that a reader of marked-up text left out.
    """
    if _UNUSUAL.search(text):
        text = _BREAKS.sub("\n", text)
        text = _NO_CHARACTER.sub("\ufffd", text)
        text = _INVISIBLE.sub("", text)
    text = _without_residue(_nfc(text))
    return "\n".join([paragraph for line in text.split("\n") if (paragraph := " ".join(line.split()))])


def _without_residue(text: str) -> str:
    """Return text in form NFC without empty brackets and pauses that stand by themselves."""
    without = text
    if ("（" in without or "(" in without) and _EMPTY_BRACKETS.search(without):
        without = "\n".join(_without_empty_brackets(line) for line in without.split("\n"))
    if "（" in without:
        without = _FIRST_LABELS.sub("", without)
    without = _REPEATED_PAUSES.sub(lambda pauses: max(pauses[0], key=" 、，；".find), without)
    without = _TWO_STOPS.sub("。", _PAUSE_AT_END.sub("", without))
    return text if without == text else _nfc(without)


def _without_empty_brackets(line: str) -> str:
    """Return a line without brackets that hold no value, or such brackets only, in one pass whatever their depth.

    Half-width ones go after a Han character only: `f()` is code. A bracket may be closed in the other width.
    """
    parts: list[str] = []
    opened: list[tuple[int, bool]] = []  # of each open bracket, its place in `parts` and whether another stays in it
    last = 0
    for bracket in _BRACKETS.finditer(line):
        parts.append(line[last : bracket.start()])
        last = bracket.end()
        if bracket[0] in "（(":
            opened.append((len(parts), False))
        elif opened:
            start, holds_bracket = opened.pop()
            if (
                not holds_bracket
                and _NO_VALUE.fullmatch("".join(parts[start + 1 :]))
                and (parts[start] == "（" or _BEFORE_HALF_WIDTH.match(_last_character(parts, start)))
            ):
                del parts[start:]
                continue
            if opened:
                opened[-1] = (opened[-1][0], True)
        parts.append(bracket[0])
    parts.append(line[last:])
    return "".join(parts)


def _last_character(parts: list[str], end: int) -> str:
    """Return the character before a part, white space apart; "" where there is none."""
    return next((before[-1] for place in range(end - 1, -1, -1) if (before := parts[place].rstrip())), "")


@lru_cache(maxsize=64)  # names of sources and licences come with each document, and its title three times
def clean_line(text: str) -> str:
    """Return a title, id or other short string cleaned as `clean_text`, on one line."""
    return clean_text(text).replace("\n", " ") if text else ""


def _nfc(text: str) -> str:
    return text if is_normalized("NFC", text) else normalize("NFC", text)


def is_unreadable(text: str) -> bool:
    """Return whether a character of the text was lost: private use, or U+FFFD."""
    return _UNREADABLE.search(text) is not None


def count_han(text: str) -> int:
    """Return how many characters of the text are Han."""
    return len(_NOT_HAN.sub("", text))
