"""Readings of another trainer's log: their names, steps that go back, several runs, and the tables made of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xuebu.errors import InputError
from xuebu.history.records import History, Table, table_of
from xuebu.history.series import Floats, Integers

LARGEST_STEP = 2**62
STEP_NAMES = ("_step", "step", "global_step", "steps", "iteration", "iter", "num_updates", "update", "updates", "s")
_GLOBAL_STEPS = ("train/global_step", "trainer/global_step", "global_step", "step")
_MAX_JUMPS = 1_000
_MAX_TOLD = 8
_KIND = re.compile(r"(train|training|eval|evaluation|val|valid|validation|dev|held_out)[/_.\- ]+(?=\S)", re.IGNORECASE)
_OWN = {
    "loss": "loss_nats",
    "lm loss": "loss_nats",
    "mlm_loss": "mlm_loss_nats",
    "masked_lm_loss": "mlm_loss_nats",
    "nsp_loss": "nsp_loss_nats",
    "next_sentence_loss": "nsp_loss_nats",
    "sop_loss": "sop_loss_nats",
    "sentence_order_loss": "sop_loss_nats",
    "mlm_acc": "mlm_accuracy",
    "nsp_acc": "nsp_accuracy",
    "sop_acc": "sop_accuracy",
    "acc": "accuracy",
    "lr": "learning_rate",
    "learning rate": "learning_rate",
    "gradnorm": "grad_norm",
    "grad norm": "grad_norm",
    "num_input_tokens_seen": "tokens",
    "_runtime": "seconds",
}
_BOOKKEEPING = re.compile(
    r"(^|[/_ ])(epoch|time|runtime|seconds|step_avg|steps?|tokens|total_flos|mfu|memory|\w+_per_second)$",
    re.IGNORECASE,
)
_TEXT_LOG = {"trl": "train_loss", "tel": "val_loss"}
"""The names of training and held-out loss in llm.c's main.log."""


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """One metric as a log has it.

    Args:
        position: int64[n], increasing: the place in the file; readings of one record share it.
        step: int64[n], in the file's order.
        value: float64[n]; a value that the log itself calls NaN or infinite is kept.
    """

    position: Integers
    step: Integers
    value: Floats

    def where(self, mask: npt.NDArray[np.bool_]) -> Readings:
        """Return the readings that a mask keeps."""
        return self if mask.all() else Readings(self.position[mask], self.step[mask], self.value[mask])


Log = dict[str, Readings]
"""The readings of one run by the log's own names, in the order of their appearance."""


def join(parts: Iterable[Mapping[str, Readings]]) -> Log:
    """Return logs one after the other as one; positions must go on from part to part."""
    found: dict[str, list[Readings]] = {}
    for part in parts:
        for name, readings in part.items():
            if readings.step.size:
                found.setdefault(name, []).append(readings)
    return {name: _join(several) if len(several) > 1 else several[0] for name, several in found.items()}


def _join(parts: Sequence[Readings]) -> Readings:
    position, step, value = (
        np.concatenate([getattr(part, field) for part in parts]) for field in ("position", "step", "value")
    )
    if (np.diff(position) < 0).any():
        order = np.argsort(position, kind="stable")
        position, step, value = position[order], step[order], value[order]
    return Readings(position, step, value)


def name_of(source: str) -> tuple[str, str]:
    """Return the kind of record and our name of another log's metric.

    "eval_loss", "val/loss" and "validation loss" are ("eval", "loss_nats"); what has no name of ours keeps its own,
    without the prefix. "test" is no held-out data to choose by, and stays in the name.
    """
    name = _TEXT_LOG.get(source, source)
    match = _KIND.match(name)
    kind = "train" if match is None or match[1].lower().startswith("train") else "eval"
    rest = name[match.end() :] if match else name
    return kind, _OWN.get(rest.lower(), rest)


def is_bookkeeping(metric: str) -> bool:
    """Say whether a metric counts or times the run, and is nothing that training should change."""
    return bool(_BOOKKEEPING.search(metric)) or metric == "learning_rate"


def locate(history: History, name: str) -> tuple[str | None, str]:
    """Return kind and metric that a user means by a name: the log's own or ours; no kind where both may be meant."""
    if name in history.aliases:
        return history.aliases[name]
    if history.has("eval", name) or history.has("train", name):
        return None, name
    kind, metric = name_of(name)
    return (kind, metric) if history.has(kind, metric) else (None, name)


def step_name(names: Sequence[str]) -> str | None:
    """Return which of the names of a record's values is its step; None if none is."""
    found = {name.strip().lower(): name for name in reversed(names)}
    return next((found[name] for name in (*STEP_NAMES, *_GLOBAL_STEPS) if name in found), None)


