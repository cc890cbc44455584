"""Two metrics, partial correlation, influences, circular shifts, and a reading's own noise."""

import json
import math

import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from xuebu.analysis.association import aligned, associate, effective_size_product, partial_given, partial_value
from xuebu.analysis.coefficients import coefficient_of
from xuebu.analysis.estimand import COEFFICIENTS, Coefficient
from xuebu.analysis.hac import automatic_lag, long_run_variance, newey_west
from xuebu.analysis.honest import pair_memory, pair_sizes, quote_pair
from xuebu.analysis.influence import influence
from xuebu.analysis.likelihood import trend_noise
from xuebu.analysis.sampling import split_noise
from xuebu.analysis.series import Series
from xuebu.analysis.surrogate import shift_test
from xuebu.errors import InputError


def ar1(size: int, rho: float, seed: int, rows: int = 1) -> np.ndarray:
    white = np.random.default_rng(seed).normal(size=(rows, size + 300))
    return lfilter([1], [1, -rho], white, axis=1)[:, 300:] * math.sqrt(1 - rho**2)


def series(values: np.ndarray, name: str, kind: str = "train", every: int = 10) -> Series:
    return Series(np.arange(1, values.size + 1) * every, values, None, name, kind)


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_influences_are_those_of_leaving_one_out(name: Coefficient) -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 300))
    y = 0.5 * x + y
    found, whole = influence(name, x, y), coefficient_of(name, x, y)[0]
    left_out = [coefficient_of(name, np.delete(x, k), np.delete(y, k))[0] for k in range(40)]
    jackknife = 299 * (whole - np.array(left_out))
    assert found.mean() == pytest.approx(0.0, abs=1e-12)
    assert found[:40] == pytest.approx(jackknife, rel=0.05, abs=0.06)


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_the_interval_of_independent_pairs_is_near_fishers(name: Coefficient) -> None:
    x, y = np.random.default_rng(1).normal(size=(2, 400))
    found = associate(series(x, "a"), series(0.6 * x + y, "b"), name)
    for one in (found.quoted, found.hac, found.bootstrap):
        assert one is not None
        assert (one.low, one.high) == pytest.approx((found.naive.low, found.naive.high), abs=0.04)
    assert found.p_value is not None
    assert found.p_value < 2e-3
    assert found.effective_size > 200
    assert found.shifts is not None
    assert found.shifts.p_value == pytest.approx(1 / (found.shifts.shifts + 1))
    assert "a and b, in levels" in found.headline()
    assert json.loads(json.dumps(found.to_json()))["quoted"]["low"] == found.quoted.low
    assert "circular shifts" in found.summary()


def test_two_unrelated_trends_correlate_in_levels_and_not_in_differences() -> None:
    step = np.arange(300)
    one = series(step / 100 + ar1(300, 0.0, 2)[0], "a")
    two = series(step / 100 + ar1(300, 0.0, 3)[0], "b")
    levels, differences = associate(one, two), associate(one, two, form="differences")
    assert levels.coefficient > 0.3
    assert levels.effective_size < 30
    assert differences.quoted.low is not None
    assert differences.quoted.high is not None
    assert differences.quoted.low < 0 < differences.quoted.high
    assert differences.p_value is not None
    assert differences.p_value > 0.05


def test_pairs_of_autocorrelated_series_cover() -> None:
    """Two independent AR(1) of 0.8: the naive interval covers about 65 %, the quoted one about 95 %."""
    rows = ar1(200, 0.8, 4, rows=120)
    pairs = list(zip(rows[::2], rows[1::2], strict=True))
    moves = np.stack([influence("pearson", *pair) for pair in pairs])
    parts = np.concatenate([pair_memory(*pair) for pair in pairs])
    fitted, memory = (trend_noise(np.arange(200.0), one, level_only=True) for one in (moves, parts))
    hits = naive = 0
    for row, pair in enumerate(pairs):
        value = stats.pearsonr(*pair).statistic
        found = quote_pair(fitted, memory, value, row=row, draws=100)
        hits += found.low <= 0 <= found.high
        naive += abs(math.atanh(value)) <= 1.96 / math.sqrt(197)
    assert hits >= 53
    assert naive <= 49


def test_the_effective_size_of_pairs() -> None:
    rows = ar1(4000, 0.8, 5, rows=20)
    sizes = [effective_size_product(rows[k], rows[k + 1]) for k in range(0, 20, 2)]
    assert np.mean(sizes) == pytest.approx(4000 * (1 - 0.64) / (1 + 0.64), rel=0.15)


@pytest.mark.parametrize(("correlation", "rho", "share"), [(0.5, 0.95, 0.0), (0.5, 0.0, 1.0), (0.9, 0.6, 0.47)])
def test_the_memory_of_both_metrics_tells_the_number_of_pairs(correlation: float, rho: float, share: float) -> None:
    """Both of one memory: n (1 - rho^2) / (1 + rho^2) independent pairs, whatever their correlation."""
    first, other = ar1(500, rho, 7, rows=80).reshape(2, 40, 500)
    second = correlation * first + math.sqrt(1 - correlation**2) * other
    parts = np.concatenate([pair_memory(x, y) for x, y in zip(first, second, strict=True)])
    memory = trend_noise(np.arange(500.0), parts, level_only=True)
    found = [np.median(pair_sizes(memory, correlation, row=row, draws=200)) for row in range(40)]
    share = share or (1 - rho**2) / (1 + rho**2)
    assert np.median(found) == pytest.approx(500 * share, rel=0.12)


