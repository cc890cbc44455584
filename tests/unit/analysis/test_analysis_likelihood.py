"""Likelihood of trend and noise against explicit covariance matrices, and what is drawn from it."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.linalg import toeplitz
from scipy.signal import lfilter

from xuebu.analysis.estimand import grid_of, pearson_of, rank_coefficients_of
from xuebu.analysis.honest import quote_step
from xuebu.analysis.likelihood import trend_columns, trend_noise
from xuebu.analysis.noise_grid import FORMS, Form, coarse_grid, evaluate, finer_grid

STEP = np.arange(1, 31) * 100.0


def noise(size: int, phi: float, theta: float = 0.0, rows: int = 1, seed: int = 0) -> np.ndarray:
    white = np.random.default_rng(seed).normal(size=(rows, size + 500))
    drawn = lfilter([1, theta], [1, -phi], white, axis=1)[:, 500:]
    return drawn / math.sqrt((1 + 2 * phi * theta + theta**2) / (1 - phi**2))


def polynomials(form: Form, parts: list[float]) -> tuple[list[float], list[float]]:
    match form, parts:
        case "ar2", [second, first]:
            return [1.0], [1.0, -first * (1 - second), -second]
        case "ar3", [third, second, first]:
            a, b = first * (1 - second), second
            return [1.0], [1.0, -(a - third * b), -(b - third * a), -third]
        case _, [theta, phi]:
            return [1.0, theta], [1.0, -phi]
    raise AssertionError


@pytest.mark.parametrize("form", FORMS)
def test_the_likelihood_equals_that_of_explicit_matrices(form: Form) -> None:
    columns, place = trend_columns(STEP, None, 4)
    assert place == 1
    values = noise(30, 0.6, 0.3, rows=2) + 0.3 * np.sqrt(STEP / 100)
    grid = coarse_grid(form)
    found = evaluate(columns, values, grid, (2, 4))
    parts = [part.ravel() for part in np.meshgrid(*(np.tanh(axis) for axis in grid.axes), indexing="ij")]
    for node in np.random.default_rng(1).integers(0, parts[0].size, 12):
        ma, ar = polynomials(form, [float(part[node]) for part in parts])
        impulse = lfilter(ma, ar, np.eye(1, 60_000)[0])
        gamma = np.array([impulse[: impulse.size - lag] @ impulse[lag:] for lag in range(30)])
        inverse = np.linalg.inv(toeplitz(gamma))
        assert grid.ratio[node] == pytest.approx(gamma[0], rel=1e-8)
        assert grid.long_run[node] == pytest.approx((sum(ma) / sum(ar)) ** 2, rel=1e-10)
        assert grid.first[node] == pytest.approx(gamma[1] / gamma[0], abs=1e-8)
        for index, width in enumerate((2, 4)):
            x = columns[:, :width]
            bread = x.T @ inverse @ x
            left = inverse - inverse @ x @ np.linalg.solve(bread, x.T @ inverse)
            squares = np.array([row @ left @ row for row in values])
            assert found.squares[index, node] == pytest.approx(squares, rel=1e-7)
            log_det = np.linalg.slogdet(toeplitz(gamma))[1]
            expected = -0.5 * ((30 - width) * np.log(squares) + log_det + np.linalg.slogdet(bread)[1])
            assert found.restricted[index, node] == pytest.approx(expected, abs=1e-6)
            assert found.profile[index, node] == pytest.approx(-0.5 * (30 * np.log(squares) + log_det), abs=1e-6)


def test_priors_are_probabilities_and_a_finer_grid_keeps_its_share() -> None:
    for form in FORMS:
        grid = coarse_grid(form)
        assert np.exp(grid.log_prior).sum() == pytest.approx(1.0)
        weight = np.zeros((grid.ratio.size, 1))
        weight[grid.ratio.size // 2] = 1.0
        finer = finer_grid(grid, weight)
        assert finer is not None
        assert np.exp(finer.log_prior).sum() < 0.3
        assert finer_grid(grid, np.full_like(weight, 1 / weight.size)) is None


def test_columns_are_orthonormal_and_the_second_is_the_step() -> None:
    columns, place = trend_columns(np.cumsum(np.random.default_rng(0).integers(1, 9, 60)).astype(float))
    assert columns.T @ columns == pytest.approx(np.eye(8), abs=1e-9)
    held = np.cos(STEP / 1000)[:, None]
    columns, place = trend_columns(STEP, held, 4)
    assert place == 2
    rest = STEP - np.column_stack([np.ones(30), held]) @ np.linalg.lstsq(np.column_stack([np.ones(30), held]), STEP)[0]
    assert abs(columns[:, 2] @ rest) == pytest.approx(np.linalg.norm(rest))
    with pytest.raises(ValueError, match="nothing of it is left"):
        trend_columns(STEP, 5 - 2 * STEP[:, None], 4)
    with pytest.raises(ValueError, match="at least 8"):
        trend_noise(STEP[:7], noise(7, 0.0))


def test_white_noise_around_a_line_gives_the_exact_interval() -> None:
    """The noncentral t turned over, for the same r; the likelihood also allows for memory, so it is a little wider."""
    values = noise(400, 0.0, seed=3)[0] + np.linspace(-1, 1, 400)
    step = np.arange(400.0)
    r = stats.pearsonr(step, values).statistic
    t = r * math.sqrt(398 / (1 - r * r))
    grid = np.linspace(0, 40, 4001)
    ends = [grid[np.abs(stats.nct.cdf(t, 398, grid) - p).argmin()] for p in (0.975, 0.025)]
    exact = [end / math.sqrt(end**2 + 400) for end in ends]
    found = quote_step(trend_noise(step, values[None]), "pearson", draws=20_000)
    assert found.p_value is not None
    assert found.p_value < 1e-4
    for one, other in zip((found.low, found.high), exact, strict=True):
        assert one == pytest.approx(other, abs=0.35 * (exact[1] - exact[0]) / 2)


def test_effective_readings_are_found_and_few_are_refused() -> None:
    many = trend_noise(np.arange(2000.0), noise(2000, 0.5, rows=20, seed=4))
    sizes = [float(np.median(many.draw(row, 400, row).effective_size)) for row in range(20)]
    assert np.median(sizes) == pytest.approx(2000 / 3, rel=0.1)
    few = trend_noise(np.arange(60.0), noise(60, 0.95, rows=30, seed=5))
    refused = [quote_step(few, "pearson", row=row).refused for row in range(30)]
    assert np.mean(refused) > 0.5
    assert all(quote_step(few, "pearson", row=row).p_value is None for row in np.flatnonzero(refused))


def test_intervals_cover_at_few_effective_readings() -> None:
    """100 readings of AR(1) 0.6 are worth 25; the full study is benchmarks/correlation.py."""
    step, line = np.arange(100.0), np.linspace(-1, 1, 100) * math.sqrt(3)
    truth = math.sqrt((line @ line) / (line @ line + 100))
    fitted = trend_noise(step, line + noise(100, 0.6, rows=200, seed=6))
    hits = 0
    for row in range(200):
        found = quote_step(fitted, "pearson", row=row, draws=800, seed=row)
        hits += found.low <= truth <= found.high
    assert 183 <= hits <= 197


def test_more_than_5000_readings_go_by_blocks() -> None:
    values = noise(12_001, 0.7, -0.4, seed=7)
    found = trend_noise(np.arange(12_001.0), values)
    assert (found.block, found.columns.shape[0], found.num) == (3, 4000, 12_001)
    drawn = found.draw(0, 2000, 1)
    ratio = (1 - 2 * 0.7 * 0.4 + 0.16) / (1 - 0.49)
    truth = 12_001 * ratio / (0.6 / 0.3) ** 2
    assert float(np.median(drawn.variance)) == pytest.approx(values.var(), rel=0.03)
    assert float(np.median(drawn.effective_size)) == pytest.approx(truth, rel=0.25)


def test_the_mean_and_its_half_width() -> None:
    values = noise(500, 0.0, seed=8) + 3.0
    found = trend_noise(np.arange(500.0), values, level_only=True)
    half = found.half_width(0, 0, 0.95) / math.sqrt(500)
    plain = stats.t.ppf(0.975, 499) * values.std(ddof=1) / math.sqrt(500)
    assert half == pytest.approx(plain, rel=0.2)
    assert found.below(0, 0, 3.0 * math.sqrt(500)) == pytest.approx(0.5, abs=0.49)
    assert found.below(0, 0) < 1e-5


def test_the_variance_of_a_weighted_sum_is_that_of_the_explicit_matrix() -> None:
    drawn = trend_noise(STEP, noise(30, 0.7, rows=1, seed=8)).draw(0, 50, 1)
    weights = np.random.default_rng(9).normal(size=30)
    for at in range(0, 50, 7):
        rho = np.concatenate([[1.0], drawn.first[at] * drawn.decay[at] ** np.arange(29)])
        expected = max(0.0, drawn.variance[at] * weights @ toeplitz(rho) @ weights)
        assert drawn.variance_of(weights)[at] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_same_seed_draws_the_same() -> None:
    found = trend_noise(STEP, noise(30, 0.3))
    assert (found.draw(0, 50, 1).variance == found.draw(0, 50, 1).variance).all()
    assert (found.draw(0, 50, 1).variance != found.draw(0, 50, 2).variance).any()


@pytest.mark.parametrize("phi", [0.0, 0.8])
def test_rank_coefficients_are_the_means_over_drawn_noise(phi: float) -> None:
    line = np.linspace(-1.5, 1.5, 150)
    rows = line + noise(150, phi, rows=600, seed=9)
    step = np.arange(150)
    spearman = np.mean([stats.spearmanr(step, row).statistic for row in rows])
    kendall = np.mean([stats.kendalltau(step, row).statistic for row in rows[:300]])
    found = rank_coefficients_of(line[grid_of(150)][None], np.ones(1), np.array([phi]), np.array([phi]), 150)
    assert (float(found[0][0]), float(found[1][0])) == pytest.approx((spearman, kendall), abs=0.02)
    exact = rank_coefficients_of(line[grid_of(150)][None], np.full(1, 1e-9), np.zeros(1), np.zeros(1), 150)
    assert (float(exact[0][0]), float(exact[1][0])) == pytest.approx((1.0, 1.0), abs=1e-9)


def test_pearsons_estimand() -> None:
    line = np.linspace(-1, 1, 100)
    columns, place = trend_columns(np.arange(100.0))
    found = pearson_of((columns.T @ line)[None], np.full(1, 0.3), place, 100)
    assert float(found[0]) == pytest.approx(math.sqrt(line.var() / (line.var() + 0.3)))
