"""Accuracy, and the difference of two accuracies, over predictions that come in clusters (documents).

Predictions of one document resemble each other: it is easy or hard as a whole. Counting them as independent makes
intervals too narrow, so the variance is taken between documents. The documents are taken as a sample of independent
draws from the kind of text the held-out set stands for: the interval answers how far the figure would move with other
documents and other masks, not with another training seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xuebu.analysis.intervals import Interval, proportion_interval, student_quantile, wilson_bounds

__all__ = ["mean_with_interval", "paired_difference", "proportion_interval"]


@dataclass(frozen=True, slots=True)
class _Clustered:
    mean: float
    variance: float  # of the mean, between clusters
    degrees: float  # of freedom, Satterthwaite
    num: int
    clusters: int
    kish: float  # number of predictions if all of a cluster were one: (sum n)^2 / sum n^2
    constant: bool  # all values are the same


def mean_with_interval(correct: npt.ArrayLike, clusters: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Return the mean of per-prediction values with an interval that is robust to likeness within documents.

    For right/wrong values the interval is Wilson's with the effective number of predictions (their number divided by
    the design effect) and Student's t, so it stays inside 0 to 1 and is not empty at 0 % or 100 %. There the design
    effect cannot be seen, and every document counts as one prediction. For other values (losses) it is the
    t interval. Degrees of freedom fall where few documents hold most predictions.

    Args:
        correct: bool or float [n], one value a prediction.
        clusters: int [n], the document of each prediction.
        level: confidence level.

    Returns:
        The mean over predictions; no ends where there are fewer than two documents.

    Raises:
        ValueError: the arrays are empty or of different lengths, or a value is not finite.

    Source: linearized ratio variance with the leverage correction of Bell and McCaffrey (2002), exact if predictions
    are independent; Satterthwaite degrees of freedom from the implied intra-document correlation; Wilson interval
    with the effective sample size: Korn and Graubard (1998), Franco et al. (2019), "Comparative study of confidence
    intervals for proportions in complex sample surveys".
    """
    values = np.asarray(correct, dtype=np.float64)
    found = _clustered(values, clusters)
    if found.clusters < 2:
        return Interval(found.mean, None, None, level, "cluster-robust", "one document: its variation cannot be seen")
    quantile = student_quantile(level, found.degrees)
    binary = bool(((values == 0) | (values == 1)).all())
    if not binary:
        half = quantile * found.variance**0.5
        note = f"{found.clusters} documents, {found.degrees:.0f} degrees of freedom"
        return Interval(found.mean, found.mean - half, found.mean + half, level, "cluster-robust t by document", note)
    if found.constant:
        effective = found.kish
        note = f"all predictions alike: each of the {found.clusters} documents counts as one prediction"
    else:
        design_effect = max(1.0, found.variance * found.num / (found.mean * (1 - found.mean)))
        effective = found.num / design_effect
        note = f"{found.clusters} documents, design effect {design_effect:.2f}"
    low, high = wilson_bounds(found.mean, effective, quantile)
    return Interval(found.mean, low, high, level, "cluster-robust Wilson by document", note)


def paired_difference(
    first: npt.ArrayLike, second: npt.ArrayLike, clusters: npt.ArrayLike, level: float = 0.95
) -> Interval:
    """Return mean(first) - mean(second) on the same predictions, with an interval robust to likeness in documents.

    Pairing removes what both find hard or easy, so the interval is narrower than two separate ones would suggest.

    Args:
        first: bool or float [n], per prediction, e.g. whether the model was right.
        second: bool or float [n], e.g. whether the n-gram was right, on the same predictions in the same order.
        clusters: int [n], the document of each prediction.
        level: confidence level.

    Returns:
        The difference. Where every pair differs alike (for instance never), the ends come from the largest share of
        unlike pairs that a sample of so many documents could have missed (Wilson).

    Raises:
        ValueError: the arrays are empty or of different lengths, or a value is not finite.

    Source: as `mean_with_interval`, on the differences.
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != two.shape:
        raise ValueError(f"{one.size} values against {two.size}: they must be of the same predictions")
    difference = one - two
    found = _clustered(difference, clusters)
    method = "paired, cluster-robust t by document"
    if found.clusters < 2:
        return Interval(found.mean, None, None, level, method, "one document: its variation cannot be seen")
    quantile = student_quantile(level, found.degrees)
    if found.constant:
        if not np.isin(difference, (-1.0, 0.0, 1.0)).all():
            return Interval(found.mean, None, None, level, method, "the difference is the same everywhere")
        missed = wilson_bounds(0.0, found.kish, quantile)[1]
        low = max(-1.0, found.mean - missed * (1 + found.mean))
        high = min(1.0, found.mean + missed * (1 - found.mean))
        note = f"every pair differs by {found.mean:g}: ends by Wilson, each of {found.clusters} documents as one pair"
        return Interval(found.mean, low, high, level, "paired, Wilson by document", note)
    half = quantile * found.variance**0.5
    note = f"{found.clusters} documents, {found.degrees:.0f} degrees of freedom"
    return Interval(found.mean, found.mean - half, found.mean + half, level, method, note)


def _clustered(values: npt.NDArray[np.float64], clusters: npt.ArrayLike) -> _Clustered:
    groups = np.asarray(clusters)
    if values.ndim != 1 or groups.shape != values.shape or not values.size:
        raise ValueError(f"{values.size} values with {groups.size} cluster numbers: one each is needed, at least one")
    if not np.isfinite(values).all():
        raise ValueError("a value is not finite")
    _, member = np.unique(groups, return_inverse=True)
    sizes = np.bincount(member).astype(np.float64)
    num, count = values.size, sizes.size
    mean = float(values.mean())
    kish = num * num / float((sizes**2).sum())
    constant = bool((values == values[0]).all())
    if count < 2 or constant:
        return _Clustered(mean, 0.0, max(kish - 1.0, 1.0), num, count, kish, constant)
    # Residual total of a cluster: its square over 1 - n_g / n sums to an unbiased value for independent predictions.
    totals = np.bincount(member, weights=values - mean)
    variance = float((totals**2 / (1 - sizes / num)).sum()) / num**2
    design_effect = variance * num / max(float(values.var()), 1e-300)
    excess = float((sizes**2).sum()) / num - 1
    alike = float(np.clip((design_effect - 1) / excess, 0.0, 1.0)) if excess > 0 else 0.0
    expected = sizes * (1 + (sizes - 1) * alike)
    degrees = max(1.0, float(expected.sum() ** 2 / (expected**2).sum()) - 1)
    return _Clustered(mean, variance, degrees, num, count, kish, constant)
