"""Has a run left the course that its own readings foretold? Forecasts renewed while it is watched, and their bands.

A forecast is made once 24 readings are there, and anew each time their number has doubled; it reaches to twice the
step of then, at most to the planned end. Its band is simultaneous: a healthy run stays within it all the way with
probability 1 - a. The k-th forecast has a = 0.05 / 2^k, so over any number of them a healthy run leaves a band with
probability 0.05 at most, if the forecasts are calibrated (benchmarks/anomalies.py measures it). Memory is bounded: of
more than 256 readings, neighbors are averaged.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from xuebu.analysis.annealing import Schedule
from xuebu.analysis.ensemble import Paths, forecast_paths
from xuebu.analysis.outlook import bounds_of
from xuebu.history.series import Floats, Series

FIRST_AT = 24
MOST_KEPT = 256
TOTAL_RISK = 0.05
_SHARE = 0.95  # share of the paths by which the band is sized


class Foresight:
    """The band of the newest forecast of one metric.

    Args:
        schedule: learning rate of the run up to its planned end; None where it is not known: then a decay that no
            reading announced may look like an escape to the better.
        end: planned last step; None where it is not known.
        metric: which metric; None for the first held-out accuracy or loss that comes.
        kind: "eval" or "train".
        seed: of the forecasts' noise.
    """

    def __init__(
        self,
        schedule: Schedule | None = None,
        end: int | None = None,
        *,
        metric: str | None = None,
        kind: str = "eval",
        seed: int = 0,
    ) -> None:
        self._schedule, self._end, self._seed = schedule, end, seed
        self.metric, self.kind = metric, kind
        self._step: list[float] = []
        self._value: list[float] = []
        self._width = 1  # readings behind each one that is kept
        self._pending: tuple[float, float, int] = (0.0, 0.0, 0)
        self._num, self._next = 0, FIRST_AT
        self._band: tuple[Floats, Floats, Floats] | None = None
        self.num_forecasts = 0

    def band(self, step: int) -> tuple[float, float] | None:
        """Return what a healthy run's reading at a step stays within, None where no forecast reaches."""
        if self._band is None or step > self._band[0][-1]:
            return None
        at, low, high = self._band
        return float(np.interp(step, at, low)), float(np.interp(step, at, high))

    def learn(self, step: int, value: float) -> None:
        """Take a reading, after it was held against the band; now and then forecast anew.

        Args:
            step: later than those before; others are left out.
            value: finite.
        """
        if self._step and step <= self._step[-1]:
            return
        self._num += 1
        steps, values, count = self._pending
        self._pending = (steps + step, values + value, count + 1)
        if self._pending[2] == self._width:
            self._step.append(self._pending[0] / self._width)
            self._value.append(self._pending[1] / self._width)
            self._pending = (0.0, 0.0, 0)
        if len(self._step) == MOST_KEPT:
            self._step = [(a + b) / 2 for a, b in zip(self._step[::2], self._step[1::2], strict=True)]
            self._value = [(a + b) / 2 for a, b in zip(self._value[::2], self._value[1::2], strict=True)]
            self._width *= 2
        if self._num >= self._next:
            self._next = 2 * self._num
            self._forecast(step)

    def _forecast(self, step: int) -> None:
        horizon = float(2 * step if self._end is None or self._end <= step else min(2 * step, self._end))
        series = Series(np.array(self._step).astype(np.int64), np.array(self._value), None, self.metric or "")
        if np.ptp(series.value) == 0:
            return
        schedule = self._schedule if self._schedule is not None and self._schedule.step[-1] >= horizon else None
        try:
            paths = forecast_paths(
                series.step.astype(np.float64),
                series.value,
                window=(horizon - max(1.0, 0.02 * horizon), horizon),
                schedule=schedule,
                bounds=bounds_of(series),
                seed=self._seed,
            )
        except ValueError:  # the readings crowd in too few places
            return
        self.num_forecasts += 1
        noise = reading_noise(series.value) * math.sqrt(self._width)
        low, high = simultaneous_band(paths, noise, TOTAL_RISK / 2**self.num_forecasts, self._seed)
        self._band = paths.step, low, high


def reading_noise(value: Floats) -> float:
    """Return the standard deviation of readings around a parabola through their last half."""
    late = value[value.size // 2 :]
    at = np.linspace(-1, 1, late.size)
    left = late - np.polynomial.polynomial.polyval(at, np.polynomial.polynomial.polyfit(at, late, 2))
    return float(np.sqrt((left @ left) / max(1, late.size - 3)))


def simultaneous_band(paths: Paths, noise: float, risk: float, seed: int) -> tuple[Floats, Floats]:
    """Return both ends of a band that a path with its readings' noise leaves anywhere with the probability `risk`.

    Args:
        paths: of the forecast.
        noise: standard deviation of a reading.
        risk: between 0 and 1; below 0.05, which few paths can show, the band is widened as a normal one would be.
        seed: of the noise.

    Source: maximum of the standardized deviation over the horizon, as in Wolf and Wunderli (2015), "Bootstrap joint
    prediction regions".
    """
    drawn = paths.level + noise * np.random.default_rng(seed).standard_normal(paths.level.shape)
    early, late = np.quantile(drawn, (0.05, 0.95), axis=0)
    down = np.maximum(paths.center - early, 1e-12 + noise)
    up = np.maximum(late - paths.center, 1e-12 + noise)
    away = drawn - paths.center
    farthest = np.max(np.where(away > 0, away / up, -away / down), axis=1)
    normal = NormalDist()
    wider = normal.inv_cdf(1 - min(risk, 1 - _SHARE) / 2) / normal.inv_cdf(0.5 + _SHARE / 2)
    factor = float(np.quantile(farthest, min(_SHARE, 1 - risk) if risk > 1 - _SHARE else _SHARE)) * wider
    return np.asarray(paths.center - factor * down), np.asarray(paths.center + factor * up)
