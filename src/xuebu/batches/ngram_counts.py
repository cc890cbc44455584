"""N-gram counts of a training store, kept beside it, that can be asked without the group a question comes from.

A text that was counted has seen its own answers: what counting tells about it is worth nothing, and what trains on that
learns the text by heart. Held-out text is of groups that were never counted. So at a training position whatever the
position's own group added is taken out of every count, and the position looks like a held-out one.

The files are made once, from the store alone: columns of all kinds of context, one kind after another.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xuebu.batches.baselines import draw_documents, fit_interpolation
from xuebu.batches.batch import Batch
from xuebu.batches.contexts import (
    KINDS,
    UNUSABLE,
    ContextIndex,
    Continuations,
    Counts,
    Float64,
    Int64,
    read_documents,
    read_neighbors,
    sentence_neighbors,
    smoothed_unigram,
)
from xuebu.batches.ngram import Shown, distribute
from xuebu.batches.packing import spans
from xuebu.batches.settings import BatchSettings
from xuebu.errors import StoreError
from xuebu.files import read_json, sha256_file, write_json
from xuebu.progress import SILENT, Progress
from xuebu.tokens.columns import map_column
from xuebu.tokens.store import Store
from xuebu.tokens.vocab import Vocabulary

_FORMAT = {"format": "xuebu n-gram counts", "version": 1}
_METADATA = "metadata.json"
_COLUMNS = {"keys": "<i8", "starts": "<i8", "tokens": "<i4", "counts": "<i4", "own": "<i8", "groups": "<i8"}
COUNTED_TOKENS = 20_000_000
"""Most tokens of a store that are counted."""
_ROW_SHARE, _MATCH_SHARE = 0.03, 0.15  # chosen on training text, own groups left out

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """The contexts of one kind.

    Attributes:
        keys: int64[K], increasing; what `ContextIndex` makes of a shorter context and the neighbor that it adds.
        starts: int64[K + 1], where the entries of each context begin and end.
        tokens: int32[E], what stood there, increasing within a context.
        counts: int32[E], how often.
        own: int64[N], increasing: for each counted token, the rank of its group * E + its entry.
        discount: as in `Continuations`.
    """

    keys: Int64
    starts: Int64
    tokens: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]
    own: Int64
    discount: float

    def entries_of(self, groups: Int64, first: Int64, last: Int64) -> tuple[Int64, Int64]:
        """Return how many of the entries first to last (exclusive) each group (-1: none) owns, and them, repeated."""
        base = groups * len(self.tokens)
        start, end = np.searchsorted(self.own, base + first), np.searchsorted(self.own, base + last)
        return end - start, self.own[spans(start, end - start)] - np.repeat(base, end - start)


class NgramCounts:
    """The counts of a store. Make or open them with `ngram_counts`.

    Args:
        folder: where the files lie.
        store: what was counted.
        vocabulary: of the store.
        with_rows: whether guesses also follow what the row of a question shows, as `show_rows` says.

    Attributes:
        weights: float64[buckets, components], of interpolation.

    Raises:
        StoreError: they are of another store, or damaged.
    """

    def __init__(self, folder: Path, store: Store, vocabulary: Vocabulary, *, with_rows: bool = False) -> None:
        facts = read_json(folder / _METADATA)
        if {key: facts.get(key) for key in _FORMAT} != _FORMAT or facts.get("store") != store.digest:
            raise StoreError(f"{folder}: counts of another store or version; remove this folder, it is made again")
        self.store, self.vocabulary, self.with_rows = store, vocabulary, with_rows
        columns = {name: map_column(folder / f"{name}.bin", dtype) for name, dtype in _COLUMNS.items()}
        for name, digest in facts["files"].items():
            if sha256_file(folder / name) != digest:
                raise StoreError(
                    f"{folder / name}: damaged (its digest has changed); remove {folder}, it is made again"
                )
        self.weights: Float64 = np.array(facts["weights"], dtype=np.float64)
        self._unigram: Float32 = np.array(facts["unigram"], dtype=np.float32)
        self._num_tokens: int = facts["num_tokens"]
        self._groups: Int64 = columns["groups"]
        self._base = vocabulary.num_tokens + 1
        self._tables: dict[str, _Table] = {}
        for kind in KINDS:
            bounds: dict[str, list[int]] = facts["bounds"][kind]
            parts: dict[str, Any] = {name: columns[name][first:last] for name, (first, last) in bounds.items()}
            self._tables[kind] = _Table(**parts, discount=facts["discounts"][kind])

    def guess(
        self,
        batch: Batch,
        predictions: Int64,
        masking: BatchSettings,
        *,
        leave_out: bool,
        longest: int | None = None,
    ) -> Float32:
        """Return what counting says about some masked tokens of a batch, float32[len(predictions), V]; rows add to 1.

        Args:
            batch: rows after masking; labels are not read.
            predictions: numbers of the masked tokens in the batch.
            masking: the shares with which it was masked: a visible token in a masked place is evidence.
            leave_out: the batch is of the counted store; what each token's own group added to the counts is taken out.
            longest: as in `read_neighbors`.
        """
        neighbors = read_neighbors(batch, self.vocabulary, longest)[predictions]
        ranks = np.full(len(predictions), -1, dtype=np.int64)
        if leave_out and len(self._groups):
            groups = self.store.document_group[batch.prediction_documents[predictions]]
            found = np.minimum(np.searchsorted(self._groups, groups), len(self._groups) - 1)
            ranks = np.where(self._groups[found] == groups, found, -1)
        counts = self.look_up(neighbors, ranks)
        visible = batch.input_ids[batch.masked_positions[predictions]]
        return distribute(
            counts,
            self.weights,
            neighbors,
            visible=visible,
            vocabulary=self.vocabulary,
            masking=masking,
            shown=show_rows(batch, predictions, self.vocabulary) if self.with_rows else None,
        )

    def look_up(self, neighbors: Int64, ranks: Int64) -> Counts:
        """Return the counts of the contexts of some questions, each without those of its own group.

        Args:
            neighbors: int64[M, 4], as `read_neighbors` gives them.
            ranks: int64[M], the rank of each question's group among the counted ones, -1: none is left out.
        """
        located: dict[str, Int64] = {}
        contexts: dict[str, Int64] = {}
        continuations: dict[str, Continuations] = {}
        for kind, table in self._tables.items():
            located[kind] = self._locate(kind, neighbors, located)
            asked = np.flatnonzero(located[kind] >= 0)
            found = _without_own(table, located[kind][asked], ranks[asked])
            starts = np.zeros(len(neighbors) + 1, dtype=np.int64)
            starts[asked + 1] = found.lengths
            rest = np.ones(len(neighbors) + 1, dtype=np.float32)
            rest[asked] = found.rest
            contexts[kind] = np.full(len(neighbors), -1, dtype=np.int64)
            contexts[kind][asked] = np.where(found.rest < 1.0, asked, -1)
            continuations[kind] = Continuations(
                starts=np.cumsum(starts),
                codes=np.zeros(0, dtype=np.int64),
                tokens=found.tokens,
                shares=found.shares,
                rest=rest,
                discount=table.discount,
            )
        return Counts(
            contexts=contexts,
            continuations=continuations,
            unigram=self._unigram,
            num_tokens=self._num_tokens,
            base=self._base,
        )

    def _locate(self, kind: str, neighbors: Int64, located: dict[str, Int64]) -> Int64:
        """Return the number of each question's context of a kind, -1 where it was never seen or is not readable."""
        shorter, column = KINDS[kind]
        added, known = neighbors[:, column], self._tables[kind].keys
        keys = added if shorter is None else located[shorter] * self._base + added
        usable = added != UNUSABLE
        if shorter is not None:
            usable &= located[shorter] >= 0
        numbers = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        return np.where(usable & (known[numbers] == keys), numbers, -1)


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """Entries of some contexts, one after another: how many each has, their tokens and shares; rest as in `rest`."""

    lengths: Int64
    tokens: npt.NDArray[np.int32]
    shares: Float32
    rest: Float32