def use_global_step(log: Log) -> Log:
    """Return W&B's readings at the trainer's step where that was logged: `_step` only counts the calls.

    A record without the trainer's step is of the last one before it.
    """
    name = next((one for one in _GLOBAL_STEPS if one in log), None)
    if name is None:
        return log
    trainer = log[name]
    step, good = whole_steps(trainer.value)
    trainer, step = trainer.where(good), step[good]
    found = {}
    for key, one in log.items():
        at = np.searchsorted(trainer.position, one.position, side="right") - 1
        if key != name and (at >= 0).any():
            found[key] = Readings(one.position, step[np.maximum(at, 0)], one.value).where(at >= 0)
    return found or log


def whole_steps(values: Floats) -> tuple[Integers, npt.NDArray[np.bool_]]:
    """Return steps as integers and which of them are whole numbers from 0; the others are 0."""
    with np.errstate(invalid="ignore"):
        good = (values >= 0) & (values < LARGEST_STEP) & (values == np.floor(values))
    return np.where(good, values, 0.0).astype(np.int64), good


def split_runs(log: Log) -> list[Log]:
    """Cut a log where a run begins again: where the steps of its longest metric fall back to their first one.

    Records just before that place which are as early (an evaluation before the first step) begin the new run.
    """
    if not log:
        return [log]
    main = max(log.values(), key=lambda readings: readings.step.size)
    back = np.flatnonzero(np.diff(main.step) < 0) + 1
    starts = back[main.step[back] == main.step[0]]
    if not starts.size or back.size > _MAX_JUMPS:
        return [log]
    cuts = [_first_of_run(log.values(), int(main.position[at]), int(main.step[0])) for at in starts]
    runs = []
    for low, high in zip([-1, *cuts], [*cuts, np.iinfo(np.int64).max], strict=True):
        inside = {name: one.where((one.position >= low) & (one.position < high)) for name, one in log.items()}
        runs.append({name: one for name, one in inside.items() if one.step.size})
    return [run for run in runs if run]


def _first_of_run(readings: Iterable[Readings], position: int, first_step: int) -> int:
    """Return the position from which on every record up to `position` is of a step no later than the first."""
    later = [one.position[(one.position < position) & (one.step > first_step)] for one in readings]
    return max((int(found[-1]) for found in later if found.size), default=-1) + 1


def choose_run(path: str, runs: Mapping[str, Log], wanted: str | None) -> tuple[Log, list[str]]:
    """Return the run that is asked for, or the one with the most readings (the last of equals), and what to say.

    Raises:
        InputError: there is no run of that name.
    """
    sizes = {name: sum(one.step.size for one in log.values()) for name, log in runs.items()}
    if wanted is not None and wanted not in runs:
        raise InputError(f"{path}: no run {wanted!r} in it; it holds {', '.join(map(repr, runs)) or 'none'}")
    chosen = wanted if wanted is not None else max(reversed(list(runs)), key=lambda name: sizes[name])
    if len(runs) == 1:
        return runs[chosen], []
    shown = ", ".join(f"{name} ({size:,})" for name, size in list(sizes.items())[:8])
    more = f" and {len(runs) - 8} more" if len(runs) > 8 else ""
    return runs[chosen], [f"{len(runs)} runs in it, with their numbers of readings: {shown}{more}; read is {chosen}"]


