"""Families of learning curves: values and gradients.

Every family is offset + scale * basis(step; shape) with at most one shape parameter, so that for a given shape the
best offset and scale follow in closed form. A further family is one more branch of each `match`.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from xuebu.history.series import Floats

Family = Literal["linear", "logarithmic", "power_law", "saturating"]
FAMILIES: tuple[Family, ...] = get_args(Family)


def formula_of(family: Family) -> str:
    """Return the family's formula in words that the parameters of a fit fill in."""
    match family:
        case "linear":
            return "offset + scale * step"
        case "logarithmic":
            return "offset + scale * log(1 + step)"
        case "power_law":
            return "offset + scale * ((1 + step) / (1 + start)) ** -shape"
        case "saturating":
            return "offset + scale * exp(-(step - start) / shape)"


def has_shape(family: Family) -> bool:
    """Say whether a family bends by a parameter of its own, and so has an asymptote (its offset)."""
    return family in ("power_law", "saturating")


def num_parameters(family: Family) -> int:
    """Return the number of parameters of a family."""
    return 3 if has_shape(family) else 2


def shape_bounds(family: Family, step: npt.NDArray[np.number]) -> tuple[float, float]:
    """Return the shapes that a grid of steps can tell apart.

    For a saturating curve (shape: steps until the gap to the asymptote has fallen by the factor e) from a third of the
    smallest spacing to 20 times the range, where it is a straight line; for a power law exponents of 0.02 to 5.
    """
    match family:
        case "saturating":
            return float(np.diff(step).min()) / 3, 20.0 * float(step[-1] - step[0])
        case "power_law":
            return 0.02, 5.0
        case _:
            return 1.0, 1.0


def basis(family: Family, step: npt.ArrayLike, shape: npt.ArrayLike, start: float) -> Floats:
    """Return the basis function; curved families are 1 at `start`.

    Args:
        family: which.
        step: steps >= 0, any shape that broadcasts with `shape`.
        shape: shape parameter > 0; ignored by families without one.
        start: first step of the series.

    Source: the power law with offset of Hestness et al. (2017), section 3; the saturating exponential is the
    two-asymptote curve of Domhan et al. (2015), table 1.
    """
    t, s = np.asarray(step, dtype=np.float64), np.asarray(shape, dtype=np.float64)
    match family:
        case "linear":
            return t + 0.0 * s
        case "logarithmic":
            return np.asarray(np.log1p(t) + 0.0 * s)
        case "power_law":
            return np.asarray(((1 + t) / (1 + start)) ** -s)
        case "saturating":
            return np.asarray(np.exp(-(t - start) / s))


def basis_gradient(family: Family, step: npt.ArrayLike, shape: float, start: float) -> tuple[Floats, Floats]:
    """Return the derivatives of the basis with respect to the step and to the logarithm of the shape.

    Args:
        family: which.
        step: float[n].
        shape: shape parameter > 0.
        start: first step of the series.

    Returns:
        Two float64[n]; the second is zero for families without a shape.
    """
    t = np.asarray(step, dtype=np.float64)
    value = basis(family, t, shape, start)
    match family:
        case "linear":
            return np.ones_like(t), np.zeros_like(t)
        case "logarithmic":
            return 1 / (1 + t), np.zeros_like(t)
        case "power_law":
            return -shape * value / (1 + t), -shape * np.log((1 + t) / (1 + start)) * value
        case "saturating":
            return -value / shape, (t - start) / shape * value
