"""Counts of a store, asked without a question's own group, against dictionaries that never saw that group."""

import dataclasses
import json
import shutil
from collections import Counter, defaultdict

import numpy as np
import pytest

from xuebu.batches.batch import MASKED, concatenate
from xuebu.batches.contexts import UNUSABLE, read_neighbors
from xuebu.batches.held_out import HELD_OUT_MASKING, held_out_batches
from xuebu.batches.loader import Loader
from xuebu.batches.ngram_counts import ngram_counts, show_rows
from xuebu.batches.settings import BatchSettings, EvaluationSettings
from xuebu.errors import StoreError

SETTINGS = BatchSettings(sequences_per_step=24, sequence_length=64)
LONGEST = SETTINGS.sentence_tokens
COLUMNS = {
    "left": (1,), "right": (2,), "far_left": (0,), "far_right": (3,), "two_left": (0, 1), "two_right": (2, 3),
    "both": (1, 2), "two_left_right": (0, 1, 2), "left_two_right": (1, 2, 3), "two_both": (0, 1, 2, 3),
}  # fmt: skip


@pytest.fixture(scope="module")
def counts(tokens):
    return ngram_counts(tokens.train, tokens.vocabulary)


def tables_of(sentences, boundary):
    tables = {kind: defaultdict(Counter) for kind in COLUMNS}
    for sentence in sentences:
        padded = [boundary, boundary, *sentence, boundary, boundary]
        for place in range(2, len(padded) - 2):
            around = [padded[place + shift] for shift in (-2, -1, 1, 2)]
            for kind, columns in COLUMNS.items():
                tables[kind][tuple(around[c] for c in columns)][padded[place]] += 1
    return tables


def discounts_of(tables):
    found = {}
    for kind, table in tables.items():
        values = [count for row in table.values() for count in row.values()]
        found[kind] = (values.count(1) + 1) / (values.count(1) + 2 * values.count(2) + 2)
    return found


def slow_guess(question, visible, *, tables, discounts, weights, unigram, special, masking):
    """The interpolated distribution of one question, and what is visible in its place as evidence; float64[V]."""

    def back_off(kind, shorter):
        row = tables[kind].get(tuple(question[c] for c in COLUMNS[kind]), {})
        total = sum(row.values())
        if not total:
            return shorter, False
        found = shorter * discounts[kind] * len(row) / total
        for token, count in row.items():
            found[token] += (count - discounts[kind]) / total
        return found, True

    sides = []
    for near, far, two in (("left", "far_left", "two_left"), ("right", "far_right", "two_right")):
        readable = question[COLUMNS[near][0]] != UNUSABLE
        one = back_off(near if readable else far, unigram)[0]
        sides.append(back_off(two, one)[0] if readable else one)
    product = sides[0] * sides[1] / np.where(unigram > 0, unigram, np.inf)
    product /= product.sum()
    both, seen_both = back_off("both", product)
    (first, seen_first), (second, seen_second) = (back_off(k, both) for k in ("two_left_right", "left_two_right"))
    four, seen_four = back_off("two_both", (first + second) / 2)
    bucket = sum(question[c] != UNUSABLE for c in (1, 2))
    bucket = 5 if seen_four else 4 if seen_first or seen_second else 3 if seen_both else bucket
    mixture = sum(
        w * p for w, p in zip(weights[bucket], [unigram, *sides, product, both, first, second, four], strict=True)
    )
    if visible != special.mask:
        by_chance = masking.random_token_share / int((~special.is_special(len(unigram))).sum())
        likelihood = np.full(len(unigram), by_chance if not special.is_special(len(unigram))[visible] else 1e-12)
        likelihood[visible] += 1.0 - masking.mask_token_share - masking.random_token_share
        mixture = mixture * likelihood
    return mixture / mixture.sum()


def sentences_of(tokens, group=None):
    store = tokens.train
    for document in range(store.num_documents):
        if group is None or store.document_group[document] != group:
            for sentence in range(*store.document_offsets[document : document + 2]):
                yield store.sentence_tokens(sentence).tolist()


def facts_of(tokens, counts):
    everything = tables_of(sentences_of(tokens), tokens.vocabulary.num_tokens)
    unigram = np.bincount(
        [token for sentence in sentences_of(tokens) for token in sentence], minlength=tokens.vocabulary.num_tokens
    ).astype(float)
    special = tokens.vocabulary.special
    unigram = np.where(special.is_special(len(unigram)), 0.0, unigram + 0.5)
    unigram[special.unk] = sum(sentence.count(special.unk) for sentence in sentences_of(tokens)) + 0.5
    return everything, {
        "discounts": discounts_of(everything),
        "weights": counts.weights,
        "unigram": unigram / unigram.sum(),
        "special": special,
    }


def test_training_text_is_asked_as_if_its_group_had_never_been_counted(tokens, counts):
    loader = Loader(tokens.train, tokens.vocabulary, SETTINGS, 3)
    batch = loader.batch(2)
    groups = tokens.train.document_group[batch.prediction_documents]
    chosen = np.flatnonzero(np.isin(groups, np.unique(groups)[:5]))
    found = counts.guess(batch, chosen, SETTINGS, leave_out=True, longest=LONGEST)
    neighbors = read_neighbors(batch, tokens.vocabulary, LONGEST)
    _, facts = facts_of(tokens, counts)
    others = {
        group: tables_of(sentences_of(tokens, group), tokens.vocabulary.num_tokens) for group in np.unique(groups)[:5]
    }
    assert len(chosen) > 20
    for number, row in zip(chosen, found, strict=True):
        visible = batch.input_ids[batch.masked_positions[number]]
        expected = slow_guess(
            neighbors[number].tolist(), visible, tables=others[groups[number]], masking=SETTINGS, **facts
        )
        np.testing.assert_allclose(row, expected, rtol=2e-4, atol=1e-7)