def test_what_cannot_be_held_together_is_said() -> None:
    one = series(ar1(50, 0.0, 6)[0], "a")
    with pytest.raises(InputError, match="b: no change in differences"):
        associate(one, series(np.arange(50.0), "b"), form="differences")
    with pytest.raises(InputError, match="share 0 steps"):
        aligned(one, Series(one.step + 1, one.value, None, "b"))
    exact = associate(one, series(2 * one.value, "b"))
    assert exact.quoted.low is None
    assert exact.coefficient == pytest.approx(1.0)


def test_partial_correlation_is_that_of_residuals() -> None:
    step = np.arange(1, 121) * 10.0
    rate = series(1e-4 * (1 + np.sin(step / 300)), "learning_rate")
    metric = series(0.3 + 1e-4 * step + 500 * rate.value + 0.02 * ar1(120, 0.0, 7)[0], "mlm_accuracy")
    design = np.column_stack([np.ones(120), rate.value])
    rest = [one - design @ np.linalg.lstsq(design, one)[0] for one in (step, metric.value)]
    found = partial_given(metric, rate)
    assert found.coefficient == pytest.approx(stats.pearsonr(*rest).statistic, abs=1e-12)
    assert found.quoted.low is not None
    assert found.quoted.high is not None
    assert found.quoted.low < found.coefficient < found.quoted.high
    assert "learning_rate held fixed" in found.headline()
    ranked = partial_given(metric, rate, "spearman")
    ranks = [stats.rankdata(one) for one in (step, metric.value, rate.value)]
    assert ranked.coefficient == pytest.approx(partial_value("pearson", *ranks), abs=1e-12)
    taus = [stats.kendalltau(step, metric.value)[0], stats.kendalltau(step, rate.value)[0]]
    taus.append(stats.kendalltau(metric.value, rate.value)[0])
    expected = (taus[0] - taus[1] * taus[2]) / math.sqrt((1 - taus[1] ** 2) * (1 - taus[2] ** 2))
    kendall = partial_given(metric, rate, "kendall")
    assert kendall.coefficient == pytest.approx(expected, abs=1e-12)
    assert kendall.quoted.low is not None


def test_a_constant_rate_changes_nothing_and_a_straight_one_leaves_nothing() -> None:
    metric = series(0.01 * np.arange(60) + ar1(60, 0.0, 8)[0], "mlm_accuracy")
    constant = partial_given(metric, series(np.full(60, 1e-4), "learning_rate"))
    assert constant.coefficient == pytest.approx(stats.pearsonr(metric.step, metric.value).statistic, abs=1e-12)
    with pytest.raises(InputError, match="goes exactly with the step"):
        partial_given(metric, series(1e-4 - 1e-6 * np.arange(60), "learning_rate"))


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_shifts_give_level_p_values_without_association(name: Coefficient) -> None:
    rows = ar1(100, 0.5, 9, rows=40)
    found = [shift_test(name, rows[k], rows[k + 1]).p_value for k in range(0, 40, 2)]
    assert 0.3 < np.mean(found) < 0.7
    x = np.arange(60.0)
    related = shift_test(name, x, x + 5 * rows[0, :60])
    assert related.p_value <= 0.06
    assert related.coefficient == pytest.approx(coefficient_of(name, x, x + 5 * rows[0, :60])[0])
    assert "p = " in related.summary()


def test_the_shifted_coefficients_are_those_of_rolled_series() -> None:
    x, y = ar1(40, 0.5, 10, rows=2)
    rolled = np.array([stats.pearsonr(x, np.roll(y, k)).statistic for k in range(1, 40)])
    found = shift_test("pearson", x, y)
    assert found.spread == pytest.approx(rolled.std(), abs=1e-12)
    assert found.p_value == (1 + (np.abs(rolled) >= abs(found.coefficient) - 1e-12).sum()) / 40


def test_long_run_variance_and_its_lag() -> None:
    values = ar1(400, 0.6, 11)[0]
    values = values - values.mean()
    for lag in (0, 5, 20):
        own = newey_west(np.ones((400, 1)), values, lag)[0, 0]
        assert long_run_variance(values, lag) == pytest.approx(float(own) * 400 * 399 / 400, rel=1e-10)
    assert automatic_lag(np.random.default_rng(0).normal(size=400)) < automatic_lag(values) < 40
    assert automatic_lag(np.array([1.0, -1.0, 1.0])) <= 1


def test_a_readings_own_noise_is_taken_apart() -> None:
    rng = np.random.default_rng(12)
    step = np.arange(1, 801) * 10
    wander = 0.02 * ar1(800, 0.9, 13)[0]
    share = 0.5 - 0.2 * np.exp(-step / 2000) + wander
    value = rng.binomial(400, share) / 400
    readings = Series(step, value, np.full(800, 400), "mlm_accuracy", "train")
    found = split_noise(readings, trend_noise(step.astype(float), value[None]))
    assert found is not None
    assert found.sampling == pytest.approx(math.sqrt((share * (1 - share)).mean() / 400), rel=0.02)
    assert found.model.value == pytest.approx(float(wander.std()), rel=0.2)
    assert found.correlation.value > stats.pearsonr(step, value).statistic
    assert "sampling" in found.summary()
    assert found.to_json()["sampling_share"]["low"] < 0.7
    held_out = Series(step, value, np.full(800, 400), "mlm_accuracy", "eval")
    assert split_noise(held_out, trend_noise(step.astype(float), value[None])) is None
