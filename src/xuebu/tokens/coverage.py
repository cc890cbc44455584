"""What a vocabulary makes of a text, before training: coverage, [UNK], tokens a character, unused entries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xuebu.tokens.text import WHITESPACE, code_points
from xuebu.tokens.vocab import Vocabulary

_AT_ONCE = 1 << 20  # characters
_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TextReport:
    """How a vocabulary cuts a text.

    Attributes:
        num_characters: of the text, white space left out.
        num_tokens: that it becomes, without special tokens.
        unknown: how often each character or word becomes [UNK], most frequent first.
        num_unknown: tokens that are [UNK].
        num_unknown_characters: characters of the text that they stand for.
        num_ordinary: entries that a text can become.
        num_used: those of them that this text becomes.
        unused: tokens of the others, in the order of their ids.
    """

    num_characters: int
    num_tokens: int
    unknown: dict[str, int]
    num_unknown: int
    num_unknown_characters: int
    num_ordinary: int
    num_used: int
    unused: tuple[str, ...]

    @property
    def tokens_per_character(self) -> float | None:
        """Length in tokens of one character of text; None where there is no text."""
        return self.num_tokens / self.num_characters if self.num_characters else None

    @property
    def coverage(self) -> float | None:
        """Share of the characters that are not in an [UNK]; None where there is no text."""
        return 1 - self.num_unknown_characters / self.num_characters if self.num_characters else None

    def summary(self) -> str:
        """Return the figures in plain words, with what each means."""
        if not self.num_characters:
            return "the text has no characters"
        lines = [
            f"{self.num_characters:,} characters become {self.num_tokens:,} tokens: "
            f"{self.tokens_per_character:.3f} tokens a character (fewer: longer texts fit into a row)",
            f"coverage {self.coverage:.4%}: {self.num_unknown_characters:,} characters are read as [UNK] "
            f"({self.num_unknown:,} tokens, {self.num_unknown / self.num_tokens:.4%}); what is [UNK] is never learned",
            f"{self.num_used:,} of {self.num_ordinary:,} entries occur; {self.num_ordinary - self.num_used:,} do not "
            "and would stay as they were drawn",
        ]
        if self.unknown:
            lines.append(f"[UNK] most often: {self.unknown_summary()}")
        if self.unused:
            more = f" and {len(self.unused) - _SHOWN:,} more" if len(self.unused) > _SHOWN else ""
            lines.append(f"unused, e.g.: {' '.join(self.unused[:_SHOWN])}{more}")
        return "\n".join(lines)

    def unknown_summary(self) -> str:
        """Return what is [UNK] most often, with counts, in one line."""
        shown = [f"{text} {count:,}" for text, count in list(self.unknown.items())[:_SHOWN]]
        more = len(self.unknown) - len(shown)
        return " · ".join(shown) + (f" · and {more:,} more" if more else "")

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "characters": self.num_characters,
            "tokens": self.num_tokens,
            "tokens_per_character": self.tokens_per_character,
            "coverage": self.coverage,
            "unknown_tokens": self.num_unknown,
            "unknown_characters": self.num_unknown_characters,
            "unknown": self.unknown,
            "ordinary_entries": self.num_ordinary,
            "used_entries": self.num_used,
            "unused": list(self.unused),
        }


def _pair(first: float | None, second: float | None, form: str) -> tuple[str, str]:
    return "-" if first is None else format(first, form), "-" if second is None else format(second, form)


def count_tokens(vocabulary: Vocabulary, texts: Iterable[str]) -> npt.NDArray[np.int64]:
    """Return int64[V], how often each entry stands in some texts, read once in bounded memory."""
    counts = np.zeros(vocabulary.num_tokens, dtype=np.int64)
    for chunk in _chunks(texts):
        counts += np.bincount(vocabulary.locate(chunk).ids, minlength=vocabulary.num_tokens)
    return counts


def report_text(vocabulary: Vocabulary, texts: Iterable[str]) -> TextReport:
    """Return how a vocabulary cuts some texts, read once in bounded memory.

    Args:
        vocabulary: of any kind.
        texts: whatever it is to be used on.
    """
    counts = np.zeros(vocabulary.num_tokens, dtype=np.int64)
    unknown: Counter[str] = Counter()
    num_characters = num_unknown_characters = 0
    is_space = np.zeros(0x3002, dtype=np.bool_)
    is_space[list(WHITESPACE)] = True
    for chunk in _chunks(texts):
        located = vocabulary.locate(chunk)
        counts += np.bincount(located.ids, minlength=vocabulary.num_tokens)
        num_characters += len(located.text) - int(is_space.take(code_points(located.text), mode="clip").sum())
        for text in vocabulary.find_unknown(located):
            unknown[text] += 1
            num_unknown_characters += 1 if vocabulary.kind == "ids" else len(text)
    special = vocabulary.special.is_special(vocabulary.num_tokens)
    unused = np.flatnonzero((counts == 0) & ~special)
    ordinary = int((~special).sum())
    return TextReport(
        num_characters=num_characters,
        num_tokens=int(counts.sum()),
        unknown=dict(sorted(unknown.items(), key=lambda item: (-item[1], item[0]))),
        num_unknown=int(counts[vocabulary.unk_id]),
        num_unknown_characters=num_unknown_characters,
        num_ordinary=ordinary,
        num_used=ordinary - len(unused),
        unused=tuple(vocabulary.tokens[token] for token in unused),
    )


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    waiting: list[str] = []
    num_waiting = 0
    for text in texts:
        waiting.append(text)
        num_waiting += len(text)
        if num_waiting >= _AT_ONCE:
            yield waiting
            waiting, num_waiting = [], 0
    yield waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class VocabularyComparison:
    """Two vocabularies side by side.

    Attributes:
        names: how to call them.
        sizes: entries of each.
        common: entries, special ones left out, that both have.
        only: entries that only the one has, in the order of ids.
        same_ids: common entries with the same id in both.
        reports: what each makes of the same text; empty where none was given.
    """

    names: tuple[str, str]
    sizes: tuple[int, int]
    common: int
    only: tuple[tuple[str, ...], tuple[str, ...]]
    same_ids: int
    reports: tuple[TextReport, ...] = ()

    def summary(self) -> str:
        """Return the comparison in plain words."""
        lines = [
            f"{self.common:,} entries are in both, {self.same_ids:,} of them with the same id",
            *(
                f"only in {name}: {len(only):,}" + (f", e.g. {' '.join(only[:_SHOWN])}" if only else "")
                for name, only in zip(self.names, self.only, strict=True)
            ),
        ]
        if self.reports:
            first, second = self.reports
            if first.num_tokens and second.num_tokens:
                ratio = second.num_tokens / first.num_tokens
                lines.append(
                    f"the text is {first.num_tokens:,} tokens by {self.names[0]} and {second.num_tokens:,} by "
                    f"{self.names[1]} ({ratio:.3f} times as many)"
                )
            lines += [
                f"[UNK] most often by {name}: {report.unknown_summary()}"
                for name, report in zip(self.names, self.reports, strict=True)
                if report.unknown
            ]
        return "\n".join(lines)

    def rows(self) -> list[tuple[str, str, str]]:
        """Return the figures side by side as a table: what, the first vocabulary, the second."""
        first, second = self.reports or (None, None)
        rows = [("entries", f"{self.sizes[0]:,}", f"{self.sizes[1]:,}")]
        if first is not None and second is not None:
            rows += [
                ("entries for text", f"{first.num_ordinary:,}", f"{second.num_ordinary:,}"),
                ("of them used", f"{first.num_used:,}", f"{second.num_used:,}"),
                ("tokens of the text", f"{first.num_tokens:,}", f"{second.num_tokens:,}"),
                ("tokens a character", *_pair(first.tokens_per_character, second.tokens_per_character, ".4f")),
                ("coverage", *_pair(first.coverage, second.coverage, ".4%")),
                ("[UNK] tokens", f"{first.num_unknown:,}", f"{second.num_unknown:,}"),
            ]
        return rows

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "names": list(self.names),
            "sizes": list(self.sizes),
            "common": self.common,
            "same_ids": self.same_ids,
            "only": [list(only) for only in self.only],
            "reports": [report.to_json() for report in self.reports],
        }


def compare_vocabularies(
    first: Vocabulary, second: Vocabulary, *, names: tuple[str, str], texts: Iterable[str] | None = None
) -> VocabularyComparison:
    """Return what two vocabularies have in common, and what each makes of a text.

    Args:
        first, second: of any kinds.
        names: how to call them.
        texts: read once, kept in memory.
    """
    listed = None if texts is None else list(texts)
    ids = [{token: index for index, token in enumerate(one.tokens)} for one in (first, second)]
    ordinary = [
        [one.tokens[token] for token in one.special.ordinary_ids(one.num_tokens).tolist()] for one in (first, second)
    ]
    common = set(ordinary[0]) & set(ordinary[1])
    return VocabularyComparison(
        names=names,
        sizes=(first.num_tokens, second.num_tokens),
        common=len(common),
        only=(
            tuple(token for token in ordinary[0] if token not in common),
            tuple(token for token in ordinary[1] if token not in common),
        ),
        same_ids=sum(ids[0][token] == ids[1][token] for token in common),
        reports=() if listed is None else (report_text(first, listed), report_text(second, listed)),
    )
