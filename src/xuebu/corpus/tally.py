"""Counting a split of a corpus while it is written."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from xuebu.corpus.document import SentenceDocument
from xuebu.corpus.overlap import code_points
from xuebu.corpus.profile import Profile, document_bin, profile_of
from xuebu.corpus.settings import Field
from xuebu.rng import key_of

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
MAX_NAMES = 100
OTHERS = "(others)"

_MAX_KNOWN_NAMES = 10_000
_BATCH_CHARACTERS = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a split, or a whole corpus, holds.

    Attributes:
        documents: documents.
        groups: different groups.
        sentences: sentences.
        characters: characters of all sentences, punctuation included.
        neighbors: pairs of sentences of which the second truly follows the first.
        distinct_characters: different characters.
        mean_sentence_length: characters a sentence; None where there is no sentence.
        length_quantiles: quantile as text ("0.05") -> the shortest length that at least this share of the sentences
            does not exceed.
        filled: field of a document -> documents that have it.
        sources, scripts, licences, domains: name -> documents, in the order of the input; beyond 100 names
            "(others)"; an unknown script, licence or domain is "".
    """

    documents: int
    groups: int
    sentences: int
    characters: int
    neighbors: int
    distinct_characters: int
    mean_sentence_length: float | None
    length_quantiles: dict[str, int]
    filled: dict[str, int]
    sources: dict[str, int]
    scripts: dict[str, int]
    licences: dict[str, int]
    domains: dict[str, int]


class Tally:
    """A running count of documents; memory: eight bytes a document, and one entry for each different character."""

    def __init__(self) -> None:
        self.documents = self.neighbors = 0
        self.groups = array("Q")
        self.lengths: Counter[int] = Counter()
        self.document_bins: Counter[int] = Counter()
        self.filled: Counter[str] = Counter()
        self.names: dict[str, Counter[str]] = {field: Counter() for field in ("source", "script", "licence", "domain")}
        self._characters: Counter[str] = Counter()
        self._texts: list[str] = []  # sentences whose characters are still to be counted, many at once
        self._num_waiting = 0

    @property
    def characters(self) -> Counter[str]:
        """Return how often each character occurs."""
        counts = np.bincount(code_points("".join(self._texts)))
        self._texts, self._num_waiting = [], 0
        for code in np.flatnonzero(counts).tolist():
            self._characters[chr(code)] += int(counts[code])
        return self._characters

    def add(self, document: SentenceDocument) -> None:
        """Count one document."""
        self.documents += 1
        self.neighbors += len(document.sentences) - 1 - len(document.gaps)
        self.groups.append(key_of(document.group))
        lengths = list(map(len, document.sentences))
        self.lengths.update(lengths)
        self._texts += document.sentences
        self._num_waiting += (characters := sum(lengths))
        self.document_bins[document_bin(characters)] += 1
        if self._num_waiting >= _BATCH_CHARACTERS:
            _ = self.characters
        self.filled.update(field for field in get_args(Field) if getattr(document, field))
        for field, counter in self.names.items():
            _count_name(counter, getattr(document, field), 1, _MAX_KNOWN_NAMES)

    def include(self, other: Tally) -> None:
        """Add the counts of the documents that come next."""
        self.documents += other.documents
        self.neighbors += other.neighbors
        self.groups.extend(other.groups)
        self.lengths.update(other.lengths)
        self.document_bins.update(other.document_bins)
        self.characters.update(other.characters)
        self.filled.update(other.filled)
        for field, counter in self.names.items():
            for name, count in other.names[field].items():
                _count_name(counter, name, count, _MAX_KNOWN_NAMES)

    def to_json(self) -> dict[str, Any]:
        """Return all but the groups as plain values."""
        return {
            "documents": self.documents,
            "neighbors": self.neighbors,
            "lengths": dict(sorted(self.lengths.items())),
            "document_bins": dict(sorted(self.document_bins.items())),
            "characters": dict(sorted(self.characters.items())),
            "filled": dict(self.filled),
            "names": {field: dict(counter) for field, counter in self.names.items()},
        }

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> Tally:
        """Return the tally that `to_json` wrote, without groups."""
        tally = cls()
        tally.documents, tally.neighbors = table["documents"], table["neighbors"]
        tally.lengths = Counter({int(length): count for length, count in table["lengths"].items()})
        tally.document_bins = Counter({int(number): count for number, count in table["document_bins"].items()})
        tally._characters = Counter(table["characters"])
        tally.filled = Counter(table["filled"])
        tally.names = {field: Counter(counts) for field, counts in table["names"].items()}
        return tally


def _count_name(counter: Counter[str], name: str, count: int, limit: int) -> None:
    """Count a name, or the rest together where there are `limit` names already."""
    counter[name if name in counter or len(counter) < limit else OTHERS] += count


def profile_of_tallies(tallies: Sequence[Tally]) -> Profile:
    """Return how the text of one tally, or of several together, is spread."""
    characters: Counter[str] = Counter()
    for tally in tallies:
        characters.update(tally.characters)
    return profile_of(
        characters,
        sum((tally.lengths for tally in tallies), Counter[int]()),
        sum((tally.document_bins for tally in tallies), Counter[int]()),
    )


def counts_of(tallies: Sequence[Tally]) -> Counts:
    """Return the counts of one tally, or of several together."""
    lengths = sum((tally.lengths for tally in tallies), Counter[int]())
    sentences, characters = lengths.total(), sum(length * count for length, count in lengths.items())
    names: dict[str, Counter[str]] = {field: Counter() for field in tallies[0].names}
    for field, counter in names.items():
        for tally in tallies:
            for name, count in tally.names[field].items():
                _count_name(counter, name, count, MAX_NAMES)
    return Counts(
        documents=sum(tally.documents for tally in tallies),
        groups=len(np.unique(np.concatenate([np.frombuffer(tally.groups, dtype=np.uint64) for tally in tallies]))),
        sentences=sentences,
        characters=characters,
        neighbors=sum(tally.neighbors for tally in tallies),
        distinct_characters=len(set().union(*(tally.characters for tally in tallies))),
        mean_sentence_length=characters / sentences if sentences else None,
        length_quantiles=_quantiles(lengths),
        filled={field: sum(tally.filled[field] for tally in tallies) for field in get_args(Field)},
        sources=dict(names["source"]),
        scripts=dict(names["script"]),
        licences=dict(names["licence"]),
        domains=dict(names["domain"]),
    )


def _quantiles(lengths: Counter[int]) -> dict[str, int]:
    """Return quantiles of counted values by the inverse of the empirical distribution function.

    Source: Hyndman and Fan 1996, definition 1 (numpy's "inverted_cdf").
    """
    if not lengths:
        return {}
    values = np.array(sorted(lengths))
    cumulative = np.cumsum([lengths[int(value)] for value in values])
    ranks = np.maximum(1, np.ceil(np.array(QUANTILES) * cumulative[-1] - 1e-9))
    places = np.searchsorted(cumulative, ranks)
    return {f"{quantile:g}": int(values[place]) for quantile, place in zip(QUANTILES, places, strict=True)}
