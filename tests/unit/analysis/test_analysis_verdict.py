import math
from typing import Any

import numpy as np
import pytest

from xuebu.analysis.chance import hold_against_chance, mean_of_readings
from xuebu.analysis.cost import cost_of
from xuebu.analysis.fit import fit_curve
from xuebu.analysis.rates import rates_of
from xuebu.analysis.series import Series
from xuebu.analysis.verdict import (
    Finding,
    judge_chance,
    judge_counting,
    judge_noise,
    judge_trend,
    learning_rate_spent,
    model_interval,
    sort_findings,
)

STEP = np.arange(100, 6001, 100)


def nsp(share: float, count: int | None, kind: str = "train", seed: int = 0, size: int = 60) -> Series:
    rng = np.random.default_rng(seed)
    value = rng.binomial(count or 32, share, size) / (count or 32)
    counts = None if count is None else np.full(size, count)
    return Series(STEP[:size], value, counts, "nsp_accuracy", kind)


def test_held_out_readings_share_their_predictions_so_the_last_one_counts() -> None:
    series = nsp(0.6, 400, "eval")
    found = hold_against_chance(series)
    assert found is not None
    assert found.num_predictions == 400
    assert found.accuracy == pytest.approx(series.value[-1])
    assert found.standard_errors == pytest.approx((series.value[-1] - 0.5) / math.sqrt(0.25 / 400))


def test_training_readings_are_fresh_and_pooled() -> None:
    series = nsp(0.52, 640)
    found = hold_against_chance(series)
    assert found is not None
    assert found.num_predictions == 20 * 640
    assert found.accuracy == pytest.approx(series.value[-20:].mean())
    assert found.distinguishable


@pytest.mark.parametrize("count", [32, None])
def test_guessing_is_rarely_called_learned(count: int | None) -> None:
    found = [hold_against_chance(nsp(0.5, count, seed=seed)) for seed in range(300)]
    assert sum(test is not None and test.distinguishable for test in found) <= 3
    learned = [hold_against_chance(nsp(0.75, count, seed=seed)) for seed in range(50)]
    assert all(test is not None and test.distinguishable for test in learned)


def test_below_chance_is_not_learned() -> None:
    found = hold_against_chance(nsp(0.3, 640))
    assert found is not None
    assert not found.distinguishable
    assert "below chance" in found.summary()
    finding = judge_chance(found)
    assert finding is not None
    assert finding.flag == "nsp_at_chance"
    assert "shuffled" in finding.text


def test_without_counts_and_readings_there_is_no_test() -> None:
    assert hold_against_chance(nsp(0.7, None, size=9)) is None
    assert judge_chance(None) is None
    same = hold_against_chance(Series(STEP, np.full(60, 0.75), None, "nsp_accuracy"))
    assert same is not None
    assert same.distinguishable
    assert same.to_json()["standard_errors"] is None  # infinite: no number in JSON
    half = hold_against_chance(Series(STEP, np.full(60, 0.5), None, "nsp_accuracy"))
    assert half is not None
    assert not half.distinguishable


def test_the_mean_of_readings_covers() -> None:
    hits = sum(0.4 in mean_of_readings(np.random.default_rng(seed).normal(0.4, 0.1, 30), 0.95) for seed in range(300))
    assert 0.9 < hits / 300 < 0.99


def counted(value: float, low: float | None, high: float | None) -> dict[str, Any]:
    difference = {"value": value, "low": low, "high": high, "level": 0.95, "method": "paired"}
    entry = {"accuracy": 0.18, "predictions": 4000, "low": 0.17, "high": 0.19}
    return {"mlm": {"model": entry, "ngram": {"accuracy": 0.38}, "difference_from_ngram": difference}}


@pytest.mark.parametrize(
    ("value", "low", "high", "flag", "severity"),
    [
        (-0.2, -0.21, -0.19, "below_counting", "bad"),
        (0.05, 0.03, 0.07, "above_counting", "good"),
        (-0.01, -0.03, 0.01, "counting_undecided", "warn"),
        (-0.01, None, None, "counting_undecided", "warn"),
    ],
)
def test_counting(value: float, low: float | None, high: float | None, flag: str, severity: str) -> None:
    found = judge_counting(counted(value, low, high))
    assert found is not None
    assert (found.flag, found.severity) == (flag, severity)
    assert "model 18.0 %, n-gram 38.0 %" in found.text
    assert found.to_json()["evidence"]["difference"] == value


@pytest.mark.parametrize(
    "baselines",
    [
        None,
        {},
        {"mlm": None},
        {"mlm": []},
        {"mlm": {"difference_from_ngram": 3}},
        {"mlm": {"difference_from_ngram": {}}},
    ],
)
def test_incomplete_baselines_are_coped_with(baselines: Any) -> None:
    assert judge_counting(baselines) is None
    assert model_interval(baselines, 0.95) is None


