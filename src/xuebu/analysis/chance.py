"""Is an accuracy better than guessing? For next-sentence prediction, where guessing is right half of the time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from xuebu.analysis.hac import critical_value, default_lag, prewhitened_newey_west
from xuebu.analysis.intervals import Interval, normal_quantile, proportion_interval
from xuebu.analysis.wording import percent, plain
from xuebu.history.series import Floats, Series

NEEDED = 3.0
MIN_READINGS = 8


@dataclass(frozen=True, slots=True)
class ChanceTest:
    """An accuracy held against chance.

    Args:
        metric: name.
        accuracy: share right.
        chance: share right by guessing.
        num_predictions: behind it; None where not recorded.
        standard_errors: (accuracy - chance) / its standard error.
        distinguishable: at least three standard errors above chance.
        interval: of the accuracy.
        note: which readings were used, and what is assumed.
    """

    metric: str
    accuracy: float
    chance: float
    num_predictions: int | None
    standard_errors: float
    distinguishable: bool
    interval: Interval
    note: str

    def summary(self) -> str:
        """Say the accuracy and how far above chance it is."""
        word = "above" if self.standard_errors >= 0 else "below"
        return (
            f"{self.metric} {percent(self.accuracy)} is {abs(self.standard_errors):.1f} standard errors {word} "
            f"chance ({percent(self.chance)}); {self.note}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        found = {name: plain(getattr(self, name)) for name in self.__slots__ if name != "interval"}
        return {**found, "interval": self.interval.to_json()}


def hold_against_chance(series: Series, chance: float = 0.5, level: float = 0.95) -> ChanceTest | None:
    """Hold the end of an accuracy series against chance.

    Held-out readings share their predictions, so only the last one counts. Training readings are fresh, so the last
    third is pooled. Without counts of predictions the standard error comes from the scatter of the readings.

    Args:
        series: accuracies, as fractions.
        chance: accuracy of guessing.
        level: confidence level of the interval.

    Returns:
        The test; None where there is no count and too few readings to see their scatter.

    Source: with counts, the binomial standard error under chance, sqrt(chance (1 - chance) / predictions), and
    Wilson's interval; without, the prewhitened Newey-West error of a mean.
    """
    if series.count is not None:
        part = series.part(len(series) - 1 if series.kind == "eval" else len(series) - max(1, len(series) // 3))
        assert part.count is not None
        total = int(part.count.sum())
        right = round(float(part.value @ part.count))
        interval = proportion_interval(min(right, total), total, level)
        errors = (interval.value - chance) / math.sqrt(chance * (1 - chance) / total)
        which = "the last held-out evaluation" if series.kind == "eval" else f"the last {len(part)} training readings"
        note = f"{total:,} predictions of {which}, taken as independent"
        return ChanceTest(series.metric, interval.value, chance, total, errors, errors >= NEEDED, interval, note)
    part = series.part(len(series) - len(series) // 3)
    if len(part) < MIN_READINGS:
        return None
    interval = mean_of_readings(part.value, level)
    assert interval.high is not None
    quantile = critical_value(level, len(part), default_lag(len(part)))
    error = (interval.high - interval.value) / quantile
    gap = interval.value - chance
    errors = gap / error if error > 0 else math.copysign(math.inf, gap) if gap else 0.0
    # An unusual t of few readings is no unusual normal: ask for three standard errors on the normal scale.
    needed = NEEDED * quantile / normal_quantile(level)
    note = f"the last {len(part)} readings; the number of predictions is not recorded, so their scatter gives the error"
    return ChanceTest(series.metric, interval.value, chance, None, errors, errors >= needed, interval, note)


def mean_of_readings(values: Floats, level: float) -> Interval:
    """Return the mean of neighboring readings with an error that allows for their correlation.

    Args:
        values: float64[n], n >= 8, around one level.
        level: confidence level.

    Source: `prewhitened_newey_west` of a constant.
    """
    import numpy as np

    mean = float(values.mean())
    lag = default_lag(values.size)
    covariance, rho = prewhitened_newey_west(np.ones((values.size, 1)), values - mean, lag)
    half = critical_value(level, values.size, lag) * math.sqrt(float(covariance[0, 0]))
    method = f"mean of {values.size} readings, Newey-West, lag {lag}, prewhitened by AR(1) {rho:.2f}"
    return Interval(mean, mean - half, mean + half, level, method, "assumes one level over these readings")
