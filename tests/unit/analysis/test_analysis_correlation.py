import math

import numpy as np
import pytest

from xuebu.analysis.coefficients import strength_words
from xuebu.analysis.correlation import COEFFICIENTS, Coefficient, coefficient_of, correlate, fisher_interval
from xuebu.analysis.fit import fit_curve
from xuebu.analysis.intervals import Interval
from xuebu.analysis.series import Series

STEP = np.arange(10, 2001, 10)


def run(rho: float, seed: int, *, bent: bool = True, size: int = 200) -> Series:
    step = STEP[:size]
    noise = np.random.default_rng(seed).normal(scale=0.02 * math.sqrt(1 - rho**2), size=size + 200)
    for index in range(1, noise.size):
        noise[index] += rho * noise[index - 1]
    mean = 0.3 - 0.1 * np.exp(-step / 600) if bent else 0.2 + 5e-5 * step
    return Series(step, mean + noise[200:], None, "mlm_accuracy")


def correlated(series: Series, name: Coefficient = "pearson", trusted: str | None = "saturating"):
    line, curve = fit_curve(series, "linear"), fit_curve(series, "saturating")
    return correlate(series, name, line=line, curve=curve, trusted=trusted)


def test_fisher_by_hand() -> None:
    # r = 0.5 of 28 pairs: z = 0.5493, half width 1.96 / 5.
    low, high, method = fisher_interval("pearson", 0.5, 28, 0.95)
    assert low == pytest.approx(math.tanh(math.atanh(0.5) - 1.959963984540054 / 5), abs=1e-12)
    assert high == pytest.approx(math.tanh(math.atanh(0.5) + 1.959963984540054 / 5), abs=1e-12)
    assert "1 / (n - 3)" in method
    assert fisher_interval("pearson", 0.5, 4.9, 0.95)[:2] == (None, None)
    assert fisher_interval("pearson", 1.0, 100, 0.95)[:2] == (None, None)


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_naive_intervals_cover_for_independent_normal_pairs(name: Coefficient) -> None:
    rho = 0.5
    truth = {"pearson": rho, "spearman": 6 / math.pi * math.asin(rho / 2), "kendall": 2 / math.pi * math.asin(rho)}[
        name
    ]
    hits = 0
    for seed in range(400):
        x, y = np.random.default_rng(seed).normal(size=(2, 40))
        found, _ = coefficient_of(name, x, rho * x + math.sqrt(1 - rho**2) * y)
        low, high, _ = fisher_interval(name, found, 40, 0.95)
        assert low is not None
        assert high is not None
        hits += low <= truth <= high
    assert 0.92 < hits / 400 < 0.98


def test_intervals_of_a_bent_run_with_correlated_noise() -> None:
    """The naive interval is too narrow, those of the saturating fit hold; the line's are doubted."""
    mean = 0.3 - 0.1 * np.exp(-STEP / 600)
    truth = float(np.corrcoef(STEP, mean)[0, 1]) * math.sqrt(mean.var() / (mean.var() + 0.02**2))
    hits: dict[str, int] = {}
    for seed in range(40):
        found = correlated(run(0.7, seed))
        assert [interval.name for interval in found.intervals] == [
            "naive",
            "ar1_linear",
            "lag_sum_linear",
            "ar1_saturating",
            "lag_sum_saturating",
            "newey_west",
            "block_bootstrap",
            "likelihood",
        ]
        for interval in found.intervals:
            if interval.low is not None and interval.high is not None:
                hits[interval.name] = hits.get(interval.name, 0) + (interval.low <= truth <= interval.high)
    assert hits["naive"] < 35
    assert min(hits["ar1_saturating"], hits["lag_sum_saturating"]) >= 36
    assert min(hits["block_bootstrap"], hits["likelihood"]) >= 35


def test_the_one_to_quote_is_of_trend_and_noise_together() -> None:
    found = correlated(run(0.3, 1))
    quoted = found.recommended
    assert quoted is not None
    assert quoted.name == "likelihood"
    assert quoted.low < found.coefficient < quoted.high
    assert quoted.p_value is not None
    assert quoted.p_value < 1e-3
    assert sum(interval.recommended for interval in found.intervals) == 1
    assert "quote this one" in found.summary()
    assert found.strength() in found.headline()


