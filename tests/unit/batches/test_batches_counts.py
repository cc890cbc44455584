"""Counts of masking, their tolerances, and settings that do nothing."""

import dataclasses
import json
import math
import re
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from xuebu.batches.batch import KEPT, MASKED, MATCHED
from xuebu.batches.classes import CLASSES, class_of, token_classes
from xuebu.batches.counts import FALSE_ALARM, MaskCounts, expected_range, mask_problem, tolerance
from xuebu.batches.loader import Loader
from xuebu.batches.masking import MATCHED_RANKS, make_replacements, match_frequency
from xuebu.batches.preview import CHECKED_TOKENS, check_masks, report_masks
from xuebu.batches.settings import BatchSettings
from xuebu.batches.units import phrase_starts
from xuebu.corpus.document import SentenceDocument
from xuebu.errors import ConfigError, TrainingError
from xuebu.rng import draw_bits
from xuebu.tokens.build import build_store
from xuebu.tokens.settings import StoreSettings
from xuebu.tokens.special import SpecialIds
from xuebu.tokens.vocab import SPECIAL_TOKENS, Vocabulary

WORDS = BatchSettings(objective="mlm", sequences_per_step=100, sequence_length=64, mask_unit="word")


def counts_of(**changes):
    base = {
        "tokens": 11_000, "maskable": 10_000, "predicted": 1_500, "masked": 1_200, "random": 150, "kept": 150,
        "expected": 1_500.0, "variance": 1_275.0, "largest_unit": 1, "words": 6_000, "long_words": 3_000, "texts": 400,
    }  # fmt: skip
    return MaskCounts(**(base | changes))


def binomial_tail(n, p, at_least):
    """P(X >= at_least) of a binomial variable, exactly."""
    p = Fraction(p)
    return float(sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(at_least, n + 1)))


@pytest.mark.parametrize(
    ("n", "rate"), [(5, Fraction(3, 20)), (40, Fraction(3, 20)), (400, Fraction(3, 20)), (60, Fraction(1, 2))]
)
def test_a_tolerance_is_left_by_chance_less_often_than_it_says(n, rate):
    """Held against the exact binomial distribution, of few draws too, where a normal approximation would be wrong."""
    mean, variance = float(n * rate), float(n * rate * (1 - rate))
    beyond = math.floor(mean + tolerance(variance, 1.0)) + 1
    assert binomial_tail(n, rate, beyond) <= FALSE_ALARM if beyond <= n else True
    if n == 400:
        assert tolerance(variance, 1.0) < 110  # and yet it is no wider than it must be


def test_counts_add_up():
    one, other = counts_of(largest_unit=3), counts_of(predicted=7, largest_unit=2)
    both = one + other
    assert (both.predicted, both.maskable, both.largest_unit) == (1_507, 20_000, 3)
    assert both.variance == 2_550.0


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({}, {}, ""),
        ({"predicted": 1_650, "masked": 1_350}, {}, ""),  # 4 standard deviations
        ({"predicted": 2_000, "masked": 1_700}, {}, r"2,000 of 10,000 tokens are masked, 20.00%"),
        ({"predicted": 1_000, "masked": 800, "random": 100, "kept": 100}, {}, "`batches.mask_rate` asks for 15.00%"),
        ({"predicted": 1_000, "masked": 800, "random": 100, "kept": 100}, {"max_predictions": 20}, ""),
        ({"predicted": 1_490, "masked": 1_190}, {"mask_budget": "exact"}, "1,490 of 10,000"),
        ({"predicted": 1_490, "masked": 1_190, "unfilled": 10}, {"mask_budget": "exact"}, ""),
        ({"masked": 1_350, "kept": 0}, {}, r"became \[MASK\]; the settings ask for 80.00%"),
        ({"masked": 0, "matched": 1_200}, {}, "settings ask for 80.00%"),
        ({"masked": 0, "matched": 1_200}, {"mask_replacement": "matched"}, ""),
        ({"masked": 1_500, "random": 0, "kept": 0}, {"mask_token_share": 1.0, "random_token_share": 0.0}, ""),
        ({"masked": 1_499, "random": 1, "kept": 0}, {"mask_token_share": 1.0, "random_token_share": 0.0}, "became"),
        ({"maskable": 0, "predicted": 0, "expected": 0.0}, {}, "none of 11,000 tokens can be masked"),
        ({"long_words": 0}, {"mask_unit": "word"}, "would do nothing: each of 6,000 words .* is a single token"),
        ({"long_words": 0}, {"mask_unit": "pmi"}, "would do nothing"),
        ({"long_words": 0}, {"mask_unit": "ngram"}, ""),  # n-grams of single tokens are something
        ({"long_words": 0}, {}, ""),
        ({"long_words": 0, "words": 200}, {"mask_unit": "word"}, ""),  # too few to tell
        ({"one_word_texts": 400}, {"mask_unit": "word"}, "whole texts or nothing: each of 400 texts"),
        ({"one_word_texts": 399}, {"mask_unit": "word"}, ""),
        ({"touched_words": 900, "whole_words": 899}, {"mask_unit": "span"}, "1 of 900 masked words are masked in part"),
    ],
)
def test_what_is_otherwise_than_asked_is_told_in_one_line(changes, settings, message):
    found = mask_problem(counts_of(**changes), BatchSettings(**settings), "cutter 1.0")
    assert "\n" not in found
    assert bool(re.search(message, found)) if message else not found, found


