"""Cutting a paragraph into sentences, losing nothing: the pieces joined are the paragraph again."""

from __future__ import annotations

import re

from xuebu.corpus.clean import HAN

_ALWAYS = "。！？；｡"
_MARKS = f"{_ALWAYS}!?．…"
_PAUSES = ("，", "、", "：", ",")
_CLOSERS = r"”’」』）】〕］)\]"

# Brackets and titles come first, so that a mark inside them is passed over; an unclosed or very long one is not.
# The look ahead changes nothing: it passes over all other characters at once.
_STOP = re.compile(
    rf"(?=[（(《{_ALWAYS}!?．])(?:"
    r"(?P<whole>（[^（）]{0,120}）|\([^()]{0,120}\)|《[^《》]{0,60}》)"
    rf"|(?:[{_ALWAYS}]|[!?．](?<=[{HAN}{_CLOSERS}].))[{_MARKS}]*(?:[{_CLOSERS}]+[{_MARKS}]*)*)"
)


def split_sentences(paragraph: str) -> list[str]:
    """Return the sentences of a cleaned paragraph, in order; `"".join` of them is the paragraph.

    A sentence ends after 。！？； with every mark that follows at once (？！, 。。。, 。……) and the quotes and brackets
    that close there (”’」』）】〕］). An ellipsis alone ends nothing. The half-width ! and ? and the full-width ．end a
    sentence only after a Han character or a closing quote or bracket, so "Yahoo! 奇摩", "x != y" and "１．２" stay
    whole; the half-width full stop never does. A straight quote (U+0022) after the mark closes if the sentence has an
    odd number of them before it. Where a pause follows the mark, the sentence goes on: “走吧。”，他说。

    Marks inside a pair of round brackets (up to 120 characters) or a title 《……》 (up to 60) do not end the sentence
    around it: 罗素（1872年生；1970年卒）、《怎么办？》. Brackets that hold a whole sentence, from its start to its
    mark, do end: （全书完。）
    """
    pieces: list[str] = []
    start = 0
    for stop in _STOP.finditer(paragraph):
        end = stop.end()
        if end <= start:
            continue
        if stop["whole"]:
            around = paragraph[start : stop.start()]
            if paragraph[end - 1] == "》" or paragraph[end - 2] not in _MARKS or (around and not around.isspace()):
                continue
        if paragraph.startswith(_PAUSES, end):
            continue
        if paragraph.startswith('"', end) and paragraph.count('"', start, end) % 2:
            end += 1
        pieces.append(paragraph[start:end])
        start = end
    if start < len(paragraph):
        pieces.append(paragraph[start:])
    return pieces
