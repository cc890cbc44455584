"""Which curve predicts better: fits on the first part of a run, judged on what came after.

A curve with more parameters always fits the readings it has seen better; only readings it has not seen are evidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from xuebu.analysis.curves import Family, basis
from xuebu.analysis.fit import min_points, profile_fit
from xuebu.analysis.intervals import Interval, student_quantile
from xuebu.analysis.wording import is_accuracy, plain
from xuebu.history.series import Floats, Series

FIRST_SHARE = 0.3
NUM_BLOCKS = 10
MIN_BLOCK = 2
MIN_ORIGINS = 4
AGREEMENT = 0.75


@dataclass(frozen=True, slots=True)
class RollingComparison:
    """Two families compared by their error on the next, unseen block of readings.

    Args:
        first: one family.
        second: the other.
        metric: what was predicted.
        num_origins: how many times the run was cut.
        origins: last step seen at each cut.
        block: readings predicted after each cut; blocks do not overlap.
        first_rmse: root mean square error of the first family over all blocks.
        second_rmse: of the second.
        num_second_better: cuts at which the second had the smaller error.
        error_ratio: geometric mean of first's error / second's; above 1 the second predicts better. None if refused.
        p_sign: probability of so uneven a count of wins if both were equally good (two-sided sign test).
        decision: "first", "second" or "undecided".
        refused: why there was nothing to compare; None if there was.
    """

    first: Family
    second: Family
    metric: str
    num_origins: int
    origins: tuple[int, ...]
    block: int
    first_rmse: float | None
    second_rmse: float | None
    num_second_better: int
    error_ratio: Interval | None
    p_sign: float | None
    decision: Literal["first", "second", "undecided"]
    refused: str | None = None

    @property
    def verdict(self) -> str:
        """Which family predicts better, by how much, at how many cuts."""
        if self.refused is not None or self.error_ratio is None:
            return f"undecided between {self.first} and {self.second}: {self.refused}"
        better, worse, ratio, wins = self.second, self.first, self.error_ratio, self.num_second_better
        if self.decision == "first" or (self.decision == "undecided" and ratio.value < 1):
            better, worse, wins = self.first, self.second, self.num_origins - wins
            ratio = Interval(1 / ratio.value, _inverse(ratio.high), _inverse(ratio.low), ratio.level, ratio.method)
        where = f"at {wins} of {self.num_origins} cuts of the run"
        times = f"{ratio.value:.2f} times that of {better} ({ratio.low:.2f} to {ratio.high:.2f})"
        if self.decision == "undecided":
            return f"undecided: {better} predicts unseen readings better {where}, the error of {worse} is {times}"
        return f"{better} predicts unseen readings better than {worse} {where}; the error of {worse} is {times}"

    def summary(self) -> str:
        """Say the verdict and the errors."""
        if self.first_rmse is None or self.second_rmse is None:
            return self.verdict
        factor, unit = (100.0, " points") if is_accuracy(self.metric) else (1.0, "")
        return (
            f"{self.verdict}; root mean square errors {self.first_rmse * factor:.3g}{unit} ({self.first}) and "
            f"{self.second_rmse * factor:.3g}{unit} ({self.second}), {self.block} readings a cut"
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        found = {name: plain(getattr(self, name)) for name in self.__slots__ if name != "error_ratio"}
        ratio = self.error_ratio.to_json() if self.error_ratio else None
        return {**found, "error_ratio": ratio, "verdict": self.verdict}


def predict_from(family: Family, series: Series, seen: int, steps: Floats) -> Floats:
    """Return what a fit to the first `seen` readings says about later steps.

    Args:
        family: which curve.
        series: the whole series; readings from `seen` on are not looked at.
        seen: readings to fit, at least the family's least number.
        steps: float[m], where to predict.
    """
    past = series.step[:seen].astype(np.float64)
    offset, scale, shape = profile_fit(family, past, series.value[:seen, None])
    return np.asarray(offset[0] + scale[0] * basis(family, steps, shape[0], float(past[0])))


def compare_families(
    series: Series, first: Family = "linear", second: Family = "saturating", *, level: float = 0.95
) -> RollingComparison:
    """Compare two families by rolling origin.

    The run is cut at up to ten places from 30 % on; at each, both families are fitted to what lies before and judged by
    the root mean square error on the next block. The paired difference is the logarithm of the ratio of the two
    errors, so that noisy and quiet parts of a run count alike.

    Args:
        series: the readings.
        first: one family.
        second: the other.
        level: confidence level of the ratio.

    Returns:
        The comparison; the decision is for a family only if the interval of the ratio excludes 1 and at least three
        quarters of the cuts agree. Refused below four cuts.

    Source: rolling-origin evaluation, Tashman (2000); paired test of Diebold and Mariano (1995) with the t
    distribution of Harvey, Leybourne and Newbold (1997) for one-block-ahead errors that do not overlap, taken as
    uncorrelated from block to block. Cuts share their past, so the interval is approximate.
    """
    num = len(series)
    begin = max(min_points(first), min_points(second), math.ceil(FIRST_SHARE * num))
    block = max(MIN_BLOCK, (num - begin) // NUM_BLOCKS)
    cuts = list(range(begin, num - block + 1, block))
    if len(cuts) < MIN_ORIGINS:
        reason = f"{num} readings give {len(cuts)} cuts with readings left to predict, fewer than {MIN_ORIGINS}"
        return RollingComparison(
            first, second, series.metric, len(cuts), (), block, None, None, 0, None, None, "undecided", reason
        )
    step = series.step.astype(np.float64)
    squares = np.array(
        [
            [
                float(
                    np.mean(
                        (series.value[cut : cut + block] - predict_from(f, series, cut, step[cut : cut + block])) ** 2
                    )
                )
                for f in (first, second)
            ]
            for cut in cuts
        ]
    )
    floor = 1e-24 + 1e-12 * float(series.value.var())
    ratios = 0.5 * (np.log(squares[:, 0] + floor) - np.log(squares[:, 1] + floor))
    mean = float(ratios.mean())
    half = student_quantile(level, len(cuts) - 1) * float(ratios.std(ddof=1)) / math.sqrt(len(cuts))
    note = "errors of different blocks are taken as uncorrelated"
    ratio = Interval(
        math.exp(mean), math.exp(mean - half), math.exp(mean + half), level, "t over cuts, on the logarithm", note
    )
    wins = int((ratios > 0).sum())
    decision: Literal["first", "second", "undecided"] = "undecided"
    if mean - half > 0 and wins >= AGREEMENT * len(cuts):
        decision = "second"
    elif mean + half < 0 and len(cuts) - wins >= AGREEMENT * len(cuts):
        decision = "first"
    return RollingComparison(
        first=first,
        second=second,
        metric=series.metric,
        num_origins=len(cuts),
        origins=tuple(int(series.step[cut - 1]) for cut in cuts),
        block=block,
        first_rmse=float(np.sqrt(squares[:, 0].mean())),
        second_rmse=float(np.sqrt(squares[:, 1].mean())),
        num_second_better=wins,
        error_ratio=ratio,
        p_sign=_sign_test(wins, len(cuts)),
        decision=decision,
    )


def _sign_test(wins: int, num: int) -> float:
    tail = sum(math.comb(num, k) for k in range(min(wins, num - wins) + 1)) / 2**num
    return float(min(1.0, 2 * tail))


def _inverse(value: float | None) -> float | None:
    return None if value is None else 1 / value
