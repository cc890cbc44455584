"""Cutting text of Latin, Greek or Cyrillic script into sentences, losing nothing."""

from __future__ import annotations

import re

_ABBREVIATIONS = frozenset(
    """adm al approx apr art assn aug ave bros ca capt cf ch co col corp dec dept dr drs ed eds eg est etc ex feb fig
    figs fl fr gen gov hon ie inc jan jr jul jun lt ltd maj mar messrs mr mrs ms mt mts nd no nos nov oct op pl pp pres
    prof rd rep rev sec sen sep sept sgt sr st supt tr univ viz vol vols vs""".split()  # noqa: SIM905
)
"""What a full stop after does not end a sentence; months, titles, and what stands before a name or a number."""

_STOP = re.compile(r"(?:[.!?…]+[\"'”’»)\]]*)(?=\s+[\"'“‘«(\[¿¡—-]*(?P<next>\w))")
_LAST_WORD = re.compile(r"[\w.]+$")


def split_latin(paragraph: str) -> list[str]:
    """Return the sentences of a cleaned paragraph, in order; `"".join` of them is the paragraph.

    A sentence ends after . ! ? or … with the quotes and brackets that close there, where white space and then a capital
    letter, a digit or a letter of a script without capitals follow. A single full stop ends nothing after an initial
    ("J. Smith"), after letters with stops between ("U.S.", "e.g.") or after a common abbreviation ("Dr."): so a
    sentence that ends with one goes on into the next, which is rarer than the other way round.

    Source: the rules of Palmer 2000, "Tokenisation and sentence segmentation" (Handbook of Natural Language
    Processing), section 2.4, with a list of English abbreviations of our own.
    """
    pieces: list[str] = []
    start = 0
    for stop in _STOP.finditer(paragraph):
        if stop["next"].islower() or (stop[0] == "." and _is_abbreviation(paragraph[start : stop.start()])):
            continue
        pieces.append(paragraph[start : stop.end()])
        start = stop.end()
    if start < len(paragraph):
        pieces.append(paragraph[start:])
    return pieces


def _is_abbreviation(before: str) -> bool:
    """Return whether a text ends with something that a full stop abbreviates."""
    found = _LAST_WORD.search(before)
    if found is None:
        return False
    word = found[0].lstrip(".")
    single_letters = all(len(part) == 1 and part.isalpha() for part in word.split("."))
    return (single_letters and word != "I") or word.lower() in _ABBREVIATIONS
