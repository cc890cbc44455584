"""Is the run healthy? Overfitting, memorizing, diverging, and what the monitor found, each with its evidence."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from xuebu.analysis.anomalies import Alarm, condense, what_broke
from xuebu.analysis.verdict import Finding
from xuebu.history.readings import is_bookkeeping, locate
from xuebu.history.records import History
from xuebu.history.series import Floats, Series

LOSSES = ("mlm_loss_nats", "loss_nats")
MIN_READINGS = 6
RISE = 4.0
SMALL = 0.02
HALF = 0.5


def judge_health(history: History, alarms: Sequence[Alarm]) -> list[Finding]:
    """Return findings on the health of a run.

    Args:
        history: what it recorded.
        alarms: of `xuebu.analysis.anomalies.scan`.
    """
    found = [
        _judge_not_finite(history, alarms),
        _judge_held_out(history),
        _judge_memorizing(history, alarms),
        _judge_diverging(history),
        _judge_alarms(alarms),
    ]
    return [finding for finding in found if finding is not None]


def main_metric(history: History) -> tuple[str, str] | None:
    """Return kind and metric to analyze of a log that has none of our names: the most telling one with most readings.

    Held-out readings are taken where there are at least eight, or as many as of training. Losses come before
    accuracies, these before anything else that is no count or time.
    """

    def rank(kind: str, metric: str) -> tuple[bool, bool, bool, int]:
        name, num = metric.lower(), int(np.isfinite(history.table(kind).columns[metric]).sum())
        return "loss" in name, "acc" in name, kind == "eval" and num >= 8, num

    names = [
        (kind, metric)
        for kind in ("eval", "train")
        for metric in history.table(kind).columns
        if history.has(kind, metric) and not is_bookkeeping(metric) and metric != "grad_norm"
    ]
    return max(names, key=lambda one: rank(*one), default=None)


def _loss(history: History, kind: str) -> Series | None:
    metric = next((name for name in LOSSES if history.has(kind, name)), None)
    return history.column(kind, metric) if metric else None


def _noise(values: Floats) -> float:
    """Return the standard deviation of the readings around their course, from the median of second differences.

    Second differences of a straight course are noise alone, with six times its variance.
    """
    return 1.4826 * float(np.median(np.abs(np.diff(values, 2)))) / 6**0.5


def _judge_not_finite(history: History, alarms: Sequence[Alarm]) -> Finding | None:
    """Values that are no numbers: a breakdown if no finite one of that metric follows, else single readings."""
    broken = [alarm for alarm in alarms if alarm.kind == "not_finite"]
    if not broken:
        return None
    names = ", ".join(dict.fromkeys(alarm.metric for alarm in broken))
    first = min(alarm.step for alarm in broken)
    text = f"Values that are no finite numbers were logged ({names}), the first at step {first:,}"
    evidence = {"step": first, "metrics": names}
    if all(_went_on(history, alarm) for alarm in broken):
        passed = "finite ones follow. Single steps were skipped or badly recorded; clipping or a scaler may do so."
        return Finding("not_finite_passing", "warn", f"{text}; {passed}", evidence)
    return Finding("not_finite", "bad", f"{text}: training broke down.", evidence)


def _went_on(history: History, alarm: Alarm) -> bool:
    """Say whether a finite reading of the alarm's metric follows the last that was none."""
    last = alarm.step
    for event in history.events:
        if event.get("event") == "not_finite" and what_broke(event) == alarm.metric:
            last = max(last, *(at for at in (event.get("step"), event.get("last_step")) if isinstance(at, int)))
    kind, metric = locate(history, alarm.metric)
    kinds = [one for one in (("train", "eval") if kind is None else (kind,)) if history.has(one, metric)]
    if not kinds:  # our trainer says "loss" of a step that it left out: whatever it recorded later counts
        return any(len(table) and int(table.step[-1]) > last for table in (history.train, history.eval))
    return any(int(history.column(one, metric).step[-1]) > last for one in kinds)


