"""How strongly a metric goes with the step, with intervals that say what they assume.

What is estimated. The steps are a fixed grid that the recipe chose, not a sample; a reading is a curve m(step) plus
noise of variance s^2 that may be correlated from reading to reading. The coefficient then estimates a number of that
grid and that noise: for Pearson, cor(step, m) * sd(m) / sqrt(var(m) + s^2), moments over the grid. Another length of
run, another spacing or less noisy readings give another number, so r describes a run and does not predict. An interval
says how far the coefficient would move if the noise were drawn again over the same grid; not how far it would move
with another seed, data set or length.

Fisher's z treats the steps as random as well. On a fixed grid it is therefore somewhat too wide, by a factor of about
1 / sqrt(1 - r^2 / 2) for a straight trend with independent noise; it is the one to quote because it errs on the safe
side. The block bootstrap is of the fixed grid and sharper, and leans on the curve's being right.

Where the readings are few and smooth, as held-out evaluations of fixed questions are, what the best formula leaves is
mostly misfit. Taken for noise it is worth a handful of readings, and an interval of, say, 0.00 to 0.99 follows, which
says nothing of the run. There, for Pearson, the noise is that around a smooth trend without a formula, and the interval
is of the fixed grid. It is narrow because the curve is steady: it is no evidence for a line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from xuebu.analysis.bootstrap import redraw_noise
from xuebu.analysis.fit import CurveFit
from xuebu.analysis.intervals import normal_quantile, student_quantile
from xuebu.analysis.noise import SHORT, short_noise, smooth_trend
from xuebu.analysis.wording import plain
from xuebu.history.series import Floats, Series
from xuebu.rng import key_of

Coefficient = Literal["pearson", "spearman", "kendall"]
COEFFICIENTS: tuple[Coefficient, ...] = ("pearson", "spearman", "kendall")
EFFECTIVE_FLOOR = 20.0
LEAST_SIZE = 5.0
DISAGREEMENT = 3.0
SMOOTH_READINGS = 16
DRAWS: dict[Coefficient, int] = {"pearson": 1000, "spearman": 400, "kendall": 200}


@dataclass(frozen=True, slots=True)
class CorrelationInterval:
    """One interval for a correlation coefficient.

    Args:
        name: "naive", "ar1_linear", "lag_sum_linear", "ar1_saturating", "lag_sum_saturating", "block_bootstrap" or
            "ar1_smooth_trend" (Pearson, 16 to 99 readings).
        low: lower end; None where it cannot be computed.
        high: upper end.
        level: confidence level.
        method: the formula.
        effective_size: number of independent readings it reckons with; None for intervals of the fixed grid.
        residuals_of: the fit whose residuals stand for the noise; None for the naive one.
        assumption: what must hold.
        p_value: two-sided, of no association; None where it would not be honest (then `doubt` says why), and for the
            naive interval and the bootstrap.
        doubt: why not to believe this interval here; None where nothing speaks against it.
        recommended: the one to quote: of the trusted fit, the smaller effective size. Where that is below 20, the one
            around a smooth trend if it can be had. None is where even that fit's residuals hold misfit.
    """

    name: str
    low: float | None
    high: float | None
    level: float
    method: str
    effective_size: float | None
    residuals_of: str | None
    assumption: str
    p_value: float | None
    doubt: str | None
    recommended: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {name: plain(getattr(self, name)) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Correlation:
    """A correlation coefficient of step against value, with every interval and its assumption.

    Args:
        coefficient_name: "pearson", "spearman" or "kendall" (tau-b).
        coefficient: its value.
        num: number of readings.
        naive_p_value: scipy's, as if all readings were independent; for comparison with other people's figures only.
        intervals: the naive one first.
    """

    coefficient_name: Coefficient
    coefficient: float
    num: int
    naive_p_value: float | None
    intervals: tuple[CorrelationInterval, ...]

    @property
    def recommended(self) -> CorrelationInterval | None:
        """The interval to quote, if one holds."""
        return next((interval for interval in self.intervals if interval.recommended), None)

    def headline(self) -> str:
        """Say in one line the coefficient and the interval to quote, for a terminal."""
        quoted = self.recommended
        told = f"{self.coefficient_name} r of step and value" if self.coefficient_name == "pearson" else ""
        told = f"{told or self.coefficient_name} {self.coefficient:.3f} over {self.num:,} readings"
        if quoted is None or quoted.low is None or quoted.high is None:
            return f"{told}; no interval of it can be vouched for"
        return (
            f"{told} ({100 * quoted.level:g} % interval {quoted.low:.3f} to {quoted.high:.3f}); "
            "it describes these steps and predicts nothing"
        )

    def summary(self) -> str:
        """Say the coefficient, the interval to quote, and each interval with its effective size and doubt."""
        lines = [f"{self.coefficient_name} {self.coefficient:.4f} over {self.num:,} readings"]
        quoted = self.recommended
        if quoted is not None:
            lines.append(f"  the interval to quote supposes: {quoted.assumption}")
        elif len(self.intervals) > 1:
            lines.append(
                "  none of these intervals can be vouched for: what the curves leave is misfit more than noise"
            )
        for interval in self.intervals:
            ends = "none" if interval.low is None else f"{interval.low:.3f} to {interval.high:.3f}"
            size = "" if interval.effective_size is None else f", n_eff {interval.effective_size:.0f}"
            mark = " <- quote this one" if interval.recommended else ""
            lines.append(f"  {interval.name}{size}: {ends}" + (f" ({interval.doubt})" if interval.doubt else "") + mark)
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "coefficient_name": self.coefficient_name,
            "coefficient": plain(float(self.coefficient)),
            "num": self.num,
            "naive_p_value": plain(self.naive_p_value),
            "intervals": [interval.to_json() for interval in self.intervals],
        }


def coefficient_of(name: Coefficient, step: Floats, value: Floats) -> tuple[float, float]:
    """Return a coefficient and its p-value for independent readings.

    Args:
        name: "pearson", "spearman" (average ranks for ties) or "kendall" (tau-b).
        step: float[n], n >= 3, not all equal.
        value: float[n], not all equal.

    Source: scipy.stats.
    """
    from scipy import stats

    match name:
        case "pearson":
            found = stats.pearsonr(step, value)
        case "spearman":
            found = stats.spearmanr(step, value)
        case "kendall":
            found = stats.kendalltau(step, value)
    return float(found.statistic), float(found.pvalue)


def fisher_interval(
    name: Coefficient, coefficient: float, size: float, level: float
) -> tuple[float | None, float | None, str]:
    """Return the interval by Fisher's z for `size` independent readings.

    Args:
        name: which coefficient; each has its own variance of z.
        coefficient: -1 to 1.
        size: number of readings; an effective number need not be whole.
        level: confidence level.

    Returns:
        Low and high (None, None below 5 readings or at exactly -1 or 1), and the formula.

    Source: Pearson 1 / (n - 3), Fisher (1921); Spearman (1 + r^2 / 2) / (n - 3), Bonett and Wright (2000); Kendall
    0.437 / (n - 4), Fieller, Hartley and Pearson (1957), meant for |tau| below 0.8. All for pairs drawn at random from
    a bivariate normal distribution or a monotone change of one.
    """
    match name:
        case "pearson":
            spread, formula = 1 / max(size - 3, 1), "1 / (n - 3)"
        case "spearman":
            spread = (1 + coefficient**2 / 2) / max(size - 3, 1)
            formula = "(1 + r^2 / 2) / (n - 3)"
        case "kendall":
            spread, formula = 0.437 / max(size - 4, 1), "0.437 / (n - 4)"
    method = f"Fisher z with variance {formula}, n = {size:.4g}"
    if size < LEAST_SIZE or abs(coefficient) >= 1:
        return None, None, method
    half = normal_quantile(level) * math.sqrt(spread)
    return math.tanh(math.atanh(coefficient) - half), math.tanh(math.atanh(coefficient) + half), method


def correlate(
    series: Series,
    name: Coefficient,
    *,
    line: CurveFit | None,
    curve: CurveFit | None,
    trusted: str | None,
    level: float = 0.95,
    seed: int = 0,
) -> Correlation:
    """Return the coefficient of step against value with naive and autocorrelation-aware intervals.

    Args:
        series: at least 3 readings, not all equal.
        name: which coefficient.
        line: the straight fit, or None where there are too few readings.
        curve: the saturating fit, or None.
        trusted: family ("linear" or "saturating") whose residuals stand for noise, by out-of-sample error; None where
            neither could be judged.
        level: confidence level.
        seed: of the bootstrap.

    Raises:
        ValueError: too few readings, or all equal.
    """
    step = series.step.astype(np.float64)
    if len(series) < 3 or np.ptp(series.value) == 0:
        raise ValueError("a correlation takes at least 3 readings that are not all equal")
    value, naive_p = coefficient_of(name, step, series.value)
    low, high, method = fisher_interval(name, value, len(series), level)
    diagnostics = line.residuals if line else None
    doubt = None
    if diagnostics and diagnostics.effective_size_ar1 < 0.8 * len(series):
        doubt = (
            f"the readings are not independent around a line: lag-1 autocorrelation "
            f"{diagnostics.lag1_autocorrelation:.2f}, Durbin-Watson {diagnostics.durbin_watson:.2f}"
        )
    elif diagnostics is None:
        doubt = f"{len(series)} readings are too few to judge whether they are independent"
    intervals = [
        CorrelationInterval(
            name="naive",
            low=low,
            high=high,
            level=level,
            method=method,
            effective_size=float(len(series)),
            residuals_of=None,
            assumption="step and reading are independent draws of a bivariate normal pair, over and over",
            p_value=None,
            doubt=doubt,
        )
    ]
    for fit in (line, curve):
        if fit is not None and fit.residuals is not None:
            intervals += _effective_intervals(name, value, fit, trusted, level)
    if name == "pearson" and trusted is not None and SMOOTH_READINGS <= len(series) < SHORT and abs(value) < 1:
        intervals = _with_smooth_trend(intervals, step, series.value, value, level)
    mean = curve if trusted == "saturating" else line if trusted == "linear" else None
    if mean is not None and mean.residuals is not None and abs(value) < 1:
        intervals.append(_bootstrap_interval(name, value, series, mean, level=level, seed=seed))
    return Correlation(name, value, len(series), naive_p, tuple(intervals))


def _effective_intervals(
    name: Coefficient, value: float, fit: CurveFit, trusted: str | None, level: float
) -> list[CorrelationInterval]:
    found = fit.residuals
    assert found is not None
    sizes = {"ar1": found.effective_size_ar1, "lag_sum": found.effective_size_lag_sum}
    words = {
        "ar1": f"noise of first-order autoregressive form around the {fit.family} fit",
        "lag_sum": f"stationary noise around the {fit.family} fit",
    }
    smallest = min(sizes, key=lambda estimator: sizes[estimator])
    doubt, misfit = None, True
    if trusted is not None and fit.family != trusted:
        doubt = f"the {trusted} curve predicts better, so these residuals hold misfit, not only noise; no p-value"
    elif max(sizes.values()) > DISAGREEMENT * sizes[smallest] and sizes[smallest] < EFFECTIVE_FLOOR:
        doubt = (
            f"the estimators disagree ({sizes['ar1']:.0f} by AR(1), {sizes['lag_sum']:.0f} by lag sum): "
            "the residuals hold misfit, not only noise; no p-value"
        )
    else:
        misfit = False
        if sizes[smallest] < EFFECTIVE_FLOOR:
            doubt = (
                f"only {sizes[smallest]:.1f} effective readings, fewer than {EFFECTIVE_FLOOR:.0f}; no p-value. "
                "Residuals so alike from reading to reading are often misfit and not noise"
            )
    intervals = []
    for estimator, size in sizes.items():
        low, high, method = fisher_interval(name, value, size, level)
        intervals.append(
            CorrelationInterval(
                name=f"{estimator}_{fit.family}",
                low=low,
                high=high,
                level=level,
                method=method,
                effective_size=size,
                residuals_of=fit.family,
                assumption=words[estimator],
                p_value=None if doubt or abs(value) >= 1 else _p_value(name, value, size),
                doubt=doubt,
                recommended=not misfit and low is not None and fit.family == trusted and estimator == smallest,
            )
        )
    return intervals


def _with_smooth_trend(
    intervals: list[CorrelationInterval], step: Floats, values: Floats, value: float, level: float
) -> list[CorrelationInterval]:
    """Return the intervals with one of the noise around a smooth trend, to quote where too few readings are effective.

    Source: `short_noise`; delta method on Fisher's z, whose derivative by a reading is, with x and y of mean 0 and
    length 1, (x - r y) / (1 - r^2) over the length of the readings.
    """
    x, y = step - step.mean(), values - values.mean()
    length = float(np.linalg.norm(y))
    slope = (x / np.linalg.norm(x) - value * y / length) / length / (1 - value**2)
    noise = short_noise(smooth_trend(values.size), values)
    half, center = noise.half_width(slope, level), math.atanh(value)
    quoted = next((one for one in intervals if one.recommended), None)
    take = quoted is None or quoted.effective_size is None or quoted.effective_size < EFFECTIVE_FLOOR
    if take:
        intervals = [replace(one, recommended=False) for one in intervals]
    own = CorrelationInterval(
        name="ar1_smooth_trend",
        low=math.tanh(center - half),
        high=math.tanh(center + half),
        level=level,
        method=f"delta method on z, AR(1) noise of correlation about {noise.mean_rho:.2f}, averaged over",
        effective_size=None,
        residuals_of="smooth trend",
        assumption="first-order autoregressive noise around a smooth trend without a formula; the steps are fixed",
        p_value=None,
        doubt=None,
        recommended=take,
    )
    return [*intervals, own]


def _p_value(name: Coefficient, value: float, size: float) -> float:
    """Return the two-sided p-value of no association over `size` independent readings.

    Source: Student's t with size - 2 degrees of freedom for Pearson (exact for normal values) and Spearman; for
    Kendall the normal approximation with variance 2 (2 n + 5) / (9 n (n - 1)), Kendall (1938).
    """
    from scipy.special import ndtr, stdtr

    if name == "kendall":
        return float(2 * ndtr(-3 * abs(value) * math.sqrt(size * (size - 1) / (2 * (2 * size + 5)))))
    statistic = abs(value) * math.sqrt((size - 2) / (1 - value * value))
    return float(2 * stdtr(size - 2, -statistic))


def _bootstrap_interval(
    name: Coefficient, value: float, series: Series, mean: CurveFit, *, level: float, seed: int
) -> CorrelationInterval:
    """Return the interval from redrawing the noise in blocks over the same steps, around the fitted curve.

    The standard error is taken on Fisher's z, with Student's t for as many effective readings as the residuals hold.

    Source: `redraw_noise`.
    """
    step = series.step.astype(np.float64)
    fitted = mean.predict(step)
    free, draws = len(mean.parameters), DRAWS[name]
    found = [
        _coefficients(name, step, fitted + noise)
        for noise in redraw_noise(series.value - fitted, free, draws, key_of(seed, "correlation", name))
    ]
    spread = float(np.arctanh(np.clip(np.concatenate(found), -1 + 1e-12, 1 - 1e-12)).std(ddof=1))
    assert mean.residuals is not None
    size = min(mean.residuals.effective_size_ar1, mean.residuals.effective_size_lag_sum)
    half = student_quantile(level, max(1.0, size - free)) * spread
    center = math.atanh(value)
    small = size < EFFECTIVE_FLOOR
    return CorrelationInterval(
        name="block_bootstrap",
        low=math.tanh(center - half),
        high=math.tanh(center + half),
        level=level,
        method=f"stationary block bootstrap of prewhitened residuals, {draws} draws, on z",
        effective_size=None,
        residuals_of=mean.family,
        assumption=f"the {mean.family} curve is the mean; the noise is stationary; the steps are fixed",
        p_value=None,
        doubt=f"only {size:.1f} effective readings: blocks are too few, the interval too narrow" if small else None,
    )


def _coefficients(name: Coefficient, step: Floats, values: Floats) -> Floats:
    """Return the coefficient of each row of float[b, n] with increasing steps."""
    match name:
        case "pearson":
            return _row_correlations(step, values)
        case "spearman":
            from scipy.stats import rankdata

            return _row_correlations(np.arange(step.size, dtype=np.float64), rankdata(values, axis=1))
        case "kendall":
            return np.array([coefficient_of("kendall", step, row)[0] for row in values])


def _row_correlations(step: Floats, values: Floats) -> Floats:
    x = step - step.mean()
    centered = values - values.mean(axis=1, keepdims=True)
    return np.asarray(centered @ x / np.sqrt((centered**2).sum(axis=1) * (x @ x)))
