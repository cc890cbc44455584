"""Baselines from stores and batches to scores: what they reach, what they read, and what they must not."""

import dataclasses
import json
import math

import numpy as np
import pytest

from xuebu.batches import baselines as baselines_module
from xuebu.batches.baselines import pair_overlap, score_baselines
from xuebu.batches.batch import NO_PAIR, concatenate
from xuebu.batches.contexts import Counts
from xuebu.batches.held_out import held_out_batches
from xuebu.batches.loader import Loader
from xuebu.batches.settings import BatchSettings, EvaluationSettings
from xuebu.corpus.document import SentenceDocument
from xuebu.errors import StoreError
from xuebu.tokens.build import build_store
from xuebu.tokens.settings import StoreSettings
from xuebu.tokens.vocab import SPECIAL_TOKENS, Vocabulary

CHARACTERS = "天地玄黄宇宙洪荒日月盈昃辰宿列张"
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *CHARACTERS))
SETTINGS = BatchSettings(sequence_length=32, sequences_per_step=8)


def make_store(folder, texts, source="s"):
    """A store of documents given as lists of sentences; each document is its own group."""
    documents = [
        SentenceDocument(
            id=f"{folder.name}{number}", title="", group=f"{folder.name}{number}", source=source, sentences=s
        )
        for number, s in enumerate(map(tuple, texts))
    ]
    return build_store(documents, VOCABULARY, folder, StoreSettings(segmenter="none"), corpus_digest=folder.name)


def circle(start, length):
    """A sentence that walks round the characters: both neighbors give each one away."""
    return "".join(CHARACTERS[(start + step) % len(CHARACTERS)] for step in range(length))


def random_texts(count, seed):
    generator = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, len(CHARACTERS) + 1)
    draw = lambda: "".join(generator.choice(list(CHARACTERS), size=9, p=weights / weights.sum()))  # noqa: E731
    return [[draw() for _ in range(4)] for _ in range(count)]


def held_out(store, predictions=400):
    settings = EvaluationSettings(predictions=predictions, min_predictions=predictions)
    return held_out_batches(store, VOCABULARY, settings=settings, batches=SETTINGS, predictions=predictions)


def train_batches(store, count=4):
    loader = Loader(store, VOCABULARY, SETTINGS, seed=1)
    return [loader.batch(step) for step in range(1, count + 1)]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    return make_store(folder / "train", random_texts(30, seed=1)), make_store(
        folder / "held_out", random_texts(12, seed=2)
    )


@pytest.fixture(scope="module")
def scored(stores):
    train, test = stores
    questions = held_out(test)
    return questions, score_baselines(train, train_batches(train), questions, VOCABULARY)


def test_neighbors_that_decide_are_read(tmp_path):
    """Every masked token with a readable neighbor is found; a token that only looks at home is not trusted for it."""
    train = make_store(tmp_path / "train", [[circle(n, 12), circle(n + 5, 14)] for n in range(40)])
    test = make_store(tmp_path / "held_out", [[circle(3 * n, 13), circle(n, 12)] for n in range(16)])
    questions = held_out(test)
    result = score_baselines(train, train_batches(train), questions, VOCABULARY)
    whole = concatenate(questions)
    places = whole.masked_positions
    near = whole.input_ids[np.stack([places - 1, places + 1])]
    true_near = np.stack([whole.labels - 1, whole.labels + 1])
    true_near = np.where(true_near < 5, VOCABULARY.num_tokens - 1, true_near)
    true_near = np.where(true_near >= VOCABULARY.num_tokens, 5, true_near)
    both_true = (near == true_near).all(axis=0)
    assert both_true.sum() > 200
    assert result.ngram_correct[both_true & (whole.mask_kinds == 0)].all()
    assert result.ngram_correct[both_true & (whole.mask_kinds == 2)].all()
    assert result.ngram_correct.mean() > 0.9
    assert result.ngram_nats < 0.3
    assert result.most_frequent_correct.mean() < 0.2


def test_arrays_have_the_order_and_length_of_the_questions(scored):
    questions, result = scored
    whole = concatenate(questions)
    assert len(questions) > 1
    assert len(result.ngram_correct) == len(result.most_frequent_correct) == whole.num_predictions >= 400
    assert len(result.ngram_log_probability) == whole.num_predictions
    assert len(result.overlap_correct) == whole.num_judged_pairs
    assert result.most_frequent_token == "天"
    assert np.array_equal(result.most_frequent_correct, whole.labels == 5)
    assert (result.ngram_log_probability < 0).all()