def no_words(tokens, store_of, kind):
    """A store whose word bits are all 1 (each token a word), or all 0 but for the first of each text."""
    documents = tokens.train_documents
    store = store_of(documents)  # segmenter "none": all bits are 1
    if kind == "zeros":
        words = store.folder / "words-00000.bin"
        words.write_bytes(bytes(words.stat().st_size))
        store = type(store).open(store.folder)
    return store


@pytest.mark.parametrize(("kind", "message"), [("ones", "would do nothing"), ("zeros", "whole texts or nothing")])
def test_a_store_without_words_stops_a_run_before_it_begins(tokens, store_of, kind, message):
    """What transformers' whole-word masking does to Chinese, each text one word, is the second."""
    store = no_words(tokens, store_of, kind)
    loader = Loader(store, tokens.vocabulary, WORDS, 0)
    with pytest.raises(TrainingError, match=message) as caught:
        check_masks(loader)
    assert "\n" not in str(caught.value)
    check_masks(Loader(store, tokens.vocabulary, dataclasses.replace(WORDS, mask_unit="character"), 0))


@pytest.mark.parametrize("unit", ["character", "word", "ngram", "span"])
@pytest.mark.parametrize("budget", ["bernoulli", "exact"])
def test_every_kind_is_what_it_says_on_real_rows(tokens, unit, budget):
    settings = dataclasses.replace(WORDS, mask_unit=unit, mask_budget=budget, sequences="full", sequence_length=400)
    settings = dataclasses.replace(settings, sequences_per_step=10)
    report = report_masks(Loader(tokens.train, tokens.vocabulary, settings, 4), num_tokens=40_000, num_examples=2)
    counts = report.counts
    assert not report.problem
    low, high = expected_range(counts, settings)
    assert low <= counts.predicted <= high
    sigma = math.sqrt(counts.variance) if budget == "bernoulli" else counts.unfilled / 4 + 1
    assert abs(counts.predicted - counts.expected) < 4.5 * sigma
    if unit == "character":
        assert report.whole_share < 0.2
        assert budget == "bernoulli" or counts.predicted == counts.expected
    else:
        assert report.whole_share == 1.0 and counts.touched_words > 300
    assert sum(there for there, _ in report.by_class.values()) == counts.maskable
    assert sum(masked for _, masked in report.by_class.values()) == counts.predicted
    mean_run = counts.predicted / report.runs
    assert (mean_run < 1.4) if unit == "character" else mean_run > {"word": 1.6, "ngram": 2.4, "span": 3.5}[unit]
    text = json.dumps(report.to_json(), allow_nan=False)
    assert json.loads(text)["whole_word_share"] == report.whole_share
    assert f"tokens chosen: {report.rate:.2%}" in report.summary()


def test_lengths_of_units_follow_their_weights():
    """In a text so long that none is cut short by its end."""
    size = 4_000
    words = np.ones(size, dtype=bool)
    for unit, weights in (("ngram", [0.4, 0.3, 0.2, 0.1]), ("span", 0.8 ** np.arange(10))):
        shares = np.array(weights) / np.sum(weights)
        found = BatchSettings(mask_unit=unit).length_weights()
        assert found == pytest.approx(shares)
        draws = np.random.default_rng(1).random(size)
        starts = phrase_starts(words, words, np.array([0, size]), draws, weights=found, rate=0.1)
        lengths = np.diff(np.flatnonzero(starts))
        counted = np.bincount(lengths, minlength=len(shares) + 1)[1:]
        expected = shares * len(lengths)
        assert abs(((counted - expected) ** 2 / expected).sum() - (len(shares) - 1)) < 5 * np.sqrt(2 * len(shares))
    assert float((shares * np.arange(1, 11)).sum()) == pytest.approx(3.8, abs=0.01)  # SpanBERT's mean


