"""What a curve will do: its level in a window ahead, when it reaches a target, and whether it ever does.

Intervals are calibrated on families of runs that were left out (benchmarks/forecasts.py): a 90 % interval is meant to
hold on nine of ten runs that nobody here has seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from xuebu.analysis.annealing import Schedule
from xuebu.analysis.ensemble import DEFAULTS, MIN_READINGS, EnsembleSettings, Paths, forecast_paths
from xuebu.analysis.intervals import Interval
from xuebu.analysis.wording import improves, measured, plain
from xuebu.errors import InputError
from xuebu.history.series import Floats, Series

SCHEMA_VERSION = 1
METHOD = "laws weighted by their past forecasts within the run; spread calibrated on families of runs left out"
NOTE = (
    "assumes the same data and recipe; a sudden take-off or collapse that the readings do not announce is not foreseen"
)
NOTE_UNKNOWN = "the learning rate is not recorded: usual schedules that end at the horizon are averaged over"
NOTE_CHANGED = "for a changed schedule the interval was checked on three sources of runs only, and may be too narrow"
NUM_CHANCES = 16
RARE = 0.05
# What counting characters reaches on a corpus: 29 to 43 % in the runs of docs/journal.md.
BEGINNING = {"mlm_accuracy": 0.40, "mlm_loss_nats": 4.0}
WINDOW = 0.02
Trend = Literal["rising", "falling", "leveled off", "flat"]


@dataclass(frozen=True, slots=True)
class TargetForecast:
    """When a level is reached: by the mean of the readings over a twentieth of the horizon, not by one lucky reading.

    Args:
        target: the level.
        horizon: last step considered.
        already: the level was reached in what was seen.
        probability: that it is reached by the horizon.
        step: step at which it is reached, given that it is; None where no path reaches it.
        likely_step: step by which it is reached with probability one half; None where it is more likely never reached.
        chances: (step, probability that it is reached by then), from the last step seen to the horizon.
    """

    target: float
    horizon: int
    already: bool
    probability: float
    step: Interval | None
    likely_step: float | None
    chances: tuple[tuple[int, float], ...]

    @property
    def probability_never(self) -> float:
        """Probability that the level is not reached within the horizon."""
        return 1 - self.probability

    def summary(self, metric: str = "") -> str:
        """Say when, and how likely at all."""
        goal = measured(self.target, metric)
        if self.already:
            return f"{goal} is reached already"
        never = f"not by step {self.horizon:,}: {_chance(self.probability_never)}"
        if self.probability < RARE or self.step is None or self.step.low is None or self.step.high is None:
            return f"{goal}: {never}"
        return (
            f"{goal}: {never}; if reached, about step {self.step.value:,.0f} "
            f"({self.step.low:,.0f} to {self.step.high:,.0f})"
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "target": self.target,
            "horizon": self.horizon,
            "already": self.already,
            "probability": self.probability,
            "probability_never": self.probability_never,
            "step": self.step.to_json() if self.step else None,
            "likely_step": self.likely_step,
            "chances": [list(pair) for pair in self.chances],
        }


@dataclass(frozen=True, slots=True, eq=False)
class CurveForecast:
    """The forecast of one metric.

    Args:
        metric: what is forecast.
        last_step: last step seen.
        window: steps whose mean is forecast.
        level: mean of the readings in the window.
        now: present level, the mean of the last tenth of the readings.
        trend: "flat": no trend in the readings at all; "leveled off": there was one, but the window is expected within
            2 % of the range of the readings, and its interval holds the present level; else "rising" or "falling".
        flat: probability that there is no trend.
        target: when the target is reached; None if none was given.
        laws: share of each law in the forecast.
        clocks: share of each reading of the schedule.
        schedule: the schedule forecast, in words.
        num_readings: readings used.
        num_origins: earlier moments of the run at which the laws were tried.
        note: what it assumes.
        paths: the equally likely paths behind it; not in the JSON.
    """

    metric: str
    last_step: int
    window: tuple[int, int]
    level: Interval
    now: float
    trend: Trend
    flat: float
    target: TargetForecast | None
    laws: Mapping[str, float]
    clocks: Mapping[str, float]
    schedule: str
    num_readings: int
    num_origins: int
    note: str
    paths: Paths

    def headline(self) -> str:
        """Say the level with its interval in one line."""
        assert self.level.low is not None and self.level.high is not None
        value, low, high = (measured(one, self.metric) for one in (self.level.value, self.level.low, self.level.high))
        return f"{value} ({low} to {high}) at steps {self.window[0]:,} to {self.window[1]:,}"

    def summary(self) -> str:
        """Say the trend, the level, the target and what the forecast rests on."""
        laws = ", ".join(f"{name} {100 * share:.0f} %" for name, share in _largest(self.laws))
        lines = [
            f"{self.metric} is {self.trend}: {measured(self.now, self.metric)} at step {self.last_step:,}, "
            f"{100 * self.level.level:g} % interval {self.headline()}"
        ]
        lines += [self.target.summary(self.metric)] if self.target else []
        origins = (
            f"tried at {self.num_origins} earlier moments" if self.num_origins else "no earlier moment to try it at"
        )
        lines.append(f"from {self.num_readings:,} readings, {origins}; {laws}; {self.schedule}")
        return "\n".join([*lines, f"note: {self.note}"])

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values under a schema version."""
        simple = ("metric", "last_step", "now", "trend", "flat", "schedule", "num_readings", "num_origins", "note")
        return {
            "schema_version": SCHEMA_VERSION,
            **{name: plain(getattr(self, name)) for name in simple},
            "window": list(self.window),
            "level": self.level.to_json(),
            "target": self.target.to_json() if self.target else None,
            "laws": plain(dict(self.laws)),
            "clocks": plain(dict(self.clocks)),
        }


