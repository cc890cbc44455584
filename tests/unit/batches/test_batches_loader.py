import dataclasses
import random
import threading
from collections import Counter

import numpy as np
import pytest

from xuebu.batches.batch import NO_PAIR
from xuebu.batches.loader import Loader
from xuebu.batches.settings import BatchSettings
from xuebu.corpus.document import SentenceDocument
from xuebu.errors import ConfigError, StoreError
from xuebu.tokens.vocab import SPECIAL_TOKENS, Vocabulary

PAIRS = BatchSettings(sequences_per_step=10, sequence_length=64)
ALONE = dataclasses.replace(PAIRS, objective="mlm")


def make_loader(tokens, settings=PAIRS, seed=3):
    return Loader(tokens.train, tokens.vocabulary, settings, seed)


def true_pairs(documents):
    """(document, sentence) of every sentence whose successor truly follows it, from the documents alone."""
    return [
        (d, s)
        for d, document in enumerate(documents)
        for s in range(len(document.sentences) - 1)
        if s + 1 not in document.gaps
    ]


@pytest.mark.parametrize("settings", [PAIRS, ALONE, dataclasses.replace(PAIRS, mask_unit="word")])
def test_a_batch_is_a_fact(tokens, read, settings):
    loader = make_loader(tokens, settings)
    steps = list(range(1, 130))
    expected = {step: read.digest(loader.batch(step)) for step in steps}
    assert len({str(value) for value in expected.values()}) == len(steps)
    found = {}

    def work(order):
        own = make_loader(tokens, settings)
        for step in order[:40]:
            found.setdefault(step, []).append(read.digest(own.batch(step)))
            found.setdefault(step, []).append(read.digest(loader.batch(step)))  # one loader, several threads

    threads = [threading.Thread(target=work, args=(random.Random(i).sample(steps, len(steps)),)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) > 80
    assert all(digest == expected[step] for step, digests in found.items() for digest in digests)


def test_dtypes_and_shapes_are_those_of_the_contract(tokens):
    for settings in (PAIRS, ALONE):
        batch = make_loader(tokens, settings).batch(7)
        dtypes = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
        assert dtypes.pop("step") == 7
        assert dtypes.pop("masking").predicted == batch.num_predictions
        assert {name: array.dtype.name for name, array in dtypes.items()} == {
            "input_ids": "int32",
            "segment_ids": "int8",
            "row_offsets": "int64",
            "masked_positions": "int64",
            "labels": "int32",
            "mask_kinds": "int8",
            "nsp_labels": "int8",
            "row_documents": "int64",
        }
        assert batch.row_documents.shape == (10, 2)
        assert (batch.num_rows, batch.num_tokens) == (10, batch.row_offsets[-1])
        assert batch.num_predictions == len(batch.labels) == len(batch.mask_kinds) > 0
        assert (np.diff(batch.masked_positions) > 0).all()
        assert batch.num_judged_pairs == (10 if settings is PAIRS else 0)


@pytest.mark.parametrize("count", [1, 7, 10, 600, 2000])
def test_an_epoch_visits_every_anchor_once(tokens, read, cut, count):
    """Also where a step reaches over the edge of an epoch, and where it is larger than an epoch."""
    settings = dataclasses.replace(PAIRS, sequences_per_step=count, mask_rate=0.01)
    loader = make_loader(tokens, settings)
    anchors = true_pairs(tokens.train_documents)
    assert loader.num_samples == len(anchors)
    sentences = cut(tokens.vocabulary, tokens.train_documents, settings.sentence_tokens)
    expected = Counter((d, sentences[d][s]) for d, s in anchors)
    epochs = 2 if count < 2000 else 6
    visited = []
    for step in range(1, -(-epochs * len(anchors) // count) + 1):
        visited += [(row.documents[0], row.first) for row in read.rows(loader.batch(step))]
    size = len(anchors)
    orders = [visited[epoch * size : (epoch + 1) * size] for epoch in range(epochs)]
    assert all(Counter(order) == expected for order in orders)
    assert orders[0] != orders[1]
    assert loader.epoch_of(3) == pytest.approx(3 * count / size)


def test_without_pairs_an_epoch_visits_every_sentence_once(tokens, read, cut):
    loader = make_loader(tokens, dataclasses.replace(ALONE, sequences_per_step=tokens.train.num_sentences))
    sentences = cut(tokens.vocabulary, tokens.train_documents, 62)
    for step in (1, 2):
        rows = list(read.rows(loader.batch(step)))
        assert Counter((row.documents[0], row.first) for row in rows) == Counter(
            (d, sentence) for d, document in enumerate(sentences) for sentence in document
        )
        for row in rows:
            assert row.ids == (2, *row.first, 3)
            assert (row.second, row.label, row.documents[1]) == ((), NO_PAIR, NO_PAIR)
            assert set(row.segments) == {0}


@pytest.mark.parametrize("count", [2, 10, 64])
def test_labels_are_exactly_balanced(tokens, count):
    loader = make_loader(tokens, dataclasses.replace(PAIRS, sequences_per_step=count))
    for step in (1, 2, 57, 58, 59, 60, 1_000_003):
        assert loader.batch(step).nsp_labels.sum() == count // 2


def test_odd_steps_are_balanced_two_by_two(tokens):
    loader = make_loader(tokens, dataclasses.replace(PAIRS, sequences_per_step=7))
    for step in (1, 3, 81, 99):
        labels = [loader.batch(number).nsp_labels for number in (step, step + 1)]
        assert sorted(int(part.sum()) for part in labels) == [3, 4]


def test_every_anchor_gets_both_labels_in_time(tokens, read):
    """Which half a sample falls in is decided anew in each epoch: no anchor is a true pair for good."""
    loader = make_loader(tokens, dataclasses.replace(PAIRS, sequences_per_step=573))
    labels = {}
    for epoch in range(1, 13):
        for row in read.rows(loader.batch(epoch)):
            labels.setdefault((row.documents[0], row.first), []).append(row.label)
    shares = [np.mean(values) for values in labels.values() if len(values) == 12]
    assert len(shares) > 500
    assert min(shares) > 0.0 and max(shares) < 1.0
    assert abs(np.var(shares) - 0.25 / 12) < 0.005


def test_true_pairs_are_neighbors_and_strangers_are_not(tokens, read, cut):
    loader = make_loader(tokens, dataclasses.replace(PAIRS, sequences_per_step=573))
    documents = tokens.train_documents
    sentences = cut(tokens.vocabulary, documents, PAIRS.sentence_tokens)
    neighbors = {(d, sentences[d][s], sentences[d][s + 1]) for d, s in true_pairs(documents)}
    gapped = {
        (d, sentences[d][s - 1], sentences[d][s]) for d, document in enumerate(documents) for s in document.gaps
    } - neighbors
    assert len(gapped) > 50
    pools = [(document.source, document.script) for document in documents]
    strangers = Counter()
    for epoch in range(1, 9):
        for row in read.rows(loader.batch(epoch)):
            a, b = row.documents
            if row.label:
                assert a == b
                assert (a, row.first, row.second) in neighbors
            else:
                assert documents[a].group != documents[b].group
                assert pools[a] == pools[b]
                assert row.second in sentences[b]
                strangers[b] += 1
    # Uniform over the sentences of the pool that are not of the own group; documents come by their sentences.
    size, group_size = Counter(), Counter()
    for pool, document in zip(pools, documents, strict=True):
        size[pool] += len(document.sentences)
        group_size[document.group] += len(document.sentences)
    anchors = true_pairs(documents)
    expected = np.zeros(len(documents))
    for a, _ in anchors:
        for b, other in enumerate(documents):
            if pools[a] == pools[b] and documents[a].group != other.group:
                expected[b] += len(other.sentences) / (size[pools[a]] - group_size[documents[a].group])
    expected *= sum(strangers.values()) / len(anchors)
    chi_square = sum((strangers[d] - mean) ** 2 / mean for d, mean in enumerate(expected))
    assert abs(chi_square - 150) < 5 * np.sqrt(2 * 150 + (1 / expected).sum())


@pytest.mark.parametrize("length", [8, 9, 63, 64, 128])
def test_layout_of_rows(tokens, read, cut, length):
    settings = dataclasses.replace(PAIRS, sequence_length=length, sequences_per_step=200)
    half = (length - 3) // 2
    assert settings.sentence_tokens == half
    sentences = cut(tokens.vocabulary, tokens.train_documents, 10_000)
    longest = 0
    for row in read.rows(make_loader(tokens, settings).batch(1)):
        assert row.ids == (2, *row.first, 3, *row.second, 3)
        assert row.segments == (0,) * (len(row.first) + 2) + (1,) * (len(row.second) + 1)
        for part, document in zip((row.first, row.second), row.documents, strict=True):
            assert any(part == sentence[:half] for sentence in sentences[document])
        longest = max(longest, len(row.ids))
    assert longest == 2 * half + 3 <= length


def test_length_alone(tokens, read):
    rows = list(
        read.rows(make_loader(tokens, dataclasses.replace(ALONE, sequence_length=16, sequences_per_step=300)).batch(1))
    )
    assert max(len(row.ids) for row in rows) == 16


def test_seeds_differ_in_order_pairs_and_masks(tokens, read):
    one, other = (make_loader(tokens, seed=seed).batch(1) for seed in (3, 4))
    first, second = (list(read.rows(batch)) for batch in (one, other))
    assert [row.first for row in first] != [row.first for row in second]
    settings = dataclasses.replace(PAIRS, sequences_per_step=573)
    masks = []
    for seed in (3, 4):
        batch = make_loader(tokens, settings, seed).batch(1)
        rows = np.searchsorted(batch.row_offsets, batch.masked_positions, side="right") - 1
        seen = {}
        for number, row in enumerate(read.rows(batch)):
            places = batch.masked_positions[rows == number] - batch.row_offsets[number]
            seen[row.documents[0], row.first] = tuple(places[places <= len(row.first)].tolist())
        masks.append(seen)
    differing = [masks[0][key] != masks[1][key] for key in masks[0]]
    assert np.mean(differing) > 0.8  # the same sentences, masked elsewhere


def test_masks_change_from_epoch_to_epoch(tokens, read):
    loader = make_loader(tokens, dataclasses.replace(ALONE, sequences_per_step=tokens.train.num_sentences))
    masked = []
    for step in (1, 2):
        batch = loader.batch(step)
        shown = np.split(batch.input_ids, batch.row_offsets[1:-1])
        masked.append(
            {(row.documents, row.first): tuple(ids) for row, ids in zip(read.rows(batch), shown, strict=True)}
        )
    assert np.mean([masked[0][key] != masked[1][key] for key in masked[0] if len(key[1]) > 20]) > 0.9


def test_prediction_documents(tokens, read):
    batch = make_loader(tokens, dataclasses.replace(PAIRS, sequences_per_step=100)).batch(2)
    expected = []
    for number, row in enumerate(read.rows(batch)):
        start = batch.row_offsets[number]
        for position in batch.masked_positions:
            if start <= position < batch.row_offsets[number + 1]:
                in_second = position - start >= len(row.first) + 2
                expected.append(row.documents[1] if in_second else row.documents[0])
    assert batch.prediction_documents.tolist() == expected
    assert len(set(expected)) > 50


def test_steps_are_numbered_from_one(tokens):
    with pytest.raises(ValueError, match="from 1"):
        make_loader(tokens).batch(0)


def test_another_vocabulary_is_refused(tokens):
    other = Vocabulary((*SPECIAL_TOKENS, "天"))
    with pytest.raises(StoreError, match="another vocabulary"):
        Loader(tokens.train, other, PAIRS, 0)


def document(id, sentences, group=None, source="s", gaps=()):
    return SentenceDocument(
        id=id, title=id, group=group or id, source=source, sentences=tuple(sentences), gaps=tuple(gaps)
    )


def test_no_neighbors_at_all(tokens, store_of):
    store = store_of([document("a", ["春天河水", "老人"], gaps=[1]), document("b", ["孩子"])])
    with pytest.raises(StoreError, match='no two sentences are neighbors; train with objective = "mlm"'):
        Loader(store, tokens.vocabulary, PAIRS, 0)
    assert Loader(store, tokens.vocabulary, ALONE, 0).num_samples == 3


def test_a_source_of_one_group_is_refused_before_training_meets_it(tokens, store_of):
    many = [document(f"m{number}", ["春天河水", "老人", "孩子"]) for number in range(40)]
    lonely = [document(name, ["朋友", "城市"], group="g", source="孤") for name in ("x", "y")]
    with pytest.raises(StoreError, match="source '孤' has a single one") as caught:
        Loader(store_of(many + lonely), tokens.vocabulary, PAIRS, 0)
    assert "\n" not in str(caught.value)
    # Nobody there has a neighbor, so nobody needs a stranger.
    silent = [document("z", ["朋友", "城市"], source="孤", gaps=[1])]
    Loader(store_of(many + silent), tokens.vocabulary, PAIRS, 0).batch(1)
    company = [document("w", ["海鸥"], source="孤")]
    Loader(store_of(many + lonely + company), tokens.vocabulary, PAIRS, 0).batch(1)
    Loader(store_of(lonely), tokens.vocabulary, ALONE, 0).batch(1)


def test_shares_above_one_are_refused():
    with pytest.raises(ConfigError, match="add up to more than 1"):
        BatchSettings(mask_token_share=0.8, random_token_share=0.3)
