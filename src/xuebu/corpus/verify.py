"""The published study's five conditions on a corpus, checked on its card."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from xuebu.config import check_settings
from xuebu.corpus.card import Card
from xuebu.corpus.settings import VerifySettings


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition: its name, what is measured, the threshold in words, and whether it is met."""

    name: str
    value: float
    threshold: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Verification:
    """The conditions, in a fixed order."""

    conditions: tuple[Condition, ...]

    @property
    def passed(self) -> bool:
        """Return whether every condition is met."""
        return all(condition.passed for condition in self.conditions)

    def summary(self) -> str:
        """Return a table in plain text, and below it what failed."""
        rows = [("condition", "value", "asked", "")]
        rows += [(c.name, _shown(c.value), c.threshold, "passed" if c.passed else "FAILED") for c in self.conditions]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        failed = [condition.name for condition in self.conditions if not condition.passed]
        lines.append(f"{len(failed)} of {len(rows) - 1} failed: {', '.join(failed)}" if failed else "all passed")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the conditions as plain values."""
        return {"passed": self.passed, "conditions": [dataclasses.asdict(condition) for condition in self.conditions]}


def verify_corpus(card: Card, settings: VerifySettings | None = None) -> Verification:
    """Check the five conditions on a corpus: sentences, vocabulary, mean length, duplicates, complete fields.

    The vocabulary is the number of different characters, which is what a character vocabulary without a floor has. The
    duplicates are those left in the corpus, not those found while it was built. An empty corpus fails.

    Raises:
        ConfigError: a threshold is out of its range.
    """
    settings = settings or VerifySettings()
    check_settings(settings, where="verify settings")
    mean = card.mean_sentence_length or 0.0
    duplicates = card.duplicates_left / card.sentences if card.sentences else 0.0
    complete = min((card.whole.filled[field] for field in settings.required_fields), default=card.documents)
    share = complete / card.documents if card.documents else 0.0
    return Verification(
        (
            Condition(
                "sentences",
                card.sentences,
                f"at least {settings.min_sentences:,}",
                card.sentences >= settings.min_sentences,
            ),
            Condition(
                "vocabulary (different characters)",
                card.distinct_characters,
                f"at least {settings.min_vocabulary:,}",
                card.distinct_characters >= settings.min_vocabulary,
            ),
            Condition(
                "mean sentence length (characters)",
                mean,
                f"{settings.min_mean_length:g} to {settings.max_mean_length:g}",
                settings.min_mean_length <= mean <= settings.max_mean_length,
            ),
            Condition(
                "duplicate share",
                duplicates,
                f"below {settings.max_duplicate_share:g}",
                card.sentences > 0 and (duplicates < settings.max_duplicate_share or not card.duplicates_left),
            ),
            Condition(
                f"documents with {', '.join(settings.required_fields) or 'any field'}",
                share,
                "all of them",
                card.documents > 0 and complete == card.documents,
            ),
        )
    )


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
