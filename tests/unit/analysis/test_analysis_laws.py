"""The grid of laws and its closed-form fits: against general least squares."""

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from xuebu.analysis.laws import PRIOR, law_grid, solve_rows

X = np.linspace(0.02, 3, 60)


def test_every_law_is_there_is_one_at_the_present_and_falls():
    grid = law_grid(X)
    assert set(grid.law) == set(PRIOR)
    assert grid.prior.sum() == pytest.approx(1)
    assert law_grid(np.array([1.0])).basis[:, 0] == pytest.approx(1)
    assert (np.diff(grid.basis, axis=1) <= 1e-12).all()
    assert np.isfinite(grid.basis).all()


def test_rows_are_least_squares():
    rng = np.random.default_rng(1)
    grid, value, weight = law_grid(X), rng.normal(size=60), rng.uniform(0.1, 2, 60)
    offset, scale = solve_rows(grid.basis, value, weight, (-np.inf, np.inf))
    root = np.sqrt(weight)
    for row in (0, 17, 40, len(grid.law) - 1):
        design = np.stack([np.ones(60), grid.basis[row]], axis=1)
        expected = np.linalg.lstsq(design * root[:, None], value * root, rcond=None)[0]
        assert [offset[row], scale[row]] == pytest.approx(expected, rel=1e-6)


def test_bounds_hold_and_the_scale_is_the_best_within_them():
    grid = law_grid(X)
    value = 0.9 + 0.3 * X
    offset, scale = solve_rows(grid.basis, value, np.ones(60), (0.0, 1.0))
    assert (offset >= 0).all() and (offset <= 1).all()
    for row in (3, 30):
        design = np.stack([np.ones(60), grid.basis[row]], axis=1)
        expected = lsq_linear(design, value, bounds=([0, -np.inf], [1, np.inf])).x
        assert [offset[row], scale[row]] == pytest.approx(expected, rel=1e-4)


def test_a_row_that_does_not_vary_gets_no_scale():
    offset, scale = solve_rows(np.ones((1, 5)), np.arange(5.0), np.ones(5), (-np.inf, np.inf))
    assert (offset[0], scale[0]) == (2.0, 0.0)