def _without_own(table: _Table, contexts: Int64, ranks: Int64) -> _Found:
    """Return the entries of some contexts, with what each one's group added taken out."""
    first, last = table.starts[contexts], table.starts[contexts + 1]
    lengths = last - first
    offsets = np.cumsum(lengths) - lengths
    entries = spans(first, lengths)
    counts = table.counts[entries].astype(np.float32)
    totals = np.add.reduceat(counts, offsets) if len(offsets) else np.zeros(0, dtype=np.float32)
    num_own, own = table.entries_of(ranks, first, last)
    at = own - np.repeat(first - offsets, num_own)
    np.subtract.at(counts, at, np.float32(1.0))
    touched = at[np.flatnonzero(np.diff(at, prepend=-1))]  # they are sorted
    gone = touched[counts[touched] == 0.0]
    left = lengths - np.bincount(np.searchsorted(offsets, gone, side="right") - 1, minlength=len(lengths))
    totals = np.maximum(totals - num_own, 1.0).astype(np.float32)  # of a context that is not left, nothing is used
    discount = np.float32(table.discount)
    shares = np.maximum(counts - discount, np.float32(0.0)) / np.repeat(totals, lengths)
    rest = np.where(left > 0, discount * left / totals, 1.0).astype(np.float32)
    return _Found(lengths, table.tokens[entries], shares, rest)


