"""The held-out batches: fixed text, fixed pairs, fixed masks.

Which token is masked depends on its document and its place in it alone, never on the run's seed or on how training
masks, so that runs of any recipe are scored on the same questions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xuebu.batches.batch import NO_PAIR, Batch
from xuebu.batches.loader import make_batch
from xuebu.batches.masking import make_replacements, mask_tokens
from xuebu.batches.rows import assemble_rows
from xuebu.batches.samples import cut_chunks, document_at, two_part_rows
from xuebu.batches.settings import BatchSettings, EvaluationSettings
from xuebu.errors import StoreError
from xuebu.rng import draw_bits, key_of
from xuebu.tokens.store import Store
from xuebu.tokens.vocab import Vocabulary

Int64 = npt.NDArray[np.int64]

_ROWS_PER_BATCH = 64
_MAX_ROUNDS = 50

# Character-level, 15 %, 80/10/10: the question is the same whatever a recipe trains on.
HELD_OUT_MASKING = BatchSettings(
    objective="nsp", mask_rate=0.15, mask_unit="character", mask_token_share=0.8, random_token_share=0.1
)


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """The parts of held-out rows: sentences, or chunks of several where training fills its sequences.

    Attributes:
        first: int64[Q], the first sentence of each part, increasing.
        end: int64[Q], the sentence after its last.
    """

    first: Int64
    end: Int64

    def neighbors(self, store: Store) -> Int64:
        """Return the parts whose successor truly follows them."""
        return np.flatnonzero((self.first[1:] == self.end[:-1]) & ~store.gap_before[self.first[1:]])


def held_out_parts(store: Store, batches: BatchSettings) -> Parts:
    """Return the parts of a store: sentences, or chunks of them in one document, as long as a row has room for."""
    if batches.sequences in ("segments", "full"):
        return Parts(*cut_chunks(store, batches.sentence_tokens, past=False))
    sentences = np.arange(store.num_sentences)
    return Parts(sentences, sentences + 1)


def held_out_pairs(
    store: Store, max_pairs_per_group: int, parts: Parts | None = None
) -> tuple[Int64, Int64, npt.NDArray[np.int8]]:
    """Return disjoint pairs of parts (None: of sentences) of a store: first, second and label, each [number of pairs].

    Of each group at most `max_pairs_per_group` are taken: one article of book length would else decide the figure, and
    make its interval useless.

    Neighbors are taken two by two along each unbroken run, so that no part is used twice. Every other pair then hands
    its second part on to the next such pair of another group (same source and script): labels are balanced, and all
    second parts come from the same pool of texts. A pair for which no stranger is left, or that would upset the
    balance, keeps its true neighbor and the label NO_PAIR: it is scored for masked tokens only.
    """
    anchors = np.asarray(store.anchors) if parts is None else parts.neighbors(store)
    runs = np.concatenate([[0], np.cumsum(np.diff(anchors) != 1)]) if len(anchors) else np.zeros(0, dtype=np.int64)
    place_in_run = np.arange(len(anchors)) - np.searchsorted(runs, runs, side="left")
    first = anchors[place_in_run % 2 == 0]
    sentences = first if parts is None else parts.first[first]
    documents = store.document_of(sentences)
    order = np.argsort(draw_bits(key_of("held-out order"), sentences ^ store.document_key[documents].astype(np.int64)))
    order = order[_rank_within(store.document_group[documents[order]]) < max_pairs_per_group]
    first, documents = first[order], documents[order]
    second = first + 1
    labels = np.ones(len(first), dtype=np.int8)
    groups, pools = store.document_group[documents], store.document_pool[documents]
    for pool in np.unique(pools):
        members = np.flatnonzero(pools == pool)
        strangers = members[1::2]
        source = _derange(groups[strangers])
        found = source >= 0
        labels[strangers] = np.where(found, 0, NO_PAIR)
        second[strangers[found]] = first[strangers[source[found]]] + 1
        # As many of the one label as of the other, also among the first so and so many: a neighbor pair is judged
        # only where the pair after it found its stranger.
        neighbors = members[0::2]
        labels[neighbors[len(strangers) :]] = NO_PAIR
        labels[neighbors[: len(strangers)][~found]] = NO_PAIR
    return first, second, labels


def _rank_within(groups: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return for each element how many of its group stand before it."""
    by_group = np.argsort(groups, kind="stable")
    in_order = groups[by_group]
    rank = np.empty(len(groups), dtype=np.int64)
    rank[by_group] = np.arange(len(groups)) - np.searchsorted(in_order, in_order, side="left")
    return rank


