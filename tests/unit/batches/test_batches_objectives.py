"""Rows of every objective, read back and held against the documents they come from."""

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest

from xuebu.batches.batch import NO_PAIR
from xuebu.batches.held_out import held_out_batches
from xuebu.batches.loader import Loader
from xuebu.batches.packing import split_micro_batches
from xuebu.batches.runs import lay_end_to_end, shape_of
from xuebu.batches.samples import cut_chunks, cut_full
from xuebu.batches.settings import BatchSettings, EvaluationSettings
from xuebu.batches.shares import share_of
from xuebu.corpus.document import SentenceDocument
from xuebu.errors import ConfigError, StoreError

CLS, SEP = 2, 3
SOP = BatchSettings(objective="sop", sequences_per_step=40, sequence_length=64)
SEGMENTS = dataclasses.replace(SOP, objective="nsp", sequences="segments")
ORDER = dataclasses.replace(SOP, sequences="segments")
ALONE = dataclasses.replace(SOP, objective="mlm", sequences="segments")
FULL = dataclasses.replace(SOP, objective="mlm", sequences="full", sequence_length=96)
KINDS = {"sop": SOP, "segments": SEGMENTS, "segments sop": ORDER, "segments alone": ALONE, "full": FULL}
PAIRS = BatchSettings(sequences="pairs", sequences_per_step=20, sequence_length=64)


def load(tokens, settings, seed=3, store=None):
    return Loader(store or tokens.train, tokens.vocabulary, settings, seed)


def runs_of(vocabulary, documents):
    """The ids of every unbroken run of sentences, end to end: (document, ids)."""
    for number, document in enumerate(documents):
        bounds = [0, *document.gaps, len(document.sentences)]
        for start, stop in itertools.pairwise(bounds):
            parts = [vocabulary.encode(sentence) for sentence in document.sentences[start:stop]]
            yield number, tuple(np.concatenate(parts).tolist())


def is_inside(part, run):
    return any(run[at : at + len(part)] == part for at in range(len(run) - len(part) + 1))


