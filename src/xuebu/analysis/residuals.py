"""What the residuals of a fit say: noise, or a trend that the fit missed.

Correlated residuals have two causes that no formula tells apart: correlated noise, and misfit. Misfit leaves long runs
of one sign, and estimators of the effective sample size then measure the misfit. Two of them are kept side by side:
where they disagree widely, suspect the fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xuebu.analysis.wording import plain
from xuebu.history.series import Floats


@dataclass(frozen=True, slots=True)
class ResidualDiagnostics:
    """Residuals of one fit, in numbers.

    Args:
        num: number of residuals.
        rss: residual sum of squares.
        sigma: standard deviation of one reading around the curve, rss divided by (num - parameters).
        lag1_autocorrelation: of neighboring residuals, as `autocorrelation`; the correlation coefficient of neighbors
            is a trifle larger (0.756 against 0.753 for the line through the published study).
        durbin_watson: about 2 for independent residuals, toward 0 for positive autocorrelation.
        ljung_box: statistic over the first `ljung_box_lags` lags.
        ljung_box_lags: number of lags.
        ljung_box_p: probability of so large a statistic from independent residuals (chi-square, a degree a lag).
        effective_size_ar1: number of independent residuals worth as much, from the lag-1 autocorrelation alone.
        effective_size_lag_sum: the same from the sum of autocorrelations up to the first negative one.
        lag_sum_cutoff: the lag of that first negative one.
    """

    num: int
    rss: float
    sigma: float
    lag1_autocorrelation: float
    durbin_watson: float
    ljung_box: float
    ljung_box_lags: int
    ljung_box_p: float
    effective_size_ar1: float
    effective_size_lag_sum: float
    lag_sum_cutoff: int

    def summary(self) -> str:
        """Say scatter, autocorrelation and effective sizes."""
        return (
            f"residual scatter {self.sigma:.4g}, lag-1 autocorrelation {self.lag1_autocorrelation:.2f}, "
            f"Durbin-Watson {self.durbin_watson:.2f}; {self.num} readings are worth about "
            f"{self.effective_size_ar1:.0f} independent ones by AR(1), {self.effective_size_lag_sum:.0f} by lag sum"
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {name: plain(getattr(self, name)) for name in self.__slots__}


def autocorrelation(values: npt.ArrayLike, num_lags: int | None = None) -> Floats:
    """Return the autocorrelations at lags 0 to `num_lags`, around the mean, each divided by n (not n - lag).

    Args:
        values: float[n], n >= 2, equally spaced; not all equal.
        num_lags: largest lag; n - 1 if None.

    Returns:
        float64[num_lags + 1], the first being 1. All zeros after it if the values are all equal.

    Source: Brockwell and Davis, "Time Series: Theory and Methods", section 1.4 (the form that is positive definite).
    """
    x = np.asarray(values, dtype=np.float64)
    size = x.size
    lags = size - 1 if num_lags is None else min(num_lags, size - 1)
    x = x - x.mean()
    total = float(x @ x)
    if total <= 0:
        return np.asarray(np.eye(1, lags + 1)[0], dtype=np.float64)
    length = 1 << (2 * size - 1).bit_length()
    spectrum = np.abs(np.fft.rfft(x, length)) ** 2
    products = np.fft.irfft(spectrum, length)[: lags + 1]
    return np.asarray(products / products[0], dtype=np.float64)


def durbin_watson(residuals: npt.ArrayLike) -> float:
    """Return the sum of squared differences of neighbors over the sum of squares: 2 - 2 rho, nearly.

    Source: Durbin and Watson (1950).
    """
    e = np.asarray(residuals, dtype=np.float64)
    return float(np.diff(e) @ np.diff(e) / (e @ e))


def effective_size_ar1(residuals: npt.ArrayLike) -> float:
    """Return n (1 - rho) / (1 + rho) with rho the lag-1 autocorrelation, at most n.

    Assumes that the residuals are noise of first-order autoregressive form: correlation falls by the factor rho from
    lag to lag. Slow misfit breaks this, and the number is then far too large.

    Source: Bayley and Hammersley (1946), the AR(1) case.
    """
    e = np.asarray(residuals, dtype=np.float64)
    rho = float(autocorrelation(e, 1)[1])
    return min(float(e.size), e.size * (1 - rho) / (1 + rho))


def effective_size_lag_sum(residuals: npt.ArrayLike) -> tuple[float, int]:
    """Return n / (1 + 2 sum of autocorrelations up to the first negative one), at most n, and the lag of that one.

    Assumes stationary noise of any form; the cut keeps the noise of far lags out of the sum. Of misfit it measures
    the misfit.

    Source: the initial positive sequence, lag by lag; see Geyer (1992), "Practical Markov chain Monte Carlo", section
    3.3, whose variant takes lags in pairs.
    """
    e = np.asarray(residuals, dtype=np.float64)
    rho = autocorrelation(e)
    negative = np.flatnonzero(rho < 0)
    cutoff = int(negative[0]) if negative.size else rho.size
    return min(float(e.size), e.size / (1 + 2 * float(rho[1:cutoff].sum()))), cutoff


def ljung_box(residuals: npt.ArrayLike, num_lags: int) -> tuple[float, float]:
    """Return the Ljung-Box statistic over `num_lags` lags and its probability under independent residuals.

    Source: Ljung and Box (1978).
    """
    from scipy.special import gammaincc

    e = np.asarray(residuals, dtype=np.float64)
    lag = np.arange(1, num_lags + 1)
    statistic = e.size * (e.size + 2) * float((autocorrelation(e, num_lags)[1:] ** 2 / (e.size - lag)).sum())
    return statistic, float(gammaincc(num_lags / 2, statistic / 2))


def diagnose(residuals: npt.ArrayLike, num_parameters: int) -> ResidualDiagnostics | None:
    """Return the diagnostics of a fit's residuals; None below 6 residuals or for an exact fit.

    Args:
        residuals: float[n], in the order of steps.
        num_parameters: parameters of the fit.
    """
    e = np.asarray(residuals, dtype=np.float64)
    rss = float(e @ e)
    if e.size < max(6, num_parameters + 2) or rss <= 1e-28 * e.size:
        return None
    lags = max(1, min(10, e.size // 5))
    statistic, probability = ljung_box(e, lags)
    by_sum, cutoff = effective_size_lag_sum(e)
    return ResidualDiagnostics(
        num=e.size,
        rss=rss,
        sigma=math.sqrt(rss / (e.size - num_parameters)),
        lag1_autocorrelation=float(autocorrelation(e, 1)[1]),
        durbin_watson=durbin_watson(e),
        ljung_box=statistic,
        ljung_box_lags=lags,
        ljung_box_p=probability,
        effective_size_ar1=effective_size_ar1(e),
        effective_size_lag_sum=by_sum,
        lag_sum_cutoff=cutoff,
    )
