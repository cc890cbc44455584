"""Counting a split of a corpus while it is written."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from xuebu.corpus.document import SentenceDocument
from xuebu.corpus.settings import Field
from xuebu.rng import key_of

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
MAX_NAMES = 100
OTHERS = "(others)"


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
        sources, scripts, licences: name -> documents, in the order of the input; beyond 100 names "(others)"; an
            unknown script or licence is "".
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


class Tally:
    """A running count of documents; memory: eight bytes a document, and one entry for each different character."""

    def __init__(self) -> None:
        self.documents = self.neighbors = 0
        self.groups = array("Q")
        self.lengths: Counter[int] = Counter()
        self.distinct: set[str] = set()
        self.filled: Counter[str] = Counter()
        self.names: dict[str, Counter[str]] = {"source": Counter(), "script": Counter(), "licence": Counter()}

    def add(self, document: SentenceDocument) -> None:
        """Count one document."""
        self.documents += 1
        self.neighbors += len(document.sentences) - 1 - len(document.gaps)
        self.groups.append(key_of(document.group))
        self.lengths.update(map(len, document.sentences))
        self.distinct.update(*document.sentences)
        self.filled.update(field for field in get_args(Field) if getattr(document, field))
        for field, counter in self.names.items():
            name = getattr(document, field)
            counter[name if name in counter or len(counter) < MAX_NAMES else OTHERS] += 1


def counts_of(tallies: Sequence[Tally]) -> Counts:
    """Return the counts of one tally, or of several together."""
    lengths = sum((tally.lengths for tally in tallies), Counter[int]())
    sentences, characters = lengths.total(), sum(length * count for length, count in lengths.items())
    names = {field: sum((tally.names[field] for tally in tallies), Counter[str]()) for field in tallies[0].names}
    return Counts(
        documents=sum(tally.documents for tally in tallies),
        groups=len(np.unique(np.concatenate([np.frombuffer(tally.groups, dtype=np.uint64) for tally in tallies]))),
        sentences=sentences,
        characters=characters,
        neighbors=sum(tally.neighbors for tally in tallies),
        distinct_characters=len(set().union(*(tally.distinct for tally in tallies))),
        mean_sentence_length=characters / sentences if sentences else None,
        length_quantiles=_quantiles(lengths),
        filled={field: sum(tally.filled[field] for tally in tallies) for field in get_args(Field)},
        sources=dict(names["source"]),
        scripts=dict(names["script"]),
        licences=dict(names["licence"]),
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
