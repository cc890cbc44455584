"""Newey-West, Durbin-Watson, autocorrelations and Ljung-Box against statsmodels, to 1e-10."""

import numpy as np
import pytest
import statsmodels.api as sm
from statsmodels.stats.diagnostic import acorr_ljungbox
from statsmodels.stats.stattools import durbin_watson as reference_durbin_watson
from statsmodels.tsa.stattools import acf

from xuebu.analysis.hac import newey_west
from xuebu.analysis.residuals import autocorrelation, durbin_watson, ljung_box


def data(seed: int, size: int = 120) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=size)
    for index in range(1, size):
        noise[index] += 0.6 * noise[index - 1]
    step = np.cumsum(rng.integers(1, 300, size=size)).astype(float)
    return np.stack([np.ones(size), step, np.exp(-step / 5000)], axis=1), noise


@pytest.mark.parametrize("lag", [0, 1, 7, 30])
def test_newey_west_equals_hac(lag: int) -> None:
    for seed in range(3):
        design, noise = data(seed)
        fitted = sm.OLS(noise, design).fit(cov_type="HAC", cov_kwds={"maxlags": lag, "use_correction": True})
        found = newey_west(design, fitted.resid, lag)
        assert found == pytest.approx(fitted.cov_params(), rel=1e-10)


def test_durbin_watson_autocorrelations_and_ljung_box() -> None:
    for seed in range(3):
        noise = data(seed)[1]
        assert durbin_watson(noise) == pytest.approx(reference_durbin_watson(noise), rel=1e-12)
        assert autocorrelation(noise, 40) == pytest.approx(acf(noise, nlags=40, fft=False), abs=1e-12)
        table = acorr_ljungbox(noise - noise.mean(), lags=[10])
        statistic, probability = ljung_box(noise, 10)
        assert statistic == pytest.approx(float(table["lb_stat"].iloc[0]), rel=1e-10)
        assert probability == pytest.approx(float(table["lb_pvalue"].iloc[0]), rel=1e-8)
