"""Least-squares fits of learning curves, with errors that allow for correlated residuals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from xuebu.analysis.curves import (
    Family,
    basis,
    basis_gradient,
    formula_of,
    has_shape,
    num_parameters,
    shape_bounds,
)
from xuebu.analysis.hac import critical_value, default_lag, prewhitened_newey_west
from xuebu.analysis.intervals import Interval, student_quantile
from xuebu.analysis.noise import SHORT, short_noise
from xuebu.analysis.residuals import ResidualDiagnostics, diagnose
from xuebu.analysis.wording import plain
from xuebu.history.series import Floats, Series

_GRID = 96
_GRID_POINTS = 4096
_STARTS = 3


@dataclass(frozen=True, slots=True, eq=False)
class CurveFit:
    """A curve fitted to a series.

    Args:
        family: "linear", "logarithmic", "power_law" or "saturating".
        formula: in terms of `parameters` and `start`.
        start: first step of the series.
        parameters: "offset", "scale" and, for curved families, "shape".
        standard_errors: of the parameters; None where the data do not fix them.
        errors_method: how the errors were made.
        r_squared: share of the variance that the curve takes up, in sample; no evidence for a model.
        rss: residual sum of squares, unweighted.
        asymptote: where the curve goes in the end; None for families without one. No ends where the data show no
            bend.
        at_bound: the shape ran into the edge of what the steps can tell apart.
        converged: the optimizer says so.
        residuals: diagnostics; None for too few readings or an exact fit.
        note: what to know about this fit.
        level: confidence level of the intervals.
        quantile: critical value that belongs to the standard errors.
        covariance: float[k, k] of (offset, scale, log shape); not in the JSON.
    """

    family: Family
    formula: str
    start: int
    parameters: dict[str, float]
    standard_errors: dict[str, float | None]
    errors_method: str
    r_squared: float
    rss: float
    asymptote: Interval | None
    at_bound: bool
    converged: bool
    residuals: ResidualDiagnostics | None
    note: str
    level: float
    quantile: float
    covariance: Floats

    def predict(self, step: Any) -> Floats:
        """Return the curve at steps (any shape)."""
        shape = self.parameters.get("shape", 1.0)
        return np.asarray(
            self.parameters["offset"] + self.parameters["scale"] * basis(self.family, step, shape, self.start)
        )

    def slope(self, step: Any) -> Floats:
        """Return the curve's growth per step at steps (any shape)."""
        shape = self.parameters.get("shape", 1.0)
        return np.asarray(self.parameters["scale"] * basis_gradient(self.family, step, shape, self.start)[0])

    def summary(self) -> str:
        """Say the formula with its numbers, the fit and the residuals."""
        values = ", ".join(f"{name} {value:.4g}" for name, value in self.parameters.items())
        lines = [f"{self.family}: {self.formula} with {values}; R^2 {self.r_squared:.4f}, RSS {self.rss:.4g}"]
        lines += [self.residuals.summary()] if self.residuals else []
        lines += [f"asymptote {self.asymptote.words(digits=4)}"] if self.asymptote else []
        return "\n".join(lines + [self.note] * bool(self.note))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "family": self.family,
            "formula": self.formula,
            "start": self.start,
            "parameters": plain(self.parameters),
            "standard_errors": plain(self.standard_errors),
            "errors_method": self.errors_method,
            "r_squared": plain(self.r_squared),
            "rss": plain(self.rss),
            "asymptote": self.asymptote.to_json() if self.asymptote else None,
            "at_bound": self.at_bound,
            "converged": self.converged,
            "residuals": self.residuals.to_json() if self.residuals else None,
            "note": self.note,
        }


def min_points(family: Family) -> int:
    """Return the least number of readings that a fit is made from: 4 for two parameters, 8 for three."""
    return 8 if has_shape(family) else 4


def binomial_weights(series: Series) -> Floats | None:
    """Return 1 / variance of each reading from its count of predictions, up to a factor; None without counts.

    The share is taken as that of the whole series, so that a reading's own noise does not decide its weight. For
    readings of equal count the weights are equal and change nothing.
    """
    return None if series.count is None else series.count / series.count.mean()


