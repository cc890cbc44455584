"""Counting what is dropped: every refusal has a named reason, and if asked its text is written aside."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Level = Literal["file", "document", "sentence"]

REASONS: dict[str, tuple[Level, str]] = {
    "unknown_file": ("file", "in a folder, a file of a kind that is not read"),
    "empty_file": ("file", "a file without a document"),
    "empty_document": ("document", "no text is left after cleaning"),
    "no_sentence_left": ("document", "every sentence of the document was refused"),
    "held_out_title_in_training": ("document", "a held-out document of another group whose title is also in training"),
    "held_out_overlaps_training": (
        "document",
        "a held-out document with three or more runs of 20 characters that are also in training",
    ),
    "repeats_title": ("sentence", "the first paragraph only repeats the title"),
    "too_short": ("sentence", "fewer characters than min_sentence_characters"),
    "too_long": ("sentence", "more characters than max_sentence_characters"),
    "low_han_share": ("sentence", "a smaller share of Han characters than min_han_share"),
    "unreadable_character": ("sentence", "holds a lost character: private use or U+FFFD"),
    "duplicate_sentence": ("sentence", "equal to an earlier sentence"),
    "held_out_sentence_in_training": ("sentence", "a held-out sentence that is also in training"),
}
"""Reason -> (what is refused, in plain words why)."""


@dataclass(frozen=True, slots=True)
class RefusalCount:
    """How much was refused under one reason.

    Attributes:
        count: files, documents or sentences, as the reason's level says.
        characters: cleaned characters lost with them, each counted under one reason only; 0 for files, which are
            not opened or hold none.
    """

    count: int
    characters: int


class Refusals:
    """A running account of refusals; `aside`, if given, receives each refused text as one line of JSON."""

    def __init__(self, aside: Callable[[str], None] | None = None) -> None:
        self._aside = aside
        self._counts: dict[str, list[int]] = {}

    def add(self, reason: str, *texts: str, source: str = "", id: str = "") -> None:
        """Count one refusal under a reason of `REASONS`, with the cleaned texts that are lost by it, if any."""
        level = REASONS[reason][0]
        entry = self._counts.setdefault(reason, [0, 0])
        entry[0] += 1
        entry[1] += sum(map(len, texts))
        if self._aside is not None:
            record = {"reason": reason, "level": level, "source": source, "id": id, "text": "\n".join(texts)}
            self._aside(json.dumps(record, ensure_ascii=False))

    def include(self, other: Refusals) -> None:
        """Add another account's counts to this one."""
        for reason, (count, characters) in other._counts.items():
            entry = self._counts.setdefault(reason, [0, 0])
            entry[0] += count
            entry[1] += characters

    def counts(self) -> dict[str, RefusalCount]:
        """Return what was refused by reason, in the order of `REASONS`."""
        return {reason: RefusalCount(*self._counts[reason]) for reason in REASONS if reason in self._counts}

    def count_of(self, reason: str) -> int:
        """Return how often `reason` was given so far."""
        return self._counts.get(reason, [0, 0])[0]