def test_noise_is_not_predicted_better_than_its_entropy(scored):
    """The characters are independent draws: no counter can lose less than their entropy where nothing is visible."""
    questions, result = scored
    masked = concatenate(questions).mask_kinds == 0
    weights = 1.0 / np.arange(1, len(CHARACTERS) + 1)
    shares = weights / weights.sum()
    entropy = -(shares * np.log(shares)).sum()
    loss = -result.ngram_log_probability[masked]
    assert loss.mean() > entropy - 4 * loss.std() / math.sqrt(masked.sum())
    assert loss.mean() < math.log(len(CHARACTERS))


def test_labels_move_no_guess(stores, scored):
    """For each token, score as if it were the label everywhere: exactly one of them is the guess of each place."""
    train, _ = stores
    questions, result = scored
    hits = []
    for token in range(len(VOCABULARY.tokens)):
        changed = [dataclasses.replace(b, labels=np.full_like(b.labels, token)) for b in questions]
        hits.append(score_baselines(train, train_batches(train, 1), changed, VOCABULARY).ngram_correct)
    assert (np.sum(hits, axis=0) == 1).all()
    guesses = np.argmax(hits, axis=0)
    assert np.array_equal(guesses == concatenate(questions).labels, result.ngram_correct)


def test_other_labels_move_no_probability(stores, scored):
    train, _ = stores
    questions, result = scored
    batch = questions[0]
    labels = batch.labels.copy()
    labels[1:] = 5 + (labels[1:] - 5 + 1) % len(CHARACTERS)
    changed = [dataclasses.replace(batch, labels=labels), *questions[1:]]
    again = score_baselines(train, train_batches(train), changed, VOCABULARY)
    same = np.concatenate([[True], np.zeros(batch.num_predictions - 1, bool)])
    same = np.concatenate([same, np.ones(len(result.ngram_correct) - len(same), bool)])
    assert np.array_equal(again.ngram_log_probability[same], result.ngram_log_probability[same])
    assert not np.array_equal(again.ngram_log_probability, result.ngram_log_probability)


def test_held_out_text_is_not_counted(stores, scored):
    """Asked everything twice, the n-gram answers as before: questions add nothing to its counts."""
    train, _ = stores
    questions, result = scored
    assert result.counted_tokens == result.training_tokens == train.num_tokens
    twice = score_baselines(train, train_batches(train), [*questions, *questions], VOCABULARY)
    assert np.array_equal(twice.ngram_log_probability, np.tile(result.ngram_log_probability, 2))
    assert np.array_equal(twice.ngram_correct, np.tile(result.ngram_correct, 2))


def test_at_most_max_tokens_are_counted(stores):
    train, test = stores
    questions = held_out(test, 100)
    result = score_baselines(train, train_batches(train, 1), questions, VOCABULARY, max_tokens=300)
    assert 100 < result.counted_tokens <= 300
    assert result.counted_tokens % 36 == 0  # whole documents
    assert "of 1,080 training tokens" in result.ngram_description
    again = score_baselines(train, train_batches(train, 1), questions, VOCABULARY, max_tokens=300)
    assert np.array_equal(result.ngram_log_probability, again.ngram_log_probability)
    assert score_baselines(train, train_batches(train, 1), questions, VOCABULARY, max_tokens=1).counted_tokens == 36


def test_weights_are_fitted_on_groups_that_are_not_counted(stores, monkeypatch):
    train, test = stores
    read = []
    original = baselines_module.read_documents

    def watch(store, documents):
        read.append(documents.tolist())
        return original(store, documents)

    monkeypatch.setattr(baselines_module, "read_documents", watch)
    score_baselines(train, train_batches(train, 1), held_out(test, 100), VOCABULARY)
    held_back, counted, everything = read
    assert held_back
    assert not set(held_back) & set(counted)
    assert sorted(held_back + counted) == everything == list(range(train.num_documents))


def test_a_single_group_gives_equal_weights(tmp_path, stores):
    train = make_store(tmp_path / "one", [[circle(0, 9), circle(4, 9), circle(3, 9)]])
    _, test = stores
    questions = [dataclasses.replace(b, nsp_labels=np.full_like(b.nsp_labels, NO_PAIR)) for b in held_out(test, 100)]
    result = score_baselines(train, [], questions, VOCABULARY)
    assert result.fitted_predictions == 0
    assert "equal weights" in result.ngram_description
    assert len(result.overlap_correct) == 0
    assert result.overlap_threshold is None
    assert result.to_json()["overlap_accuracy"] is None
    assert result.overlap_description == ""
    assert "neighbors from" not in result.summary()


def brute_overlap(batch, row, unigram):
    sets = []
    for segment in (0, 1):
        inside = slice(batch.row_offsets[row], batch.row_offsets[row + 1])
        ids = batch.input_ids[inside][batch.segment_ids[inside] == segment]
        sets.append({int(token) for token in ids if token >= 5})
    weigh = lambda tokens: sum(math.log(unigram[token]) ** 2 for token in tokens)  # noqa: E731
    lengths = math.sqrt(weigh(sets[0]) * weigh(sets[1]))
    return weigh(sets[0] & sets[1]) / lengths if lengths else 0.0


