import math

import numpy as np
import pytest

from xuebu.analysis.bootstrap import block_indices, block_length
from xuebu.analysis.hac import critical_value, default_lag, prewhitened_newey_west
from xuebu.analysis.residuals import (
    autocorrelation,
    diagnose,
    durbin_watson,
    effective_size_ar1,
    effective_size_lag_sum,
    ljung_box,
)


def ar1(size: int, rho: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=size + 300)
    for index in range(1, noise.size):
        noise[index] += rho * noise[index - 1]
    return noise[300:]


def test_autocorrelation_by_hand() -> None:
    x = np.array([1.0, 2.0, 4.0, 1.0])  # mean 2: deviations -1, 0, 2, -1; sum of squares 6
    assert autocorrelation(x) == pytest.approx([1, -2 / 6, -2 / 6, 1 / 6])
    assert autocorrelation(x, 1) == pytest.approx([1, -1 / 3])
    assert autocorrelation(np.ones(5), 3).tolist() == [1, 0, 0, 0]


def test_durbin_watson_by_hand() -> None:
    assert durbin_watson([1.0, -1.0, 2.0]) == pytest.approx((4 + 9) / 6)


def test_effective_sizes_by_hand() -> None:
    x = np.array([2.0, 1.0, 1.5, 0.5, -1.0, -1.5, -0.5, -2.0])  # mean 0
    rho = autocorrelation(x)
    cut = int(np.flatnonzero(rho < 0)[0])
    assert cut > 2
    size, cutoff = effective_size_lag_sum(x)
    assert cutoff == cut
    assert size == pytest.approx(8 / (1 + 2 * rho[1:cut].sum()))
    assert effective_size_ar1(x) == pytest.approx(8 * (1 - rho[1]) / (1 + rho[1]))


def test_effective_sizes_never_exceed_the_readings() -> None:
    alternating = np.array([1.0, -1.0] * 20)
    assert effective_size_ar1(alternating) == 40
    assert effective_size_lag_sum(alternating) == (40, 1)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
def test_effective_sizes_find_those_of_autoregressive_noise(rho: float) -> None:
    truth = 4000 * (1 - rho) / (1 + rho)
    found = [(effective_size_ar1(x), effective_size_lag_sum(x)[0]) for x in (ar1(4000, rho, seed) for seed in range(8))]
    assert np.mean(found, axis=0) == pytest.approx([truth, truth], rel=0.12)


def test_misfit_parts_the_two_estimators() -> None:
    step = np.linspace(0, 1, 500)
    misfit = (step - 0.5) ** 2 * 8 + np.random.default_rng(0).normal(size=500)
    misfit -= misfit.mean()
    assert effective_size_ar1(misfit) > 5 * effective_size_lag_sum(misfit)[0]


def test_diagnose_gathers_them_and_refuses_too_little() -> None:
    residuals = ar1(200, 0.6, 1)
    found = diagnose(residuals, 2)
    assert found is not None
    assert found.sigma == pytest.approx(math.sqrt(residuals @ residuals / 198))
    assert found.ljung_box_lags == 10
    assert found.ljung_box_p < 1e-6
    assert found.to_json()["effective_size_lag_sum"] == found.effective_size_lag_sum
    assert "Durbin-Watson" in found.summary()
    assert diagnose(residuals[:5], 2) is None
    assert diagnose(np.zeros(50), 2) is None


def test_ljung_box_of_independent_noise_is_uniform() -> None:
    values = [ljung_box(np.random.default_rng(seed).normal(size=300), 10)[1] for seed in range(300)]
    assert np.mean(np.array(values) < 0.1) == pytest.approx(0.1, abs=0.05)


def test_critical_values_agree_with_kiefer_and_vogelsang() -> None:
    # Kiefer and Vogelsang (2005), table 1, Bartlett: cubic polynomials of b for one-sided 95 %, 97.5 % and 99 %.
    table = {
        0.90: (1.6449, 2.1859, 0.3142, -0.3427),
        0.95: (1.9600, 2.9694, 0.4160, -0.5324),
        0.98: (2.3263, 4.1618, 0.5368, -0.9060),
    }
    for level, powers in table.items():
        for lag in (0, 4, 9, 19, 29):
            share = (lag + 1) / 100
            expected = sum(factor * share**power for power, factor in enumerate(powers))
            ratio = critical_value(level, 100, lag) / expected
            assert 0.98 < ratio < (1.03 if share <= 0.2 else 1.10)


@pytest.mark.parametrize(
    ("size", "rho", "least"), [(40, 0.0, 0.90), (250, 0.5, 0.88), (250, 0.8, 0.87), (1000, 0.8, 0.9)]
)
def test_slope_intervals_cover_under_autoregressive_noise(size: int, rho: float, least: float) -> None:
    step = np.arange(size, dtype=float)
    design = np.stack([np.ones(size), step - step.mean()], axis=1)
    lag = default_lag(size)
    quantile = critical_value(0.95, size, lag)
    hits = 0
    for seed in range(200):
        noise = ar1(size, rho, seed)
        slope = np.linalg.lstsq(design, noise, rcond=None)[0]
        covariance, _ = prewhitened_newey_west(design, noise - design @ slope, lag)
        hits += abs(slope[1]) < quantile * math.sqrt(covariance[1, 1])
    assert least < hits / 200 < 0.99


def test_prewhitening_of_no_residuals_is_no_variance() -> None:
    covariance, rho = prewhitened_newey_west(np.ones((10, 1)), np.zeros(10), 3)
    assert (covariance.tolist(), rho) == ([[0.0]], 0.0)


@pytest.mark.parametrize("rho", [0.3, 0.6, 0.8])
def test_block_length_follows_the_theory_of_autoregressive_noise(rho: float) -> None:
    # Politis and White (2004): (g / spectrum)^(2/3) n^(1/3) with g / spectrum = 2 rho / (1 - rho^2) for AR(1).
    expected = (2 * rho / (1 - rho**2)) ** (2 / 3) * 4000 ** (1 / 3)
    found = np.mean([block_length(ar1(4000, rho, seed)) for seed in range(10)])
    assert found == pytest.approx(expected, rel=0.25)


def test_block_length_stays_within_bounds() -> None:
    assert 1 <= block_length(np.random.default_rng(0).normal(size=12)) <= 4
    assert block_length(np.linspace(-1, 1, 60)) <= 20
    assert block_length(np.zeros(30)) == 1


def test_blocks_have_the_length_asked_and_depend_on_the_seed_alone() -> None:
    rows = np.concatenate(list(block_indices(50, 400, 5.0, seed=1)))
    assert rows.shape == (400, 50)
    assert (rows.min(), rows.max()) == (0, 49)
    breaks = np.mean((np.diff(rows, axis=1) % 50) != 1)
    assert breaks == pytest.approx(0.2 * 49 / 50, abs=0.01)  # a new block starts by chance where the old would go on
    assert np.bincount(rows.ravel()).std() / 400 < 0.12
    assert (np.concatenate(list(block_indices(50, 400, 5.0, seed=1))) == rows).all()
    assert (np.concatenate(list(block_indices(50, 400, 5.0, seed=2))) != rows).any()


def test_many_draws_come_in_chunks_that_join_seamlessly() -> None:
    chunks = list(block_indices(1_500_000, 3, 10.0, seed=4))
    assert [chunk.shape[0] for chunk in chunks] == [2, 1]
    assert (np.unique(np.concatenate(chunks)[:, 0]).size) == 3