def test_residuals_of_the_other_fit_give_no_p_value() -> None:
    found = correlated(run(0.0, 2))
    line = [interval for interval in found.intervals if interval.residuals_of == "linear"]
    assert len(line) == 2
    assert all(
        interval.p_value is None and "saturating curve predicts better" in (interval.doubt or "") for interval in line
    )


def test_misfit_is_told_from_the_disagreement_of_the_estimators() -> None:
    step = np.arange(1, 401)
    waves = Series(step, 0.3 + 0.1 * np.sin(step / 60) + np.random.default_rng(0).normal(scale=0.05, size=400))
    line = fit_curve(waves, "linear")
    found = correlate(waves, "pearson", line=line, curve=None, trusted="linear")
    doubts = [interval.doubt or "" for interval in found.intervals if interval.name.endswith("_linear")]
    assert all("disagree" in doubt and "no p-value" in doubt for doubt in doubts)


def test_below_the_floor_there_is_an_interval_but_no_p_value() -> None:
    found = correlated(run(0.0, 3, size=14))
    quoted = found.recommended
    assert quoted is not None
    assert quoted.p_value is None
    assert "surely fewer than 20: no p-value" in (quoted.doubt or "")


def test_the_p_value_of_a_full_size_is_scipys() -> None:
    wobble = 0.05 * (-1.0) ** np.arange(STEP.size) + np.random.default_rng(0).normal(scale=0.01, size=STEP.size)
    series = Series(STEP, 0.3 + 1e-5 * STEP + wobble)  # negative autocorrelation: every reading counts in full
    for name in COEFFICIENTS:
        found = correlated(series, name, trusted="linear")
        sized = next(interval for interval in found.intervals if interval.name == "ar1_linear")
        assert sized.effective_size == STEP.size
        assert sized.p_value == pytest.approx(found.naive_p_value, rel=1e-9)


def test_a_perfect_line_and_a_handful_of_readings_do_not_break() -> None:
    exact = Series(STEP, 0.1 + 1e-5 * STEP)
    found = correlate(exact, "pearson", line=fit_curve(exact, "linear"), curve=None, trusted=None)
    assert found.coefficient == pytest.approx(1.0)
    assert found.strength() == ""
    three = Series(STEP[:3], np.array([0.1, 0.3, 0.2]))
    for name in COEFFICIENTS:
        few = correlate(three, name, line=None, curve=None, trusted=None)
        assert len(few.intervals) == 1
        assert few.intervals[0].low is None
        assert "too few of them" in (few.intervals[0].doubt or "")
        assert few.recommended is None
        assert few.shifts is None
        assert "no interval of it can be vouched for" in few.headline()
    for bad in (Series(STEP[:2], np.array([0.1, 0.2])), Series(STEP, np.full(STEP.size, 0.5))):
        with pytest.raises(ValueError, match="at least 3 readings"):
            correlate(bad, "pearson", line=None, curve=None, trusted=None)


def test_the_same_seed_gives_the_same_interval() -> None:
    series = run(0.5, 7)
    assert correlated(series).to_json() == correlated(series).to_json()


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_the_json_is_complete(name: Coefficient) -> None:
    found = correlated(run(0.5, 8), name).to_json()
    assert found["coefficient_name"] == name
    assert {key for interval in found["intervals"] for key in interval} == {
        "name",
        "low",
        "high",
        "level",
        "method",
        "effective_size",
        "residuals_of",
        "assumption",
        "p_value",
        "doubt",
        "recommended",
    }


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.65, 0.75, "strong"),
        (0.35, 0.85, "weak to very strong"),
        (-0.5, -0.3, "weak to moderate"),
        (-0.1, 0.3, "no direction told, at most weak"),
        (0.8, 0.9, "very strong"),
        (None, None, ""),
    ],
)
def test_strength_is_that_of_both_ends(low: float | None, high: float | None, words: str) -> None:
    assert strength_words(Interval(0.5, low, high, 0.95, "")) == words


def test_an_interval_that_does_not_hold_the_coefficient_is_not_quoted() -> None:
    series = Series(np.array([1, 2, 3, 4, 34, 35, 36, 37]), np.array([0.0, 0, 0, 0, 0, 0, 1, 1]))
    found = correlate(series, "kendall")
    [interval] = [one for one in found.intervals if one.name == "likelihood"]
    assert (interval.low, interval.high, interval.p_value, found.recommended) == (None, None, None, None)
    assert "does not hold the coefficient" in interval.doubt
    assert "no interval of it can be vouched for" in found.headline()
    assert "none of these intervals can be vouched for" in found.summary()
