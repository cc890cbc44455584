import json

import numpy as np
import pytest

from xuebu.analysis.compare import mean_with_interval
from xuebu.batches import loader
from xuebu.model.encoder import PretrainingModel
from xuebu.tokens.vocab import SPECIAL_TOKENS, Vocabulary
from xuebu.train.breakdown import CLASSES, calibration, character_classes, score_by_character
from xuebu.train.machine import resolve_machine
from xuebu.train.scoring import score_model


def test_tokens_are_counted_in_pieces_as_at_once(tokens, monkeypatch):
    store = tokens.train
    plain = np.bincount(store.read_tokens(0, store.num_tokens), minlength=tokens.vocabulary.num_tokens)
    for piece in (1 << 22, 997):
        monkeypatch.setattr(loader, "_COUNT_PIECE", piece)
        np.testing.assert_array_equal(loader.count_tokens(store, tokens.vocabulary.num_tokens), plain)


def test_characters_have_the_class_that_a_reader_expects():
    expected = {
        "latin": "aZéＡÿ",
        "digit": "07９",
        "punctuation": "，。、“”《》（）—…·,.!?:;()%",
        "other": "の한α→☆℃",
        "han_1_100": "的一〇々",
    }
    text = "".join(expected.values())
    vocabulary = Vocabulary((*SPECIAL_TOKENS, *text))
    classes = character_classes(vocabulary, np.ones(vocabulary.num_tokens, dtype=np.int64))
    assert [CLASSES[one] for one in classes[:5]] == ["other"] * 5
    found = {
        name: "".join(c for c, one in zip(text, classes[5:], strict=True) if CLASSES[one] == name) for name in expected
    }
    assert found == expected


def test_han_are_banded_by_rank_of_their_count():
    characters = [chr(0x4E00 + number) for number in range(1800)]
    vocabulary = Vocabulary((*SPECIAL_TOKENS, *characters, "x"))
    counts = np.random.default_rng(3).permutation(vocabulary.num_tokens).astype(np.int64)
    classes = character_classes(vocabulary, counts)
    assert CLASSES[:4] == ("han_1_100", "han_101_500", "han_501_1500", "han_1501_up")
    assert np.bincount(classes, minlength=8).tolist() == [100, 400, 1000, 300, 1, 0, 0, 5]
    for band in range(3):
        assert counts[classes == band].min() > counts[classes == band + 1].max()


def test_each_class_is_scored_on_its_own_predictions():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 400).astype(np.int32)
    classes = np.array([0, 0, 0, 4, 4, 5, 6, 6, 6, 6], dtype=np.int8)
    counts = np.arange(10) * 10
    hits = {"model": rng.random(400) < 0.3, "ngram": rng.random(400) < 0.5}
    clusters = rng.integers(0, 40, 400)
    found = score_by_character(labels, hits, clusters, classes, counts)
    assert list(found) == ["han_1_100", "latin", "digit", "punctuation"]
    assert sum(entry["model"]["predictions"] for entry in found.values()) == 400
    chosen = labels >= 6
    for who, right in hits.items():
        interval = mean_with_interval(right[chosen], clusters[chosen])
        entry = found["punctuation"][who]
        assert (entry["accuracy"], entry["low"], entry["high"]) == (interval.value, interval.low, interval.high)
    assert found["punctuation"]["training_count"] == 60 + 70 + 80 + 90


def test_a_calibrated_model_shows_what_chance_alone_makes():
    rng = np.random.default_rng(1)
    errors, expected = [], []
    for _ in range(60):
        probability = rng.beta(1, 3, 2000)
        found = calibration(probability, rng.random(2000) < probability, np.arange(2000))
        errors.append(found["ece"])
        expected.append(found["ece_if_calibrated"])
    assert np.mean(errors) == pytest.approx(np.mean(expected), rel=0.06)


def test_an_overconfident_model_is_found_out():
    rng = np.random.default_rng(2)
    probability = rng.uniform(0.3, 0.9, 5000)
    found = calibration(probability, rng.random(5000) < probability - 0.2, np.arange(5000))
    assert found["ece"] == pytest.approx(0.2, abs=0.03) and found["ece"] > 5 * found["ece_if_calibrated"]
    assert [one["predictions"] for one in found["bins"]] == [500] * 10
    means = [one["probability"] for one in found["bins"]]
    assert means == sorted(means) and means[0] == pytest.approx(0.33, abs=0.01)
    assert all(one["low"] < one["accuracy"] < one["high"] < one["probability"] for one in found["bins"])


def test_error_is_the_weighted_distance_over_the_bins():
    rng = np.random.default_rng(4)
    probability, hits = rng.random(730), rng.random(730) < 0.4
    found = calibration(probability, hits, rng.integers(0, 50, 730))
    by_hand = sum(one["predictions"] * abs(one["accuracy"] - one["probability"]) for one in found["bins"]) / 730
    assert found["ece"] == pytest.approx(by_hand)
    assert sum(one["predictions"] for one in found["bins"]) == found["predictions"] == 730


@pytest.mark.parametrize(("size", "bins"), [(1, 1), (49, 1), (99, 1), (100, 2), (5000, 10)])
def test_few_predictions_make_few_bins(size, bins):
    probability = np.random.default_rng(0).random(size)
    assert len(calibration(probability, probability < 0.5, np.arange(size))["bins"]) == bins


def test_equal_probabilities_stay_together():
    probability = np.repeat([0.1, 0.2], [1000, 10])
    found = calibration(probability, probability > 0.15, np.arange(1010))
    assert [one["predictions"] for one in found["bins"]] == [1010]
    assert found["ece"] == pytest.approx(abs(10 / 1010 - 102 / 1010))


def test_scores_hold_both_tables(tokens, recipe_of):
    import torch

    recipe = recipe_of()
    model = PretrainingModel(recipe.model, tokens.vocabulary.num_tokens, torch.Generator().manual_seed(1))
    scores = score_model(
        model,
        recipe,
        resolve_machine(recipe.train),
        train_store=tokens.train,
        held_out_store=tokens.held_out,
        vocabulary=tokens.vocabulary,
    )
    loss = scores["mlm"]["loss_nats"]
    assert loss["low"] < loss["value"] < loss["high"] and loss["value"] == pytest.approx(scores["model_nats"])
    total = scores["mlm"]["model"]["predictions"]
    by_character = scores["mlm"]["by_character"]
    assert {"han_1_100", "latin", "digit", "punctuation"} <= set(by_character)
    for who in ("model", "ngram"):
        assert sum(entry[who]["predictions"] for entry in by_character.values()) == total
        right = sum(entry[who]["predictions"] * entry[who]["accuracy"] for entry in by_character.values())
        assert right / total == pytest.approx(scores["mlm"][who]["accuracy"])
    found = scores["calibration"]
    assert found["predictions"] == scores["mlm"]["by_class"]["mask"]["model"]["predictions"]
    right = sum(one["predictions"] * one["accuracy"] for one in found["bins"]) / found["predictions"]
    assert right == pytest.approx(scores["mlm"]["by_class"]["mask"]["model"]["accuracy"])
    json.dumps(scores, allow_nan=False)
