"""How strongly a metric goes with the step, with intervals that say what they assume.

What is estimated stands in `estimand`: a number of this grid of steps and this noise, which describes a run and
predicts nothing. An interval says how far the coefficient would move if the noise were drawn again over the same grid;
not how far it would move with another seed, data set or length.

Every interval that others use is shown: Fisher's z with the number of readings, and with two effective sizes for the
residuals of two fits; Newey and West's; a block bootstrap. Fisher's z treats the steps as random as well and is then
too wide, by about 1 / sqrt(1 - r^2 / 2) for a straight trend; the others plug in an estimate of the noise's memory that
few readings do not give, and count misfit of their curve as noise. The one to quote is from the likelihood of trend and
noise together (`honest`); its coverage by simulation: benchmarks/correlation.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from xuebu.analysis.bootstrap import redraw_noise
from xuebu.analysis.coefficients import MOST_RESAMPLED, coefficient_of, fisher_interval, p_value_of, strength_words
from xuebu.analysis.estimand import COEFFICIENTS, Coefficient
from xuebu.analysis.fit import CurveFit
from xuebu.analysis.hac import automatic_lag, long_run_variance
from xuebu.analysis.honest import EFFECTIVE_FLOOR, Quoted, quote_step
from xuebu.analysis.intervals import Interval, student_quantile
from xuebu.analysis.likelihood import LEAST_READINGS, TrendNoise, trend_noise
from xuebu.analysis.surrogate import ShiftTest, shift_test
from xuebu.analysis.wording import plain
from xuebu.history.series import Floats, Series
from xuebu.rng import key_of

__all__ = [
    "COEFFICIENTS",
    "Coefficient",
    "Correlation",
    "CorrelationInterval",
    "coefficient_of",
    "correlate",
    "fisher_interval",
    "noise_of",
]

DISAGREEMENT = 3.0
DRAWS: dict[Coefficient, int] = {"pearson": 1000, "spearman": 400, "kendall": 200}


@dataclass(frozen=True, slots=True)
class CorrelationInterval:
    """One interval for a correlation coefficient.

    Args:
        name: "naive", "ar1_linear", "lag_sum_linear", "ar1_saturating", "lag_sum_saturating", "newey_west" (Pearson),
            "block_bootstrap" (to 50,000 readings; Spearman 20,000, Kendall 10,000) or "likelihood".
        low: lower end; None where it cannot be computed.
        high: upper end.
        level: confidence level.
        method: the formula.
        effective_size: number of independent readings it reckons with (of "likelihood", the posterior median); None
            where it does not go by one.
        residuals_of: the fit whose residuals stand for the noise; None for the naive one.
        assumption: what must hold.
        p_value: two-sided, of no association; None where it would not be honest (then `doubt` says why), and for the
            naive interval and the bootstrap.
        doubt: why not to believe this interval here; None where nothing speaks against it.
        recommended: the one to quote: "likelihood", from 8 readings on.
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
        shifts: test by circular shifts of the readings; None below 8 of them.
    """

    coefficient_name: Coefficient
    coefficient: float
    num: int
    naive_p_value: float | None
    intervals: tuple[CorrelationInterval, ...]
    shifts: ShiftTest | None = None

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
        ends = f"{100 * quoted.level:g} % interval {quoted.low:.3f} to {quoted.high:.3f}, {self.strength()}"
        return f"{told} ({ends}); it describes these steps and predicts nothing"

    def strength(self) -> str:
        """Say how strong the correlation is, from end to end of the interval to quote; "" where there is none."""
        one = self.recommended
        return (
            "" if one is None else strength_words(Interval(self.coefficient, one.low, one.high, one.level, one.method))
        )

    def summary(self) -> str:
        """Say the coefficient, the interval to quote, and each interval with its effective size and doubt."""
        lines = [f"{self.coefficient_name} {self.coefficient:.4f} over {self.num:,} readings"]
        quoted = self.recommended
        if quoted is not None:
            lines.append(f"  the interval to quote supposes: {quoted.assumption}")
        elif len(self.intervals) > 1:
            lines.append("  none of these intervals can be vouched for")
        for interval in self.intervals:
            ends = "none" if interval.low is None else f"{interval.low:.3f} to {interval.high:.3f}"
            size = "" if interval.effective_size is None else f", n_eff {interval.effective_size:.0f}"
            mark = " <- quote this one" if interval.recommended else ""
            lines.append(f"  {interval.name}{size}: {ends}" + (f" ({interval.doubt})" if interval.doubt else "") + mark)
        if quoted is not None:
            lines.append(f"  from end to end {self.strength()}")
            lines += [f"  p = {quoted.p_value:.3g} of no association"] if quoted.p_value is not None else []
        lines += [f"  {self.shifts.summary()}"] if self.shifts is not None else []
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "coefficient_name": self.coefficient_name,
            "coefficient": plain(float(self.coefficient)),
            "num": self.num,
            "naive_p_value": plain(self.naive_p_value),
            "intervals": [interval.to_json() for interval in self.intervals],
            "strength": self.strength() or None,
            "shifts": self.shifts.to_json() if self.shifts is not None else None,
        }


def correlate(
    series: Series,
    name: Coefficient,
    *,
    line: CurveFit | None = None,
    curve: CurveFit | None = None,
    trusted: str | None = None,
    noise: TrendNoise | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Correlation:
    """Return the coefficient of step against value with naive and autocorrelation-aware intervals.

    Args:
        series: at least 3 readings, not all equal.
        name: which coefficient.
        line: the straight fit, or None for no interval by its residuals.
        curve: the saturating fit, or None.
        trusted: family ("linear" or "saturating") whose residuals stand for noise in the bootstrap and Newey-West
            intervals, by out-of-sample error; None for neither.
        noise: `trend_noise` of these readings, where it is known already.
        level: confidence level.
        seed: of bootstrap, posterior draws and drawn shifts.

    Raises:
        ValueError: too few readings, or all equal.
    """
    step = series.step.astype(np.float64)
    if len(series) < 3 or np.ptp(series.value) == 0:
        raise ValueError("a correlation takes at least 3 readings that are not all equal")
    value, naive_p = coefficient_of(name, step, series.value)
    intervals = [_naive_interval(name, value, series, line, level)]
    for fit in (line, curve):
        if fit is not None and fit.residuals is not None:
            intervals += _effective_intervals(name, value, fit, trusted, level)
    mean = curve if trusted == "saturating" else line if trusted == "linear" else None
    if mean is not None and mean.residuals is not None and abs(value) < 1:
        if name == "pearson":
            intervals.append(_newey_west_interval(value, series, mean, level))
        if len(series) <= MOST_RESAMPLED[name]:
            intervals.append(_bootstrap_interval(name, value, series, mean, level=level, seed=seed))
    shifts = None
    if len(series) >= LEAST_READINGS:
        shifts = shift_test(name, step, series.value, seed=seed)
        if abs(value) < 1 - 1e-12:
            noise = noise or trend_noise(step, series.value[None, :])
            intervals.append(_likelihood_interval(name, value, noise, level, key_of(seed, "likelihood", name)))
    return Correlation(name, value, len(series), naive_p, tuple(intervals), shifts)


def noise_of(series: Series) -> TrendNoise | None:
    """Return what the readings say of trend and noise; None below 8 of them or where they are all equal."""
    if len(series) < LEAST_READINGS or np.ptp(series.value) == 0:
        return None
    return trend_noise(series.step.astype(np.float64), series.value[None, :])


def _naive_interval(
    name: Coefficient, value: float, series: Series, line: CurveFit | None, level: float
) -> CorrelationInterval:
    low, high, method = fisher_interval(name, value, len(series), level)
    diagnostics = line.residuals if line else None
    doubt = None
    if diagnostics and diagnostics.effective_size_ar1 < 0.8 * len(series):
        doubt = (
            f"the readings are not independent around a line: lag-1 autocorrelation "
            f"{diagnostics.lag1_autocorrelation:.2f}, Durbin-Watson {diagnostics.durbin_watson:.2f}"
        )
    elif diagnostics is None:
        doubt = "not judged whether the readings are independent: too few of them, or no line was fitted"
    return CorrelationInterval(
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


def _likelihood_interval(
    name: Coefficient, value: float, noise: TrendNoise, level: float, seed: int
) -> CorrelationInterval:
    found: Quoted = quote_step(noise, name, level=level, seed=seed)
    holds = found.low <= value <= found.high  # readings that mostly tie are far from normal noise: it may not
    doubt = None
    if not holds:
        doubt = (
            f"the interval, {found.low:.3f} to {found.high:.3f}, does not hold the coefficient: the readings are not "
            "what it supposes"
        )
    elif found.refused:
        doubt = (
            f"{found.effective_size:.1f} effective readings, surely fewer than {EFFECTIVE_FLOOR:.0f}: no p-value. "
            "Trend and noise are hardly told apart"
        )
    return CorrelationInterval(
        name="likelihood",
        low=found.low if holds else None,
        high=found.high if holds else None,
        level=level,
        method=(
            f"posterior of trend ({int(noise.width[0])} columns) and AR(1) to AR(3) or ARMA(1,1) noise, "
            f"n_eff {found.effective_ends[0]:.0f} to {found.effective_ends[1]:.0f}"
        ),
        effective_size=found.effective_size,
        residuals_of="smooth trend",
        assumption="normal noise that remembers, the same throughout, around a smooth trend; the steps are fixed",
        p_value=found.p_value if holds else None,
        doubt=doubt,
        recommended=holds,
    )


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
    doubt = None
    if trusted is not None and fit.family != trusted:
        doubt = f"the {trusted} curve predicts better, so these residuals hold misfit, not only noise; no p-value"
    elif max(sizes.values()) > DISAGREEMENT * sizes[smallest] and sizes[smallest] < EFFECTIVE_FLOOR:
        doubt = (
            f"the estimators disagree ({sizes['ar1']:.0f} by AR(1), {sizes['lag_sum']:.0f} by lag sum): "
            "the residuals hold misfit, not only noise; no p-value"
        )
    elif sizes[smallest] < EFFECTIVE_FLOOR:
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
                p_value=None if doubt or abs(value) >= 1 else p_value_of(name, value, size),
                doubt=doubt,
            )
        )
    return intervals


def _newey_west_interval(value: float, series: Series, mean: CurveFit, level: float) -> CorrelationInterval:
    """Return the interval of the fixed grid from the residuals' effect on z, by Newey and West with automatic lag.

    Source: delta method on Fisher's z, whose derivative by a reading is, with x and y of mean 0 and length 1,
    (x - r y) / (1 - r^2) over the length of the readings; `automatic_lag`.
    """
    step = series.step.astype(np.float64)
    x, y = step - step.mean(), series.value - series.value.mean()
    length, free = float(np.linalg.norm(y)), len(mean.parameters)
    slope = (x / np.linalg.norm(x) - value * y / length) / length / (1 - value**2)
    scores = slope * (series.value - mean.predict(step))
    lag = automatic_lag(scores)
    variance = long_run_variance(scores, lag) * len(series) ** 2 / (len(series) - free)
    half, center = student_quantile(level, len(series) - free) * math.sqrt(max(variance, 0.0)), math.atanh(value)
    return CorrelationInterval(
        name="newey_west",
        low=math.tanh(center - half),
        high=math.tanh(center + half),
        level=level,
        method=f"delta method on z, Newey-West with automatic lag {lag}",
        effective_size=None,
        residuals_of=mean.family,
        assumption=f"the {mean.family} curve is the mean; the noise's memory is short against the run; fixed steps",
        p_value=None,
        doubt=None,
    )


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
