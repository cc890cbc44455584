"""Laws of growth on a grid of their shapes: every row is one curve up to offset and scale.

A law is offset + scale * basis(x; shapes) with x = 1 at the present. For given shapes the best offset and scale follow
in closed form (variable projection), so a grid of shapes turns fitting into linear algebra: no starts to choose, no
optimizer to fail, and what the data leave open stays visible as many rows that fit alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np

from xuebu.history.series import Floats

Law = Literal["power_law", "broken_power_law", "logarithmic", "saturating", "weibull"]

# Prior mass of each law: three quarters to those that never stop growing, which scaling studies find (Hestness et al.
# 2017; Kaplan et al. 2020), one quarter to those that do.
PRIOR: dict[Law, float] = {
    "power_law": 0.65,
    "broken_power_law": 0.05,
    "logarithmic": 0.05,
    "saturating": 0.05,
    "weibull": 0.20,
}

_EXPONENTS = (0.15, 0.3, 0.45, 0.6, 0.8, 1.1, 1.5)
_DELAYS = (0.003, 0.03, 0.1, 0.3)
_SCALES = (0.1, 0.2, 0.35, 0.6, 1.0, 2.0, 4.0)
_STRETCHES = (0.5, 0.75, 1.5)
_BREAKS = (0.05, 0.2, 0.6)
_BENDS = ((0.1, 0.5), (0.1, 1.0), (0.6, 0.2), (1.2, 0.4))
_SHARPNESS = 3.0


@dataclass(frozen=True, slots=True, eq=False)
class LawGrid:
    """Curves on the same positions.

    Args:
        basis: float64[j, n], one curve a row; 1 at x = 1 (so that scales of different rows are comparable).
        law: the law of each row.
        prior: float64[j], sums to 1.
    """

    basis: Floats
    law: tuple[Law, ...]
    prior: Floats


def law_grid(x: Floats) -> LawGrid:
    """Return every law on a grid of its shapes.

    Args:
        x: float64[n] >= 0, progress in units of the progress so far.

    Source: power law with offset: Hestness et al. (2017), section 3, delay as in Caballero et al. (2023); broken power
    law: Caballero et al. (2023), "Broken neural scaling laws", equation 1 with one break; Weibull (Janoschek) growth
    and the saturating exponential: Domhan et al. (2015), table 1. Grids are spaced evenly in the logarithm and
    reach from a bend in the first tenth of what was seen to curves that are straight over it.
    """
    rows: list[tuple[Law, Floats]] = []
    rows += [("power_law", ((x + d) / (1 + d)) ** -c) for c, d in product(_EXPONENTS, _DELAYS)]
    rows += [
        ("broken_power_law", _broken(x, *bend, at) / _broken(1.0, *bend, at)) for bend, at in product(_BENDS, _BREAKS)
    ]
    rows += [("logarithmic", 1 - np.log((x + d) / (1 + d)) / 2) for d in _DELAYS]
    rows += [("saturating", np.exp(-(x - 1) / s)) for s in _SCALES]
    rows += [("weibull", np.exp(-((x / s) ** k) + (1 / s) ** k)) for k, s in product(_STRETCHES, _SCALES)]
    law = tuple(name for name, _ in rows)
    prior = np.array([PRIOR[name] / law.count(name) for name in law])
    return LawGrid(np.stack([row for _, row in rows]), law, prior)


def _broken(x: Floats | float, first: float, second: float, at: float) -> Floats:
    moved = np.asarray(x, dtype=np.float64) + _DELAYS[0]
    return np.asarray(moved**-first * (1 + (moved / at) ** _SHARPNESS) ** (-(second - first) / _SHARPNESS))


def solve_rows(basis: Floats, value: Floats, weight: Floats, bounds: tuple[float, float]) -> tuple[Floats, Floats]:
    """Return the weighted least-squares offset and scale of every row, the offset kept within bounds.

    Args:
        basis: float64[j, n].
        value: float64[n].
        weight: float64[n] >= 0, not all 0.
        bounds: least and greatest offset, e.g. 0 and 1 for an accuracy.

    Returns:
        offset float64[j], scale float64[j].

    Source: Golub and Pereyra (1973), "The differentiation of pseudo-inverses and nonlinear least squares problems".
    """
    share = weight / weight.sum()
    weighted = basis * share
    mean, squares, cross = weighted.sum(axis=1), (weighted * basis).sum(axis=1), weighted @ value
    average = float(share @ value)
    spread = squares - mean**2
    safe = spread > 1e-12 * np.maximum(squares, 1e-30)
    scale = np.where(safe, (cross - mean * average) / np.where(safe, spread, 1.0), 0.0)
    offset = average - scale * mean
    bound = np.clip(offset, *bounds)
    out = bound != offset
    fixed = (cross - bound * mean) / np.where(squares > 0, squares, 1.0)
    return np.where(out, bound, offset), np.where(out, fixed, scale)