def profile_fit(
    family: Family, step: Floats, values: Floats, weights: Floats | None = None
) -> tuple[Floats, Floats, Floats]:
    """Return least-squares offset, scale and shape of many series on the same steps at once.

    For each shape of a grid the best offset and scale are known in closed form (variable projection); the best shape
    of the grid is refined by a parabola through its neighbors. Good to about a thousandth of the shape.

    Args:
        family: which curve.
        step: float[n], increasing.
        values: float[n, b], one series a column.
        weights: float[n] > 0, or None for equal ones.

    Returns:
        offset float64[b], scale float64[b], shape float64[b].

    Source: Golub and Pereyra (1973), "The differentiation of pseudo-inverses and nonlinear least squares problems".
    """
    share = np.full(step.size, 1 / step.size) if weights is None else weights / weights.sum()
    centered = values - share @ values
    shapes, gain = _profile(family, step, centered, share)
    best = gain.argmax(axis=0)
    shape = shapes[best]
    if shapes.size > 2:
        inner = np.clip(best, 1, shapes.size - 2)
        column = np.arange(values.shape[1])
        left, middle, right = (gain[inner + move, column] for move in (-1, 0, 1))
        bend = left - 2 * middle + right
        move = np.where((bend < 0) & (inner == best), 0.5 * (left - right) / np.where(bend < 0, bend, 1.0), 0.0)
        shape = shape * np.exp(np.clip(move, -1, 1) * np.log(shapes[1] / shapes[0]))
    offset, scale = _solve(basis(family, step[:, None], shape, float(step[0])), values, share)
    return offset, scale, shape


def _solve(phi: Floats, values: Floats, share: Floats) -> tuple[Floats, Floats]:
    """Return the best offset and scale for each column of a basis float[n, b] and values float[n, b] or float[n, 1]."""
    mean = share @ phi
    centered = phi - mean
    spread = share @ centered**2
    scale = np.where(spread > 0, share @ (centered * values) / np.where(spread > 0, spread, 1.0), 0.0)
    return share @ values - scale * mean, scale