def test_each_token_of_a_text_is_as_likely_to_be_masked(tokens):
    """At the edges too, which drawing places one after the other masks less."""
    text = "春天河水慢慢流过村子老人坐在桥边孩子追着风筝奔跑燕子屋檐"
    documents = [
        SentenceDocument(id=f"d{n}", title="", group=f"d{n}", source="s", sentences=(text,)) for n in range(500)
    ]
    with tempfile.TemporaryDirectory() as folder:
        store = build_store(documents, tokens.vocabulary, Path(folder), StoreSettings(), corpus_digest="")
        settings = dataclasses.replace(WORDS, mask_unit="span", sequences_per_step=20_000, mask_rate=0.2)
        batch = Loader(store, tokens.vocabulary, settings, 0).batch(1)
    width = int(batch.row_offsets[1])
    chosen = np.bincount(batch.masked_positions % width, minlength=width)[1:-1]
    assert np.abs(chosen / 20_000 - 0.2).max() < 4.5 * math.sqrt(0.16 / 20_000)


def test_a_token_of_similar_frequency():
    size = 400
    counts = np.concatenate([np.zeros(5, dtype=np.int64), np.arange(size)[::-1]])  # id 5 is the most frequent
    replacements = make_replacements(SpecialIds(0, 1, 2, 3, 4), size + 5, counts)
    tokens = np.repeat(np.array([5, 6, 100, 300, 403, 404], dtype=np.int32), 20_000)  # 404 was never seen
    keys = draw_bits(1, np.arange(len(tokens)))
    found = match_frequency(tokens, keys, np.zeros(len(tokens), dtype=np.int64), replacements)
    for token in np.unique(tokens):
        drawn = np.unique(found[tokens == token])
        assert len(drawn) == 2 * MATCHED_RANKS and token not in drawn and 404 not in drawn
        rank = min(token, 403)
        low = min(max(rank - MATCHED_RANKS, 5), 403 - 2 * MATCHED_RANKS)
        assert drawn.min() >= low and drawn.max() <= low + 2 * MATCHED_RANKS
    even = np.bincount(found[tokens == 100])[50:151]
    assert abs(even[even > 0] - 200).max() < 5 * math.sqrt(200)
    with pytest.raises(ConfigError, match="two tokens or more"):
        make_replacements(SpecialIds(0, 1, 2, 3, 4), 6, np.array([0, 0, 0, 0, 0, 9]))


def test_matched_runs_never_show_a_mask(tokens):
    settings = dataclasses.replace(WORDS, mask_replacement="matched")
    batch = Loader(tokens.train, tokens.vocabulary, settings, 0).batch(1)
    assert tokens.vocabulary.special.mask not in batch.input_ids
    assert {MATCHED, KEPT} < set(batch.mask_kinds.tolist()) and MASKED not in batch.mask_kinds
    matched = batch.mask_kinds == MATCHED
    assert (batch.input_ids[batch.masked_positions[matched]] != batch.labels[matched]).all()


def test_any_special_ids():
    """Google's places, 0 and 100 to 103, and further ids that no text is encoded to."""
    special = SpecialIds(0, 100, 101, 102, 103, extra=(7, 250))
    replacements = make_replacements(special, 300)
    assert len(replacements.ordinary) == 300 - 7 and replacements.mask_id == 103
    assert not set(replacements.ordinary.tolist()) & {0, 7, 100, 101, 102, 103, 250}


def test_classes_of_tokens():
    expected = {"han": "学㐀𠀀", "latin": "aZé", "digit": "07７", "punctuation": "，。!《", "other": "☯あ"}
    for name, characters in expected.items():
        assert {class_of(character) for character in characters} == {name}
    assert (class_of("##ing"), class_of("##"), class_of("2024年")) == ("latin", "punctuation", "digit")
    vocabulary = Vocabulary((*SPECIAL_TOKENS, "学", "a", "1", "，"))
    names = [CLASSES[index] for index in token_classes(vocabulary)]
    assert names == ["other"] * 5 + ["han", "latin", "digit", "punctuation"]


def test_a_check_looks_no_further_than_it_must(tokens):
    loader = Loader(tokens.train, tokens.vocabulary, dataclasses.replace(WORDS, sequences_per_step=5_000), 0)
    assert CHECKED_TOKENS <= check_masks(loader).maskable < CHECKED_TOKENS + 5_000 * 62


@pytest.mark.parametrize("seed", range(6))
def test_fixed_copies_are_counted_once(store_of, documents_of, tokens, seed):
    settings = BatchSettings(objective="mlm", sequences_per_step=8, sequence_length=64, static_copies=1)
    loader = Loader(store_of(documents_of(8, seed=5)), tokens.vocabulary, settings, seed)
    counts, steps = check_masks(loader), loader.num_samples // 8
    assert counts.maskable == sum(loader.batch(step).masking.maskable for step in range(1, steps + 1))
    assert report_masks(loader).problem == ""
    assert report_masks(loader).steps == steps
