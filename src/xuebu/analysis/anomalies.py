"""What goes wrong in a run, found while it runs: every record is looked at once, in O(1) memory.

`Monitor.observe` takes the records of a history as they are written and returns alarms; `scan` does it for a whole
history. Spikes, level shifts and slow divergence come from `jumps`; the others are below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from xuebu.analysis.foresight import Foresight
from xuebu.analysis.jumps import Jump, JumpDetector
from xuebu.analysis.wording import improves, is_accuracy, measured, plain
from xuebu.history.readings import is_bookkeeping
from xuebu.history.records import History, predictions_of
from xuebu.history.series import Floats, Integers

AlarmKind = Literal[
    "spike",
    "level_shift",
    "divergence",
    "plateau",
    "not_finite",
    "learning_rate_jump",
    "data_repetition",
    "outside_forecast",
]
Severity = Literal["bad", "warn", "info"]
Band = Callable[[int], tuple[float, float] | None]
"""Gives the forecast's low and high end at a step, None where there is no forecast."""

MOST_READINGS = 20_000
_MAX_METRICS = 32
_RELEVANT = 1e-3
_NOISE_OF_NORMS = 0.2  # of their logarithms, at the least: norms have heavy tails, one of 2.3 times the usual is told
_WATCHED = ("loss", "accuracy", "acc", "perplexity", "ppl", "grad_norm")
_LOSSES = ("mlm_loss_nats", "loss_nats")


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something to look at.

    Args:
        kind: what.
        severity: "bad", "warn" or "info".
        step: of the reading that gave it away.
        since: step at which it began, as far as known.
        metric: which, with "eval " before it where it is held out.
        text: for people, one sentence.
        evidence: the numbers behind it.
    """

    kind: AlarmKind
    severity: Severity
    step: int
    since: int
    metric: str
    text: str
    evidence: Mapping[str, Any]

    def __str__(self) -> str:
        """Return the text."""
        return self.text

    def summary(self) -> str:
        """Return the text."""
        return self.text

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        found = {name: getattr(self, name) for name in ("severity", "since", "metric", "text")}
        return {"alarm": self.kind, "at_step": self.step, **found, "evidence": plain(dict(self.evidence))}


class Monitor:
    """Watches a run record by record; jumps are looked for in the first 32 metrics, which bounds the memory.

    Args:
        band: a `Foresight`, which forecasts the run anew each time its readings have doubled, or the forecast of
            `band_metric` made before these records; None to leave that detector out.
        band_metric: which held-out metric a forecast made before is of.
    """

    def __init__(self, band: Band | Foresight | None = None, band_metric: str = "mlm_accuracy") -> None:
        self._jumps: dict[tuple[str, str], JumpDetector] = {}
        self._plateaus: dict[tuple[str, str], PlateauDetector] = {}
        self._rate = RateDetector()
        self._gap = GapDetector()
        self._foresight = band if isinstance(band, Foresight) else Foresight(metric=band_metric)
        if band is None:
            self._band = None
        else:
            self._band = BandDetector(band.band if isinstance(band, Foresight) else band)
        self._renewed = isinstance(band, Foresight)
        self._not_finite: set[str] = set()

    def observe(self, record: Mapping[str, Any]) -> list[Alarm]:
        """Take one record of a history and return what it shows."""
        kind, step = str(record.get("kind")), record.get("step")
        if not isinstance(step, int):
            return []
        if kind == "event":
            if record.get("event") != "not_finite":
                return []
            return self._broken(what_broke(record), step)
        if self._renewed and self._foresight.metric is None and kind == self._foresight.kind:
            names = [name for name in record if is_watched(name) and not _is_norm(name) and improves(name)]
            self._foresight.metric = next((name for name in names if improves(name) > 0), names[0] if names else None)
        found: list[Alarm] = []
        for metric, value in record.items():
            if metric in ("kind", "step") or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if not math.isfinite(value):
                found += self._broken(metric, step)
            else:
                fresh = kind == "train" and is_accuracy(metric)
                noise = sampling_noise(value, record.get(predictions_of(metric))) if fresh else 0.0
                found += self._reading(kind, metric, step, float(value), noise)
        return found

    def _broken(self, metric: str, step: int) -> list[Alarm]:
        if metric in self._not_finite:
            return []
        self._not_finite.add(metric)
        return [
            Alarm("not_finite", "bad", step, step, metric, f"{metric} is not a finite number at step {step:,}.", {})
        ]

    def _reading(self, kind: str, metric: str, step: int, value: float, noise: float) -> list[Alarm]:
        found: list[Alarm | None] = []
        if metric == "learning_rate" and kind == "train":
            found.append(self._rate.update(step, value))
        key = (kind, metric)
        if is_watched(metric) and (key in self._jumps or len(self._jumps) < _MAX_METRICS):
            norm = _is_norm(metric)
            if key not in self._jumps:
                self._jumps[key] = JumpDetector(rising_is_bad=not _rises(metric), relevant=0.0 if norm else _RELEVANT)
            if not norm:
                jump = self._jumps[key].update(step, value, noise)
            elif value > 0:
                jump = self._jumps[key].update(step, math.log(value), _NOISE_OF_NORMS)
            else:
                jump = None
            usual = norm and jump is not None and jump.kind != "spike"  # norms rise in healthy runs
            found.append(_told(jump, kind, metric) if jump and not usual else None)
        if metric in _LOSSES:
            found.append(self._gap.update(kind, step, value))
            if key not in self._plateaus:
                self._plateaus[key] = PlateauDetector(_name(kind, metric))
            found.append(self._plateaus[key].update(step, value))
        if self._band is not None and (kind, metric) == (self._foresight.kind, self._foresight.metric):
            found.append(self._band.update(step, value, metric, kind))
            if self._renewed:
                self._foresight.learn(step, value)
        return [alarm for alarm in found if alarm is not None]


def sampling_noise(value: float, count: Any) -> float:
    """Return the binomial standard deviation of an accuracy over fresh predictions; 0 where none is to be told.

    Held-out readings ask the same questions every time: theirs is common to all and no noise between them.
    """
    if not isinstance(count, int | float) or not count >= 1 or not 0 <= value <= 1:
        return 0.0
    share = (value * count + 1) / (count + 2)
    return math.sqrt(share * (1 - share) / count)


def what_broke(event: Mapping[str, Any]) -> str:
    """Return which value an event "not_finite" is of: a metric, or what our trainer found ("loss")."""
    return str(event.get("metric") or event.get("what") or "a value")


def is_watched(metric: str) -> bool:
    """Say whether jumps of a metric are looked for: losses, accuracies, perplexities and the gradient norm.

    Not of next-sentence or sentence-order prediction: it begins at chance, and its noise grows from next to nothing as
    pairs are learned.
    """
    name = metric.lower()
    of_pairs = name.startswith(("nsp_", "sop_"))
    return not is_bookkeeping(metric) and not of_pairs and any(word in name for word in _WATCHED)


def _rises(metric: str) -> bool:
    """Say whether a metric rises as a model learns, by its name."""
    return "acc" in metric.lower()


def _is_norm(metric: str) -> bool:
    """Say whether a metric is a gradient norm: its logarithm is watched, since it scatters by factors."""
    return "grad_norm" in metric.lower()


def _name(kind: str, metric: str) -> str:
    return f"held-out {metric}" if kind == "eval" else metric


def _told(jump: Jump, kind: str, metric: str) -> Alarm:
    name = _name(kind, metric)
    size = f"{abs(jump.size):.3g}" if not is_accuracy(metric) else f"{100 * abs(jump.size):.1f} points"
    scale = f"{jump.sigma:.1f} local standard deviations"
    way = "below" if _rises(metric) else "above"
    evidence = {"size": jump.size, "sigma": jump.sigma, "expected": jump.expected}
    if _is_norm(metric):
        times = math.exp(min(jump.size, 700.0))
        text = f"{name} rose to {times:,.1f} times its level before at step {jump.since:,} ({scale} of its logarithm)."
        return Alarm("spike", "warn", jump.step, jump.since, name, text, evidence | {"times": times})
    told = {
        "spike": f"{name} left its course at step {jump.since:,}: {size} ({scale}) {way} the level before.",
        "level_shift": f"{name} shifted at step {jump.since:,} and stays {size} ({scale}) {way} the level before.",
        "divergence": f"{name} has crept the wrong way since step {jump.since:,}: by step {jump.step:,} it is {size} "
        f"({scale}) {way} its best level.",
    }
    severity: Severity = "bad" if jump.kind == "divergence" else "warn"
    return Alarm(jump.kind, severity, jump.step, jump.since, name, told[jump.kind], evidence)


class RateDetector:
    """Finds jumps of the learning rate: a change of three tenths of its peak, and thrice the one before, at once.

    Warm-up, decay and their kinks change it by less between records; a run too short for that has few records, and
    the first three are passed over.
    """

    __slots__ = ("_change", "_last", "_num", "_peak", "_step")

    def __init__(self) -> None:
        self._num = self._step = 0
        self._last = self._change = self._peak = 0.0

    def update(self, step: int, value: float) -> Alarm | None:
        """Take one reading."""
        self._num += 1
        change = value - self._last
        pace = change / max(1, step - self._step)
        usual = abs(self._change) * max(1, step - self._step)
        self._peak = max(self._peak, value)
        jumped = self._num > 3 and abs(change) > 0.3 * self._peak and abs(change) > 3 * usual
        before, since = self._last, self._step
        self._last, self._step, self._change = value, step, pace
        if not jumped:
            return None
        text = f"The learning rate jumped from {before:.3g} to {value:.3g} between steps {since:,} and {step:,}."
        return Alarm(
            "learning_rate_jump", "warn", step, since, "learning_rate", text, {"before": before, "after": value}
        )


class PlateauDetector:
    """Finds that the smoothed loss has not improved by its own error for 100 readings and a third of the run."""

    __slots__ = ("_best", "_best_at", "_best_step", "_level", "_metric", "_num", "_scale", "_told")

    def __init__(self, metric: str) -> None:
        self._metric = metric
        self._num, self._best_at, self._best_step = 0, 0, 0
        self._level = self._scale = 0.0
        self._best = math.inf
        self._told = False

    def update(self, step: int, value: float) -> Alarm | None:
        """Take one reading."""
        self._num += 1
        gain = max(0.04, 1 / self._num)
        error = value - self._level if self._num > 1 else 0.0
        self._level += gain * error if self._num > 1 else value
        size = abs(error) if self._num <= 2 else min(abs(error), 4 * self._scale or abs(error))
        self._scale += gain * (size - self._scale)
        if self._level < self._best - 0.18 * self._scale:  # one standard error of the level: sqrt(g / (2 - g)) * 1.25
            self._best, self._best_at, self._best_step, self._told = self._level, self._num, step, False
        if self._told or self._num - self._best_at <= max(100, self._num // 3):
            return None
        self._told = True
        idle = self._num - self._best_at
        text = f"{self._metric} has not improved since step {self._best_step:,}: a plateau of {idle:,} readings."
        evidence = {"best_level": self._best, "readings": idle}
        return Alarm("plateau", "info", step, self._best_step, self._metric, text, evidence)


class GapDetector:
    """Finds that training and held-out loss part: the training data repeats, and is being learned by heart.

    Each held-out reading is compared with the mean of the training readings since the one before. The alarm asks that
    the gap has grown, against its slow average, by five standard errors (of its own successive differences) and by a
    fiftieth of the loss, while the held-out loss fell by less than half of what the training loss did.
    """

    __slots__ = ("_count", "_differences", "_gap", "_last", "_num", "_since", "_slow", "_sum", "_told")

    def __init__(self) -> None:
        self._sum, self._count, self._num = 0.0, 0, 0
        self._gap = self._last = self._differences = 0.0
        self._slow = (0.0, 0.0, 0.0)  # gap, held-out, training
        self._since, self._told = 0, False

    def update(self, kind: str, step: int, value: float) -> Alarm | None:
        """Take one reading of training ("train") or held-out ("eval") loss."""
        if kind == "train":
            self._sum += value
            self._count += 1
            return None
        if not self._count:
            return None
        train, self._sum, self._count = self._sum / self._count, 0.0, 0
        gap = value - train
        self._num += 1
        if self._num > 1:
            self._differences += max(0.1, 1 / (self._num - 1)) * (abs(gap - self._last) - self._differences)
        self._last = gap
        self._gap += max(0.4, 1 / self._num) * (gap - self._gap)
        gain = max(0.08, 1 / self._num)
        slow = self._slow
        self._slow = (
            slow[0] + gain * (gap - slow[0]),
            slow[1] + gain * (value - slow[1]),
            slow[2] + gain * (train - slow[2]),
        )
        grown, fell, held_out_fell = self._gap - self._slow[0], self._slow[2] - train, self._slow[1] - value
        error = 0.44 * self._differences  # sd of the smoothed gap: 1.25 / sqrt(2) * sqrt(0.4 / 1.6)
        if grown < 2 * error:
            self._since = step
        if self._told or self._num < 6 or grown < max(5 * error, 0.02 * abs(value)) or held_out_fell > fell / 2:
            return None
        self._told = True
        text = (
            f"Training and held-out loss part since step {self._since:,}: the gap grew by {grown:.3g} to "
            f"{self._gap:.3g}. Does the training data repeat? The model is learning it by heart."
        )
        evidence = {"gap": self._gap, "grown": grown, "train_fell_by": fell, "held_out_fell_by": held_out_fell}
        name = "gap of held-out and training loss"
        return Alarm("data_repetition", "warn", step, self._since, name, text, evidence)


class BandDetector:
    """Finds that a metric has left the band of its forecast: three of four readings in a row outside on one side."""

    __slots__ = ("_band", "_first", "_recent", "_told")

    def __init__(self, band: Band) -> None:
        self._band = band
        self._recent: tuple[int, ...] = ()
        self._first, self._told = 0, False

    def update(self, step: int, value: float, metric: str, kind: str = "eval") -> Alarm | None:
        """Take one reading."""
        band = self._band(step)
        if band is None:
            return None
        side = (value > band[1]) - (value < band[0])
        if side and not any(self._recent):
            self._first = step
        self._recent = (*self._recent[-3:], side)
        out = self._told or abs(sum(self._recent)) < 3
        if not side:
            self._told = self._told and any(self._recent)
        if out:
            return None
        self._told = True
        name, where = _name(kind, metric), "above" if side > 0 else "below"
        better = side * improves(metric) > 0
        text = (
            f"{name} is {measured(value, metric)} at step {step:,}, {where} its forecast "
            f"({measured(band[0], metric)} to {measured(band[1], metric)}) since step {self._first:,}"
            + (": better than its own past foretold." if better else ".")
        )
        evidence = {"value": value, "low": band[0], "high": band[1]}
        return Alarm("outside_forecast", "info" if better else "warn", step, self._first, name, text, evidence)


def scan(history: History, monitor: Monitor | None = None) -> tuple[Alarm, ...]:
    """Look at a whole history as if it were being written.

    Of a metric with more than 20,000 readings, means over equal blocks are looked at: faults of single readings are
    too many to be told there, and what lasts shows in the means.
    """
    watcher = monitor or Monitor()
    queue: list[tuple[int, int, dict[str, Any]]] = []
    for order, kind in enumerate(("train", "eval")):
        table = history.table(kind)
        watched = [name for name in table.columns if history.has(kind, name) and _is_scanned(name)]
        counts = {count for name in watched if (count := predictions_of(name)) in table.columns} - set(watched)
        names = [*watched, *sorted(count for count in counts if table.columns[count].dtype != object)]
        step, columns = thinned(table.step, [table.columns[name] for name in names])
        if (width := -(-table.step.size // MOST_READINGS)) > 1:
            columns = [
                column * width if name in counts else column for name, column in zip(names, columns, strict=True)
            ]
        for at in range(step.size):
            values = {
                name: float(column[at]) for name, column in zip(names, columns, strict=True) if column[at] == column[at]
            }
            queue.append((int(step[at]), order, {"kind": kind, "step": int(step[at]), **values}))
    queue += [(int(event["step"]), 2, dict(event)) for event in history.events if isinstance(event.get("step"), int)]
    queue.sort(key=lambda entry: entry[:2])
    return tuple(alarm for _, _, record in queue for alarm in watcher.observe(record))


def _is_scanned(metric: str) -> bool:
    return is_watched(metric) or metric == "learning_rate"


def thinned(step: Integers, columns: Sequence[Floats]) -> tuple[Integers, list[Floats]]:
    """Return at most 20,000 rows: means over equal blocks, at each block's last step."""
    width = -(-step.size // MOST_READINGS)
    if width <= 1:
        return step, list(columns)
    starts = np.arange(0, step.size, width)
    last = np.append(starts[1:], step.size) - 1
    found = []
    for column in columns:
        present = np.isfinite(column)
        total = np.add.reduceat(np.where(present, column, 0.0), starts)
        count = np.add.reduceat(present.astype(np.int64), starts)
        found.append(np.where(count > 0, total / np.maximum(count, 1), np.nan))
    return step[last], found


def condense(alarms: Sequence[Alarm], most: int = 12) -> tuple[Alarm, ...]:
    """Return the alarms that matter most: a spike that became a shift once, the worst first, in order of step."""
    shifted = {(alarm.metric, alarm.since) for alarm in alarms if alarm.kind == "level_shift"}
    kept = [alarm for alarm in alarms if not (alarm.kind == "spike" and (alarm.metric, alarm.since) in shifted)]
    order = {"bad": 0, "warn": 1, "info": 2}
    kept.sort(key=lambda alarm: (order[alarm.severity], -abs(float(alarm.evidence.get("sigma") or 0.0))))
    return tuple(sorted(kept[:most], key=lambda alarm: alarm.step))