def _derange(groups: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return for each element the index of one of another group, a permutation of those that have one; else -1.

    Sorted by group and shifted by the size of the largest group, no element meets its own group as long as no group
    holds more than half of all; of a larger group the surplus stays out, neither taking nor giving.
    """
    source = np.full(len(groups), -1, dtype=np.int64)
    if not len(groups):
        return source
    by_group = np.argsort(groups, kind="stable")
    _, starts, counts = np.unique(groups[by_group], return_index=True, return_counts=True)
    top = int(counts.argmax())
    surplus = max(2 * int(counts[top]) - len(groups), 0)
    end = int(starts[top] + counts[top])
    taking = np.delete(by_group, np.arange(end - surplus, end))
    source[taking] = np.roll(taking, surplus - int(counts[top]))
    return source


def held_out_batches(
    store: Store, vocabulary: Vocabulary, *, settings: EvaluationSettings, batches: BatchSettings, predictions: int
) -> list[Batch]:
    """Return the evaluation batches that hold about `predictions` masked tokens, or all that the store has.

    Args:
        store: the held-out tokens.
        vocabulary: the run's vocabulary.
        settings: the most pairs of a group, and the floor on predictions that asks for further rounds of masks.
        batches: for the length of sequences and whether there are pairs; its masking settings are not read.
        predictions: after how many masked tokens to stop.

    Raises:
        StoreError: the store has no two neighboring sentences, or another vocabulary.
    """
    if store.vocabulary_digest != vocabulary.digest:
        raise StoreError(f"{store.folder}: built with another vocabulary; build the store again")
    chosen: list[Batch] = []
    count = 0
    target = predictions
    for round_number in range(_MAX_ROUNDS):
        for batch in _round(store, vocabulary, batches, settings.max_pairs_per_group, round_number):
            chosen.append(batch)
            count += batch.num_predictions
            if count >= target:
                return chosen
        if not count:
            raise StoreError(f"{store.folder}: no held-out token to predict; raise `held_out_fraction` or add text")
        target = min(predictions, max(count, settings.min_predictions))
        if count >= target:
            return chosen
    return chosen


def _round(
    store: Store, vocabulary: Vocabulary, batches: BatchSettings, max_pairs_per_group: int, round_number: int
) -> Iterator[Batch]:
    parts = held_out_parts(store, batches)
    first, second, labels = _questions(store, batches, parts, max_pairs_per_group)
    offsets = store.sentence_offsets
    replacements = make_replacements(vocabulary.special, vocabulary.num_tokens)
    mask_key = key_of("held-out mask", round_number)
    for start in range(0, len(first), _ROWS_PER_BATCH):
        part = slice(start, start + _ROWS_PER_BATCH)
        chosen = first[part, None] if second is None else np.stack([first[part], second[part]], axis=1)
        begins = offsets[parts.first[chosen]]
        lengths = np.minimum(offsets[parts.end[chosen]] - begins, batches.sentence_tokens)
        drawn = two_part_rows(store, begins, lengths, labels[part])
        rows = assemble_rows(store, vocabulary, drawn.spans, with_words=False)
        places = np.maximum(rows.places, 0)
        documents = document_at(store, places)
        keys = draw_bits(mask_key, store.document_key[documents])
        counters = places - offsets[store.document_offsets[documents]]
        masked = mask_tokens(rows, keys, counters, HELD_OUT_MASKING, replacements, rate=HELD_OUT_MASKING.mask_rate)
        yield make_batch(0, rows, drawn, masked)


def _questions(
    store: Store, batches: BatchSettings, parts: Parts, max_pairs_per_group: int
) -> tuple[Int64, Int64 | None, npt.NDArray[np.int8]]:
    """Return first part, second part (None: there is none) and label of each row."""
    if not batches.has_pairs:
        first = np.arange(len(parts.first))
        sentences = parts.first
        order = np.argsort(draw_bits(key_of("held-out order"), sentences))
        order = order[_rank_within(store.document_group[store.document_of(sentences[order])]) < 2 * max_pairs_per_group]
        return first[order], None, np.full(len(order), NO_PAIR, dtype=np.int8)
    first, second, labels = held_out_pairs(store, max_pairs_per_group, parts)
    match batches.objective:
        case "mlm":
            return first, first + 1, np.full(len(first), NO_PAIR, dtype=np.int8)
        case "sop":  # every other pair, its own neighbors in the wrong order
            labels = (np.arange(len(first)) % 2 == 0).astype(np.int8)
            follows = labels == 1
            return np.where(follows, first, first + 1), np.where(follows, first + 1, first), labels
    return first, second, labels