def forecast_curve(
    series: Series,
    *,
    window: tuple[float, float],
    target: float | None = None,
    schedule: Schedule | None = None,
    future: Schedule | None = None,
    level: float = 0.9,
    seed: int = 0,
    settings: EnsembleSettings = DEFAULTS,
) -> CurveForecast:
    """Forecast the mean of a window of steps ahead, and when a target is reached by its end.

    Args:
        series: the readings so far, at least 10.
        window: first and last step; the last lies beyond the last step of the series and is the horizon.
        target: a level to reach; None if not asked.
        schedule: learning rate of the run up to the horizon; None where it is not known.
        future: another schedule to forecast instead (e.g. `annealing.decay_from`); needs `schedule`.
        level: probability that the interval is to hold; calibrated at 0.9.
        seed: of the noise; same arguments, same forecast.
        settings: the constants.

    Raises:
        InputError: too few readings, a window that does not lie ahead, or a target that is not a finite number.
    """
    last = int(series.step[-1]) if len(series) else 0
    if len(series) < MIN_READINGS:
        raise InputError(
            f"{series.metric}: {len(series)} readings are too few for a forecast; at least {MIN_READINGS} are needed"
        )
    if not window[0] < window[1] or window[1] <= last:
        raise InputError(f"{series.metric}: steps {window[0]:g} to {window[1]:g} must end beyond the last step, {last}")
    if target is not None and not math.isfinite(target):
        raise InputError(f"{series.metric}: the target is {target}; it must be a finite number")
    if future is not None and schedule is None:
        raise InputError(
            f"{series.metric}: a changed schedule can be forecast only where the learning rate is recorded"
        )
    try:
        paths = forecast_paths(
            series.step.astype(np.float64),
            series.value,
            window=(float(window[0]), float(window[1])),
            schedule=schedule,
            future=future,
            weight=None if series.count is None else series.count.astype(np.float64),
            bounds=bounds_of(series),
            beginning=beginning_of(series),
            seed=seed,
            settings=settings,
        )
    except ValueError as error:
        raise InputError(f"{series.metric}: {error}") from None
    inside = paths.step >= min(window[0], float(paths.step[-1]))
    final = paths.level[:, inside].mean(axis=1)
    noisy = final + paths.noise * np.random.default_rng(seed + 1).standard_normal(final.size)
    low, high = np.clip(np.quantile(noisy, (0.5 - level / 2, 0.5 + level / 2)), *bounds_of(series)).tolist()
    value = float(paths.center[inside].mean())
    interval = Interval(value, min(low, value), max(high, value), level, METHOD, NOTE)
    return CurveForecast(
        metric=series.metric,
        last_step=last,
        window=(round(window[0]), round(window[1])),
        level=interval,
        now=paths.now,
        trend=_trend(paths, interval, float(np.ptp(series.value))),
        flat=paths.flat,
        target=None if target is None else reach_target(paths, series, target, level=level),
        laws=paths.laws,
        clocks=paths.clocks,
        schedule="schedule not recorded" if schedule is None else (future or schedule).name,
        num_readings=paths.num_readings,
        num_origins=paths.num_origins,
        note=NOTE if schedule is not None else f"{NOTE}; {NOTE_UNKNOWN}",
        paths=paths,
    )