def _judge_held_out(history: History) -> Finding | None:
    """Overfitting: the held-out loss has left its lowest level while the training loss went on falling."""
    held_out, train = _loss(history, "eval"), _loss(history, "train")
    if held_out is None or train is None or len(held_out) < MIN_READINGS:
        return None
    values = held_out.value
    width = max(1, len(held_out) // 20)
    smooth = np.convolve(values, np.ones(width) / width, mode="valid")
    best = int(smooth.argmin())
    rise = float(smooth[-1] - smooth[best])
    error = _noise(values) * (2 / width) ** 0.5
    fallen = float(smooth[0] - smooth[best])
    since = int(held_out.step[best + width - 1])
    before, after = train.value[train.step <= since], train.value[train.step > since]
    if min(before.size, after.size) < 2:
        return None
    tail = max(1, after.size // 4)
    train_change = float(after[-tail:].mean() - before[-max(1, min(tail, before.size)) :].mean())
    if rise <= max(RISE * error, SMALL * abs(fallen)) or train_change >= 0:
        return None
    text = (
        f"The run overfits: held-out loss was lowest at step {since:,} ({smooth[best]:.3f}) and has risen by "
        f"{rise:.3f} since, while training loss fell by {-train_change:.3f}. Take the checkpoint of that step."
    )
    evidence = {"best_step": since, "best": float(smooth[best]), "rise": rise, "error": error, "train": train_change}
    return Finding("overfitting", "bad", text, evidence)


def _judge_memorizing(history: History, alarms: Sequence[Alarm]) -> Finding | None:
    """Memorizing: at the end the training loss is less than half of the held-out loss, or the monitor saw them part."""
    held_out, train = _loss(history, "eval"), _loss(history, "train")
    parted = next((alarm for alarm in alarms if alarm.kind == "data_repetition"), None)
    if held_out is None or train is None or len(held_out) < 3 or len(train) < 3:
        return None
    near = train.value[train.step > held_out.step[-3]]
    if not near.size or held_out.value[-1] <= 0:
        return None
    end, level = float(near.mean()), float(held_out.value[-3:].mean())
    evidence: dict[str, Any] = {"train": end, "held_out": level}
    if end < HALF * level:
        text = (
            f"The model memorizes: at the end training loss is {end:.3f}, held-out loss {level:.3f}. It knows its "
            "training text by heart; more text would help, more steps would not."
        )
        return Finding("memorizing", "warn", text, evidence)
    if parted is not None and level - end > SMALL * level:
        return Finding("memorizing", "warn", parted.text, {**evidence, **parted.evidence, "since": parted.since})
    return None


def _judge_diverging(history: History) -> Finding | None:
    """Diverging: the training loss ends far above its own lowest level."""
    train = _loss(history, "train")
    if train is None or len(train) < 20:
        return None
    edges = np.linspace(0, len(train), 11).astype(int)
    means = np.array([train.value[low:high].mean() for low, high in pairwise(edges)])
    best = int(means.argmin())
    rise, fallen = float(means[-1] - means[best]), float(means[0] - means[best])
    inside = train.value[edges[-2] :]
    # Neighboring readings are alike: their number is taken as a quarter
    error = float(inside.std()) * (2 * 4 / inside.size) ** 0.5
    if best >= 9 or rise <= max(RISE * error, 0.1 * fallen) or rise <= 0:
        return None
    since = int(train.step[edges[best + 1] - 1])
    text = (
        f"The run diverges: training loss was {means[best]:.3f} around step {since:,} and is {means[-1]:.3f} over the "
        "last tenth. A lower learning rate, a longer warm-up or clipping is the usual remedy."
    )
    return Finding("diverging", "bad", text, {"since": since, "best": float(means[best]), "end": float(means[-1])})


def _judge_alarms(alarms: Sequence[Alarm]) -> Finding | None:
    """Return one finding on spikes, shifts and jumps of the learning rate."""
    told = [
        alarm for alarm in condense(alarms, most=200) if alarm.kind in ("spike", "level_shift", "learning_rate_jump")
    ]
    if not told:
        return None
    count = {kind: sum(alarm.kind == kind for alarm in told) for kind in ("spike", "level_shift", "learning_rate_jump")}
    names = {
        "spike": ("spike", "spikes"),
        "level_shift": ("level shift", "level shifts"),
        "learning_rate_jump": ("jump of the learning rate", "jumps of the learning rate"),
    }
    counted = ", ".join(f"{num:,} {names[kind][num > 1]}" for kind, num in count.items() if num)
    first = condense(told, most=3)
    text = f"Worth a look: {counted}. " + " ".join(alarm.text for alarm in first)
    evidence = {"num_alarms": len(told), **count, "steps": [alarm.since for alarm in told[:50]]}
    return Finding("disturbed", "info", text, evidence)
