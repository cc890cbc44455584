"""Counting a split of a corpus while it is written."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from xuebu.corpus.document import SentenceDocument
from xuebu.corpus.overlap import code_points
from xuebu.corpus.profile import Profile, document_bin, profile_of
from xuebu.corpus.settings import Field
from xuebu.rng import key_of

Int64 = npt.NDArray[np.int64]

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
MAX_NAMES = 100
OTHERS = "(others)"

_MAX_KNOWN_NAMES = 10_000
_BATCH_CHARACTERS = 1 << 17
_NAMED = ("source", "script", "licence", "domain")
_FACTS = (*_NAMED, *(field for field in get_args(Field) if field not in _NAMED))
_facts_of = attrgetter(*_FACTS)


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
    """A running count of documents; memory: eight bytes a document, and one entry for each different character.

    What was counted can be taken off again, except for `groups`, the keys of the groups of all documents ever counted.
    """

    def __init__(self) -> None:
        self.documents = self.neighbors = 0
        self.groups = array("Q")
        self.lengths: Counter[int] = Counter()
        self.document_bins: Counter[int] = Counter()
        self._filled: Counter[str] = Counter()
        self._names: dict[str, Counter[str]] = {field: Counter() for field in _NAMED}
        self._characters = np.zeros(0, dtype=np.int64)  # of each code point, how often it occurs
        self._facts: Counter[tuple[Any, ...]] = Counter()  # of documents: `_NAMED`, then which of `Field` are filled
        self._texts: dict[int, list[str]] = {1: [], -1: []}  # to be counted, and taken off, many at once
        self._num_waiting = 0

    @property
    def characters(self) -> Counter[str]:
        """Return how often each character occurs."""
        self._count_texts()
        codes = np.flatnonzero(self._characters)
        return Counter(dict(zip(map(chr, codes.tolist()), self._characters[codes].tolist(), strict=True)))

    @property
    def filled(self) -> Counter[str]:
        """Return how many documents have each field."""
        self._count_facts()
        return self._filled

    @property
    def names(self) -> dict[str, Counter[str]]:
        """Return the sources, scripts, licences and domains of documents: of 0 documents, where all were taken off."""
        self._count_facts()
        return self._names

    def add(self, document: SentenceDocument) -> None:
        """Count one document."""
        self.groups.append(key_of(document.group))
        self._count(document, 1)

    def take_off(self, document: SentenceDocument) -> None:
        """Undo `add`."""
        self._count(document, -1)

    def _count(self, document: SentenceDocument, times: int) -> None:
        self.documents += times
        self.neighbors += times * (len(document.sentences) - 1 - len(document.gaps))
        lengths = list(map(len, document.sentences))
        if times > 0:
            self.lengths.update(lengths)
        else:
            self.lengths.subtract(lengths)
        self._texts[times] += document.sentences
        self._num_waiting += (characters := sum(lengths))
        self.document_bins[document_bin(characters)] += times
        if self._num_waiting >= _BATCH_CHARACTERS:
            self._count_texts()
        facts = _facts_of(document)
        self._facts[(*facts[: len(_NAMED)], *map(bool, facts[len(_NAMED) :]))] += times
        if len(self._facts) >= _MAX_KNOWN_NAMES:
            self._count_facts()

    def _count_texts(self) -> None:
        for times, texts in self._texts.items():
            self._add_characters(times * np.bincount(code_points("".join(texts))))
            texts.clear()
        self._num_waiting = 0

    def _add_characters(self, counts: Int64) -> None:
        if len(counts) > len(self._characters):
            self._characters = np.pad(self._characters, (0, len(counts) - len(self._characters)))
        self._characters[: len(counts)] += counts

    def _count_facts(self) -> None:
        for facts, count in self._facts.items():
            for field, name in zip(_NAMED, facts, strict=False):
                _count_name(self._names[field], name, count, _MAX_KNOWN_NAMES)
            for field, fact in zip(_FACTS, facts, strict=True):
                if fact:
                    self._filled[field] += count
        self._facts.clear()

    def include(self, other: Tally) -> None:
        """Add the counts of the documents that come next."""
        self.documents += other.documents
        self.neighbors += other.neighbors
        self.groups.extend(other.groups)
        self.lengths.update(other.lengths)
        self.document_bins.update(other.document_bins)
        other._count_texts()
        self._add_characters(other._characters)
        self.filled.update(other.filled)
        for field, counter in self.names.items():
            for name, count in other.names[field].items():
                _count_name(counter, name, count, _MAX_KNOWN_NAMES)

    def to_json(self) -> dict[str, Any]:
        """Return all but the groups as plain values."""
        characters = self.characters
        return {
            "documents": self.documents,
            "neighbors": self.neighbors,
            "lengths": {length: count for length, count in sorted(self.lengths.items()) if count},
            "document_bins": {number: count for number, count in sorted(self.document_bins.items()) if count},
            "characters": ["".join(characters), list(characters.values())],
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
        text, counts = table["characters"]
        codes = code_points(text)
        tally._characters = np.zeros(int(codes.max(initial=0)) + 1, dtype=np.int64)
        tally._characters[codes] = counts
        tally._filled = Counter(table["filled"])
        tally._names = {field: Counter(counts) for field, counts in table["names"].items()}
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
                if count:
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