def test_baselines_without_scores_still_judge() -> None:
    only = {"mlm": {"difference_from_ngram": counted(-0.2, -0.3, -0.1)["mlm"]["difference_from_ngram"]}}
    found = judge_counting(only)
    assert found is not None
    assert found.flag == "below_counting"
    whole = model_interval(counted(0, 0, 0), 0.95)
    assert whole is not None
    assert (whole.value, whole.low, whole.high) == (0.18, 0.17, 0.19)


def trend(values: np.ndarray, metric: str = "mlm_accuracy", *, spent: bool = False) -> str:
    series = Series(STEP, values, None, metric)
    line, curve = fit_curve(series, "linear"), fit_curve(series, "saturating")
    found = judge_trend(series, rates_of(series, line, curve), spent)
    assert found is not None
    assert ("learning rate" in found.text) == (spent and found.flag in ("plateaued", "trend_undecided"))
    return found.flag


def test_trends() -> None:
    noise = np.random.default_rng(0).normal(scale=0.004, size=60)
    assert trend(0.1 + 5e-5 * STEP + noise) == "learning"
    assert trend(0.4 - 0.3 * np.exp(-STEP / 500) + noise, spent=True) == "plateaued"
    assert trend(0.4 - 1e-9 * STEP**2.0 + noise / 10) == "worsening"
    assert trend(0.4 + 10 * noise) == "trend_undecided"
    assert trend(3 + 4 * np.exp(-STEP / 3000) + noise, "mlm_loss_nats") == "learning"
    assert trend(3 + 4 * np.exp(-STEP / 300) + noise, "mlm_loss_nats") == "plateaued"
    assert trend(0.1 + 5e-5 * STEP + noise, "top1_acc") == trend(5e-3 * STEP + noise, "reward") == "learning"
    assert trend(5e-3 * STEP + noise, "temperature") == trend(-5e-3 * STEP + noise, "temperature") == "moving"


def test_a_spent_learning_rate() -> None:
    rates = np.concatenate([np.linspace(0, 1e-3, 10), np.linspace(1e-3, 0, 50)])
    assert learning_rate_spent(Series(STEP, rates, None, "learning_rate"))
    assert not learning_rate_spent(Series(STEP[:30], rates[:30], None, "learning_rate"))
    assert not learning_rate_spent(None)


def test_few_predictions_are_told_from_counts_or_from_scatter() -> None:
    rng = np.random.default_rng(1)
    mean = 0.55 - 0.4 * np.exp(-STEP / 1000)
    value = rng.binomial(200, mean) / 200
    found = judge_noise(Series(STEP, value, np.full(60, 200), "mlm_accuracy"), None)
    assert found is not None
    assert "about 200 predictions" in found.text
    uncounted = Series(STEP, value, None, "mlm_accuracy")
    guessed = judge_noise(uncounted, fit_curve(uncounted, "saturating"))
    assert guessed is not None
    assert guessed.evidence["implied_predictions"] == pytest.approx(200, rel=0.4)
    shared = judge_noise(Series(STEP, value, np.full(60, 200), "mlm_accuracy", "eval"), None)
    assert shared is not None
    assert "share them" in shared.text
    assert judge_noise(Series(STEP, value, np.full(60, 20_000), "mlm_accuracy"), None) is None
    assert judge_noise(Series(STEP, value, None, "mlm_accuracy", "eval"), None) is None
    assert judge_noise(Series(STEP, value, np.full(60, 10), "mlm_loss_nats"), None) is None


def test_findings_are_sorted_by_weight_and_keep_their_order() -> None:
    made = [
        Finding(str(index), severity, "", {}) for index, severity in enumerate(("info", "warn", "bad", "good", "warn"))
    ]
    assert [finding.flag for finding in sort_findings(made)] == ["2", "1", "4", "3", "0"]


def test_cost_by_hand() -> None:
    found = cost_of(
        steps=1000,
        tokens_per_step=500.0,
        tokens_per_second=100.0,
        flop_per_token=2e6,
        num_devices=2,
        price_per_device_hour=3.6,
    )
    assert found.tokens == 500_000
    assert found.seconds == 5000
    assert found.flop == 1e12
    assert found.device_hours == pytest.approx(10_000 / 3600)
    assert found.price == pytest.approx(10.0)
    assert "price 10.00" in found.summary()
    assert found.to_json()["seconds"] == 5000


def test_cost_of_what_is_not_known_is_none() -> None:
    found = cost_of(steps=10, tokens_per_step=5)
    assert (found.seconds, found.flop, found.price, found.device_hours) == (None, None, None, None)
    for wrong in (
        {"tokens_per_second": 0.0},
        {"flop_per_token": math.nan},
        {"num_devices": 0},
        {"price_per_device_hour": -1.0},
    ):
        with pytest.raises(ValueError, match="must be"):
            cost_of(steps=10, tokens_per_step=5, **wrong)  # type: ignore[arg-type]
