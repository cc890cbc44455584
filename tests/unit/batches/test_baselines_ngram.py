"""The n-gram against a plain reference that counts with dictionaries and loops."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from xuebu.batches import contexts as contexts_module
from xuebu.batches.batch import Batch
from xuebu.batches.contexts import (
    KINDS,
    UNUSABLE,
    count_contexts,
    read_neighbors,
    sentence_neighbors,
)
from xuebu.batches.held_out import HELD_OUT_MASKING
from xuebu.batches.ngram import BUCKETS, COMPONENTS, corrupt_neighbors, default_weights, fit_weights, guess
from xuebu.tokens.vocab import SPECIAL_TOKENS, Vocabulary

VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *"天地玄黄宇宙洪"))
SIZE = VOCABULARY.num_tokens
BOUNDARY = SIZE
MASK = VOCABULARY.mask_id
COLUMNS = {
    "left": (1,),
    "right": (2,),
    "far_left": (0,),
    "far_right": (3,),
    "two_left": (0, 1),
    "two_right": (2, 3),
    "both": (1, 2),
    "two_left_right": (0, 1, 2),
    "left_two_right": (1, 2, 3),
    "two_both": (0, 1, 2, 3),
}


def make_sentences(count, seed, start=5):
    generator = np.random.default_rng(seed)
    steps = generator.integers(1, 3, size=(count, 12)).cumsum(axis=1)  # neighbors predict each other in part
    lengths = generator.integers(1, 13, size=count)
    return [(start + row[:length] % (SIZE - 5)).tolist() for row, length in zip(steps, lengths, strict=True)]


def flatten(sentences):
    return np.concatenate(sentences).astype(np.int64), np.array(list(map(len, sentences)))


def make_questions(count, seed):
    """Neighbors of random tokens, some unusable or random; the true tokens; what is visible in their places."""
    generator = np.random.default_rng(seed)
    tokens, lengths = flatten(make_sentences(3 * count, seed))
    picked = generator.choice(len(tokens), count, replace=False)
    neighbors = corrupt_neighbors(sentence_neighbors(tokens, lengths, BOUNDARY), VOCABULARY, HELD_OUT_MASKING)[picked]
    labels = tokens[picked].astype(np.int32)
    kinds = generator.choice(3, count, p=[0.6, 0.2, 0.2])
    visible = np.where(kinds == 0, MASK, np.where(kinds == 1, generator.integers(5, SIZE, count), labels))
    return neighbors, labels, visible.astype(np.int32)


class Reference:
    """The same model with dictionaries: one question at a time, nothing shared with the code under test."""

    def __init__(self, sentences, questions):
        self.tables = {kind: defaultdict(Counter) for kind in COLUMNS}
        unigram = Counter()
        for sentence in sentences:
            padded = [BOUNDARY, BOUNDARY, *sentence, BOUNDARY, BOUNDARY]
            for place in range(2, len(padded) - 2):
                around = [padded[place - 2], padded[place - 1], padded[place + 1], padded[place + 2]]
                unigram[padded[place]] += 1
                for kind, columns in COLUMNS.items():
                    self.tables[kind][tuple(around[c] for c in columns)][padded[place]] += 1
        self.unigram = {x: 0.0 if x in (0, 2, 3, 4) else unigram[x] + 0.5 for x in range(SIZE)}
        total = sum(self.unigram.values())
        self.unigram = {x: value / total for x, value in self.unigram.items()}
        self.discounts = {}
        for kind, columns in COLUMNS.items():
            asked = {tuple(q[c] for c in columns) for q in questions.tolist()}
            entries = [n for context in asked if UNUSABLE not in context for n in self.tables[kind][context].values()]
            self.discounts[kind] = (entries.count(1) + 1) / (entries.count(1) + 2 * entries.count(2) + 2)

    def seen(self, kind, question):
        return sum(self.tables[kind][tuple(question[c] for c in COLUMNS[kind])].values())

    def back_off(self, kind, question, shorter):
        counts = self.tables[kind][tuple(question[c] for c in COLUMNS[kind])]
        total, discount = sum(counts.values()), self.discounts[kind]
        if not total:
            return shorter
        rest = discount * len(counts) / total
        return {x: max(counts[x] - discount, 0) / total * (x in counts) + rest * shorter[x] for x in range(SIZE)}

    def components(self, question):
        sides = []
        for near, far, two in (("left", "far_left", "two_left"), ("right", "far_right", "two_right")):
            usable = question[COLUMNS[near][0]] != UNUSABLE
            one = self.back_off(near if usable else far, question, self.unigram)
            sides.append(self.back_off(two, question, one) if usable else one)
        left, right = sides
        product = {x: left[x] * right[x] / self.unigram[x] if self.unigram[x] else 0.0 for x in range(SIZE)}
        product = {x: value / sum(product.values()) for x, value in product.items()}
        both = self.back_off("both", question, product)
        three = [self.back_off(kind, question, both) for kind in ("two_left_right", "left_two_right")]
        four = self.back_off("two_both", question, {x: (three[0][x] + three[1][x]) / 2 for x in range(SIZE)})
        return [self.unigram, left, right, product, both, *three, four]

    def bucket(self, question):
        if self.seen("two_both", question):
            return 5
        if self.seen("two_left_right", question) or self.seen("left_two_right", question):
            return 4
        if self.seen("both", question):
            return 3
        return sum(question[column] != UNUSABLE for column in (1, 2))

    def posterior(self, question, visible, weights):
        parts = self.components(question)
        row = weights[self.bucket(question)]
        mixture = {x: sum(w * part[x] for w, part in zip(row, parts, strict=True)) for x in range(SIZE)}
        if visible != MASK:
            chance = 0.1 / (SIZE - 5) if visible >= 5 else 0.0
            mixture = {x: p * (chance + (0.1 if x == visible else 0.0)) for x, p in mixture.items()}
        total = sum(mixture.values())
        return {x: p / total for x, p in mixture.items()}


@pytest.fixture(scope="module")
def trained():
    sentences = [*make_sentences(60, seed=1), [5], [6, 6], [1, 5, 1]]  # [UNK] is an answer like any other
    questions, labels, visible = make_questions(150, seed=2)
    questions = np.concatenate([questions, [[UNUSABLE] * 4, [BOUNDARY] * 4, [5] * 4]])
    labels = np.append(labels, [1, 5, 6]).astype(np.int32)
    visible = np.append(visible, [1, MASK, MASK]).astype(np.int32)
    counts = count_contexts([flatten(sentences)], questions, VOCABULARY)
    return sentences, counts, questions, labels, visible


def random_weights(seed):
    return np.random.default_rng(seed).dirichlet(np.ones(len(COMPONENTS)), size=len(BUCKETS))


def ask(counts, weights, questions, visible, labels):
    return guess(
        counts, weights, questions, visible=visible, labels=labels, vocabulary=VOCABULARY, masking=HELD_OUT_MASKING
    )


@pytest.mark.parametrize("weights", [random_weights(0), np.tile(np.eye(len(COMPONENTS))[7], (len(BUCKETS), 1))])
def test_guesses_equal_the_reference(trained, weights):
    sentences, counts, questions, labels, visible = trained
    reference = Reference(sentences, questions)
    guesses = ask(counts, weights, questions, visible, labels)
    buckets = set()
    for number, question in enumerate(questions.tolist()):
        expected = reference.posterior(question, visible[number], weights)
        assert guesses.log_probabilities[number] == pytest.approx(math.log(expected[labels[number]]), abs=1e-9)
        assert expected[guesses.tokens[number]] == pytest.approx(max(expected.values()), abs=1e-12)
        buckets.add(reference.bucket(question))
    assert buckets == set(range(6)), "the questions must reach every bucket"


def test_probabilities_add_up_to_one_and_labels_do_not_move_them(trained):
    _, counts, questions, _, visible = trained
    weights = random_weights(3)
    asked = [ask(counts, weights, questions, visible, np.full(len(questions), x, np.int32)) for x in range(SIZE)]
    total = sum(np.exp(guesses.log_probabilities) for guesses in asked)
    assert np.allclose(total, 1.0, atol=1e-12)
    assert all(np.array_equal(guesses.tokens, asked[0].tokens) for guesses in asked)


def test_counting_in_pieces_changes_nothing(trained):
    sentences, counts, questions, labels, visible = trained
    pieces = [flatten(sentences[start : start + 7]) for start in range(0, len(sentences), 7)]
    again = count_contexts(pieces, questions, VOCABULARY)
    assert again.num_tokens == counts.num_tokens == sum(map(len, sentences))
    for kind in KINDS:
        assert np.array_equal(again.continuations[kind].codes, counts.continuations[kind].codes)
        assert np.array_equal(again.continuations[kind].shares, counts.continuations[kind].shares)
    weights = default_weights()
    one, two = (ask(c, weights, questions, visible, labels) for c in (counts, again))
    assert np.array_equal(one.log_probabilities, two.log_probabilities)


def test_buffers_hold_any_number_of_questions(trained, monkeypatch):
    _, counts, questions, labels, visible = trained
    whole = ask(counts, default_weights(), questions, visible, labels)
    monkeypatch.setattr("xuebu.batches.ngram._BUFFER_ENTRIES", 7 * SIZE)
    parts = ask(counts, default_weights(), questions, visible, labels)
    assert np.array_equal(whole.tokens, parts.tokens)
    assert np.allclose(whole.log_probabilities, parts.log_probabilities, atol=1e-13)


def test_no_question_shares_a_context_with_an_empty_corpus():
    questions, labels, _ = make_questions(20, seed=4)
    counts = count_contexts([], questions, VOCABULARY)
    guesses = ask(counts, default_weights(), questions, np.full(20, MASK, np.int32), labels)
    assert np.allclose(guesses.log_probabilities, -math.log(SIZE - 4))


def test_fitted_weights_beat_equal_ones_where_they_were_fitted(trained):
    sentences, *_ = trained
    questions, labels, _ = make_questions(400, seed=5)
    counts = count_contexts([flatten(sentences)], questions, VOCABULARY)
    weights = fit_weights(counts, questions, labels.astype(np.int64))
    assert weights.shape == (len(BUCKETS), len(COMPONENTS))
    assert np.allclose(weights.sum(axis=1), 1.0)
    assert (weights > 0).all()
    hidden = np.full(len(labels), MASK, np.int32)
    fitted, equal = (ask(counts, w, questions, hidden, labels) for w in (weights, default_weights()))
    assert fitted.log_probabilities.sum() > equal.log_probabilities.sum() + 1.0


def test_weights_find_the_component_that_tells_the_truth():
    """Where only the left neighbor decides, and the right one is noise, the left distribution gets the weight."""
    generator = np.random.default_rng(6)
    sentences = [[int(a), int(a) % 3 + 5, int(generator.integers(5, SIZE))] for a in generator.integers(5, SIZE, 400)]
    questions = np.array([[BOUNDARY, a, c, BOUNDARY] for a, _, c in sentences[200:]])
    counts = count_contexts([flatten(sentences[:200])], questions, VOCABULARY)
    weights = fit_weights(counts, questions, np.array([b for _, b, _ in sentences[200:]]))
    assert (weights[2:, [0, 2]] < 0.05).all(), "the unigram and the right-hand side know nothing"


def make_batch(rows, masked, labels):
    """A batch of rows given as lists of ids, one or two sentences each."""
    ids = np.concatenate(rows).astype(np.int32)
    offsets = np.cumsum([0, *map(len, rows)])
    segments = np.concatenate([np.cumsum(np.array(row) == 3) - (np.array(row) == 3) for row in rows]).astype(np.int8)
    return Batch(
        step=0,
        input_ids=ids,
        segment_ids=segments,
        row_offsets=offsets.astype(np.int64),
        masked_positions=np.array(masked),
        labels=np.array(labels, dtype=np.int32),
        mask_kinds=np.zeros(len(masked), dtype=np.int8),
        nsp_labels=np.ones(len(rows), dtype=np.int8),
        row_documents=np.zeros((len(rows), 2), dtype=np.int64),
    )


def test_neighbors_are_read_within_the_sentence():
    B, X = BOUNDARY, UNUSABLE
    rows = [[2, 5, 4, 7, 3, 4, 6, 3], [2, 8, 9, 10, 4, 3, 11, 3]]
    batch = make_batch(rows, [1, 2, 3, 5, 6, 9, 11, 12, 14], [5] * 9)
    expected = [
        [B, B, X, 7],
        [B, 5, 7, B],
        [5, X, B, B],
        [B, B, 6, B],
        [B, X, B, B],
        [B, B, 9, 10],
        [8, 9, X, X],  # the longest sentence was cut: what follows it is not its end
        [9, 10, X, X],
        [B, B, B, B],
    ]
    assert read_neighbors(batch, VOCABULARY).tolist() == expected


def test_neighbors_of_rows_with_one_sentence():
    batch = make_batch([[2, 5, 6, 3], [2, 4, 3]], [1, 2, 5], [5, 6, 7])
    assert read_neighbors(batch, VOCABULARY).tolist() == [
        [BOUNDARY, BOUNDARY, 6, UNUSABLE],
        [BOUNDARY, 5, UNUSABLE, UNUSABLE],
        [BOUNDARY] * 4,
    ]


def test_training_neighbors_stop_at_sentences():
    tokens, lengths = flatten([[5, 6, 7], [8]])
    B = BOUNDARY
    assert sentence_neighbors(tokens, lengths, B).tolist() == [[B, B, 6, 7], [B, 5, 7, B], [5, 6, B, B], [B, B, B, B]]


def test_corruption_follows_the_shares():
    neighbors = np.full((20_000, 4), 7)
    neighbors[:, 3] = BOUNDARY
    neighbors[:, 2] = UNUSABLE
    corrupted = corrupt_neighbors(neighbors, VOCABULARY, HELD_OUT_MASKING)
    assert (corrupted[:, 3] == BOUNDARY).all()
    assert (corrupted[:, 2] == UNUSABLE).all()
    tokens = corrupted[:, :2].ravel()
    masked, other = (tokens == UNUSABLE).mean(), ((tokens != UNUSABLE) & (tokens != 7)).mean()
    error = 4 * math.sqrt(0.12 * 0.88 / len(tokens))
    assert abs(masked - 0.12) < error
    assert abs(other - 0.015 * (SIZE - 6) / (SIZE - 5)) < error
    assert tokens[tokens != UNUSABLE].min() >= 5


def test_documents_are_read_in_pieces(monkeypatch):
    class Rows:
        document_offsets = np.array([0, 2, 3, 6])
        sentence_offsets = np.array([0, 4, 5, 7, 8, 10, 13])

        def read_tokens(self, start, stop):
            return np.arange(start, stop, dtype=np.uint16)

    monkeypatch.setattr(contexts_module, "_CHUNK_TOKENS", 6)
    pieces = list(contexts_module.read_documents(Rows(), np.array([0, 2])))
    assert np.concatenate([tokens for tokens, _ in pieces]).tolist() == [0, 1, 2, 3, 4, *range(7, 13)]
    assert [lengths.tolist() for _, lengths in pieces] == [[4, 1, 1, 2, 3]]
    pieces = list(contexts_module.read_documents(Rows(), np.array([0, 1, 2])))
    assert [lengths.tolist() for _, lengths in pieces] == [[4, 1, 2], [1, 2, 3]]