def reach_target(paths: Paths, series: Series, target: float, *, level: float = 0.9) -> TargetForecast:
    """Return when paths reach a target, and how many do.

    Args:
        paths: of the forecast.
        series: the readings so far; they decide from which side the target is reached, and whether it has been.
        target: the level.
        level: of the interval of the step, among the paths that reach it.
    """
    last, horizon = float(series.step[-1]), round(float(paths.step[-1]))
    upward = target > paths.now
    # A level between where the run began and where it is has been passed.
    passed = (float(_smoothed(series.value)[0]) < target) != upward
    if passed:
        done = Interval(last, last, last, level, METHOD, "reached in what was seen")
        return TargetForecast(target, horizon, True, 1.0, done, last, ((horizon, 1.0),))
    gap = paths.reading - target if upward else target - paths.reading
    reached = gap >= 0
    hit = reached.any(axis=1)
    first = reached.argmax(axis=1)[hit]
    before = np.concatenate([[last], paths.step])
    edge = np.concatenate([np.full((gap.shape[0], 1), -abs(target - paths.now)), gap], axis=1)[hit]
    row = np.arange(first.size)
    low, high = edge[row, first], edge[row, first + 1]
    share = np.where(high > low, -low / np.where(high > low, high - low, 1.0), 1.0)
    steps = before[first] + np.clip(share, 0, 1) * (before[first + 1] - before[first])
    grid = np.linspace(last, horizon, NUM_CHANCES + 1)[1:]
    chances = tuple((round(at), float((steps <= at).sum() / hit.size)) for at in grid.tolist())
    step = None
    if steps.size:
        early, late = np.quantile(steps, (0.5 - level / 2, 0.5 + level / 2)).tolist()
        step = Interval(float(np.median(steps)), early, late, level, METHOD, "given that it is reached by the horizon")
    half = np.sort(steps)[hit.size // 2] if steps.size > hit.size // 2 else None
    likely = None if half is None else float(half)
    return TargetForecast(target, horizon, False, float(hit.mean()), step, likely, chances)


def bounds_of(series: Series) -> tuple[float, float]:
    """Return what a metric cannot pass, by its name and its readings: 0 for losses, 0 and 1 for shares."""
    name, least, most = series.metric.lower(), float(series.value.min()), float(series.value.max())
    if least >= 0 and most <= 1 and any(part in name for part in ("acc", "f1", "precision", "recall")):
        return 0.0, 1.0
    if least >= 0 and any(part in name for part in ("loss", "nats", "perplexity", "ppl", "bits", "error")):
        return 0.0, math.inf
    return -math.inf, math.inf


def beginning_of(series: Series) -> float | None:
    """Return the level that ends the beginning of a run: what counting reaches; None where it is reached, or unknown.

    A masked language model first learns frequencies, rests there, and rises later, once or twice, when it begins to use
    the context. The readings before do not announce when.
    """
    level = BEGINNING.get(series.metric)
    if level is None:
        return None
    now = float(series.value[-max(1, len(series) // 10) :].mean())
    return level if improves(series.metric) * (level - now) > 0 else None


def _chance(probability: float) -> str:
    """Return a probability in words that claims no more than 400 paths can show."""
    if probability < 0.01:
        return "less than 1 %"
    return "more than 99 %" if probability > 0.99 else f"{100 * probability:.0f} %"


def _trend(paths: Paths, level: Interval, span: float) -> Trend:
    assert level.low is not None and level.high is not None
    if paths.flat > 0.5:
        return "flat"
    # The range alone would hide a sure fall behind the first readings: a loss that began at 11 may still fall by 0.1.
    if abs(level.value - paths.now) < 0.02 * span and level.low <= paths.now <= level.high:
        return "leveled off"
    return "rising" if level.value > paths.now else "falling"


def _smoothed(value: Floats) -> Floats:
    """Return running means over a twentieth of the readings, at least one."""
    width = max(1, value.size // 20)
    total = np.cumsum(np.concatenate([[0.0], value]))
    return np.asarray((total[width:] - total[:-width]) / width)


def _largest(shares: Mapping[str, float]) -> list[tuple[str, float]]:
    return [pair for pair in sorted(shares.items(), key=lambda pair: -pair[1]) if pair[1] >= 0.005]
