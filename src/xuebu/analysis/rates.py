"""How much a metric grows per 10,000 steps: over the whole run, over its last third, and at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from xuebu.analysis.curves import Family, basis_gradient
from xuebu.analysis.fit import CurveFit
from xuebu.analysis.hac import critical_value, default_lag, prewhitened_newey_west
from xuebu.analysis.intervals import Interval
from xuebu.analysis.noise import SHORT, short_noise, smooth_trend
from xuebu.analysis.wording import is_accuracy
from xuebu.history.series import Floats, Series

STEPS = 10_000
MIN_POINTS = 8


@dataclass(frozen=True, slots=True)
class Rates:
    """Growth per 10,000 steps.

    Args:
        line: slope of the straight line: the mean growth over this run's steps, which a bent curve does not keep.
        last_third: slope of a straight line through the last third of the readings.
        end_of_curve: slope of the saturating curve at the last step: what the next steps buy; None where that curve
            is missing or shows no bend.
        unit: "percentage points per 10,000 steps" for accuracies.
    """

    line: Interval
    last_third: Interval | None
    end_of_curve: Interval | None
    unit: str

    def headline(self) -> str:
        """Say in one line how fast it grew, for a terminal: over the last third, or the run where that is not known."""
        told = {"last third": self.last_third} if self.last_third else {"mean of the run": self.line}
        return f"growth, {self.unit}: " + ", ".join(f"{name} {rate.words()}" for name, rate in told.items() if rate)

    def summary(self) -> str:
        """Say the three rates."""
        parts = {
            "over the run": self.line,
            "last third": self.last_third,
            "by the saturating curve at the last step": self.end_of_curve,
        }
        return f"{self.unit}: " + "; ".join(f"{name} {rate.words(digits=2)}" for name, rate in parts.items() if rate)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "line": self.line.to_json(),
            "last_third": self.last_third.to_json() if self.last_third else None,
            "end_of_curve": self.end_of_curve.to_json() if self.end_of_curve else None,
            "unit": self.unit,
        }


def rates_of(series: Series, line: CurveFit, curve: CurveFit | None, trusted: Family | None = None) -> Rates:
    """Return the growth per 10,000 steps with errors that allow for correlated noise.

    The slope of a line is a weighted sum of the readings, whatever curve they follow; its error is that of the noise,
    and misfit of a curve is none. Below 100 readings the noise is what is left around a smooth trend (`short_noise`):
    of all readings for the slope over the run, of the last two thirds for that of the last third. From 100 on it is
    what is left around the trusted family, by Newey and West. An interval that would allow for more change over its
    steps than all readings span says nothing, and is left out with that reason.

    Args:
        series: the readings.
        line: straight fit of them.
        curve: saturating fit of them, or None.
        trusted: family whose residuals stand for noise: "linear", or "saturating" (a parabola where that curve shows no
            bend); the line if None.
    """
    factor = STEPS * (100.0 if is_accuracy(series.metric) else 1.0)
    unit = "percentage points" if is_accuracy(series.metric) else series.metric.rpartition("_")[2] or "units"
    num, third, level = len(series), len(series) // 3, line.level
    parts = [(series, series)]
    if third >= MIN_POINTS:
        parts.append((series.part(num - third), series.part(num - 2 * third)))
    if num < SHORT:
        slopes = [_short_slope(part, around, level) for part, around in parts]
    else:
        mean, name, free = line.predict(series.step), "line", 2
        if curve is not None and trusted == curve.family:
            mean, name, free = curve.predict(series.step), f"{curve.family} curve", 3
            if curve.at_bound:
                step = series.step.astype(np.float64)
                mean, name = np.polynomial.Polynomial.fit(step, series.value, 2)(step), "parabola"
        spread, method = _noise(series.value - mean, free, level)
        slopes = [_slope_interval(part, spread, f"{method} around a {name}", level) for part, _ in parts]
    spread_of_all = float(np.ptp(series.value))
    lengths = [float(part.step[-1] - part.step[0]) for part, _ in parts]
    end = _slope_at_end(series, curve) if curve and not curve.at_bound else None
    told = [_told(one, length, spread_of_all) for one, length in zip(slopes, lengths, strict=True)]
    return Rates(
        line=told[0].scaled(factor),
        last_third=told[1].scaled(factor) if len(told) > 1 else None,
        end_of_curve=_told(end, lengths[-1], spread_of_all).scaled(factor) if end else None,
        unit=f"{unit} per 10,000 steps",
    )


def _told(rate: Interval, steps: float, spread: float) -> Interval:
    """Return the rate, without its interval where that is wider than all that the readings span."""
    if rate.low is None or rate.high is None or (rate.high - rate.low) * steps <= spread:
        return rate
    note = f"over {steps:,.0f} steps it would allow for more change than all readings span"
    return Interval(rate.value, None, None, rate.level, rate.method, note)


def _short_slope(series: Series, around: Series, level: float) -> Interval:
    """Return the slope of a line through a short series, by the noise of `around`, of which it is the last part."""
    if len(around) < MIN_POINTS:
        return _slope_interval(series, None, "least squares, too few readings for an error", level)
    noise = short_noise(smooth_trend(len(around)), around.value)
    step = series.step.astype(np.float64)
    unit = (step - step.mean()) / float(np.linalg.norm(step - step.mean()))
    half = noise.half_width(np.concatenate([np.zeros(len(around) - len(series)), unit]), level)
    method = (
        f"least squares; AR(1) noise of correlation about {noise.mean_rho:.2f}, averaged over, around a smooth trend"
    )
    return _slope_interval(series, half, method, level)


def _noise(residuals: Floats, num_parameters: int, level: float) -> tuple[float | None, str]:
    """Return half the interval of a sum of n readings with weights w, divided by |w|, and how it was made.

    That is the critical value times the root of the noise's long-run variance: noise summed with weights that change
    slowly against its correlation has that variance times the sum of squared weights.
    """
    num = residuals.size
    if num < MIN_POINTS:
        return None, "least squares, too few readings for an error"
    lag = default_lag(num)
    covariance, rho = prewhitened_newey_west(np.ones((num, 1)), residuals, lag, num_parameters)
    half = critical_value(level, num, lag) * (num * float(covariance[0, 0])) ** 0.5
    return (
        half,
        f"least squares; long-run variance by Newey-West, lag {lag}, prewhitened by AR(1) {rho:.2f}, of the noise",
    )


def _slope_interval(series: Series, half: float | None, method: str, level: float) -> Interval:
    step = series.step.astype(np.float64)
    centered = step - step.mean()
    squares = float(centered @ centered)
    slope = float(centered @ series.value) / squares
    note = f"mean growth over steps {int(step[0]):,} to {int(step[-1]):,}; a bent curve does not keep it"
    if half is None:
        return Interval(slope, None, None, level, method, note)
    return Interval(slope, slope - half / squares**0.5, slope + half / squares**0.5, level, method, note)


def _slope_at_end(series: Series, curve: CurveFit) -> Interval:
    """Return the saturating curve's slope at the last step by the delta method on (offset, scale, log shape)."""
    end, shape, scale = float(series.step[-1]), curve.parameters["shape"], curve.parameters["scale"]
    slope = float(curve.slope(end))
    by_log_shape = -slope - scale * float(basis_gradient(curve.family, end, shape, curve.start)[1]) / shape
    gradient = np.array([0.0, slope / scale if scale else 0.0, by_log_shape])
    variance = float(gradient @ curve.covariance @ gradient)
    method = f"delta method, {curve.errors_method}"
    if not np.isfinite(variance):
        return Interval(slope, None, None, curve.level, method, "the parameters are not fixed by the data")
    half = curve.quantile * variance**0.5
    note = f"growth at step {int(end):,} if the {curve.family} curve is right"
    return Interval(slope, slope - half, slope + half, curve.level, method, note)
