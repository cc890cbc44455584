"""How much a metric grows per 10,000 steps: over the whole run, over its last third, and at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from xuebu.analysis.curves import Family, basis_gradient
from xuebu.analysis.fit import CurveFit, fit_curve
from xuebu.analysis.hac import critical_value, default_lag, prewhitened_newey_west
from xuebu.analysis.intervals import Interval
from xuebu.analysis.wording import is_accuracy
from xuebu.history.series import Series

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

    def summary(self) -> str:
        """Say the three rates."""
        parts = {"over the run": self.line, "last third": self.last_third, "at the end": self.end_of_curve}
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

    The slope of the line is a weighted sum of the readings, whatever curve they follow; its error is that of the noise.
    So where the saturating curve is the better model, the noise is what is left around that curve: around the line
    the misfit would be counted as noise.

    Args:
        series: the readings.
        line: straight fit of them.
        curve: saturating fit of them, or None.
        trusted: family whose residuals stand for noise; the line's own if None.
    """
    factor = STEPS * (100.0 if is_accuracy(series.metric) else 1.0)
    unit = "percentage points" if is_accuracy(series.metric) else series.metric.rpartition("_")[2] or "units"
    third = len(series) // 3
    mean = curve if curve is not None and trusted == curve.family else line
    last = None
    if third >= MIN_POINTS:
        part = series.part(len(series) - third)
        last = _slope_of_line(part, fit_curve(part, "linear", level=line.level), None).scaled(factor)
    return Rates(
        line=_slope_of_line(series, line, mean).scaled(factor),
        last_third=last,
        end_of_curve=_slope_at_end(series, curve).scaled(factor) if curve and not curve.at_bound else None,
        unit=f"{unit} per 10,000 steps",
    )


def _slope_of_line(series: Series, line: CurveFit, mean: CurveFit | None) -> Interval:
    """Return the slope with the error of the noise around `mean` (the line itself if None)."""
    slope, step = line.parameters["scale"], series.step.astype(np.float64)
    mean = mean or line
    if len(series) < MIN_POINTS:
        return Interval(slope, None, None, line.level, "least squares", "too few readings for an error")
    lag = default_lag(len(series))
    design = np.stack([np.ones_like(step), step], axis=1)
    covariance, rho = prewhitened_newey_west(design, series.value - mean.predict(step), lag)
    half = critical_value(line.level, len(series), lag) * float(covariance[1, 1]) ** 0.5
    method = f"least squares, Newey-West, lag {lag}, prewhitened by AR(1) {rho:.2f}, noise around the {mean.family} fit"
    note = f"mean growth over steps {int(step[0]):,} to {int(step[-1]):,}; a bent curve does not keep it"
    return Interval(slope, slope - half, slope + half, line.level, method, note)


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
