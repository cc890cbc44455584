"""Smoothing that looks back only: what one would have known at each step, so that no later reading leaks into it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xuebu.history.series import Floats, Series

SPAN_SHARE = 0.05
MIN_SPAN = 5


@dataclass(frozen=True, slots=True, eq=False)
class Smoothed:
    """A smoothed series.

    Attributes:
        level: float64[n], weighted mean of each reading and those before it.
        spread: float64[n], weighted standard deviation of the same readings around that mean.
        span: number of readings over which a weight falls by the factor e.
    """

    level: Floats
    spread: Floats
    span: int


def smooth_readings(series: Series, span: int | None = None) -> Smoothed:
    """Return exponentially weighted mean and standard deviation of the readings up to each one.

    The weights are normalized to one at every reading, so the first readings are not pulled toward zero.

    Args:
        series: at least one reading.
        span: in readings, >= 1; a twentieth of them, at least five, if None.

    Source: the mean and variance recursions of West (1979), "Updating mean and variance estimates", with weights that
    fall by exp(-1 / span) a reading.
    """
    values = series.value
    reach = max(MIN_SPAN, round(SPAN_SHARE * len(values))) if span is None else span
    keep = float(np.exp(-1.0 / reach))
    level, spread = np.empty(len(values)), np.empty(len(values))
    total = mean = squares = 0.0
    for place, value in enumerate(values.tolist()):
        total = keep * total + 1.0
        before = mean
        mean += (value - mean) / total
        squares = keep * squares + (value - before) * (value - mean)
        level[place], spread[place] = mean, (squares / total) ** 0.5
    return Smoothed(level, spread, reach)
