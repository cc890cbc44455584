"""A trend plus noise that remembers: what the readings say of both, by exact likelihood and without tuning.

Model: readings = X b + noise. The columns X are a constant, the step and further powers of the square root of the step
(learning curves bend most at their start), as many as the Bayesian information criterion finds likely. The noise is
normal and AR(1), ARMA(1,1), AR(2) or AR(3) (`noise_grid`).

Nothing is plugged in. The likelihood is exact (no observation is conditioned on), the coefficients and the innovation
variance are integrated out under the right-Haar prior db dv/v (restricted likelihood), and the noise's parameters are
averaged over a grid, each form of noise with the same prior weight, and so is the number of columns: a bend that a line
leaves over looks like noise that remembers for long. Intervals so carry what few readings do not tell of
the noise's long-run variance; a plugged-in effective size does not.

All readings count as equally spaced; rows of `values` are series on the same steps, done at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xuebu.analysis.noise_grid import FORMS, Nodes, coarse_grid, evaluate, finer_grid
from xuebu.history.series import Floats

WIDTHS = (2, 3, 4, 5, 6, 8)
READINGS_A_COLUMN = 4
MOST_READINGS = 5000
LIKELY = 1e-3
LEAST_READINGS = 8


@dataclass(frozen=True, slots=True, eq=False)
class NoiseDraws:
    """Draws from the posterior of one series.

    Args:
        coefficients: float64[d, k] of the orthonormal columns.
        variance: float64[d] of one reading's noise.
        first: float64[d], autocorrelation of the noise at lag 1.
        decay: float64[d], what it is multiplied by from lag 1 to lag 2 (and nearly so from each lag to the next).
        effective_size: float64[d], readings over their number times long-run variance: n / (1 + 2 sum of
            autocorrelations), at most n.
    """

    coefficients: Floats
    variance: Floats
    first: Floats
    decay: Floats
    effective_size: Floats

    def variance_of(self, weights: Floats) -> Floats:
        """Return float64[d], the variance of a weighted sum of the noise of neighboring readings.

        Args:
            weights: float64[n], in the order of the readings.
        """
        num = weights.size
        products = np.fft.irfft(np.abs(np.fft.rfft(weights, 2 * num)) ** 2)[:num]
        # Horner's scheme over lags, for all draws at once.
        total = np.zeros_like(self.decay)
        for product in products[:0:-1].tolist():
            total = total * self.decay + product
        return np.asarray(np.maximum(self.variance * (products[0] + 2 * self.first * total), 0.0))


@dataclass(frozen=True, slots=True, eq=False)
class TrendNoise:
    """What series on the same steps say of their trend and noise.

    Args:
        columns: float64[n, K], orthonormal; the first is constant, the one numbered `place` is what of the step the
            columns before it leave.
        place: of the step's column.
        widths: numbers of columns that are likely enough for any of the series.
        width: int64[rows], the likeliest number for each series.
        weight: float64[widths, nodes, rows], posterior probability of each number of columns and noise.
        ratio: float64[nodes], variance of a reading's noise over that of its innovation.
        long_run: float64[nodes], long-run variance over that of the innovation.
        first: float64[nodes], autocorrelation at lag 1.
        decay: float64[nodes], autocorrelation at lag 2 over that at lag 1.
        squares: float64[widths, nodes, rows], whitened residual sum of squares.
        scores: float64[nodes, K, rows], whitened readings along the whitened columns.
        inverse: float64[nodes, K, K], inverse Cholesky factor of the whitened columns' products.
        block: readings averaged into each one that was fitted.
        within: float64[rows], variance within such blocks.
        num: readings before that.
    """

    columns: Floats
    place: int
    widths: tuple[int, ...]
    width: npt.NDArray[np.int64]
    weight: Floats
    ratio: Floats
    long_run: Floats
    first: Floats
    decay: Floats
    squares: Floats
    scores: Floats
    inverse: Floats
    block: int
    within: Floats
    num: int

    def draw(self, row: int, draws: int, seed: int) -> NoiseDraws:
        """Return draws for one series, the same for the same seed.

        Args:
            row: which series.
            draws: number of them.
            seed: of the generator.
        """
        generator = np.random.default_rng(seed)
        chance = np.cumsum(self.weight[:, :, row])
        cell = np.searchsorted(chance, (np.arange(draws) + generator.random(draws)) / draws * chance[-1])
        at, node = np.divmod(np.minimum(cell, chance.size - 1), self.ratio.size)
        width, most = np.array(self.widths)[at], self.widths[-1]
        innovation = self.squares[at, node, row] / generator.chisquare(self.columns.shape[0] - width)
        normal = np.sqrt(innovation)[:, None] * generator.normal(size=(draws, most))
        # The inverse is triangular: what its first columns need is its corner.
        spread = np.where(np.arange(most) < width[:, None], self.scores[node, :most, row] + normal, 0.0)
        found = np.einsum("dji,dj->di", self.inverse[node, :most, :most], spread)
        ratio = self.ratio[node]
        total = innovation * ratio + self.within[row]
        effective = np.minimum(self.num * total / (self.block * innovation * self.long_run[node]), self.num)
        return NoiseDraws(found, total, self.first[node] * innovation * ratio / total, self.decay[node], effective)

    def mixture(self, row: int, place: int) -> tuple[Floats, Floats, Floats, Floats]:
        """Return a coefficient's weight, estimate, standard error and degrees of freedom, given width and noise.

        Args:
            row: which series.
            place: which column, one that every width holds.
        """
        parts = []
        least = 1e-9 * self.weight[:, :, row].max()
        for at, width in enumerate(self.widths):
            weight = self.weight[at, :, row]
            kept = np.flatnonzero(weight > least)
            share, degrees = self.inverse[kept, :width, place], self.columns.shape[0] - width
            error = np.sqrt(np.maximum(self.squares[at, kept, row] / degrees * (share**2).sum(axis=1), 1e-300))
            middle = (share * self.scores[kept, :width, row]).sum(axis=1)
            parts.append((weight[kept], middle, error, np.full(kept.size, float(degrees))))
        weight, middle, error, freedom = (np.concatenate(kind) for kind in zip(*parts, strict=True))
        return weight / weight.sum(), middle, error, freedom

    def below(self, row: int, place: int, value: float = 0.0) -> float:
        """Return the probability that a column's coefficient is below a value: a mixture of Student's t."""
        from scipy.special import stdtr

        weight, middle, error, degrees = self.mixture(row, place)
        return float(weight @ stdtr(degrees, (value - middle) / error))

    def half_width(self, row: int, place: int, level: float) -> float:
        """Return half the interval of a coefficient around its estimate, the estimate taken as known for each noise.

        Nodes of like standard error are taken together, in steps of 2 %.

        Source: quantile of the mixture of Student's t; Zellner and Tiao (1964), "Bayesian analysis of the regression
        model with autocorrelated errors".
        """
        from scipy.optimize import brentq
        from scipy.special import stdtr

        parts, _, error, freedom = self.mixture(row, place)
        top = float(error.max())
        group = np.round(np.log(error / top) / 0.02).astype(np.int64)
        weight = np.bincount(group - group.min(), parts)
        share = np.exp(0.02 * (np.flatnonzero(weight) + group.min()))
        weight, degrees = weight[weight > 0], float(parts @ freedom)

        def excess(half: float) -> float:
            return float(weight @ stdtr(degrees, -half / share)) - 0.5 + level / 2

        edge = 1.0
        while excess(edge) > 0:
            edge *= 2
        return top * float(brentq(excess, 0.0, edge, xtol=1e-9))


def trend_columns(step: Floats, given: Floats | None = None, most: int = WIDTHS[-1]) -> tuple[Floats, int]:
    """Return orthonormal columns of a trend: constant, what is given, step, then further powers of its square root.

    Args:
        step: float64[n], increasing.
        given: float64[n, g] to stand before the step, e.g. the learning rate; None for nothing.
        most: columns without the given ones.

    Returns:
        float64[n, most + g], and the place of the step's column.

    Raises:
        ValueError: the step, or a given column, is a sum of those before it.
    """
    share = (step - step[0]) / (step[-1] - step[0])
    root = np.sqrt(share)
    powers = [root, *(root**power for power in range(3, most + 1))]
    before = np.zeros((step.size, 0)) if given is None else given / np.maximum(np.abs(given).max(axis=0), 1e-300)
    columns = np.column_stack([np.ones(step.size), before, share, *powers[: most - 2]])
    basis, corner = np.linalg.qr(columns)
    place = 1 + before.shape[1]
    left = np.abs(np.diag(corner))[: place + 1] / np.linalg.norm(columns[:, : place + 1], axis=0)
    if (left < 1e-6).any():
        raise ValueError("the step goes exactly with what is given: nothing of it is left")
    return np.asarray(basis * np.sign(np.where(np.diag(corner) == 0, 1.0, np.diag(corner)))), place


def trend_noise(step: Floats, values: Floats, given: Floats | None = None, *, level_only: bool = False) -> TrendNoise:
    """Return what readings say of their trend and of noise that remembers.

    Args:
        step: float64[n], increasing, n >= 8.
        values: float64[rows, n], one series a row, none constant.
        given: float64[n, g] as in `trend_columns`.
        level_only: the trend is a constant and nothing else.

    Returns:
        The posterior. Above 5,000 readings it is that of means of blocks (those of ARMA(1,1) are again ARMA(1,1)), to
        whose variance that within blocks is added; at most one block's worth of first readings is then left out of
        the likelihood.

    Raises:
        ValueError: there are too few readings, or the step is not told apart from what is given.

    Source: restricted likelihood, Harville (1977); prior of the scale, Berger and Sun (2008), "Objective priors for the
    bivariate normal model" (a correlation's posterior under the right-Haar prior covers exactly); columns by the
    criterion of Schwarz (1978), with the likelihood maximized over the noise as well.
    """
    num = step.size
    if num < LEAST_READINGS:
        raise ValueError(f"{num} readings: noise that remembers takes at least {LEAST_READINGS}")
    block = -(-num // MOST_READINGS)
    within = np.zeros(values.shape[0])
    if block > 1:
        start = num % block
        pieces = values[:, start:].reshape(values.shape[0], -1, block)
        within = pieces.var(axis=2).mean(axis=1)
        step, values = step[start:].reshape(-1, block).mean(axis=1), pieces.mean(axis=2)
        given = None if given is None else given[start:].reshape(step.size, block, -1).mean(axis=1)
    widths: tuple[int, ...] = (1,)
    if level_only:
        columns, place = np.full((step.size, 1), step.size**-0.5), 0
    else:
        columns, place = trend_columns(step, given, min(WIDTHS[-1], max(2, step.size // READINGS_A_COLUMN)))
        widths = tuple(width + place - 1 for width in WIDTHS if width + place - 1 <= columns.shape[1])
    nodes = [evaluate(columns, values, coarse_grid(form), widths) for form in FORMS]
    share = _width_shares(nodes, widths, step.size)
    likeliest = np.array(widths)[share.argmax(axis=0)]
    kept = np.flatnonzero(share.max(axis=1) > LIKELY)
    widths, share = tuple(widths[at] for at in kept), share[kept]
    nodes = [one.only(kept, widths[-1]) for one in nodes]
    for at, found in enumerate(nodes):
        finer = finer_grid(found.grid, _weights(found, share)[0].sum(axis=0))
        if finer is not None:
            nodes[at] = evaluate(columns[:, : widths[-1]], values, finer, widths)
    weights, masses = zip(*(_weights(one, share) for one in nodes), strict=True)
    chance = np.exp(np.array(masses) - np.max(masses, axis=0))
    chance /= chance.sum(axis=0)
    return TrendNoise(
        columns=columns,
        place=place,
        widths=widths,
        width=likeliest,
        weight=np.concatenate([one * part[:, None] for one, part in zip(weights, chance, strict=True)], axis=1),
        ratio=np.concatenate([one.grid.ratio for one in nodes]),
        long_run=np.concatenate([one.grid.long_run for one in nodes]),
        first=np.concatenate([one.grid.first for one in nodes]),
        decay=np.concatenate([one.grid.decay for one in nodes]),
        squares=np.concatenate([one.squares for one in nodes], axis=1),
        scores=np.concatenate([one.scores for one in nodes]),
        inverse=np.concatenate([one.inverse for one in nodes]),
        block=block,
        within=within,
        num=num,
    )


def _width_shares(nodes: list[Nodes], widths: tuple[int, ...], num: int) -> Floats:
    """Return float64[widths, rows], the probability of each number of columns.

    By the Bayesian information criterion of the likelihood maximized over the noise as well; exp(-criterion / 2) is
    nearly proportional to a probability (Schwarz 1978; Raftery 1995, "Bayesian model selection in social research").
    """
    best = np.max([one.profile.max(axis=1) - 0.5 * one.grid.free * np.log(num) for one in nodes], axis=0)
    score = best - 0.5 * np.array(widths)[:, None] * np.log(num)
    found = np.exp(score - score.max(axis=0))
    return np.asarray(found / found.sum(axis=0))


def _weights(nodes: Nodes, share: Floats) -> tuple[Floats, Floats]:
    """Return the weights of width and node, which sum to the widths' shares, and logs of the likelihoods of a form.

    Args:
        nodes: of one form.
        share: float64[widths, rows].

    Returns:
        float64[widths, nodes, rows] and float64[widths, rows].
    """
    total = nodes.restricted + nodes.grid.log_prior[:, None]
    top = total.max(axis=1)
    weight = np.exp(total - top[:, None])
    mass = weight.sum(axis=1)
    return weight * (share / mass)[:, None], top + np.log(mass)
