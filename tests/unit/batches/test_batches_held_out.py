import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest

from xuebu.batches import held_out
from xuebu.batches.batch import NO_PAIR
from xuebu.batches.held_out import _derange, held_out_batches, held_out_pairs
from xuebu.batches.settings import BatchSettings, EvaluationSettings
from xuebu.corpus.document import SentenceDocument
from xuebu.errors import StoreError
from xuebu.tokens.vocab import SPECIAL_TOKENS, Vocabulary

PAIRS = BatchSettings(sequence_length=64)
ALONE = dataclasses.replace(PAIRS, objective="mlm")
ONE_ROUND = EvaluationSettings(min_predictions=1)
NO_LIMIT = 10**9


def questions_of(tokens, batches=PAIRS, settings=ONE_ROUND, predictions=100_000, store=None):
    return held_out_batches(
        store or tokens.held_out, tokens.vocabulary, settings=settings, batches=batches, predictions=predictions
    )


def document(id, count, group=None, source="s", words="春天河水慢流村子老人"):
    sentences = tuple(words[i % 10] + words[(i // 10 + 1) % 10] + words[i % 7] for i in range(count))
    return SentenceDocument(id=id, title=id, group=group or id, source=source, sentences=sentences)


def test_questions_do_not_depend_on_training_settings(tokens, read):
    plain = [read.digest(batch) for batch in questions_of(tokens)]
    other = dataclasses.replace(
        PAIRS, mask_rate=0.4, mask_unit="word", mask_token_share=0.3, random_token_share=0.6, sequences_per_step=3
    )
    assert [read.digest(batch) for batch in questions_of(tokens, other)] == plain


def test_pairs_use_no_sentence_twice_and_labels_balance(tokens):
    store = tokens.held_out
    first, second, labels = held_out_pairs(store, 10_000)
    used = np.concatenate([first, second])
    assert len(np.unique(used)) == len(used)
    documents = tokens.held_out_documents
    flat = [(d, s) for d, document in enumerate(documents) for s in range(len(document.sentences))]
    runs = 0  # the most pairs there can be: half of each unbroken run, rounded down
    for document in documents:
        bounds = [0, *document.gaps, len(document.sentences)]
        runs += sum((stop - start) // 2 for start, stop in itertools.pairwise(bounds))
    assert len(first) == runs
    for a, b, label in zip(first, second, labels, strict=True):
        (d, s), (e, t) = flat[a], flat[b]
        if label == 0:
            assert documents[d].group != documents[e].group
            assert (documents[d].source, documents[d].script) == (documents[e].source, documents[e].script)
        else:
            assert (e, t) == (d, s + 1) and t not in documents[d].gaps
    pools = store.document_pool[store.document_of(first)]
    for pool in range(store.num_pools):
        counts = Counter(labels[pools == pool].tolist())
        assert counts[0] == counts[1] > 0
        assert counts[NO_PAIR] <= 1  # one is over where the number of pairs is odd


def test_every_second_sentence_of_a_stranger_is_some_pairs_true_second(tokens):
    """Both labels draw their second sentences from one pool of texts: their looks tell nothing."""
    first, second, labels = held_out_pairs(tokens.held_out, 10_000)
    assert set((first[labels == 0] + 1).tolist()) == set(second[labels == 0].tolist())


@pytest.mark.parametrize("giant", [0, 1, 9, 10, 11, 25, 60])
def test_a_giant_group_uses_no_sentence_twice_either(store_of, giant):
    documents = [document(f"d{number}", 2) for number in range(20)] + [document("giant", 2 * giant)] * (giant > 0)
    first, second, labels = held_out_pairs(store_of(documents), 10_000)
    used = np.concatenate([first, second])
    assert len(np.unique(used)) == len(used) == 2 * (20 + giant)
    counts = Counter(labels.tolist())
    assert counts[0] == counts[1]
    if giant <= 9:
        assert counts[NO_PAIR] <= 1
    true_next = second == first + 1
    assert (true_next == (labels != 0)).all()


@pytest.mark.parametrize("limit", [1, 3, 7])
def test_no_group_gives_more_than_its_share(tokens, store_of, limit):
    documents = [document(f"d{number}", 8) for number in range(6)]
    parts = [document(f"book{number}", 20, group="book") for number in range(3)]
    store = store_of(documents + parts)
    first, second, labels = held_out_pairs(store, limit)
    groups = Counter(min(int(d), 6) for d in store.document_of(first))
    assert groups == {number: min(limit, 4 if number < 6 else 30) for number in range(7)}
    assert Counter(labels.tolist())[0] == Counter(labels.tolist())[1] > 0
    assert len(np.unique(np.concatenate([first, second]))) == 2 * len(first)
    everything = {(int(a), a + 1) for a in held_out_pairs(store, NO_LIMIT)[0]}
    assert {(int(a), a + 1) for a in first} < everything
    settings = EvaluationSettings(min_predictions=1, max_pairs_per_group=limit)
    rows = np.concatenate([batch.row_documents[:, 0] for batch in questions_of(tokens, ALONE, settings, store=store)])
    assert Counter(np.minimum(rows, 6).tolist()) == {
        number: min(2 * limit, 8 if number < 6 else 60) for number in range(7)
    }


@pytest.mark.parametrize("giant", [0, 30])
@pytest.mark.parametrize("upto", [5, 16, 40])
def test_the_first_so_and_so_many_balance_too(store_of, giant, upto):
    """Evaluations along the run take the first pairs only."""
    documents = [document(f"d{number}", 4) for number in range(40)] + [document("giant", 2 * giant)] * (giant > 0)
    _, _, labels = held_out_pairs(store_of(documents), NO_LIMIT)
    counts = Counter(labels[:upto].tolist())
    assert abs(counts[0] - counts[1]) <= 1


def test_a_held_out_source_of_one_group_is_scored_for_masked_tokens_only(tokens, store_of):
    store = store_of([document("a", 12, source="x"), document("b", 10), document("c", 10)])
    batches = questions_of(tokens, store=store, predictions=10_000)
    labels = np.concatenate([batch.nsp_labels for batch in batches])
    sources = np.concatenate([batch.row_documents[:, 0] for batch in batches])
    assert (labels[sources == 0] == NO_PAIR).all() and (sources == 0).sum() == 6
    assert Counter(labels[sources > 0].tolist()) in ({1: 5, 0: 5}, {1: 4, 0: 4, NO_PAIR: 2})


def test_derangement_against_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(300):
        size = int(rng.integers(0, 15))
        groups = rng.integers(0, rng.integers(1, 6), size)
        groups[rng.random(size) < rng.random()] = 0
        source = _derange(groups)
        found = np.flatnonzero(source >= 0)
        assert sorted(source[found]) == found.tolist()  # who takes also gives: nothing is in use twice
        assert (groups[source[found]] != groups[found]).all()
        largest = np.bincount(groups).max() if size else 0
        assert len(found) == min(size, 2 * (size - largest))  # no arrangement reaches more


def captured(monkeypatch, call):
    """(sentence, offset) of each token of the questions, beside its id after masking, its label and its kind."""
    seen, original = [], held_out.assemble_rows

    def spy(*arguments, **options):
        rows = original(*arguments, **options)
        seen.append((arguments[0].sentence_offsets, rows))
        return rows

    monkeypatch.setattr(held_out, "assemble_rows", spy)
    batches = call()
    monkeypatch.undo()
    answers = []
    for (offsets, rows), batch in zip(seen, batches, strict=False):
        kinds = np.full(batch.num_tokens, -1)
        kinds[batch.masked_positions] = batch.mask_kinds
        for place in np.flatnonzero(rows.is_text):
            sentence = int(np.searchsorted(offsets, rows.places[place], side="right")) - 1
            key = (sentence, int(rows.places[place] - offsets[sentence]))
            answers.append((key, (int(batch.input_ids[place]), int(kinds[place]))))
    return answers


def test_a_tokens_mask_does_not_depend_on_the_row_it_lies_in(tokens, monkeypatch):
    pairs = dict(captured(monkeypatch, lambda: questions_of(tokens)))
    alone = dict(captured(monkeypatch, lambda: questions_of(tokens, ALONE)))
    short = dict(captured(monkeypatch, lambda: questions_of(tokens, dataclasses.replace(ALONE, sequence_length=20))))
    assert len(alone) > len(pairs) > 2_000 and len(short) > 2_000
    assert all(alone[key] == answer for key, answer in pairs.items())
    assert all(alone[key] == answer for key, answer in short.items())


def test_masks_follow_the_document_wherever_it_lies_in_the_store(tokens, store_of, monkeypatch):
    documents = tokens.held_out_documents
    turned = store_of(documents[30:] + documents[:30])
    lead = sum(len(document.sentences) for document in documents[:30])
    rest = tokens.held_out.num_sentences - lead
    here = dict(captured(monkeypatch, lambda: questions_of(tokens, ALONE)))
    there = dict(captured(monkeypatch, lambda: questions_of(tokens, ALONE, store=turned)))
    assert {(s + rest if s < lead else s - lead, offset): answer for (s, offset), answer in here.items()} == there


def test_two_documents_are_masked_apart(tokens, store_of, monkeypatch):
    """The same text in two documents: the masks are keyed by the document too."""
    store = store_of([document("a", 40), document("b", 40)])
    answers = dict(captured(monkeypatch, lambda: questions_of(tokens, ALONE, store=store)))
    assert any(answers[s, 0] != answers[s + 40, 0] for s in range(40))


def test_masking_is_fifteen_percent_of_characters(tokens):
    batches = questions_of(tokens, ALONE)
    ids = np.concatenate([batch.input_ids for batch in batches])
    labels = np.concatenate([batch.labels for batch in batches])
    kinds = np.concatenate([batch.mask_kinds for batch in batches])
    assert abs(len(labels) - 0.15 * len(ids)) < 200
    assert labels.min() >= 5
    assert np.bincount(kinds) / len(kinds) == pytest.approx([0.8, 0.1, 0.1], abs=0.03)


def test_rounds_go_on_until_there_are_enough_predictions(tokens, monkeypatch):
    once = captured(monkeypatch, lambda: questions_of(tokens))
    size = sum(batch.num_predictions for batch in questions_of(tokens))
    assert 300 < size < 1_500
    settings = EvaluationSettings(min_predictions=3 * size)
    batches = questions_of(tokens, settings=settings, predictions=100_000)
    assert 3 * size <= sum(batch.num_predictions for batch in batches) < 3 * size + 700
    rounds = captured(monkeypatch, lambda: questions_of(tokens, settings=settings))
    assert rounds[: len(once)] == once  # the first round is the same question
    second = dict(rounds[len(once) : 2 * len(once)])
    assert second.keys() == dict(once).keys()
    masked = {key for key, (_, kind) in once if kind >= 0}
    again = {key for key, (_, kind) in second.items() if kind >= 0}
    assert len(masked & again) / len(masked) == pytest.approx(0.15, abs=0.05)


@pytest.mark.parametrize("predictions", [100, 250, 700])
def test_predictions_stop_at_the_row_block_that_reaches_them(tokens, read, predictions):
    full = questions_of(tokens)
    batches = questions_of(tokens, predictions=predictions)
    counts = [batch.num_predictions for batch in batches]
    if sum(batch.num_predictions for batch in full) >= predictions:
        assert sum(counts) >= predictions > sum(counts[:-1])
    assert [read.digest(batch) for batch in batches] == [read.digest(batch) for batch in full[: len(batches)]]
    # Few predictions asked for win over many at least.
    enough = EvaluationSettings(min_predictions=50_000)
    assert len(questions_of(tokens, settings=enough, predictions=predictions)) <= len(full)


def test_rows_of_held_out_batches_are_those_of_training(tokens, read, cut):
    sentences = cut(tokens.vocabulary, tokens.held_out_documents, 30)
    for batch in questions_of(tokens):
        assert batch.step == 0 and batch.num_rows <= 64
        for row in read.rows(batch):
            assert row.ids == (2, *row.first, 3, *row.second, 3)
            assert row.first in sentences[row.documents[0]] and row.second in sentences[row.documents[1]]


def test_nothing_to_ask(tokens, store_of):
    store = store_of([document("a", 1), document("b", 1)])
    with pytest.raises(StoreError, match="no held-out token to predict"):
        questions_of(tokens, store=store)
    assert sum(batch.num_predictions for batch in questions_of(tokens, ALONE, store=store, predictions=3)) >= 1


def test_another_vocabulary_is_refused(tokens):
    with pytest.raises(StoreError, match="another vocabulary"):
        held_out_batches(
            tokens.held_out, Vocabulary((*SPECIAL_TOKENS, "天")), settings=ONE_ROUND, batches=PAIRS, predictions=100
        )
