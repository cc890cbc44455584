"""The interval to quote for a correlation: from the likelihood of trend and noise, or of the pairs' influences.

Two estimands, two functions. Step and value: the steps are a fixed grid (`estimand`); the interval holds the middle of
the coefficient's posterior under `trend_noise`. Two metrics of one run: both are noise that remembers; the interval is
Fisher's z with the error of the mean of the `influence`s, again under `trend_noise`.

Effective readings: where fewer than 20 are left beyond doubt (their own 95 % interval ends below 20), there is no
p-value. So few of the series that do hold 20 are refused one: at most 5 % in each cell of benchmarks/correlation.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from xuebu.analysis.estimand import Coefficient, grid_of, pearson_of, rank_coefficients_of
from xuebu.analysis.likelihood import NoiseDraws, TrendNoise
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
    noise: TrendNoise,
    name: Coefficient,
    *,
    row: int = 0,
    level: float = 0.95,
    draws: int | None = None,
    seed: int = 0,
    tested: bool = True,
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
        tested: whether the p-value is asked for; with many series it takes most of the time.

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
    below = noise.below(row, noise.place) if tested else 0.5
    quoted = _quoted((float(low), float(high)), 2 * min(below, 1 - below), found.effective_size, level)
    return quoted if tested else replace(quoted, p_value=None)


def pair_memory(x: Floats, y: Floats) -> Floats:
    """Return float64[4, n]: both metrics with mean 0 and variance 1, and what each leaves of the other, likewise.

    Args:
        x: float64[n], not constant.
        y: float64[n], not constant, not a multiple of x.
    """
    a, b = ((one - one.mean()) / one.std() for one in (x, y))
    r = float((a * b).mean())
    return np.stack([a, b, *((left / left.std()) for left in (b - r * a, a - r * b))])


def pair_sizes(memory: TrendNoise, coefficient: float, *, row: int = 0, draws: int = DRAWS, seed: int = 0) -> Floats:
    """Return draws of the number of independent pairs, from the memory of both metrics.

    With y = r x + z, x and z independent at all lags, n times the variance of r is (1 - r^2)^2 times

        r^2 / 2 (t(x, x) + t(z, z)) + (1 - r^2) t(x, z),    t(a, b) = 1 + 2 sum over k of rho_a(k) rho_b(k),

    here the mean of that and of the same with x and y exchanged. The influences of the pairs (`quote_pair`) say the
    same of long series, but of short ones too little: they are made with estimated means and scatters.

    Args:
        memory: of `pair_memory`, `level_only`, four rows a pair of metrics.
        coefficient: between -1 and 1.
        row: which pair.
        draws: number of them.
        seed: of the draws.

    Source: Bartlett (1935), "Some aspects of the time-correlation problem"; for r other than 0, the variance of the
    influence function (Devlin, Gnanadesikan and Kettenring 1975) summed over lags.
    """
    found = [memory.draw(4 * row + part, draws, seed + part) for part in range(4)]
    one, other, of_one, of_other = (_geometric(part, memory) for part in found)
    share = coefficient**2

    def product(a: tuple[Floats, Floats], b: tuple[Floats, Floats]) -> Floats:
        return np.asarray(1 + 2 * memory.block * a[0] * b[0] / (1 - a[1] * b[1]))

    spread = np.mean(
        [
            share / 2 * (product(a, a) + product(left, left)) + (1 - share) * product(a, left)
            for a, left in ((one, of_one), (other, of_other))
        ],
        axis=0,
    )
    return np.asarray(memory.num / spread)


def _geometric(found: NoiseDraws, memory: TrendNoise) -> tuple[Floats, Floats]:
    """Return autocorrelation at lag 1 and what it is multiplied by from lag to lag, its sum over lags as drawn."""
    total = (memory.num / found.effective_size - 1) / 2 / memory.block
    slow = (found.first > 0) & (found.first < total)
    first = np.where(slow, found.first, total / (1 + total))
    return first, np.where(slow, 1 - found.first / np.where(slow, total, 1.0), first)


def quote_pair(
    noise: TrendNoise,
    memory: TrendNoise,
    coefficient: float,
    *,
    row: int = 0,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Quoted:
    """Return the interval of a coefficient of two metrics.

    Args:
        noise: of the influences, `level_only`.
        memory: of `pair_memory` (for rank coefficients that of ranks), `level_only`.
        coefficient: between -1 and 1.
        row: which series.
        level: confidence level.
        draws: for the effective size.
        seed: of the draws.

    Source: delta method on Fisher's z; the error of a mean as `TrendNoise.half_width`, times the root of
    (m - 1) / (m - 3) with m effective pairs: means and scatter of both metrics come from the same pairs (Fisher 1921).
    Where `pair_sizes` finds fewer pairs than the influences, m is the geometric mean of both, and the error larger
    accordingly: of few effective pairs the one number is too large as a rule, the other a little too small.
    """
    from scipy.special import stdtr

    sizes = noise.draw(row, draws, seed).effective_size
    fewer = pair_sizes(memory, coefficient, row=row, draws=draws, seed=seed)
    ratio = max(1.0, float(np.median(sizes) / np.median(fewer)) ** 0.5)
    sizes = sizes / ratio
    size = max(float(np.median(sizes)), 4.0)
    root = math.sqrt(noise.columns.shape[0] * (size - 3) / (size - 1) / ratio) * (1 - coefficient**2)
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
