"""Noise of the residuals of short fits, where Newey-West errors cannot be had.

A run has 10 to 60 held-out readings. Prewhitening recolors by 1 / (1 - rho)^2, up to a thousandfold, which is right
only for series far longer than 1 / (1 - rho) readings. Here the noise is autoregressive of first order, with its exact
covariance over the readings at hand and its correlation not estimated but averaged over, by its likelihood. The errors
of a curve's parameters (`fit`) are made so below 100 readings; slopes and correlations go by the wider forms of noise
of `likelihood`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xuebu.analysis.hac import MOST_CORRELATION
from xuebu.history.series import Floats

SHORT = 100
_GRID = 40


@dataclass(frozen=True, slots=True, eq=False)
class ShortNoise:
    """Noise of first-order autoregressive form, its correlation known only by its likelihood.

    Args:
        rho: float64[m], correlations from reading to reading.
        weight: float64[m], probability of each; they sum to 1.
        innovation: float64[m], variance of what is new in each reading, given each correlation.
        degrees: of freedom of that variance: readings less coefficients of the trend.
    """

    rho: Floats
    weight: Floats
    innovation: Floats
    degrees: int

    @property
    def mean_rho(self) -> float:
        """The correlation from reading to reading, averaged."""
        return float(self.weight @ self.rho)

    def covariance(self, weights: Floats) -> Floats:
        """Return the covariance of weighted sums of the readings, given each correlation.

        Args:
            weights: float64[k, n], one sum a row.

        Returns:
            float64[m, k, k].
        """
        num = weights.shape[1]
        lags = np.abs(np.subtract.outer(np.arange(num), np.arange(num)))
        return np.stack(
            [
                variance / (1 - rho * rho) * (weights @ rho**lags @ weights.T)
                for rho, variance in zip(self.rho, self.innovation, strict=True)
            ]
        )

    def half_width(self, weights: Floats, level: float) -> float:
        """Return half the interval of one weighted sum of the readings.

        Args:
            weights: float64[n].
            level: confidence level.

        Source: the mixture of Student's t distributions, one for each correlation, solved for its quantile; Zellner
        and Tiao (1964), "Bayesian analysis of the regression model with autocorrelated errors".
        """
        from scipy.optimize import brentq
        from scipy.special import stdtr

        errors = np.sqrt(self.covariance(weights[None, :])[:, 0, 0])
        top = float(errors.max())
        if top <= 0:
            return 0.0

        def excess(half: float) -> float:
            return float(self.weight @ stdtr(self.degrees, -half * top / np.maximum(errors, 1e-300))) - 0.5 + level / 2

        edge = 1.0
        while excess(edge) > 0:
            edge *= 2
        return top * float(brentq(excess, 0.0, edge, xtol=1e-10))


def short_noise(trend: Floats, values: Floats) -> ShortNoise:
    """Return what the readings say of the noise around a trend.

    Args:
        trend: float64[n, k], columns of the trend, or the derivative of a curve at its fit; n >= k + 2.
        values: float64[n], readings, or residuals of that curve.

    Source: restricted likelihood of correlation, Harville (1977), with the prior of Jeffreys,
    proportional to 1 / sqrt(1 - rho^2), on correlations of 0 to 0.97: few readings say little of a correlation, and
    equal prior weight would trust them too much when it is high.
    """
    num, width = trend.shape
    degrees = num - width
    if degrees < 2:
        raise ValueError(f"{num} readings are too few for noise around {width} coefficients")
    rho = np.linspace(0.0, MOST_CORRELATION, _GRID)
    both = np.concatenate([trend, values[:, None]], axis=1)
    white = both[None] - rho[:, None, None] * np.concatenate([np.zeros((1, width + 1)), both[:-1]])[None]
    white[:, 0] *= np.sqrt(1 - rho**2)[:, None]
    corner = np.abs(np.diagonal(np.linalg.qr(white, mode="r"), axis1=1, axis2=2))
    squares = np.maximum(corner[:, -1] ** 2, 1e-300)
    score = 0.5 * np.log1p(-(rho**2)) - np.log(corner[:, :-1]).sum(axis=1) - 0.5 * degrees * np.log(squares)
    weight = np.exp(score - score.max()) / np.sqrt(1 - rho**2)
    return ShortNoise(rho, weight / weight.sum(), squares / degrees, degrees)
