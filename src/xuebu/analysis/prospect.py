"""What a run may still become: as planned, longer, annealed now, held; with steps, hours and money to a target."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from xuebu.analysis.analyze import choose_series, unbroken
from xuebu.analysis.annealing import (
    SHAPES,
    Schedule,
    Shape,
    decay_from,
    hold_from,
    is_spent,
    make_schedule,
    recorded_schedule,
    stretch,
)
from xuebu.analysis.cost import Cost, Pace, pace_of
from xuebu.analysis.ensemble import MIN_READINGS
from xuebu.analysis.outlook import NOTE_CHANGED, RARE, WINDOW, CurveForecast, bounds_of, forecast_curve
from xuebu.analysis.wording import measured, plain
from xuebu.errors import InputError
from xuebu.history.records import History
from xuebu.history.series import Series

SCHEMA_VERSION = 1
DECAY_SHARE = 0.2
Kind = Literal["planned", "longer", "twice", "decay now", "hold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What a device costs.

    Args:
        num_devices: devices that the run occupies, >= 1.
        per_device_hour: money; None if not asked.
        watts_per_device: electrical power; None if not known.
    """

    num_devices: int = 1
    per_device_hour: float | None = None
    watts_per_device: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Scenario:
    """One way to go on.

    Args:
        kind: "planned" (to the end of its schedule), "longer" (to the step asked for), "twice" (the steps of the one
            before), "decay now" (a line to 0 over a fifth more steps), "hold" (the present rate).
        end: last step.
        from_start: a run of its own from step 0 on, since its schedule differs from there; else more steps of this run.
        forecast: of the metric at its end, and of the target by then.
        cost: of its steps (those still to come, or all if from the start); None where the pace is not known.
        to_target: cost of the steps to the target at the lower end, the middle and the upper end of its interval, given
            that it is reached; empty where it is not.
        by_cost: (probability that the target is reached by then, cost up to then) at steps up to the end; what lacks to
            1 at the last is the probability of never. Empty without a target or a pace.
    """

    kind: Kind
    end: int
    from_start: bool
    forecast: CurveForecast
    cost: Cost | None
    to_target: tuple[Cost, ...]
    by_cost: tuple[tuple[float, Cost], ...] = ()

    def summary(self) -> str:
        """Say the level, the target and the cost."""
        metric, level = self.forecast.metric, self.forecast.level
        assert level.low is not None and level.high is not None
        words = {
            "planned": f"as planned to step {self.end:,}",
            "longer": f"to step {self.end:,}",
            "twice": f"twice the steps, to {self.end:,}",
            "decay now": f"decay to 0 from now to step {self.end:,}",
            "hold": f"present learning rate to step {self.end:,}",
        }[self.kind]
        ends = f"{measured(level.low, metric)} to {measured(level.high, metric)}"
        lines = [f"{words}: {measured(level.value, metric)} ({ends}), {self.forecast.schedule}"]
        if self.cost is not None:
            lines.append(f"  {'the whole run' if self.from_start else 'further steps'}: {self.cost.summary()}")
        if self.forecast.target is not None:
            lines.append(f"  {self.forecast.target.summary(metric)}")
        if self.to_target and self.forecast.target is not None and self.forecast.target.probability >= RARE:
            low, middle, high = self.to_target
            told = [f"{middle.steps:,} steps ({low.steps:,} to {high.steps:,})"]
            for name, unit in (("tokens", " tokens"), ("device_hours", " device hours"), ("price", " money")):
                three = [getattr(one, name) for one in (middle, low, high)]
                if all(three):
                    told.append("{} ({} to {})".format(*(_short(one) for one in three)) + unit)
            lines.append(f"  if reached, it takes {', '.join(told)}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "kind": self.kind,
            "end": self.end,
            "from_start": self.from_start,
            "forecast": self.forecast.to_json(),
            "cost": self.cost.to_json() if self.cost else None,
            "to_target": [one.to_json() for one in self.to_target],
            "by_cost": [{"probability": chance, **one.to_json()} for chance, one in self.by_cost],
        }


