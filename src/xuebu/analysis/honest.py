"""The interval to quote for a correlation: from the likelihood of trend and noise, or of the pairs' influences.

Two estimands, two functions. Step and value: the steps are a fixed grid (`estimand`); the interval holds the middle of
the coefficient's posterior under `trend_noise`. Two metrics of one run: both are noise that remembers; the interval is
Fisher's z with the error of the mean of the `influence`s, again under `trend_noise`.

Effective readings: where fewer than 20 are left beyond doubt (their own 95 % interval ends below 20), there is no
p-value. So few of the series that do hold 20 are refused one: at most 5 % in each cell of benchmarks/correlation.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from xuebu.analysis.estimand import Coefficient, grid_of, pearson_of, rank_coefficients_of
from xuebu.analysis.likelihood import TrendNoise
from xuebu.history.series import Floats

EFFECTIVE_FLOOR = 20.0
REFUSED_BELOW = 0.025
DRAWS = 4000
DRAWS_OF_RANKS = 500


@dataclass(frozen=True, slots=True)
class Quoted:
    """An interval from the likelihood.

    Args:
        low: lower end.
        high: upper end.
        p_value: two-sided, of no association; None where it would not be honest.
        effective_size: median of the number of independent readings.
        effective_ends: what it lies between, with the confidence of `low` and `high`.
        enough: probability that this number is at least 20.
    """

    low: float
    high: float
    p_value: float | None
    effective_size: float
    effective_ends: tuple[float, float]
    enough: float

    @property
    def refused(self) -> bool:
        """Whether fewer than 20 effective readings are left beyond doubt."""
        return self.enough < REFUSED_BELOW


def quote_step(
    noise: TrendNoise, name: Coefficient, *, row: int = 0, level: float = 0.95, draws: int | None = None, seed: int = 0
) -> Quoted:
    """Return the interval of a coefficient of step and value.

    Args:
        noise: of the readings on their steps; where columns were given before the step's, Pearson's is the partial
            coefficient.
        name: which coefficient.
        row: which series.
        level: confidence level.
        draws: from the posterior; 4,000 for Pearson and 500 for the others if None.
        seed: of the draws.

    Source: central posterior interval. For white noise and a line it is nearly the exact confidence interval
    (right-Haar prior, Berger and Sun 2008); coverage by simulation: benchmarks/correlation.py.
    """
    asked = draws or (DRAWS if name == "pearson" else DRAWS_OF_RANKS)
    found = noise.draw(row, asked, seed)
    size = noise.columns.shape[0]
    if name == "pearson":
        values = pearson_of(found.coefficients, found.variance, noise.place, size)
    else:
        trend = found.coefficients @ noise.columns[grid_of(size), : found.coefficients.shape[1]].T
        ranks = rank_coefficients_of(trend, found.variance, found.first, found.decay, size)
        values = ranks[0] if name == "spearman" else ranks[1]
    low, high = np.quantile(values, [0.5 - level / 2, 0.5 + level / 2])
    below = noise.below(row, noise.place)
    return _quoted((float(low), float(high)), 2 * min(below, 1 - below), found.effective_size, level)


def quote_pair(
    noise: TrendNoise, coefficient: float, *, row: int = 0, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> Quoted:
    """Return the interval of a coefficient of two metrics.

    Args:
        noise: of the influences, `level_only`.
        coefficient: between -1 and 1.
        row: which series.
        level: confidence level.
        draws: for the effective size.
        seed: of the draws.

    Source: delta method on Fisher's z; the error of a mean as `TrendNoise.half_width`, times the root of
    (m - 1) / (m - 3) with m effective pairs: means and scatter of both metrics come from the same pairs (Fisher 1921).
    """
    from scipy.special import stdtr

    sizes = noise.draw(row, draws, seed).effective_size
    size = max(float(np.median(sizes)), 4.0)
    root = math.sqrt(noise.columns.shape[0] * (size - 3) / (size - 1)) * (1 - coefficient**2)
    half, center = noise.half_width(row, 0, level) / root, math.atanh(coefficient)
    weight, _, error, degrees = noise.mixture(row, 0)
    p_value = float(2 * weight @ stdtr(degrees, -abs(center) * root / error))
    ends = math.tanh(center - half), math.tanh(center + half)
    return _quoted(ends, p_value, sizes, level)


def _quoted(ends: tuple[float, float], p_value: float, sizes: Floats, level: float) -> Quoted:
    enough = float((sizes >= EFFECTIVE_FLOOR - 1e-9).mean())
    kept = None if enough < REFUSED_BELOW else min(1.0, p_value)
    least, middle, most = (float(one) for one in np.quantile(sizes, [0.5 - level / 2, 0.5, 0.5 + level / 2]))
    return Quoted(*ends, kept, middle, (least, most), enough)