def test_held_out_text_is_asked_with_all_counts(tokens, counts):
    questions = concatenate(
        held_out_batches(
            tokens.held_out, tokens.vocabulary, settings=EvaluationSettings(predictions=100, min_predictions=100),
            batches=SETTINGS, predictions=100,
        )
    )  # fmt: skip
    chosen = np.arange(40)
    found = counts.guess(questions, chosen, HELD_OUT_MASKING, leave_out=False, longest=LONGEST)
    everything, facts = facts_of(tokens, counts)
    neighbors = read_neighbors(questions, tokens.vocabulary, LONGEST)
    for number, row in zip(chosen, found, strict=True):
        visible = questions.input_ids[questions.masked_positions[number]]
        expected = slow_guess(neighbors[number].tolist(), visible, tables=everything, masking=HELD_OUT_MASKING, **facts)
        np.testing.assert_allclose(row, expected, rtol=2e-4, atol=1e-7)
    assert counts.guess(questions, chosen[:0], HELD_OUT_MASKING, leave_out=False).shape == (0, found.shape[1])


def test_own_text_would_give_its_answers_away(tokens, counts):
    batch = Loader(tokens.train, tokens.vocabulary, SETTINGS, 0).batch(1)
    every = np.arange(batch.num_predictions)
    nats = [
        -np.log(counts.guess(batch, every, SETTINGS, leave_out=leave_out)[every, batch.labels]).mean()
        for leave_out in (True, False)
    ]
    assert nats[1] < 0.7 * nats[0]
    parts = counts.guess(batch, every[::-3], SETTINGS, leave_out=True)
    np.testing.assert_array_equal(parts, counts.guess(batch, every, SETTINGS, leave_out=True)[::-3])
    np.testing.assert_allclose(parts.sum(axis=1), 1.0, rtol=1e-5)


def test_rows_show_what_they_repeat(tokens, counts):
    """Each place of the row looked at by itself; what is in a masked place never counts."""
    batch = Loader(tokens.train, tokens.vocabulary, SETTINGS, 4).batch(3)
    special, masked = tokens.vocabulary.special, set(batch.masked_positions.tolist())
    is_special = special.is_special(tokens.vocabulary.num_tokens)
    chosen = np.arange(batch.num_predictions)[::-1][:50]
    shown = show_rows(batch, chosen, tokens.vocabulary)
    with_rows = ngram_counts(tokens.train, tokens.vocabulary, with_rows=True)
    plain, found = (c.guess(batch, chosen, SETTINGS, leave_out=True, longest=LONGEST) for c in (counts, with_rows))
    matched = 0
    for number, question in enumerate(chosen.tolist()):
        place = int(batch.masked_positions[question])
        row = int(np.searchsorted(batch.row_offsets, place, side="right")) - 1
        first, last = batch.row_offsets[row : row + 2].tolist()
        visible = [p for p in range(first, last) if p not in masked and not is_special[batch.input_ids[p]]]
        matches = {
            p: sum(
                batch.input_ids[p + step] == batch.input_ids[place + step] and not is_special[batch.input_ids[p + step]]
                for step in (-1, 1)
            )
            for p in visible
        }
        total, expected = sum(matches.values()), np.zeros(len(is_special))
        for p in visible:
            expected[batch.input_ids[p]] += 0.03 / len(visible) + (0.15 * matches[p] / total if total else 0.0)
        matched += total > 0
        here = shown.questions == number
        np.testing.assert_allclose(
            np.bincount(shown.tokens[here], shown.shares[here], len(is_special)), expected, rtol=1e-5
        )
        if batch.mask_kinds[question] == MASKED:  # no evidence in its own place
            mixed = (1 - expected.sum()) * plain[number] + expected
            np.testing.assert_allclose(found[number], mixed, rtol=1e-4, atol=1e-8)
    assert 5 < matched < 50
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-5)
    other = dataclasses.replace(batch, labels=np.roll(batch.labels, 1))
    np.testing.assert_array_equal(with_rows.guess(other, chosen, SETTINGS, leave_out=True, longest=LONGEST), found)


def test_counts_are_made_once_and_damage_is_named(tokens, counts, tmp_path, store_of, documents_of):
    folder = tmp_path / "train"
    shutil.copytree(tokens.folder / "train", folder)
    store = type(tokens.train).open(folder)
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "ngrams").iterdir()}
    ngram_counts(store, tokens.vocabulary)
    assert {path.name: path.stat().st_mtime_ns for path in (folder / "ngrams").iterdir()} == before
    assert not list(folder.glob("ngrams.*"))
    damaged = bytearray((folder / "ngrams" / "counts.bin").read_bytes())
    damaged[7] ^= 1
    (folder / "ngrams" / "counts.bin").write_bytes(damaged)
    with pytest.raises(StoreError, match=r"counts\.bin: damaged"):
        ngram_counts(store, tokens.vocabulary)
    other = store_of(documents_of(12, seed=9))
    shutil.copytree(tokens.folder / "train" / "ngrams", other.folder / "ngrams")
    with pytest.raises(StoreError, match="counts of another store"):
        ngram_counts(other, tokens.vocabulary)
    shutil.rmtree(other.folder / "ngrams")
    again = ngram_counts(other, tokens.vocabulary)
    first = {path.name: path.read_bytes() for path in (other.folder / "ngrams").iterdir()}
    shutil.rmtree(other.folder / "ngrams")
    ngram_counts(other, tokens.vocabulary)
    assert {path.name: path.read_bytes() for path in (other.folder / "ngrams").iterdir()} == first
    assert json.loads(first["metadata.json"])["num_tokens"] == other.num_tokens
    assert again.weights.shape == (6, 8)
