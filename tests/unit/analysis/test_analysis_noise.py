"""Short smooth series: noise around a trend without a formula, the start-up, and what is said of both."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import toeplitz

from xuebu.analysis.analyze import analyze_history
from xuebu.analysis.correlation import correlate
from xuebu.analysis.fit import fit_curve
from xuebu.analysis.forecast import forecast_level
from xuebu.analysis.noise import short_noise
from xuebu.analysis.rates import rates_of
from xuebu.analysis.series import Series
from xuebu.analysis.start import start_of_growth
from xuebu.analysis.verdict import judge_trend
from xuebu.history.records import HistoryWriter, read_history

STEP = np.arange(1, 41) * 40


def smooth_trend(num: int) -> np.ndarray:
    """Orthonormal columns of a quadratic spline, a knot in every eight readings."""
    place = np.linspace(0.0, 1.0, num)
    knots = (np.arange(1, num // 8) / max(1, num // 8)) ** 1.5
    columns = [np.ones(num), place, place**2, *(np.maximum(place - one, 0.0) ** 2 for one in knots)]
    return np.linalg.qr(np.stack(columns, axis=1))[0]


def noise_of(rho: float, size: int, seed: int) -> np.ndarray:
    white = np.random.default_rng(seed).normal(size=size)
    white[1:] *= math.sqrt(1 - rho * rho)
    for index in range(1, size):
        white[index] += rho * white[index - 1]
    return white


def warmed(sigma: float = 0.001, rho: float = 0.3, seed: int = 0) -> Series:
    """A level during the warm-up, then a saturating rise: the shape of a small real run."""
    mean = 0.044 + 0.16 * (1 - np.exp(-np.maximum(STEP - 120, 0) / 400))
    return Series(STEP, mean + sigma * noise_of(rho, STEP.size, seed), np.full(STEP.size, 4000), "mlm_accuracy", "eval")


def steady(sigma: float = 0.001, rho: float = 0.3, seed: int = 0, power: bool = False) -> Series:
    mean = 0.3 - 0.26 * (1 + STEP / 80) ** -0.5 if power else 0.2 - 0.16 * np.exp(-STEP / 480)
    return Series(STEP, mean + sigma * noise_of(rho, STEP.size, seed), None, "mlm_accuracy", "eval")


def test_the_covariance_and_likelihood_equal_those_of_explicit_matrices() -> None:
    trend, values = smooth_trend(20), noise_of(0.6, 20, 1)
    found = short_noise(trend, values)
    weights = np.random.default_rng(2).normal(size=(2, 20))
    likelihoods = []
    for rho in found.rho:
        matrix = toeplitz(rho ** np.arange(20.0)) / (1 - rho * rho)
        inverse = np.linalg.inv(matrix)
        bread = trend.T @ inverse @ trend
        left = inverse - inverse @ trend @ np.linalg.solve(bread, trend.T @ inverse)
        squares = float(values @ left @ values)
        degrees = 20 - trend.shape[1]
        determinants = np.linalg.slogdet(matrix)[1] + np.linalg.slogdet(bread)[1]
        likelihoods.append(-0.5 * (determinants + degrees * math.log(squares) + math.log(1 - rho * rho)))
    expected = np.exp(np.array(likelihoods) - max(likelihoods))
    assert found.weight == pytest.approx(expected / expected.sum(), rel=1e-7)
    matrix = found.innovation[7] * toeplitz(found.rho[7] ** np.arange(20.0)) / (1 - found.rho[7] ** 2)
    assert found.covariance(weights)[7] == pytest.approx(weights @ matrix @ weights.T, rel=1e-9)


def test_a_sure_correlation_gives_students_interval() -> None:
    from scipy import stats

    found = short_noise(smooth_trend(30), noise_of(0.0, 30, 3))
    sure = replace(found, weight=np.eye(found.rho.size)[0])
    weights = np.random.default_rng(4).normal(size=30)
    expected = stats.t.ppf(0.975, found.degrees) * math.sqrt(found.innovation[0] * float(weights @ weights))
    assert sure.half_width(weights, 0.95) == pytest.approx(expected, rel=1e-8)
    assert found.half_width(np.zeros(30), 0.95) == 0.0


def test_readings_without_noise_and_too_few_of_them() -> None:
    assert short_noise(smooth_trend(12), np.full(12, 0.2)).half_width(np.ones(12) / 12, 0.95) < 1e-9
    with pytest.raises(ValueError, match="too few"):
        short_noise(smooth_trend(4), np.arange(4.0))


@pytest.mark.parametrize(("rho", "least"), [(0.0, 55), (0.6, 54), (0.9, 47)])
def test_rates_of_short_smooth_runs_cover(rho: float, least: int) -> None:
    """60 runs each of two shapes: nominal 95 % is 57; with rho 0.9 few readings cannot tell noise from trend."""
    for make in (warmed, lambda **said: steady(power=True, **said)):
        truth = make(sigma=0.0).value
        whole, third = (
            float(np.polyfit(STEP[part], truth[part], 1)[0]) * 1e6 for part in (slice(0, 40), slice(27, 40))
        )
        hits = np.zeros(2)
        for seed in range(60):
            series = make(sigma=0.002, rho=rho, seed=seed)
            found = rates_of(series, fit_curve(series, "linear"), None)
            assert found.last_third is not None
            hits += [whole in found.line, third in found.last_third]
        assert (hits >= least).all(), hits


def test_a_real_kind_of_run_is_told_apart_from_a_flat_one() -> None:
    series = warmed()
    line, curve = fit_curve(series, "linear"), fit_curve(series, "saturating")
    rates = rates_of(series, line, curve)
    assert rates.last_third is not None
    assert rates.last_third.low is not None
    assert rates.last_third.high is not None
    assert rates.last_third.low > 0
    assert rates.last_third.high < 3 * rates.last_third.value
    finding = judge_trend(series, rates, True)
    assert finding is not None
    assert finding.flag == "learning"
    assert "learning rate had nearly reached zero" in finding.text
    assert rates.headline().count("\n") == 0
    assert "last third" in rates.headline()


def test_the_slope_of_many_readings_goes_by_blocks() -> None:
    """White noise of 12,000 readings, of which blocks of three are fitted: the textbook error of a slope, nearly."""
    step = np.arange(1, 12_001) * 10
    value = 0.3 + 1e-6 * step + 0.01 * np.random.default_rng(1).normal(size=step.size)
    series = Series(step, value, None, "mlm_accuracy")
    found = rates_of(series, fit_curve(series, "linear"), None)
    error = 0.01 / math.sqrt(float(((step - step.mean()) ** 2).sum())) * 1e6
    assert found.line.low is not None
    assert found.line.value - found.line.low == pytest.approx(1.96 * error, rel=0.2)
    assert 1.0 in found.line


def test_an_interval_wider_than_all_readings_span_is_none_with_the_reason() -> None:
    value = 0.1 + 0.01 * noise_of(0.9, STEP.size, 5)
    series = Series(STEP[:24], value[:24], None, "mlm_accuracy", "eval")
    rates = rates_of(series, fit_curve(series, "linear"), None)
    assert rates.last_third is not None
    assert rates.last_third.low is None
    assert rates.last_third.high is None
    assert "more change than all readings span" in rates.last_third.note
    finding = judge_trend(series, rates, False)
    assert finding is not None
    assert finding.flag == "trend_undecided"
    assert "no interval" in rates.summary()


def test_the_start_up_is_found_and_a_steep_start_is_none() -> None:
    assert all(2 <= start_of_growth(warmed(seed=seed)) <= 4 for seed in range(20))
    for power in (False, True):
        assert (
            sum(start_of_growth(steady(rho=rho, seed=s, power=power)) > 0 for s in range(20) for rho in (0, 0.9)) <= 1
        )
    assert start_of_growth(warmed().part(0, 19)) == 0
    assert start_of_growth(Series(STEP, np.full(40, 0.1) + 1e-9 * STEP)) == 0


def test_the_correlation_of_a_short_smooth_run() -> None:
    series = warmed(sigma=0.002)
    found = correlate(series, "pearson")
    quoted = found.recommended
    assert quoted is not None
    assert quoted.name == "likelihood"
    assert quoted.low is not None
    assert quoted.high is not None
    assert quoted.low < found.coefficient < quoted.high
    assert quoted.high - quoted.low < 0.25
    assert found.headline().startswith(f"pearson r of step and value {found.coefficient:.3f} over 40 readings (95 %")


def test_the_forecasts_headline_is_one_line() -> None:
    series = steady()
    fits = {family: fit_curve(series, family) for family in ("linear", "saturating")}
    assert "at step 3,200, schedule stretched: " in forecast_level(series, fits).headline()
    assert forecast_level(series.part(0, 12), fits).headline().startswith("no forecast: ")


def test_the_analysis_says_what_it_left_out_and_what_that_changes(tmp_path: Path) -> None:
    series, path = warmed(), tmp_path / "history.jsonl"
    with HistoryWriter(path) as writer:
        for step, value in zip(series.step.tolist(), series.value.tolist(), strict=True):
            writer.append({"kind": "eval", "step": step, "mlm_accuracy": value, "mlm_predictions": 4000})
    found = analyze_history(read_history(path))
    start = start_of_growth(series)
    assert found.fits["saturating"].start == series.step[start]
    assert found.fits["linear"].start == series.step[0]
    assert found.fits["linear"].r_squared == pytest.approx(found.correlations["pearson"].coefficient ** 2)
    assert any(f"the first {start} readings" in note for note in found.notes)
    assert any(note.startswith(f"line or curve, from step {series.step[start]} on alone: ") for note in found.notes)
    assert found.forecast is not None
    assert found.forecast.line_value == pytest.approx(float(found.fits["linear"].predict(3200.0)))