ORDINARY = VOCABULARY.special.ordinary_ids(VOCABULARY.num_tokens)


def make_counts(unigram):
    return Counts(contexts={}, continuations={}, unigram=np.array(unigram), num_tokens=1, base=len(unigram) + 1)


def test_overlap_equals_sets(stores):
    unigram = np.array([0, 0.1, 0, 0, 0, *np.random.default_rng(3).dirichlet(np.ones(len(CHARACTERS)))])
    batch = train_batches(stores[0], 1)[0]
    overlap = pair_overlap(batch, make_counts(unigram), ORDINARY)
    expected = [brute_overlap(batch, row, unigram) for row in range(batch.num_rows)]
    assert np.allclose(overlap, expected, atol=1e-12)
    assert 0 < overlap.min() <= overlap.max() <= 1


def test_overlap_of_nothing_is_zero(stores):
    batch = train_batches(stores[0], 1)[0]
    unigram = np.full(VOCABULARY.num_tokens, 1 / VOCABULARY.num_tokens)
    masked = dataclasses.replace(batch, input_ids=np.where(batch.input_ids >= 5, 4, batch.input_ids).astype(np.int32))
    assert pair_overlap(masked, make_counts(unigram), ORDINARY).tolist() == [0.0] * batch.num_rows


def test_the_threshold_is_the_best_on_training_pairs(stores, scored):
    train, _ = stores
    questions, result = scored
    batch, whole = concatenate(train_batches(train)), concatenate(questions)
    tokens = train.read_tokens(0, train.num_tokens)
    smoothed = np.bincount(tokens, minlength=VOCABULARY.num_tokens) + 0.5
    smoothed[[0, 2, 3, 4]] = 0
    unigram = smoothed / smoothed.sum()
    train_overlap = np.array([brute_overlap(batch, row, unigram) for row in range(batch.num_rows)])
    accuracies = [((train_overlap >= t) == (batch.nsp_labels == 1)).mean() for t in train_overlap]
    assert result.overlap_training_accuracy == pytest.approx(max(accuracies))
    assert ((train_overlap >= result.overlap_threshold) == (batch.nsp_labels == 1)).mean() == pytest.approx(
        max(accuracies)
    )
    assert result.overlap_training_pairs == batch.num_rows
    expected = [
        (brute_overlap(whole, row, unigram) >= result.overlap_threshold) == (whole.nsp_labels[row] == 1)
        for row in np.flatnonzero(whole.nsp_labels != NO_PAIR)
    ]
    assert result.overlap_correct.tolist() == expected


def test_topics_are_told_apart(tmp_path):
    """Documents that keep to their own characters: sentences with none in common are strangers."""
    halves = [CHARACTERS[:8], CHARACTERS[8:]]
    generator = np.random.default_rng(4)
    texts = [["".join(generator.choice(list(halves[n % 2]), size=10)) for _ in range(4)] for n in range(40)]
    train, test = make_store(tmp_path / "train", texts[:28]), make_store(tmp_path / "held_out", texts[28:])
    questions = held_out(test, 200)
    result = score_baselines(train, train_batches(train, 8), questions, VOCABULARY)
    whole = concatenate(questions)
    documents = whole.row_documents % 2
    told_apart = (whole.nsp_labels == 1) | (documents[:, 0] != documents[:, 1])
    assert result.overlap_correct[told_apart[whole.nsp_labels != NO_PAIR]].mean() > 0.9


def test_json_holds_plain_finite_values(scored):
    _, result = scored
    table = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert table["ngram_accuracy"] == pytest.approx(result.ngram_correct.mean())
    assert table["ngram_nats"] == pytest.approx(-result.ngram_log_probability.mean())
    assert sum(table["ngram_weights"]["both seen together"].values()) == pytest.approx(1.0)
    assert f"{100 * result.ngram_correct.mean():.1f} %" in result.summary()
    assert len(result.summary().splitlines()) == 3


def test_what_does_not_fit_is_refused(stores, scored):
    train, _ = stores
    questions, _ = scored
    with pytest.raises(StoreError, match="another vocabulary"):
        score_baselines(train, [], questions, Vocabulary(VOCABULARY.tokens[:-1]))
    with pytest.raises(ValueError, match="no pair to choose a threshold"):
        score_baselines(train, [], questions, VOCABULARY)
    none = [
        dataclasses.replace(
            b, masked_positions=b.masked_positions[:0], labels=b.labels[:0], mask_kinds=b.mask_kinds[:0]
        )
        for b in questions
    ]
    with pytest.raises(ValueError, match="no masked token"):
        score_baselines(train, [], none, VOCABULARY)