def show_rows(batch: Batch, predictions: Int64, vocabulary: Vocabulary) -> Shown:
    """Return what the rows of some masked tokens show: a text repeats its words.

    Every visible token of the row has an equal part of one share. Those that stand beside the same left or right
    neighbor as the masked one have a part of a second and larger share for each of the two. Neither labels nor masked
    places are read.

    Source: Kuhn and De Mori 1990, "A cache-based natural language model for speech recognition"; here the cache is the
    row, both sides of the question.
    """
    ids = batch.input_ids.astype(np.int64)
    is_ordinary = ~vocabulary.special.is_special(vocabulary.num_tokens)
    is_visible = is_ordinary[ids]
    is_visible[batch.masked_positions] = False
    places = batch.masked_positions[predictions]
    row = np.searchsorted(batch.row_offsets, places, side="right") - 1
    lengths = np.diff(batch.row_offsets)[row]
    at = spans(batch.row_offsets[row], lengths)
    questions = np.repeat(np.arange(len(places)), lengths)
    questions, at = questions[is_visible[at]], at[is_visible[at]]
    matches = np.zeros(len(at))
    for step in (-1, 1):  # what is visible has a neighbor on either side, [CLS] and [SEP] if nothing else
        neighbor = ids[places + step][questions]
        matches += (ids[at + step] == neighbor) & is_ordinary[neighbor]
    count = np.bincount(questions, minlength=len(places))
    total = np.bincount(questions, matches, len(places))
    shares = _ROW_SHARE / count[questions] + _MATCH_SHARE * matches / np.maximum(total, 1.0)[questions]
    return Shown(questions, ids[at], shares.astype(np.float32))


def ngram_counts(
    store: Store, vocabulary: Vocabulary, *, with_rows: bool = False, progress: Progress = SILENT
) -> NgramCounts:
    """Open the counts of a store, made first where they are missing: in the folder `ngrams` of the store.

    At most 20 million tokens are counted, as the n-gram baseline draws them; its weights of interpolation are used.

    Raises:
        StoreError: the store is of another vocabulary, or the counts are damaged or cannot be written.
    """
    if store.vocabulary_digest != vocabulary.digest:
        raise StoreError(f"{store.folder}: built with another vocabulary; build the store again")
    folder = store.folder / "ngrams"
    if not (folder / _METADATA).exists():
        aside = folder.with_name(f"{folder.name}.{os.getpid()}")
        try:
            with progress.task("counting n-grams", total=len(KINDS) + 1, unit="kinds") as task:
                _build(aside, store, vocabulary, task.advance)
            if not (folder / _METADATA).exists():
                shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
        except OSError as error:
            if not (folder / _METADATA).exists():  # else another process was first, with the same files
                raise StoreError(f"{folder}: n-gram counts cannot be written: {error.strerror}") from None
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return NgramCounts(folder, store, vocabulary, with_rows=with_rows)


def _build(folder: Path, store: Store, vocabulary: Vocabulary, advance: Callable[[], None]) -> None:
    """Count all contexts of a store and write the columns, one kind after another; metadata last."""
    documents = draw_documents(store, COUNTED_TOKENS)
    weights, _ = fit_interpolation(store, documents, vocabulary)
    advance()
    parts = list(read_documents(store, documents))
    tokens = np.concatenate([part for part, _ in parts])
    neighbors = np.concatenate([sentence_neighbors(*part, vocabulary.num_tokens) for part in parts])
    groups, ranks = np.unique(store.document_group[documents], return_inverse=True)
    sizes = np.diff(store.sentence_offsets[store.document_offsets])[documents]
    rank_of_token = np.repeat(ranks, sizes)
    index = ContextIndex(neighbors, vocabulary.num_tokens)
    del neighbors, parts
    folder.mkdir(parents=True)
    bounds: dict[str, dict[str, tuple[int, int]]] = {}
    discounts = {}
    written = dict.fromkeys(_COLUMNS, 0)

    def write(name: str, values: npt.NDArray[Any]) -> tuple[int, int]:
        with (folder / f"{name}.bin").open("ab") as stream:
            values.astype(_COLUMNS[name]).tofile(stream)
        written[name] += len(values)
        return written[name] - len(values), written[name]

    for kind in KINDS:
        codes = index.questions[kind] * index.base + tokens
        codes, entries, counts = np.unique(codes, return_inverse=True, return_counts=True)
        contexts, continuing = np.divmod(codes, index.base)
        discounts[kind] = Continuations.of(codes, counts, index.num_contexts(kind), index.base).discount
        bounds[kind] = {
            "keys": write("keys", index.keys(kind)),
            "starts": write("starts", np.searchsorted(contexts, np.arange(index.num_contexts(kind) + 1))),
            "tokens": write("tokens", continuing),
            "counts": write("counts", counts),
            "own": write("own", np.sort(rank_of_token * len(codes) + entries)),
        }
        del index.questions[kind]
        advance()
    write("groups", groups)
    write_json(
        folder / _METADATA,
        {
            **_FORMAT,
            "store": store.digest,
            "num_tokens": len(tokens),
            "weights": weights.tolist(),
            "unigram": smoothed_unigram(np.bincount(tokens, minlength=vocabulary.num_tokens), vocabulary).tolist(),
            "discounts": discounts,
            "bounds": bounds,
            "files": {f"{name}.bin": sha256_file(folder / f"{name}.bin") for name in _COLUMNS},
        },
    )