@dataclass(frozen=True, slots=True, eq=False)
class RunForecast:
    """What a run may still become.

    Args:
        source: path of the history.
        metric: the metric forecast.
        kind: "eval" (held out) or "train".
        last_step: last reading.
        planned_end: last step of the schedule; None where it is not known or is behind.
        target: level asked for; None if none was.
        pace: steps and tokens against time.
        scenarios: the ways to go on, the first the one asked for.
        notes: what was assumed.
    """

    source: str
    metric: str
    kind: str
    last_step: int
    planned_end: int | None
    target: float | None
    pace: Pace
    scenarios: tuple[Scenario, ...]
    notes: tuple[str, ...]

    def summary(self) -> str:
        """Say the trend, each scenario, and what was assumed."""
        first = self.scenarios[0].forecast
        what = "held-out" if self.kind == "eval" else "training"
        head = (
            f"{what} {self.metric}: {first.trend}, {measured(first.now, self.metric)} at step {self.last_step:,} "
            f"({first.num_readings:,} readings); {100 * first.level.level:g} % intervals"
        )
        lines = [head, *(scenario.summary() for scenario in self.scenarios)]
        return "\n".join([*lines, *(f"note: {note}" for note in (first.note, *self.notes))])

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values under a schema version."""
        simple = ("source", "metric", "kind", "last_step", "planned_end", "target")
        return {
            "schema_version": SCHEMA_VERSION,
            **{name: plain(getattr(self, name)) for name in simple},
            "pace": {name: plain(getattr(self.pace, name)) for name in self.pace.__slots__},
            "scenarios": [scenario.to_json() for scenario in self.scenarios],
            "notes": list(self.notes),
        }


def forecast_run(
    history: History,
    *,
    metric: str | None = None,
    kind: str | None = None,
    target: float | None = None,
    steps: int | None = None,
    settings: Mapping[str, Any] | None = None,
    shape: str | None = None,
    planned: int | None = None,
    prices: Prices = Prices(),
    level: float = 0.9,
    seed: int = 0,
) -> RunForecast:
    """Forecast the ways a run may go on.

    Args:
        history: what the run recorded.
        metric: which metric; the first recorded of mlm_accuracy, mlm_loss_nats, loss_nats if None.
        kind: "eval" or "train"; held-out readings where there are any if None.
        target: a level to reach; None if not asked.
        steps: step to forecast; the end of the plan if None, or twice the last step where that is not known or behind.
        settings: the run's training settings (table "train" of run.toml), for the schedule still to come; None if there
            are none.
        shape: schedule of the run, if it is known to the caller and not recorded: one of `annealing.SHAPES`.
        planned: step at which that schedule ends; the end of the plan if None, or the step to forecast.
        prices: what devices cost.
        level: of the intervals.
        seed: same history and seed, same forecast.

    Raises:
        InputError: too few readings, a step that is behind, an unknown metric or shape, an impossible target, or an
            end that the settings contradict.
    """
    series, broken = unbroken(history, choose_series(history, metric, kind))
    if not len(series):
        raise InputError(f"{history.path}: no readings of {series.metric}")
    if len(series) < MIN_READINGS:
        raise InputError(
            f"{history.path}: {len(series)} of the {MIN_READINGS} readings of {series.metric} that a forecast needs"
        )
    _check_target(history, series, target)
    last = int(series.step[-1])
    if planned is not None and planned < 1:
        raise InputError(f"{history.path}: the schedule cannot end at step {planned}; give a step above 0")
    if steps is not None and steps <= last:
        raise InputError(f"{history.path}: step {steps:,} is not beyond the last reading, step {last:,}")
    plan, planned_end, notes = _plan(history, settings, (shape, planned), steps or 2 * last)
    notes = [*history.notes, *notes, *([broken] if broken else [])]
    ahead = planned_end if planned_end is not None and planned_end > last else None
    end = steps or ahead or 2 * last
    pace = pace_of(history)
    ways: list[tuple[Kind, int, Schedule | None]] = []
    if ahead is not None and end == ahead:
        ways.append(("planned", end, None))
    else:
        ways.append(("twice" if steps is None else "longer", end, _stretched(plan, planned_end, end)))
    if not (steps is None and ahead is None):
        ways.append(("twice", 2 * end, _stretched(plan, planned_end, 2 * end)))
    if plan is not None and not is_spent(plan, last):
        soon = last + max(1, round(DECAY_SHARE * last))
        ways += [("decay now", soon, decay_from(plan, last, soon)), ("hold", end, hold_from(plan, last, end))]
    scenarios = []
    for way, stop, future in ways:
        found = forecast_curve(
            series,
            window=(stop - max(1.0, WINDOW * stop), stop),
            target=target,
            schedule=plan,
            future=future,
            level=level,
            seed=seed,
        )
        from_start = future is not None and way in ("longer", "twice")
        base = 0 if from_start else last
        to_target = () if found.target is None or found.target.already else _costs(found, pace, base, prices)
        by_cost = _by_cost(found, pace, base, prices)
        scenarios.append(Scenario(way, stop, from_start, found, _cost(pace, stop - base, prices), to_target, by_cost))
    if pace.seconds_per_step is None and (prices.per_device_hour or prices.watts_per_device):
        notes.append("no hours, money or energy: the history does not record the seconds of the run")
    if any(future is not None for _, _, future in ways):
        notes.append(NOTE_CHANGED)
    if any(scenario.from_start for scenario in scenarios):
        notes.append(
            "a longer run with its schedule stretched is another run from its first step on, not more of this one"
        )
    return RunForecast(
        history.path, series.metric, series.kind, last, ahead, target, pace, tuple(scenarios), tuple(notes)
    )


def _check_target(history: History, series: Series, target: float | None) -> None:
    """Refuse a level that the metric cannot have, such as 60 for a share."""
    least, most = bounds_of(series)
    if target is None or not math.isfinite(target) or least <= target <= most:
        return
    hint = f"; {target:g} % is {target / 100:g}" if most == 1 and 1 < target <= 100 else ""
    limits = f"is never below {least:g}" if math.isinf(most) else f"lies between {least:g} and {most:g}"
    raise InputError(f"{history.path}: {series.metric} cannot reach {target:g}, it {limits}{hint}")


def _plan(
    history: History, settings: Mapping[str, Any] | None, given: tuple[str | None, int | None], horizon: int
) -> tuple[Schedule | None, int | None, list[str]]:
    """Return the learning rate of the run up to its planned end, that end, and what had to be assumed."""
    shape, planned = given
    began = history.event("extend") or history.event("start") or {}
    total = began.get("total_steps", began.get("max_steps"))
    end = planned or (int(total) if isinstance(total, int | float) and total > 0 else None)
    recorded = recorded_schedule(history)
    if shape is not None:
        if shape not in SHAPES:
            raise InputError(f"schedule {shape!r} is not known; give one of {', '.join(SHAPES)}")
        named: Shape = next(known for known in SHAPES if known == shape)
        end = end or horizon
        return make_schedule(named, end, recorded.peak if recorded else 3e-4), end, [f"schedule taken as {shape}"]
    if settings and (asked := planned_schedule(settings)) is not None:
        if planned is not None and planned != int(asked.step[-1]):
            raise InputError(
                f"{history.path}: run.toml plans {int(asked.step[-1]):,} steps, not {planned:,}; "
                "give --schedule with --planned to forecast another schedule"
            )
        return asked, int(asked.step[-1]), []
    if recorded is None:
        return None, end, []
    last = int(recorded.step[-1])
    spent = is_spent(recorded, last)
    if spent and end is not None and last < end:
        return hold_from(recorded, last, end), end, [f"the learning rate of step {last:,} taken as held to the end"]
    if spent or (end is not None and last >= end):
        return recorded, last, []
    return (
        None,
        end,
        ["the learning rate is recorded so far, but not what it will do; give the schedule if you know it"],
    )


def plan_of(history: History, settings: Mapping[str, Any] | None) -> tuple[Schedule | None, int | None]:
    """Return the learning rate of a run up to its planned end, and that end; None for what is not known.

    Args:
        history: what the run recorded so far.
        settings: its training settings (table "train" of run.toml); None if there are none.
    """
    schedule, end, _ = _plan(history, settings, (None, None), 0)
    return schedule, end


def planned_schedule(settings: Mapping[str, Any]) -> Schedule | None:
    """Return the schedule that a run's training settings ask for; None where it is of another kind.

    Args:
        settings: table "train" of run.toml: steps, learning_rate, schedule, warmup_steps, final_share.
    """
    try:
        steps, peak, kind = int(settings["steps"]), float(settings["learning_rate"]), settings["schedule"]
        warmup, floor = int(settings["warmup_steps"]), float(settings["final_share"])
    except (KeyError, TypeError, ValueError):
        return None
    if settings.get("legs") or settings.get("schedule_hours") or not 0 <= warmup < steps or peak <= 0:
        return None
    step = np.unique(np.concatenate([np.linspace(0, steps, 401), [warmup]]))
    done = np.clip((step - warmup) / (steps - warmup), 0, 1)
    match kind:
        case "constant":
            share = np.ones_like(step)
        case "linear":
            share = floor + (1 - floor) * (1 - done)
        case "cosine":
            share = floor + (1 - floor) * 0.5 * (1 + np.cos(math.pi * done))
        case _:
            return None
    rate = np.where(step < warmup, step / max(warmup, 1), share)
    return Schedule(step, peak * rate, f"{kind}, planned to step {steps:,}")


def _stretched(plan: Schedule | None, planned_end: int | None, end: int) -> Schedule | None:
    """Return the plan stretched to another end; None where there is none, or it ends there anyway."""
    return None if plan is None or planned_end == end else stretch(plan, end)


def _cost(pace: Pace, steps: int, prices: Prices) -> Cost | None:
    return pace.cost(
        max(0, steps),
        num_devices=prices.num_devices,
        price_per_device_hour=prices.per_device_hour,
        watts_per_device=prices.watts_per_device,
    )


def _costs(found: CurveForecast, pace: Pace, base: int, prices: Prices) -> tuple[Cost, ...]:
    """Return the cost of the steps to the target at both ends and the middle of its interval."""
    step = found.target.step if found.target else None
    if step is None or step.low is None or step.high is None:
        return ()
    costs = [_cost(pace, round(at) - base, prices) for at in (step.low, step.value, step.high)]
    return tuple(cost for cost in costs if cost is not None)


def _by_cost(found: CurveForecast, pace: Pace, base: int, prices: Prices) -> tuple[tuple[float, Cost], ...]:
    """Return the distribution of the target's cost."""
    if found.target is None or found.target.already:
        return ()
    pairs = [(chance, _cost(pace, step - base, prices)) for step, chance in found.target.chances]
    return tuple((chance, cost) for chance, cost in pairs if cost is not None)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
