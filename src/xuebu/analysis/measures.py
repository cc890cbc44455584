"""The figures of one run that a comparison sets side by side, each computed from its history and its scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from xuebu.analysis.analyze import Analysis
from xuebu.analysis.chance import MIN_READINGS, mean_of_readings
from xuebu.analysis.intervals import Interval, proportion_interval
from xuebu.history.records import History

LEVEL = 0.95
Unit = Literal["count", "seconds", "share", "points", "number"]
_NOT_KEPT = "the losses of single predictions are not kept"


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What is known of one run.

    Args:
        name: as it is called in the comparison, unlike all others.
        history: what it recorded.
        analysis: of that history.
        baselines: content of baselines.json, empty where there is none.
        facts: run.toml, empty where there is none.
    """

    name: str
    history: History
    analysis: Analysis
    baselines: Mapping[str, Any]
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure of one run: the value with its interval, and the predictions or the step behind it, if any."""

    interval: Interval
    predictions: int | None = None
    step: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**self.interval.to_json(), "predictions": self.predictions, "step": self.step}


Maker = Callable[[Run], Cell | None]
"""Computes a figure of a run, None where the run does not tell it."""

Basis = Literal["exact", "questions", "noise", "readings", "largest"]
"""What a difference of two figures is judged by: nothing (counts and clocks), the held-out questions, the noise of
training readings, the noise around the analyzed curve, or nothing because each is the largest of many readings."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure that is computed for every run.

    Args:
        key: its name in comparison.json.
        name: its name for reading.
        unit: of its values.
        basis: what differences are judged by.
        make: computes it.
        has_percent: whether a difference in percent of the first run's value means anything.
    """

    key: str
    name: str
    unit: Unit
    basis: Basis
    make: Maker
    has_percent: bool = True


def figures_of(runs: Sequence[Run]) -> list[Figure]:
    """Return the figures that these runs can be compared by.

    Held-out accuracies are those of the full evaluation at the end where every run that held anything out has one,
    else those of the last reading. Where a run held nothing out, the end of training is shown beside them.
    """
    held_out = [run for run in runs if run.history.has("eval", "mlm_accuracy") or part(run.baselines, "mlm", "model")]
    figures = [
        Figure("steps", "steps", "count", "exact", _steps),
        Figure("tokens", "tokens", "count", "exact", lambda run: _largest(run, "tokens")),
        Figure("seconds", "training seconds", "seconds", "exact", lambda run: _largest(run, "seconds")),
        Figure("tokens_per_second", "tokens per second", "count", "exact", _speed),
        Figure("parameters", "parameters", "count", "exact", _parameters),
    ]
    full_mlm = False
    for task, name in (("mlm", "MLM"), ("nsp", "NSP"), ("sop", "SOP")):
        metric = f"{task}_accuracy"
        full = bool(held_out) and all(part(run.baselines, task, "model") for run in held_out)
        full_mlm = full_mlm or (task == "mlm" and full)
        make = _full_accuracy(task) if full else _last_accuracy(metric)
        figures.append(Figure(metric, f"held-out {name} accuracy, {_told(full)}", "share", "questions", make))
        if task == "mlm":
            best = _best("eval", metric)
            figures.append(Figure("best_mlm_accuracy", "held-out MLM accuracy, best reading", "share", "largest", best))
        if len(held_out) < len(runs):
            make = _end_of_training(metric)
            figures.append(Figure(f"train_{metric}", f"training {name} accuracy, end of run", "share", "noise", make))
        if len(held_out) < len(runs) and task == "mlm":
            best = _best("train", metric)
            figures.append(
                Figure("best_train_mlm_accuracy", "training MLM accuracy, best batch", "share", "largest", best)
            )
    loss = _full_loss("model_nats") if full_mlm else _last_loss("mlm_loss_nats")
    figures.append(Figure("mlm_loss", f"held-out MLM loss, nats, {_told(full_mlm)}", "number", "questions", loss))
    if len(held_out) < len(runs):
        masked = any(run.history.has("train", "mlm_accuracy") for run in runs)
        total = "loss (MLM + NSP), nats" if masked else "loss, nats"
        last = _last_loss("loss_nats")
        figures.append(Figure("loss", f"held-out {total}, {_told(False)}", "number", "questions", last))
        for metric, name in (("mlm_loss_nats", "training MLM loss, nats"), ("loss_nats", f"training {total}")):
            figures.append(Figure(f"train_{metric}", name, "number", "noise", _end_of_training(metric)))
    bits, rate = _full_loss("model_bits_per_character", 1 / math.log(2)), "points per 10,000 steps"
    return [
        *figures,
        Figure("bits_per_character", "held-out bits per character", "number", "questions", bits),
        Figure("pearson", "Pearson r of step and accuracy", "number", "readings", _pearson, False),
        Figure("slope", f"{rate}, whole run", "points", "readings", lambda run: _rate(run, "line"), False),
        Figure(
            "slope_last_third", f"{rate}, last third", "points", "readings", lambda run: _rate(run, "last_third"), False
        ),
        Figure("minus_ngram", "model minus n-gram counts", "points", "questions", _minus_ngram, False),
    ]


def _told(full: bool) -> str:
    return "full evaluation" if full else "last reading"


def about(run: Run) -> tuple[str, str]:
    """Return what r and slopes of a run are of: metric and kind of records."""
    return run.analysis.metric, run.analysis.kind


def part(value: Any, *names: str) -> Mapping[str, Any]:
    """Return a nested table, empty where any of it is missing."""
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _exact(value: float) -> Cell:
    return Cell(Interval(value, None, None, LEVEL, "as recorded"))


def _steps(run: Run) -> Cell | None:
    steps = [int(table.step[-1]) for table in (run.history.train, run.history.eval) if len(table)]
    return _exact(max(steps)) if steps else None


def _largest(run: Run, name: str) -> Cell | None:
    found = [run.history.column(kind, name).value[-1] for kind in ("train", "eval") if run.history.has(kind, name)]
    return _exact(float(max(found))) if found else None


def _speed(run: Run) -> Cell | None:
    tokens, seconds = _largest(run, "tokens"), _largest(run, "seconds")
    if tokens is None or seconds is None or seconds.interval.value <= 0:
        return None
    return _exact(tokens.interval.value / seconds.interval.value)


def _parameters(run: Run) -> Cell | None:
    found = (run.history.event("start") or {}).get("num_parameters")
    return _exact(found) if isinstance(found, int) and not isinstance(found, bool) else None


def _interval_of(entry: Mapping[str, Any], value: str, factor: float = 1.0) -> Interval | None:
    """Return an entry of baselines.json as an interval, or None where it is not one."""
    numbers = [entry.get(name) for name in (value, "low", "high")]
    middle, low, high = (
        float(one) * factor if isinstance(one, int | float) and not isinstance(one, bool) else None for one in numbers
    )
    if middle is None:
        return None
    level, method = entry.get("level"), entry.get("method")
    return Interval(
        middle,
        low if high is not None else None,
        high if low is not None else None,
        float(level) if isinstance(level, int | float) else LEVEL,
        str(method) if method else "as in baselines.json",
    )


def _full_accuracy(task: str) -> Maker:
    def make(run: Run) -> Cell | None:
        entry = part(run.baselines, task, "model")
        found, count = _interval_of(entry, "accuracy"), entry.get("predictions")
        return Cell(found, count if isinstance(count, int) else None) if found else None

    return make


def _last_accuracy(metric: str) -> Maker:
    return lambda run: _reading(run, "eval", metric, -1) if run.history.has("eval", metric) else None


def _best(kind: str, metric: str) -> Maker:
    def make(run: Run) -> Cell | None:
        if not run.history.has(kind, metric):
            return None
        return _reading(run, kind, metric, int(run.history.column(kind, metric).value.argmax()))

    return make


def _reading(run: Run, kind: str, metric: str, place: int) -> Cell:
    series = run.history.column(kind, metric)
    value, step = float(series.value[place]), int(series.step[place])
    if series.count is None:
        return Cell(Interval(value, None, None, LEVEL, "none", "the number of predictions is not recorded"), step=step)
    count = int(series.count[place])
    return Cell(proportion_interval(min(count, round(value * count)), count, LEVEL), count, step)


def _end_of_training(metric: str) -> Maker:
    """Return the mean over the last tenth of the training readings (at least eight), since single ones are noisy."""

    def make(run: Run) -> Cell | None:
        if not run.history.has("train", metric):
            return None
        series = run.history.column("train", metric)
        if len(series) < MIN_READINGS:
            return Cell(Interval(float(series.value[-1]), None, None, LEVEL, "none", "too few readings"))
        tail = series.part(len(series) - max(MIN_READINGS, len(series) // 10))
        counted = "accuracy" in metric and tail.count is not None
        found = (
            Interval(float(tail.value[0]), None, None, LEVEL, "none", "constant readings")
            if np.ptp(tail.value) == 0
            else mean_of_readings(tail.value, LEVEL)
        )
        return Cell(found, int(tail.count.sum()) if counted and tail.count is not None else None)

    return make


def _full_loss(name: str, factor: float = 1.0) -> Maker:
    """Return what reads the loss of the full evaluation, `factor` times its nats; older runs kept no interval."""

    def make(run: Run) -> Cell | None:
        value, count = run.baselines.get(name), part(run.baselines, "mlm", "model").get("predictions")
        found = _interval_of(part(run.baselines, "mlm", "loss_nats"), "value", factor)
        if found is None and isinstance(value, int | float):
            found = Interval(float(value), None, None, LEVEL, "none", _NOT_KEPT)
        return Cell(found, count if isinstance(count, int) else None) if found else None

    return make


def _last_loss(metric: str) -> Maker:
    def make(run: Run) -> Cell | None:
        if not run.history.has("eval", metric):
            return None
        series = run.history.column("eval", metric)
        count = None if series.count is None else int(series.count[-1])
        last = Interval(float(series.value[-1]), None, None, LEVEL, "none", _NOT_KEPT)
        return Cell(last, count, int(series.step[-1]))

    return make


def _pearson(run: Run) -> Cell | None:
    found = run.analysis.correlations.get("pearson")
    if found is None or "accuracy" not in run.analysis.metric:
        return None
    chosen = found.recommended
    if chosen is None or chosen.low is None:
        note = "no interval of it can be vouched for"
        return Cell(Interval(found.coefficient, None, None, LEVEL, "none", note))
    size = "" if chosen.effective_size is None else f"as from {chosen.effective_size:.0f} independent readings"
    return Cell(Interval(found.coefficient, chosen.low, chosen.high, chosen.level, chosen.method, size))


def _rate(run: Run, name: str) -> Cell | None:
    rates = run.analysis.rates
    found: Interval | None = getattr(rates, name) if rates and "accuracy" in run.analysis.metric else None
    return Cell(found) if found else None


def _minus_ngram(run: Run) -> Cell | None:
    entry = part(run.baselines, "mlm", "difference_from_ngram")
    found, count = _interval_of(entry, "value", 100.0), part(run.baselines, "mlm", "model").get("predictions")
    return Cell(found, count if isinstance(count, int) else None) if found else None