def _profile(family: Family, step: Floats, centered: Floats, share: Floats) -> tuple[Floats, Floats]:
    """Return a grid of shapes, and for each and each column the sum of squares that the curve takes up."""
    low, high = shape_bounds(family, step)
    shapes = np.geomspace(low, high, _GRID) if has_shape(family) else np.ones(1)
    take = slice(None, None, -(-step.size // _GRID_POINTS))
    share = share[take] / share[take].sum()
    phi = basis(family, step[take], shapes[:, None], float(step[0]))
    phi = (phi - (phi @ share)[:, None]) * np.sqrt(share)
    norm = np.sqrt((phi**2).sum(axis=1, keepdims=True))
    phi = np.where(norm > 1e-12 * np.sqrt(step.size), phi / np.where(norm > 0, norm, 1.0), 0.0)
    part = centered[take]
    return shapes, (phi @ ((part - share @ part) * np.sqrt(share)[:, None])) ** 2


def fit_curve(series: Series, family: Family, *, weights: Floats | None = None, level: float = 0.95) -> CurveFit:
    """Fit one family by least squares, from the best shapes of a grid, and give honest errors.

    Args:
        series: at least `min_points(family)` readings, not all equal.
        family: which curve.
        weights: float[n] > 0, e.g. `binomial_weights`; None for equal ones.
        level: confidence level of the asymptote.

    Raises:
        ValueError: there are too few readings.

    Source: parameters by trust-region least squares (scipy) from several starts; covariance as `prewhitened_newey_west`
    (below 100 readings as `short_noise`) on the derivative at the fit, the sandwich for nonlinear least squares (White
    1981), which holds if residuals are noise around this curve. It does not cover the choice of a wrong family. An
    asymptote whose interval is wider than the range of the readings is given without one.
    """
    if len(series) < min_points(family):
        raise ValueError(f"{len(series)} readings; a {family} fit takes at least {min_points(family)}")
    step = series.step.astype(np.float64)
    start = float(step[0])
    root = np.ones(step.size) if weights is None else np.sqrt(weights / weights.mean())
    theta, converged = _polish(family, step, series.value, root)
    jacobian = _jacobian(family, step, theta, start)
    residuals = series.value - theta[0] - theta[1] * basis(family, step, np.exp(theta[2]), start)
    least, most = np.log(shape_bounds(family, step))
    at_bound = has_shape(family) and not least + 1e-3 < theta[2] < most - 1e-3
    free = 3 if has_shape(family) and not at_bound else 2
    covariance, quantile, method = _covariance(jacobian[:, :free] * root[:, None], residuals * root, level)
    errors = np.sqrt(np.diag(covariance)) if covariance is not None else np.full(free, np.nan)
    names = ("offset", "scale", "shape")[: num_parameters(family)]
    values = {"offset": theta[0], "scale": theta[1], "shape": float(np.exp(theta[2]))}
    standard = {name: float(errors[index]) if index < free else None for index, name in enumerate(names)}
    if standard.get("shape") is not None:
        standard["shape"] = float(errors[2]) * values["shape"]
    rss = float(residuals @ residuals)
    total = float(((series.value - series.value.mean()) ** 2).sum())
    note = "the steps show no bend of this kind: shape and asymptote are not fixed by the data" if at_bound else ""
    asymptote = None
    if has_shape(family):
        half = None if at_bound or covariance is None else quantile * float(errors[0])
        low, high = (None, None) if half is None else (float(theta[0] - half), float(theta[0] + half))
        said = note or "holds if the family is right"
        if half is not None and 2 * half > np.ptp(series.value):
            low, high, said = None, None, "it would be wider than all that the readings span"
        asymptote = Interval(float(theta[0]), low, high, level, method, said)
    return CurveFit(
        family=family,
        formula=formula_of(family),
        start=int(start),
        parameters={name: float(values[name]) for name in names},
        standard_errors=standard,
        errors_method=method,
        r_squared=1 - rss / total if total > 0 else 0.0,
        rss=rss,
        asymptote=asymptote,
        at_bound=at_bound,
        converged=converged,
        residuals=diagnose(residuals, num_parameters(family)),
        note=note,
        level=level,
        quantile=quantile,
        covariance=covariance if covariance is not None else np.full((free, free), np.nan),
    )


def _jacobian(family: Family, step: Floats, theta: Floats, start: float) -> Floats:
    shape = float(np.exp(theta[2]))
    phi = basis(family, step, shape, start)
    return np.stack([np.ones_like(phi), phi, theta[1] * basis_gradient(family, step, shape, start)[1]], axis=1)


def _covariance(jacobian: Floats, residuals: Floats, level: float) -> tuple[Floats | None, float, str]:
    """Return the covariance of the coefficients (None where the data do not fix them), critical value and method."""
    num, width = jacobian.shape
    norm = np.sqrt((jacobian**2).sum(axis=0))
    fixed = bool((norm > 0).all()) and np.linalg.cond(jacobian / norm) <= 1e9 and num >= width + 3
    if num >= SHORT:
        lag = default_lag(num)
        quantile = critical_value(level, num, lag)
        covariance, rho = prewhitened_newey_west(jacobian, residuals, lag) if fixed else (None, 0.0)
        method = f"Newey-West, lag {lag}, prewhitened by AR(1) {rho:.2f}, critical value {quantile:.2f}"
        return covariance, quantile, method
    quantile = student_quantile(level, max(1, num - width - 1))
    if not fixed:
        return None, quantile, "least squares; the data do not fix the parameters"
    noise = short_noise(jacobian / norm, residuals)
    found = np.tensordot(noise.weight, noise.covariance(np.linalg.pinv(jacobian / norm)), axes=1)
    method = f"AR(1) noise of correlation about {noise.mean_rho:.2f}, averaged over; critical value {quantile:.2f}"
    return np.asarray(found / np.outer(norm, norm)), quantile, method


def _polish(family: Family, step: Floats, values: Floats, root: Floats) -> tuple[Floats, bool]:
    """Return (offset, scale, log shape) and whether the optimizer converged."""
    if not has_shape(family):
        offset, scale, _ = profile_fit(family, step, values[:, None], root**2)
        return np.array([offset[0], scale[0], 0.0]), True
    from scipy.optimize import least_squares

    start, share = float(step[0]), root**2 / (root**2).sum()
    shapes, gain = _profile(family, step, (values - share @ values)[:, None], share)
    padded = np.concatenate([[-np.inf], gain[:, 0], [-np.inf]])
    peaks = np.flatnonzero((padded[1:-1] >= padded[:-2]) & (padded[1:-1] >= padded[2:]))
    peaks = peaks[np.argsort(-gain[peaks, 0], kind="stable")][:_STARTS]
    low, high = np.log(shape_bounds(family, step))
    offsets, scales = _solve(basis(family, step[:, None], shapes[peaks], start), values[:, None], share)
    guesses = np.stack([offsets, scales, np.clip(np.log(shapes[peaks]), low + 1e-6, high - 1e-6)], axis=1)
    best: Any = None
    for guess in guesses:
        found = least_squares(
            lambda theta: (theta[0] + theta[1] * basis(family, step, np.exp(theta[2]), start) - values) * root,
            guess,
            jac=lambda theta: _jacobian(family, step, theta, start) * root[:, None],
            bounds=([-np.inf, -np.inf, low], [np.inf, np.inf, high]),
            x_scale=[max(float(np.ptp(values)), 1e-9), max(abs(guess[1]), 1e-9), 1.0],
            ftol=1e-13,
            xtol=1e-13,
            gtol=1e-13,
            max_nfev=200,
        )
        if best is None or found.cost < best.cost:
            best = found
    return np.asarray(best.x), bool(best.status > 0)
