"""Exact likelihoods of noise that remembers, over grids of its parameters.

Four forms. AR(1): autocorrelation phi^k. ARMA(1,1): c phi^(k - 1), which is what a reading of a model really is:
wandering of the model (AR(1)) plus the sampling noise of the reading itself (white). AR(2): two rates of forgetting.
AR(3): nearly what two rates of forgetting and noise of the reading make together, ARMA(2,1), of whose long-run variance
AR(2) misses a fifth. Each grid spans all of its form but the last edge toward a random walk (0.999), under Jeffreys'
prior.

One pass over the readings serves a whole grid of autoregressive coefficients: products of whitened series are quadratic
in them. Only theta takes a pass each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from xuebu.history.series import Floats

Form = Literal["ar1", "arma11", "ar2", "ar3"]
FORMS: tuple[Form, ...] = ("ar1", "arma11", "ar2", "ar3")
_AXES: dict[Form, tuple[tuple[float, float, int], ...]] = {  # atanh of theta and phi, or of partial autocorrelations
    "ar1": ((0.0, 0.0, 1), (-1.5, 3.8, 107)),
    "arma11": ((-2.4, 1.6, 15), (-1.5, 3.8, 54)),
    "ar2": ((-1.5, 1.5, 16), (-1.5, 3.8, 54)),
    "ar3": ((-1.0, 1.0, 8), (-1.5, 1.5, 13), (-1.5, 3.8, 36)),
}
_FREE: dict[Form, int] = {"ar1": 0, "arma11": 1, "ar2": 1, "ar3": 2}
_HELD = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class NoiseGrid:
    """A grid over the parameters of one form of noise; the last parameter varies fastest.

    Args:
        form: which.
        axes: values of atanh theta and atanh phi; of AR(2) and AR(3) those of the partial autocorrelations, the first
            of which is last.
        log_prior: float64[nodes], log prior probability of each node's cell within all of the form.
        ratio: float64[nodes], variance over that of the innovation.
        long_run: float64[nodes], long-run variance (variance times 1 + 2 sum of autocorrelations) over the same.
        first: float64[nodes], autocorrelation at lag 1.
        decay: float64[nodes], autocorrelation at lag 2 over that at lag 1.
        free: parameters beyond those of AR(1).
    """

    form: Form
    axes: tuple[Floats, ...]
    log_prior: Floats
    ratio: Floats
    long_run: Floats
    first: Floats
    decay: Floats
    free: int


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """Likelihoods of series over a grid, for several numbers of columns of the trend.

    Args:
        grid: of the noise's parameters.
        restricted: float64[widths, nodes, rows], log restricted likelihood, the variance integrated out.
        profile: float64[widths, nodes, rows], log likelihood, maximized over variance and coefficients.
        squares: float64[widths, nodes, rows], whitened residual sum of squares.
        scores: float64[nodes, K, rows], whitened readings along the whitened columns.
        inverse: float64[nodes, K, K], inverse Cholesky factor of the whitened columns' products.
    """

    grid: NoiseGrid
    restricted: Floats
    profile: Floats
    squares: Floats
    scores: Floats
    inverse: Floats

    def only(self, places: npt.NDArray[np.int64], most: int) -> Nodes:
        """Return the same for some of the numbers of columns.

        Args:
            places: int64[w], which of them.
            most: the largest of them.
        """
        restricted, profile, squares = (part[places] for part in (self.restricted, self.profile, self.squares))
        return Nodes(self.grid, restricted, profile, squares, self.scores[:, :most], self.inverse[:, :most, :most])


def coarse_grid(form: Form) -> NoiseGrid:
    """Return the grid over all of a form."""
    return _grid(form, tuple(np.linspace(*axis) for axis in _AXES[form]))


def finer_grid(grid: NoiseGrid, weight: Floats) -> NoiseGrid | None:
    """Return a grid of as many nodes over the box that holds the weight of all series; None if that is most of it.

    Args:
        grid: a coarse grid.
        weight: float64[nodes, rows], each series' weights, which sum to 1.
    """
    table = weight.reshape(*(axis.size for axis in grid.axes), -1)
    boxes = []
    for place, axis in enumerate(grid.axes):
        others = tuple(other for other in range(len(grid.axes)) if other != place)
        held = np.flatnonzero(table.sum(axis=others).max(axis=1) > _HELD)
        boxes.append((axis[max(held[0] - 1, 0)], axis[min(held[-1] + 1, axis.size - 1)], axis.size))
    shares = [
        (box[1] - box[0]) / (axis[-1] - axis[0]) for box, axis in zip(boxes, grid.axes, strict=True) if axis.size > 1
    ]
    if float(np.prod(shares)) > 0.5:
        return None
    return _grid(grid.form, tuple(np.linspace(*box) for box in boxes))


def _grid(form: Form, axes: tuple[Floats, ...]) -> NoiseGrid:
    parts = [part.ravel() for part in np.meshgrid(*(np.tanh(axis) for axis in axes), indexing="ij")]
    if form in ("ar1", "arma11"):
        theta, phi = parts
        ratio = variance_ratio(phi, theta)
        long_run = ((1 + theta) / (1 - phi)) ** 2
        first = (1 + phi * theta) * (phi + theta) / (1 - phi**2) / ratio
        second = first * phi
    else:
        coefficients, ratios = autoregressions(parts[::-1])
        ratio, long_run = ratios[0], 1 / (1 - coefficients[-1].sum(axis=1)) ** 2
        first, second = parts[-1], parts[-1] ** 2 + parts[-2] * (1 - parts[-1] ** 2)
    decay = np.divide(second, first, out=np.zeros_like(first), where=np.abs(first) > 1e-9)
    whole = [np.linspace(*axis) for axis in _AXES[form]]
    total = np.log(np.exp(_log_density(form, *np.meshgrid(*(np.tanh(part) for part in whole), indexing="ij"))).sum())
    gaps = [(part[1] - part[0]) / (full[1] - full[0]) for part, full in zip(axes, whole, strict=True) if full.size > 1]
    return NoiseGrid(
        form=form,
        axes=axes,
        log_prior=_log_density(form, *parts) - total + float(np.log(gaps).sum()),
        ratio=ratio,
        long_run=long_run,
        first=first,
        decay=np.clip(decay, -1.0, 1.0),
        free=_FREE[form],
    )


def autoregressions(partial: Sequence[Floats]) -> tuple[list[Floats], list[Floats]]:
    """Return the best predictors from 0, 1, ... p readings, and the variance of their errors over the innovation's.

    Args:
        partial: float64[nodes] each, partial autocorrelations at lags 1 to p.

    Returns:
        float64[nodes, k] and float64[nodes] for k = 0 to p; the newest reading's coefficient is first.

    Source: Durbin (1960), "The fitting of time-series models"; Brockwell and Davis, proposition 5.2.1.
    """
    found = [np.zeros((partial[0].size, 0))]
    for reflection in partial:
        last = found[-1]
        found.append(np.column_stack([last - reflection[:, None] * last[:, ::-1], reflection]))
    ratios = [np.ones_like(partial[0])]
    for reflection in reversed(partial):
        ratios.insert(0, ratios[0] / (1 - reflection**2))
    return found, ratios


def variance_ratio(phi: Floats, theta: Floats) -> Floats:
    """Return the variance of ARMA(1,1) noise over that of its innovations.

    Source: Brockwell and Davis, "Time Series: Theory and Methods", example 3.3.5.
    """
    return np.asarray((1 + 2 * phi * theta + theta * theta) / (1 - phi * phi))


def _log_density(form: Form, *parts: Floats) -> Floats:
    """Return the log prior density in the atanh of the parameters, up to a constant.

    Source: roots of the determinants of the information matrices, Brockwell and Davis, example 8.8.3. Beyond AR(1) that
    root cannot be normalized; each partial autocorrelation has Jeffreys' prior of AR(1) instead (Barndorff-Nielsen and
    Schou 1973 for the parameters).
    """
    found = 0.5 * np.sum([np.log(1 - part**2) for part in parts], axis=0)
    if form == "arma11":
        theta, phi = parts
        found = found + np.log(np.maximum(np.abs(phi + theta), 1e-12)) - np.log1p(phi * theta)
    return np.asarray(found)


def evaluate(columns: Floats, values: Floats, grid: NoiseGrid, widths: tuple[int, ...]) -> Nodes:
    """Return the likelihoods of series over a grid.

    Args:
        columns: float64[n, K], of full rank.
        values: float64[rows, n].
        grid: of one form of noise.
        widths: numbers of first columns that a trend may have, increasing, at most K.

    Source: exact likelihood by regression on the unknown first innovation, Box and Jenkins (1976), appendix A7.4; for
    AR(2) and AR(3) by predicting the first readings from fewer (Brockwell and Davis, section 8.7).
    """
    num, width = columns.shape
    both = np.column_stack([columns, values.T])
    if grid.form in ("ar2", "ar3"):
        products, cross, own, log_det = _products_ar(both, width, grid)
    else:
        phi = np.tanh(grid.axes[1])
        parts = [_products_arma(both, width, phi, float(theta)) for theta in np.tanh(grid.axes[0])]
        products, cross, own, log_det = (np.concatenate(kind) for kind in zip(*parts, strict=True))
    factor = np.linalg.cholesky(products)
    inverse = np.linalg.inv(factor)
    scores = inverse @ cross
    log_columns = 2 * np.cumsum(np.log(np.diagonal(factor, axis1=1, axis2=2)), axis=1)
    squares, taken, done = np.empty((len(widths), *own.shape)), np.zeros_like(own), 0
    for at, size in enumerate(widths):
        for column in range(done, size):
            taken += scores[:, column] ** 2
        np.maximum(own - taken, 1e-300, out=squares[at])
        done = size
    logs = np.log(squares)
    half_det = 0.5 * log_det[None, :, None]
    profile = -0.5 * num * logs - half_det
    restricted = (-0.5 * (num - np.array(widths)))[:, None, None] * logs - half_det
    restricted -= 0.5 * log_columns[:, np.array(widths) - 1].T[:, :, None]
    return Nodes(grid, restricted, profile, squares, scores, inverse)


Products = tuple[
    Floats, Floats, Floats, Floats
]  # columns with columns, columns with readings, readings, log determinant


def _products_arma(both: Floats, width: int, phi: Floats, theta: float) -> Products:
    """Return products of whitened columns and readings for each phi.

    With v_t = y_t - phi y_(t-1), innovations follow from the first one by e_t = v_t - theta e_(t-1).
    """
    from scipy.signal import lfilter

    num, start = both.shape[0], both[0]
    late, early = (lfilter([1.0], [1.0, theta], part, axis=0) for part in (both[1:], both[:-1]))
    echo = (-theta) ** np.arange(1, num) if theta else np.zeros(num - 1)
    x, y = slice(0, width), slice(width, None)
    p2, p3 = phi[:, None], phi[:, None, None]
    ratio = variance_ratio(phi, np.full(phi.size, theta))
    known, length = 1 / ratio, float(echo @ echo)  # what the first reading tells of the first innovation
    k2, k3 = known[:, None], known[:, None, None]
    plain = (echo @ late)[None] - p2 * (echo @ early)[None]
    echoes = plain + k2 * start * length
    shrink = (1 - known) / (1 + (1 - known) * length)

    def product(left: slice, right: slice) -> Floats:
        middle = late[:, left].T @ early[:, right] + early[:, left].T @ late[:, right]
        found = late[:, left].T @ late[:, right] - p3 * middle + p3**2 * (early[:, left].T @ early[:, right])
        a, b = start[left], start[right]
        extra = a[:, None] * plain[:, None, right] + plain[:, left, None] * b
        outer = np.outer(a, b)
        found = found + k3 * (extra + outer) + k3**2 * outer * length
        return np.asarray(found - shrink[:, None, None] * echoes[:, left, None] * echoes[:, None, right])

    a = start[y]
    ends = [(one[:, y] * two[:, y]).sum(axis=0) for one, two in ((late, late), (late, early), (early, early))]
    own = ends[0] - 2 * p2 * ends[1] + p2**2 * ends[2] + k2 * (2 * a * plain[:, y] + a**2) + k2**2 * a**2 * length
    own = own - shrink[:, None] * echoes[:, y] ** 2
    return product(x, x), product(x, y), own, np.log(ratio) + np.log1p((1 - known) * length)


def _products_ar(both: Floats, width: int, grid: NoiseGrid) -> Products:
    """Return products of whitened columns and readings for each set of partial autocorrelations."""
    parts = [part.ravel() for part in np.meshgrid(*(np.tanh(axis) for axis in grid.axes), indexing="ij")]
    coefficients, ratios = autoregressions(parts[::-1])
    order, x, y = len(parts), slice(0, width), slice(width, None)
    # Each whitened reading is a sum of the readings up to it: weights [nodes, k], readings [k, rows].
    weights = [
        np.column_stack([np.ones(ratio.size), -of]) / np.sqrt(ratio)[:, None]
        for of, ratio in zip(coefficients, ratios, strict=True)
    ]
    pairs = [(i, j) for i in range(order + 1) for j in range(i, order + 1)]
    shares = np.stack([(1 + (i != j)) * weights[-1][:, i] * weights[-1][:, j] for i, j in pairs], axis=1)
    lags = [both[order - lag : both.shape[0] - lag] for lag in range(order + 1)]
    early = [weights[place] @ both[place::-1] for place in range(order)]

    def product(left: slice, right: slice) -> Floats:
        each = [(lags[i][:, left].T @ lags[j][:, right] + lags[j][:, left].T @ lags[i][:, right]) / 2 for i, j in pairs]
        found = (shares @ np.stack(each).reshape(len(pairs), -1)).reshape(-1, *each[0].shape)
        return np.asarray(sum((one[:, left, None] * one[:, None, right] for one in early), found))

    own = shares @ np.stack([(lags[i][:, y] * lags[j][:, y]).sum(axis=0) for i, j in pairs])
    own = own + sum(one[:, y] ** 2 for one in early)
    return product(x, x), product(x, y), own, np.sum([np.log(ratio) for ratio in ratios], axis=0)