def history_of(
    path: str,
    format: str,
    log: Log,
    *,
    notes: Sequence[str] = (),
    events: Sequence[Mapping[str, Any]] = (),
) -> History:
    """Make a history of one run's readings.

    Of a step that comes again the later reading counts; where a run was resumed, so do its readings of all steps from
    there on. Values that are not finite are events and no readings. Accuracies in percent become fractions.

    Raises:
        InputError: there is no reading.
    """
    told: list[str] = list(notes)
    found: list[Mapping[str, Any]] = list(events)
    columns: dict[str, dict[str, Readings]] = {"train": {}, "eval": {}}
    aliases: dict[str, tuple[str, str]] = {}
    resumed: dict[tuple[int, int], int] = {}
    unsorted, repeated = 0, 0
    ordered: dict[int, tuple[Integers, npt.NDArray[np.intp], int]] = {}
    for source, given in log.items():
        raw = given
        finite = np.isfinite(raw.value)
        if not finite.all():
            found.append(_not_finite(source, raw.step[~finite]))
            raw = raw.where(finite)
        if not raw.step.size:
            continue
        key = id(raw.step)  # columns of one table share their steps: order them once
        if key not in ordered:
            kept = _kept_after_resumes(raw.step, resumed)
            order, dropped, jumbled = _sorted_once(raw.step, kept)
            unsorted += jumbled
            repeated += 0 if is_bookkeeping(source) else dropped  # a time stands in every line of a step
            ordered[key] = (raw.step, order, dropped)
        order = ordered[key][1]
        kind, metric = name_of(source)
        metric = metric if metric not in ("kind", "step") else f"{metric}_"
        while metric in columns[kind]:
            metric = source if metric != source and source not in columns[kind] else f"{metric}_"
        aliases[source] = (kind, metric)
        value = raw.value[order]
        if "accuracy" in metric and 1 < value.max() <= 100 and value.min() >= 0:
            value = value / 100
            told.append(f"{source} is read as percent")
        columns[kind][metric] = Readings(raw.position[order], raw.step[order], value)
    for (high, low), count in list(resumed.items())[:_MAX_TOLD]:
        told.append(
            f"the steps go back from {high:,} to {low:,} (resumed): {count:,} earlier readings from there on left out"
        )
    if len(resumed) > _MAX_TOLD:
        rest = sum(list(resumed.values())[_MAX_TOLD:])
        told.append(f"{len(resumed) - _MAX_TOLD:,} more such resumes: {rest:,} earlier readings left out")
    if unsorted:
        told.append(f"{unsorted:,} places where steps go back; the readings were sorted")
    if repeated:
        told.append(f"{repeated:,} readings of steps that come again left out (the later one counts)")
    for event in found[len(events) :]:
        told.append(f"{event['metric']}: {event['count']:,} values not finite, the first at step {event['step']:,}")
    if not columns["train"] and not columns["eval"]:
        raise InputError(f"{path}: {format} without a single reading; {'; '.join(told) or 'nothing to analyze'}")
    if any(name.endswith("loss_nats") for both in columns.values() for name in both):
        told.append("losses are taken to be in nats, as cross-entropy is computed unless told otherwise")
    train, held_out = (_table(columns[kind]) for kind in ("train", "eval"))
    if not len(held_out):
        told.append("nothing in it was held out")
    return History(path, format, train, held_out, tuple(found), tuple(told), aliases)


def _not_finite(source: str, step: Integers) -> dict[str, Any]:
    first, last = int(step.min()), int(step.max())
    return {
        "kind": "event",
        "event": "not_finite",
        "metric": source,
        "step": first,
        "last_step": last,
        "count": step.size,
    }


def _kept_after_resumes(step: Integers, resumed: dict[tuple[int, int], int]) -> npt.NDArray[np.bool_]:
    """Return which readings no resume replaced.

    A place where the steps go back is a resume if most of the steps that follow, as far as the run had come before,
    were there already; otherwise the rows are merely not sorted.
    """
    kept = np.ones(step.size, dtype=np.bool_)
    back = np.flatnonzero(np.diff(step) < 0) + 1
    if not back.size or back.size > min(_MAX_JUMPS, max(1, step.size // 10)):
        return kept
    _, first, inverse = np.unique(step, return_index=True, return_inverse=True)
    first_seen, highest = first[inverse], np.maximum.accumulate(step)
    for at, end in zip(back, [*back[1:], step.size], strict=True):
        before = step[:at]
        again = step[at:end] <= highest[at - 1]
        if 2 * int((first_seen[at:end][again] < at).sum()) > int(again.sum()):
            replaced = kept[:at] & (before >= step[at])
            key = (int(before[kept[:at]].max()) if kept[:at].any() else int(before.max()), int(step[at]))
            resumed[key] = resumed.get(key, 0) + int(replaced.sum())
            kept[:at] &= ~replaced
    return kept


def _sorted_once(step: Integers, kept: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.intp], int, int]:
    """Return the order that sorts the kept steps, the last of equals only; how many went; how often steps went back."""
    places = np.flatnonzero(kept)
    found = step[places]
    jumbled = int((np.diff(found) < 0).sum())
    if jumbled:
        order = np.argsort(found, kind="stable")
        places, found = places[order], found[order]
    last = np.append(np.diff(found) > 0, True)
    return places[last], int((~last).sum()), jumbled


def _table(columns: Mapping[str, Readings]) -> Table:
    """Return the readings of one kind of record as one table, NaN where a step lacks a metric."""
    if not columns:
        return table_of([], "eval")[0]
    first = next(iter(columns.values())).step
    if all(one.step is first or np.array_equal(one.step, first) for one in columns.values()):
        return Table(first, {name: one.value for name, one in columns.items()})
    step = np.unique(np.concatenate([one.step for one in columns.values()]))
    table = {}
    for name, one in columns.items():
        table[name] = np.full(step.size, np.nan)
        table[name][np.searchsorted(step, one.step)] = one.value
    return Table(step, table)
