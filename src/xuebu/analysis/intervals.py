"""A number with the interval around it, how the interval was made, and what it assumes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from xuebu.analysis.wording import plain

MOST_DIGITS = 6  # what is smaller still is as good as 0


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with a confidence interval.

    Args:
        value: the estimate.
        low: lower end; None where no honest interval exists.
        high: upper end; None likewise.
        level: confidence level, e.g. 0.95.
        method: how the interval was made.
        note: what it assumes, or why there is none.
    """

    value: float
    low: float | None
    high: float | None
    level: float
    method: str
    note: str = ""

    def __contains__(self, value: float) -> bool:
        return self.low is not None and self.high is not None and self.low <= value <= self.high

    def scaled(self, factor: float) -> Interval:
        """Return the interval in another unit: value and ends times a positive factor."""
        low = None if self.low is None else self.low * factor
        high = None if self.high is None else self.high * factor
        return Interval(self.value * factor, low, high, self.level, self.method, self.note)

    def words(self, factor: float = 1.0, unit: str = "", digits: int = 1) -> str:
        """Return "57.4 % (56.1 to 58.7)" for factor 100 and unit " %".

        Args:
            factor: on value and ends.
            unit: behind the value.
            digits: behind the point; more where so few would hide the width, or a value near 0.
        """
        digits = max(digits, self._digits(factor))
        value = f"{self.value * factor:.{digits}f}{unit}"
        if self.low is None or self.high is None:
            return f"{value} (no interval: {self.note or self.method})"
        return f"{value} ({self.low * factor:.{digits}f} to {self.high * factor:.{digits}f})"

    def _digits(self, factor: float) -> int:
        """Return the places behind the point that show two digits of the width, or of the value if there is none."""
        shown = self.value if self.low is None or self.high is None else self.high - self.low
        size = abs(shown * factor)
        places = 1 - math.floor(math.log10(size)) if 0 < size < math.inf else 0
        return places if places <= MOST_DIGITS else 0

    def summary(self) -> str:
        """Say the value, the interval and how it was made."""
        return f"{self.words(digits=4)}, {100 * self.level:g} %, {self.method}" + (
            f". {self.note}" if self.note else ""
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "value": plain(float(self.value)),
            "low": plain(self.low),
            "high": plain(self.high),
            "level": self.level,
            "method": self.method,
            "note": self.note,
        }


def normal_quantile(level: float) -> float:
    """Return the two-sided critical value of the normal distribution: 1.96 for level 0.95."""
    if not 0 < level < 1:
        raise ValueError(f"level {level} is not between 0 and 1")
    return NormalDist().inv_cdf(0.5 + level / 2)


def student_quantile(level: float, degrees: float) -> float:
    """Return the two-sided critical value of Student's t with `degrees` of freedom (need not be whole)."""
    from scipy.special import stdtrit

    if not 0 < level < 1:
        raise ValueError(f"level {level} is not between 0 and 1")
    return float(stdtrit(degrees, 0.5 + level / 2))


def wilson_bounds(share: float, trials: float, quantile: float) -> tuple[float, float]:
    """Return the score interval of a share.

    Args:
        share: observed share, 0 to 1.
        trials: number of independent trials, > 0; an effective number need not be whole.
        quantile: critical value, e.g. 1.96.

    Source: Wilson (1927); Brown, Cai and DasGupta (2001), "Interval estimation for a binomial proportion".
    """
    square = quantile * quantile / trials
    center = (share + square / 2) / (1 + square)
    half = quantile / (1 + square) * math.sqrt(share * (1 - share) / trials + square / (4 * trials))
    return (0.0 if share == 0 else max(0.0, center - half), 1.0 if share == 1 else min(1.0, center + half))


def proportion_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Return the share of right predictions with Wilson's interval.

    Args:
        successes: right predictions, 0 to `trials`.
        trials: predictions, >= 1.
        level: confidence level.

    Raises:
        ValueError: the counts do not fit.

    Source: as `wilson_bounds`.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials: no share")
    low, high = wilson_bounds(successes / trials, trials, normal_quantile(level))
    note = "assumes independent predictions; those of one document are alike, so the true interval is wider"
    return Interval(successes / trials, low, high, level, "Wilson", note)
