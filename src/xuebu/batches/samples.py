"""What the samples of an epoch are, and which text each of them shows.

A sample is known by its first sentence: of two neighbors, of a chunk that fills a sequence, or of a given pair. What is
drawn about it (its label, a stranger, where a chunk is parted) is drawn by its own key.

Letters: K samples of an epoch, B rows of a batch, S sentences of the store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xuebu.batches.batch import NO_PAIR
from xuebu.batches.pairs import check_strangers, draw_strangers
from xuebu.batches.rows import Spans
from xuebu.batches.settings import BatchSettings
from xuebu.errors import StoreError
from xuebu.rng import draw_below, draw_bits, draw_uniform
from xuebu.tokens.store import Store

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]

STRANGER, LABEL, SHORT, LENGTH, SPLIT, FRONT = range(1, 7)
"""Counters of a sample's key; 0 makes the key of its masks."""

_SENTENCES_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """The samples of an epoch.

    Attributes:
        first: int64[K], the first sentence of each; None where sample k is sentence k.
        end: int64[K], the sentence after its last one; None where a sample is a sentence with its neighbor, or alone.
        count: K, in both orders where pairs are swapped.
    """

    first: Int64 | None
    end: Int64 | None
    count: int

    def sentence(self, index: Int64) -> Int64:
        """Return the first sentence of some samples."""
        found = index if self.first is None else self.first[index % len(self.first)]
        return np.asarray(found, dtype=np.int64)

    def names(self, index: Int64) -> Int64:
        """Return a number of each sample that no other has: its first sentence, or the second of a swapped pair."""
        return self.sentence(index) + (0 if self.first is None else index // len(self.first))


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """The text of some rows.

    Attributes:
        spans: what they are made of.
        labels: int8[B], as `Batch.nsp_labels`.
        documents: int64[B, 2], as `Batch.row_documents`.
    """

    spans: Spans
    labels: npt.NDArray[np.int8]
    documents: Int64


def find_samples(store: Store, settings: BatchSettings) -> Samples:
    """Return the samples of a store.

    Raises:
        StoreError: there are none, or none that could be judged; or a source has neighbors but no strangers.
    """
    judged = settings.objective != "mlm"
    end: Int64 | None = None
    match settings.sequences:
        case "sentences":
            first = store.anchors if judged else None
            count = store.num_sentences if first is None else len(first)
        case "segments":
            first, end = cut_chunks(store, settings.text_tokens, past=True)
            count = len(first) if not judged or (end - first > 1).any() else 0
        case "full":
            first, end = cut_full(store, settings.sequence_length)
            count = len(first)
        case "pairs":
            first = _given_pairs(store)
            count = len(first) * (2 if settings.swap_pairs else 1)
    if not count:
        hint = 'no two sentences are neighbors; train with objective = "mlm"' if store.num_sentences else "is empty"
        if store.num_sentences and settings.sequences == "pairs":
            hint = 'no row has both its columns left; train with sequences = "sentences"'
        raise StoreError(f"{store.folder}: {hint}")
    if settings.objective == "nsp":
        check_strangers(store)
    return Samples(first, end, count)


def _given_pairs(store: Store) -> Int64:
    """Return the first sentence of each pair of a store of pairs; one whose partner was refused is passed over."""
    sizes = np.diff(store.document_offsets)
    if (sizes > 2).any():
        which = int(sizes.argmax())
        raise StoreError(
            f'{store.folder}: `batches.sequences` = "pairs" needs documents of two sentences, and document {which} has '
            f'{sizes[which]:,}; build the corpus with `corpus.layout` = "rows", or take another kind of `sequences`'
        )
    return np.asarray(store.anchors)


def run_ends(store: Store) -> tuple[Int64, Int64]:
    """Return where unbroken runs of sentences begin, int64[R], and the sentence after each run's last, int64[R]."""
    begins = np.flatnonzero(store.gap_before)
    return begins, np.append(begins[1:], store.num_sentences)


def cut_chunks(store: Store, limit: int, *, past: bool) -> tuple[Int64, Int64]:
    """Cut each unbroken run of sentences into chunks of about `limit` tokens, from its beginning on.

    Args:
        store: where the sentences are.
        limit: tokens.
        past: a chunk goes on until it has so many (what is too long is for the caller to cut), as in original BERT;
            else it ends before it would have more, so that only a single sentence can be too long.

    Returns:
        first and end, int64[number of chunks]: its first sentence, and the one after its last.
    """
    begins, ends = run_ends(store)
    offsets = store.sentence_offsets

    def following(sentences: Int64) -> Int64:
        wanted = offsets[sentences] + limit
        if past:
            after = np.searchsorted(offsets, wanted, side="left")
        else:
            after = np.maximum(np.searchsorted(offsets, wanted, side="right") - 1, sentences + 1)
        run = np.searchsorted(begins, sentences, side="right") - 1
        return np.minimum(after, ends[run])

    return _follow(store.num_sentences, following)


def cut_full(store: Store, length: int) -> tuple[Int64, Int64]:
    """Cut a store into sequences of whole sentences that are at most `length` tokens long, across documents.

    [CLS] begins a sequence, and [SEP] ends each run of sentences in it: the end of a document or a gap is always seen.

    Returns:
        first and end as `cut_chunks`. A sentence that is longer by itself has a sequence to itself.

    Source: Liu et al. 2019, "RoBERTa", 4.2, FULL-SENTENCES.
    """
    gaps = store.gap_before
    taken = np.concatenate([[0], np.cumsum(np.diff(store.sentence_offsets) + gaps)])

    def following(sentences: Int64) -> Int64:
        room = length - 2 + taken[sentences] + gaps[sentences]
        return np.maximum(np.searchsorted(taken, room, side="right") - 1, sentences + 1)

    return _follow(store.num_sentences, following)


def _follow(num_sentences: int, following: Callable[[Int64], Int64]) -> tuple[Int64, Int64]:
    """Return first and end of chunks that follow each other, each ending where `following` says."""
    first = list[int]()
    cursor = 0
    for start in range(0, num_sentences, _SENTENCES_AT_ONCE):
        stop = min(start + _SENTENCES_AT_ONCE, num_sentences)
        after = following(np.arange(start, stop)).tolist()
        while cursor < stop:
            first.append(cursor)
            cursor = after[cursor - start]
    begins = np.array(first, dtype=np.int64)
    return begins, np.append(begins[1:], num_sentences)[: len(begins)]


def draw_rows(
    store: Store, settings: BatchSettings, samples: Samples, index: Int64, *, keys: UInt64, follows: Bool
) -> Drawn:
    """Return the text of some samples.

    Args:
        store: where the text is.
        settings: objective, sequences and lengths.
        samples: of the store.
        index: int64[B], which samples.
        keys: uint64[B], their keys.
        follows: bool[B], which pairs are to be true ones, where there is an objective that judges them.
    """
    match settings.sequences:
        case "full":
            return _full_rows(store, settings, samples, index)
        case "segments":
            return _segment_rows(store, settings, samples, index, keys=keys, follows=follows)
    first = samples.sentence(index)
    if not settings.has_pairs:
        return sentence_rows(store, first, None, np.full(len(first), NO_PAIR), settings)
    second = first + 1
    column = np.ones(len(first), dtype=np.int64)  # of the second sentence in its pair
    if settings.swap_pairs:
        backward = index * 2 >= samples.count
        first, second = np.where(backward, second, first), np.where(backward, first, second)
        column = np.where(backward, 0, 1)
    labels = follows.astype(np.int8)
    match settings.objective:
        case "mlm":
            labels = np.full(len(first), NO_PAIR, dtype=np.int8)
        case "sop":
            first, second = np.where(follows, first, second), np.where(follows, second, first)
        case "nsp":
            drawn = draw_strangers(store, first[~follows], draw_bits(keys[~follows], STRANGER))
            if settings.sequences == "pairs":  # by its column, a question would be told from an answer
                begin, end = (store.document_offsets[store.document_of(drawn) + shift] for shift in (0, 1))
                drawn = np.minimum(begin + column[~follows], end - 1)
            second[~follows] = drawn
    return sentence_rows(store, first, second, labels, settings)


def sentence_rows(
    store: Store, first: Int64, second: Int64 | None, labels: npt.NDArray[np.integer], settings: BatchSettings
) -> Drawn:
    """Return rows of one or two sentences, each cut to its first `sentence_tokens`."""
    parts = [first] if second is None else [first, second]
    sentences = np.stack(parts, axis=1)
    starts = store.sentence_offsets[sentences]
    lengths = np.minimum(store.sentence_offsets[sentences + 1] - starts, settings.sentence_tokens)
    return two_part_rows(store, starts, lengths, labels)


def two_part_rows(store: Store, starts: Int64, lengths: Int64, labels: npt.NDArray[np.integer]) -> Drawn:
    """Return rows of one or two parts.

    Args:
        store: where the tokens are.
        starts, lengths: int64[B, 1 or 2], the first token of each part and how many; a part of none is left out.
        labels: [B].
    """
    num_rows, num_parts = starts.shape
    there = lengths.ravel() > 0
    rows = np.repeat(np.arange(num_rows), num_parts)[there]
    segments = np.tile(np.arange(num_parts, dtype=np.int8), num_rows)[there]
    spans = Spans(rows, starts.ravel()[there], lengths.ravel()[there], segments)
    documents = np.full((num_rows, 2), NO_PAIR, dtype=np.int64)
    documents[rows, segments] = document_at(store, spans.starts)
    return Drawn(spans, labels.astype(np.int8), documents)


def document_at(store: Store, places: Int64) -> Int64:
    """Return the document in which each token of the store stands."""
    return store.document_of(np.searchsorted(store.sentence_offsets, places, side="right") - 1)


def _full_rows(store: Store, settings: BatchSettings, samples: Samples, index: Int64) -> Drawn:
    """Return rows of unbroken runs, each a span."""
    assert samples.first is not None and samples.end is not None
    first, end = samples.first[index], samples.end[index]
    begins, _ = run_ends(store)
    # A row's runs: the one its first sentence stands in, and each that begins inside it.
    low, high = np.searchsorted(begins, first, side="right"), np.searchsorted(begins, end, side="left")
    counts = high - low + 1
    rows = np.repeat(np.arange(len(first)), counts)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    run = low[rows] - 1 + within
    span_first = np.where(within == 0, first[rows], begins[run])
    span_end = np.where(within == counts[rows] - 1, end[rows], np.append(begins, store.num_sentences)[run + 1])
    starts = store.sentence_offsets[span_first]
    lengths = np.minimum(store.sentence_offsets[span_end] - starts, settings.text_tokens)
    documents = np.full((len(first), 2), NO_PAIR, dtype=np.int64)
    documents[:, 0] = store.document_of(first)
    spans = Spans(rows, starts, lengths, np.zeros(len(rows), dtype=np.int8))
    return Drawn(spans, np.full(len(first), NO_PAIR, dtype=np.int8), documents)


def _segment_rows(
    store: Store, settings: BatchSettings, samples: Samples, index: Int64, *, keys: UInt64, follows: Bool
) -> Drawn:
    """Return rows of one or two segments of a chunk.

    A chunk of one sentence has nothing to part: it is one segment, and not judged. A stranger is as long as the true
    second segment would be, or shorter where its document ends, so that its length does not give it away. What is too
    long is cut from the longer segment, a drawn part of it at the front.

    Source: `create_instances_from_document` and `truncate_seq_pair` in Google's create_pretraining_data.py. There a
    chunk of one sentence always gets a stranger, strangers fill the sequence even at the end of a document, and each
    token is cut at a drawn end.
    """
    assert samples.first is not None and samples.end is not None
    first, end = samples.first[index], samples.end[index]
    offsets, longest = store.sentence_offsets, settings.text_tokens
    is_short = draw_uniform(keys, SHORT) < settings.short_sequence_share
    limit = np.where(is_short, 2 + draw_below(keys, LENGTH, longest - 1), longest)
    enough = np.searchsorted(offsets, offsets[first] + limit, side="left")
    end = np.where(is_short, np.clip(enough, np.minimum(first + 2, end), end), end)
    if settings.objective == "mlm":
        starts, lengths = _cut_ends(offsets[first], offsets[end] - offsets[first], limit, keys, FRONT)
        return two_part_rows(store, starts[:, None], lengths[:, None], np.full(len(first), NO_PAIR))
    parted = end - first > 1
    middle = np.where(parted, first + 1 + draw_below(keys, SPLIT, np.maximum(end - first - 1, 1)), end)
    starts = np.stack([offsets[first], offsets[middle]], axis=1)
    lengths = np.stack([offsets[middle] - offsets[first], offsets[end] - offsets[middle]], axis=1)
    kept_first = np.minimum(lengths[:, 0], np.maximum(limit - lengths[:, 1], (limit + 1) // 2))
    starts[:, 0], lengths[:, 0] = _cut_ends(starts[:, 0], lengths[:, 0], kept_first, keys, FRONT)
    starts[:, 1], lengths[:, 1] = _cut_ends(starts[:, 1], lengths[:, 1], limit - lengths[:, 0], keys, FRONT + 1)
    labels = np.where(parted, follows, NO_PAIR).astype(np.int8)
    other = parted & ~follows
    if settings.objective == "sop":
        starts[other], lengths[other] = starts[other, ::-1], lengths[other, ::-1]
    else:
        strangers = draw_strangers(store, first[other], draw_bits(keys[other], STRANGER))
        begins, ends = run_ends(store)
        run_end = ends[np.searchsorted(begins, strangers, side="right") - 1]
        starts[other, 1] = offsets[strangers]
        lengths[other, 1] = np.minimum(offsets[run_end] - offsets[strangers], lengths[other, 1])
    return two_part_rows(store, starts, lengths, labels)


def _cut_ends(starts: Int64, lengths: Int64, limits: Int64, keys: UInt64, counter: int) -> tuple[Int64, Int64]:
    """Cut what is beyond the limits, a drawn part of it at the front; return starts and lengths."""
    excess = np.maximum(lengths - limits, 0)
    return starts + draw_below(keys, counter, excess + 1), lengths - excess
