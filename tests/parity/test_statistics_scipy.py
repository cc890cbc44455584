"""Correlation, line and intervals against scipy, to 1e-12."""

import numpy as np
import pytest
from scipy import stats

from xuebu.analysis.correlation import Coefficient, correlate, fisher_interval
from xuebu.analysis.fit import fit_curve
from xuebu.analysis.intervals import proportion_interval, student_quantile
from xuebu.analysis.series import Series


def series_of(seed: int, *, ties: bool) -> Series:
    rng = np.random.default_rng(seed)
    step = np.cumsum(rng.integers(1, 200, size=150))
    value = 0.5 - 0.3 * np.exp(-step / 4000) + rng.normal(scale=0.05, size=150)
    return Series(step, np.round(value, 1) if ties else value, None, "mlm_accuracy")


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    ("name", "reference"), [("pearson", "pearsonr"), ("spearman", "spearmanr"), ("kendall", "kendalltau")]
)
def test_coefficients_equal_scipys(name: Coefficient, reference: str, ties: bool) -> None:
    for seed in range(5):
        series = series_of(seed, ties=ties)
        found = correlate(series, name, line=None, curve=None, trusted=None)
        expected = getattr(stats, reference)(series.step, series.value)
        assert found.coefficient == pytest.approx(float(expected.statistic), abs=1e-12)
        assert found.naive_p_value == pytest.approx(float(expected.pvalue), rel=1e-12)


def test_the_naive_pearson_interval_equals_scipys() -> None:
    series = series_of(1, ties=False)
    expected = stats.pearsonr(series.step, series.value)
    for level in (0.8, 0.95, 0.999):
        low, high, _ = fisher_interval("pearson", float(expected.statistic), len(series), level)
        reference = expected.confidence_interval(level)
        assert (low, high) == pytest.approx((float(reference.low), float(reference.high)), abs=1e-12)


def test_the_line_equals_linregress() -> None:
    for seed in range(5):
        series = series_of(seed, ties=False)
        expected = stats.linregress(series.step, series.value)
        found = fit_curve(series, "linear")
        assert found.parameters["scale"] == pytest.approx(expected.slope, rel=1e-12)
        assert found.parameters["offset"] == pytest.approx(expected.intercept, rel=1e-12)
        assert found.r_squared == pytest.approx(expected.rvalue**2, abs=1e-12)


def test_wilson_equals_scipys() -> None:
    for right, trials in ((0, 7), (3, 40), (512, 1000), (40, 40)):
        found = proportion_interval(right, trials, 0.9)
        expected = stats.binomtest(right, trials).proportion_ci(0.9, method="wilson")
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_student_quantiles_equal_scipys() -> None:
    for degrees in (1.0, 3.7, 250.0):
        assert student_quantile(0.95, degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-12)


def test_the_saturating_fit_equals_curve_fit() -> None:
    from scipy.optimize import curve_fit

    step = np.arange(100, 20_001, 100)
    value = 0.57 - 0.42 * np.exp(-step / 3000) + np.random.default_rng(0).normal(scale=0.02, size=step.size)
    (top, gap, pace), _ = curve_fit(
        lambda x, top, gap, pace: top + gap * np.exp(-(x - 100) / pace),
        step,
        value,
        (0.5, -0.3, 2000.0),
        xtol=1e-14,
        ftol=1e-14,
    )
    found = fit_curve(Series(step, value), "saturating").parameters
    assert [found["offset"], found["scale"], found["shape"]] == pytest.approx([top, gap, pace], rel=1e-6)
