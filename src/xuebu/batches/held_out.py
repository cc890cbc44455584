"""The held-out batches: fixed text, fixed pairs, fixed masks.

Which token is masked depends on its document and its place in it alone, never on the run's seed or on how training
masks, so that runs of any recipe are scored on the same questions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from xuebu.batches.batch import NO_PAIR, Batch
from xuebu.batches.loader import finish_batch
from xuebu.batches.rows import assemble_rows
from xuebu.batches.settings import BatchSettings, EvaluationSettings
from xuebu.errors import StoreError
from xuebu.rng import draw_bits, key_of
from xuebu.tokens.store import Store
from xuebu.tokens.vocab import Vocabulary

_ROWS_PER_BATCH = 64
_MAX_ROUNDS = 50

# Character-level, 15 %, 80/10/10: the question is the same whatever a recipe trains on.
HELD_OUT_MASKING = BatchSettings(
    objective="nsp", mask_rate=0.15, mask_unit="character", mask_token_share=0.8, random_token_share=0.1
)


def held_out_pairs(
    store: Store, max_pairs_per_group: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int8]]:
    """Return disjoint sentence pairs of a store: first, second and label, each [number of pairs].

    Of each group at most `max_pairs_per_group` are taken: one article of book length would else decide the figure, and
    make its interval useless.

    Neighbors are taken two by two along each unbroken run of sentences, so that no sentence is used twice. Every
    other pair then hands its second sentence on to the next such pair of another group (same source and script):
    labels are balanced, and all second sentences come from the same pool of texts. A pair for which no stranger is
    left, or that would upset the balance, keeps its true neighbor and the label NO_PAIR: it is scored for masked
    tokens only.
    """
    anchors = np.asarray(store.anchors)
    runs = np.concatenate([[0], np.cumsum(np.diff(anchors) != 1)]) if len(anchors) else np.zeros(0, dtype=np.int64)
    place_in_run = np.arange(len(anchors)) - np.searchsorted(runs, runs, side="left")
    first = anchors[place_in_run % 2 == 0]
    documents = store.document_of(first)
    order = np.argsort(draw_bits(key_of("held-out order"), first ^ store.document_key[documents].astype(np.int64)))
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
    if batches.objective == "nsp":
        first, second, labels = held_out_pairs(store, max_pairs_per_group)
    else:
        first = np.arange(store.num_sentences)
        first = first[np.argsort(draw_bits(key_of("held-out order"), first))]
        first = first[_rank_within(store.document_group[store.document_of(first)]) < 2 * max_pairs_per_group]
        labels = np.full(len(first), NO_PAIR, dtype=np.int8)
    mask_key = key_of("held-out mask", round_number)
    for start in range(0, len(first), _ROWS_PER_BATCH):
        part = slice(start, start + _ROWS_PER_BATCH)
        seconds = second[part] if batches.objective == "nsp" else None
        rows = assemble_rows(
            store, vocabulary, first[part], seconds, max_tokens=batches.sentence_tokens, with_words=False
        )
        sentences = np.maximum(rows.sentences, 0)
        documents = store.document_of(sentences)
        keys = draw_bits(mask_key, store.document_key[documents])
        first_tokens = store.sentence_offsets[store.document_offsets[documents]]
        counters = store.sentence_offsets[sentences] - first_tokens + rows.offsets
        yield finish_batch(
            0,
            rows,
            store,
            vocabulary,
            HELD_OUT_MASKING,
            mask_keys=keys,
            mask_counters=counters,
            first=first[part],
            second=seconds,
            nsp_labels=labels[part],
        )