def pair_documents(count, one_column=0):
    """Rows of two columns that are told apart: every question ends in 老人, every answer in 孩子."""
    chars = "春天河水慢流过村子桥边追着风筝奔跑燕"
    pairs = [
        SentenceDocument(
            id=f"p{n}", title="", group=f"p{n}", source="pairs",
            sentences=(chars[n % 18] + chars[n // 18 % 18] + "老人", chars[n % 17] + chars[n // 17 % 18] + "孩子"),
        )
        for n in range(count)
    ]  # fmt: skip
    return pairs + [dataclasses.replace(pairs[n], sentences=pairs[n].sentences[:1]) for n in range(one_column)]


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_a_batch_is_a_fact_and_every_row_its_own(tokens, read, settings):
    """Also with scheduled rates and other masking; shares of any number of processes are the batch."""
    settings = dataclasses.replace(
        settings, mask_unit="ngram", mask_budget="exact", mask_rate=0.3, final_mask_rate=0.15, mask_rate_steps=9
    )
    loader, other = load(tokens, settings), load(tokens, settings)
    batches = {step: loader.batch(step) for step in (1, 2, 5, 60)}
    for step in (60, 1, 5, 2):
        assert read.digest(other.batch(step)) == read.digest(batches[step])
    whole = sorted(row.tobytes() for row in np.split(batches[5].input_ids, batches[5].row_offsets[1:-1]))
    for size in (2, 3):
        parts = [share_of(batches[5], rank, size) for rank in range(size)]
        rows = [row.tobytes() for part in parts for row in np.split(part.input_ids, part.row_offsets[1:-1])]
        assert sorted(rows) == whole
        assert sum(part.num_predictions for part in parts) == batches[5].num_predictions


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_labels_are_read_at_each_cls_of_a_packed_row(tokens, settings):
    batch = load(tokens, settings).batch(3)
    ids = batch.input_ids.copy()
    ids[batch.masked_positions] = batch.labels
    assert (ids[batch.row_offsets[:-1]] == CLS).all() and (ids == CLS).sum() == batch.num_rows
    shape = shape_of([batch], 700, settings.sequence_length)
    laid = lay_end_to_end(batch, shape)
    assert len(laid) > 1
    for micro in [*laid, *split_micro_batches(batch, 700)]:
        if hasattr(micro, "first_positions"):
            firsts = micro.first_positions[: len(micro.rows)]
        else:
            strides = np.repeat([length for _, length in micro.blocks], [count for count, _ in micro.blocks])
            firsts = np.cumsum(strides) - strides
        assert (micro.input_ids[firsts] == CLS).all()
        assert (micro.nsp_labels[: len(micro.rows)] == batch.nsp_labels[micro.rows]).all()


def test_sentence_order(tokens, read, cut):
    """Label 1 in the order of the text, 0 the other way round; half of each; never across a gap or document."""
    documents = tokens.train_documents
    sentences = cut(tokens.vocabulary, documents, SOP.sentence_tokens)
    neighbors = {
        (d, sentences[d][s], sentences[d][s + 1])
        for d, document in enumerate(documents)
        for s in range(len(document.sentences) - 1)
        if s + 1 not in document.gaps
    }
    loader = load(tokens, SOP)
    seen = set()
    for step in range(1, 16):
        batch = loader.batch(step)
        assert batch.nsp_labels.sum() == 20
        for row in read.rows(batch):
            first, second = (row.first, row.second) if row.label else (row.second, row.first)
            assert row.documents[0] == row.documents[1]
            assert (row.documents[0], first, second) in neighbors
            seen.add((row.documents[0], first, second))
    assert seen == neighbors


@pytest.mark.parametrize("settings", [SEGMENTS, ORDER, ALONE], ids=["nsp", "sop", "mlm"])
@pytest.mark.parametrize("short", [0.0, 0.5])
def test_segments_are_parts_of_one_run(tokens, read, settings, short):
    settings = dataclasses.replace(settings, short_sequence_share=short)
    runs = list(runs_of(tokens.vocabulary, tokens.train_documents))
    groups = [document.group for document in tokens.train_documents]
    loader = load(tokens, settings)
    lengths, labels = [], Counter()
    for step in range(1, 8):
        for row in read.rows(loader.batch(step)):
            a, b = row.documents
            lengths.append(len(row.ids))
            labels[row.label] += 1
            assert row.ids == (CLS, *row.first, SEP, *((*row.second, SEP) if row.second else ()))
            if not row.second:
                assert (b, row.label) == (NO_PAIR, NO_PAIR)
                assert any(d == a and is_inside(row.first, run) for d, run in runs)
            elif row.label == 1 or settings.objective == "sop":
                joined = row.first + row.second if row.label else row.second + row.first
                cut_somewhere = len(row.ids) == 64 or short  # what was cut may have lain between the two
                assert a == b
                assert cut_somewhere or any(d == a and is_inside(joined, run) for d, run in runs)
                assert all(any(d == a and is_inside(part, run) for d, run in runs) for part in (row.first, row.second))
            else:
                assert groups[a] != groups[b]
                assert any(d == a and is_inside(row.first, run) for d, run in runs)
                assert any(d == b and is_inside(row.second, run) for d, run in runs)
    assert max(lengths) == 64
    full = np.mean(np.array(lengths) == 64)
    assert 0.2 < full if not short else full < 0.45  # many documents end before
    if settings.objective != "mlm":
        assert labels[1] > 0 and abs(labels[1] - labels[0]) < 4.5 * np.sqrt(labels[1] + labels[0])


def test_a_strangers_length_tells_nothing(tokens, read):
    """Of rows at the end of a run, true and false ones are about as long: original BERT fills only the false ones."""
    loader = load(tokens, dataclasses.replace(SEGMENTS, sequences_per_step=200))
    lengths = {0: [], 1: []}
    for step in range(1, 11):
        for row in read.rows(loader.batch(step)):
            if row.label != NO_PAIR:
                lengths[row.label].append(len(row.ids))
    assert np.mean(lengths[0]) < np.mean(lengths[1]) + 1
    assert np.mean(np.array(lengths[0]) == 64) <= np.mean(np.array(lengths[1]) == 64)


def test_full_rows_hold_each_token_once_an_epoch(tokens):
    loader = load(tokens, FULL)
    store = tokens.train
    seen = np.zeros(store.num_tokens, dtype=np.int64)
    count = 0
    while count * 40 < loader.num_samples:
        count += 1
        batch, rows = loader.compose(count)
        here = rows.places[rows.is_text]
        if count * 40 <= loader.num_samples:
            seen[here] += 1
        assert np.diff(batch.row_offsets).max() <= 96
        breaks = np.flatnonzero(rows.tokens == SEP)
        starts = store.sentence_offsets[np.flatnonzero(store.gap_before)]
        for before, after in zip(breaks, breaks + 1, strict=True):  # [SEP] ends a run, or a row
            if after < len(rows.tokens) and rows.places[after] >= 0:
                assert rows.places[after] in starts and rows.places[after] == rows.places[before - 1] + 1
        inside = rows.is_text[1:] & rows.is_text[:-1]
        assert (np.diff(rows.places)[inside] == 1).all()
        assert not np.isin(rows.places[1:][inside], starts).any()  # no gap is crossed without one
    assert seen.max() == 1 and seen.sum() > 0.9 * store.num_tokens - loader.count_cut_tokens() - 40 * 96
    assert np.mean(np.diff(batch.row_offsets)) > 60


@pytest.mark.parametrize("length", [8, 20, 96, 5_000])
def test_full_sequences_are_as_long_as_they_can_be(tokens, length):
    store = tokens.train
    first, end = cut_full(store, length)

    def size(start, stop):
        tokens_ = store.sentence_offsets[stop] - store.sentence_offsets[start]
        return 2 + tokens_ + store.gap_before[start + 1 : stop].sum()

    assert first[0] == 0 and end[-1] == store.num_sentences and (first[1:] == end[:-1]).all()
    for start, stop in zip(first, end, strict=True):
        assert size(start, stop) <= length or stop == start + 1
        assert stop == store.num_sentences or size(start, stop + 1) > length


@pytest.mark.parametrize("past", [True, False])
@pytest.mark.parametrize("limit", [1, 30, 10_000])
def test_chunks_against_a_walk(tokens, past, limit, monkeypatch):
    from xuebu.batches import samples

    store = tokens.train
    expected, start = [], 0
    sizes = np.diff(store.sentence_offsets)
    while start < store.num_sentences:
        stop, total = start + 1, sizes[start]
        while stop < store.num_sentences and not store.gap_before[stop]:
            if total >= limit if past else total + sizes[stop] > limit:
                break
            total += sizes[stop]
            stop += 1
        expected.append((start, stop))
        start = stop
    for at_once in (1 << 20, 7):
        monkeypatch.setattr(samples, "_SENTENCES_AT_ONCE", at_once)
        assert list(zip(*cut_chunks(store, limit, past=past), strict=True)) == expected


@pytest.mark.parametrize("objective", ["nsp", "mlm", "sop"])
def test_given_pairs(tokens, store_of, read, objective):
    documents = pair_documents(120, one_column=5)
    store = store_of(documents)
    settings = dataclasses.replace(PAIRS, objective=objective)
    loader = load(tokens, settings, store=store)
    assert loader.num_samples == 120
    encoded = [tuple(tuple(tokens.vocabulary.encode(s).tolist()) for s in d.sentences) for d in documents]
    firsts, seconds = {e[0] for e in encoded}, {e[1] for e in encoded if len(e) > 1}
    labels = Counter()
    for step in range(1, 7):
        for row in read.rows(loader.batch(step)):
            labels[row.label] += 1
            swapped = objective == "sop" and not row.label
            a, b = (row.second, row.first) if swapped else (row.first, row.second)
            assert a == encoded[row.documents[0]][0]
            if objective == "nsp" and not row.label:
                assert row.documents[0] != row.documents[1]
                assert b in seconds or len(encoded[row.documents[1]]) == 1  # a stranger of the same column
            else:
                assert b == encoded[row.documents[0]][1]
    assert labels == ({NO_PAIR: 120} if objective == "mlm" else {0: 60, 1: 60})
    assert not firsts & seconds


def test_swapped_pairs_show_both_orders(tokens, store_of, read):
    store = store_of(pair_documents(50))
    loader = load(tokens, dataclasses.replace(PAIRS, objective="mlm", swap_pairs=True), store=store)
    assert loader.num_samples == 100
    rows = [row for step in range(1, 6) for row in read.rows(loader.batch(step))]
    orders = Counter((row.first, row.second) for row in rows)
    assert set(orders.values()) == {1} and all((b, a) in orders for a, b in orders)
    swapped_nsp = load(tokens, dataclasses.replace(PAIRS, swap_pairs=True), store=store)
    old, child = tokens.vocabulary.encode("人子").tolist()
    for step in range(1, 6):
        for row in read.rows(swapped_nsp.batch(step)):
            assert {row.first[-1], row.second[-1]} == {old, child}  # one of each column, true or not


def test_held_out_rows_are_of_the_kind_that_is_trained(tokens, read):
    runs = list(runs_of(tokens.vocabulary, tokens.held_out_documents))
    for name, settings in KINDS.items():
        batches = held_out_batches(
            tokens.held_out, tokens.vocabulary, settings=EvaluationSettings(min_predictions=1), batches=settings,
            predictions=100_000,
        )  # fmt: skip
        labels, lengths = Counter(), []
        for row in (row for batch in batches for row in read.rows(batch)):
            labels[row.label] += 1
            lengths.append(len(row.ids))
            for part, document in zip((row.first, row.second), row.documents, strict=True):
                assert not part or any(d == document and is_inside(part, run) for d, run in runs)
        assert max(lengths) <= settings.sequence_length
        if settings.objective == "mlm":
            assert set(labels) == {NO_PAIR}
        else:
            assert abs(labels[1] - labels[0]) <= 1 and labels[0] > 10
        if settings.sequences != "sentences":
            assert np.mean(lengths) > 30, name


def test_static_copies_repeat(tokens, read):
    """BERT's duplicated data: so many fixed versions of each sample, shown again and again in another order."""
    settings = dataclasses.replace(SOP, objective="nsp", sequences_per_step=573, static_copies=2)
    loader = load(tokens, settings)
    assert loader.num_samples == 573

    def epoch(number):
        batch = loader.batch(number + 1)
        rows = np.split(batch.input_ids, batch.row_offsets[1:-1])
        return Counter((row.tobytes(), int(label)) for row, label in zip(rows, batch.nsp_labels, strict=True)), batch

    (first, a), (second, b), (third, c) = epoch(0), epoch(1), epoch(2)
    assert first == third != second
    assert read.digest(a) != read.digest(c)  # in another order
    assert abs(b.nsp_labels.mean() - 0.5) < 0.1


def test_resuming_sees_the_same_rates(tokens):
    settings = dataclasses.replace(SOP, mask_rate=0.4, final_mask_rate=0.1, mask_rate_steps=11, sequences_per_step=300)
    assert [settings.rate_at(step) for step in (1, 6, 11, 12, 10**9)] == pytest.approx([0.4, 0.25, 0.1, 0.1, 0.1])
    for step in (1, 6, 11, 500):
        batch = load(tokens, settings).batch(step)
        counts = batch.masking
        assert counts.expected == pytest.approx(settings.rate_at(step) * counts.maskable)
        assert abs(counts.predicted - counts.expected) < 5 * np.sqrt(counts.variance)
    assert dataclasses.replace(settings, mask_rate_steps=1).rate_at(1) == 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "nsp", "sequences": "full"}, '"full" has no pairs to judge'),
        ({"swap_pairs": True}, '`swap_pairs` needs `sequences` = "pairs"'),
        ({"sequences": "pairs", "swap_pairs": True}, "calls one wrong"),
        ({"short_sequence_share": 0.1}, '`short_sequence_share` needs `sequences` = "segments"'),
        ({"final_mask_rate": 0.1}, "are a schedule together"),
        ({"mask_rate_steps": 10}, "are a schedule together"),
        ({"final_mask_rate": 0.001, "mask_rate_steps": 10}, "at least 0.01"),
        ({"ngram_weights": ()}, "1 to 100 numbers"),
        ({"ngram_weights": (0.5, -0.1)}, "1 to 100 numbers"),
    ],
)
def test_settings_that_contradict_each_other(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SOP, **changes)


def test_stores_that_are_not_of_the_kind(tokens, store_of):
    with pytest.raises(StoreError, match=r"needs documents of two sentences, and document \d+ has"):
        load(tokens, PAIRS)
    with pytest.raises(StoreError, match="needs a store cut by collocations"):
        load(tokens, dataclasses.replace(SOP, mask_unit="pmi"))
    single = store_of([SentenceDocument(id="a", title="", group="a", source="s", sentences=("春天河水",))])
    with pytest.raises(StoreError, match="no two sentences are neighbors"):
        load(tokens, ORDER, store=single)
    assert load(tokens, ALONE, store=single).num_samples == 1
