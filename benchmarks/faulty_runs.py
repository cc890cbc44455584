"""Whole runs, well ones and broken ones, for the detectors that look at more than one reading or metric.

A run has 1,500 training readings, 60 held-out ones of loss and accuracy, and the learning rate. Broken runs:

    divergence       from a place on, the training loss creeps up by 10 of its standard deviations over 200 readings
    plateau          from a quarter of the run on, nothing improves
    not finite       one reading is NaN
    rate jump        the learning rate is multiplied by 0.1, 3 or 10 at once
    repetition       training loss falls by half of its distance to 0 over 500 readings, held-out loss stays
    course falls     held-out accuracy falls by 15 % of itself at once, and goes on from there
    course stops     held-out accuracy falls by a tenth and does not move any more

`outside_forecast` is tried on well runs with the plan known and without. benchmarks/anomalies.py prints it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from xuebu.analysis.annealing import Schedule
from xuebu.analysis.anomalies import Alarm, Monitor
from xuebu.analysis.foresight import Foresight

SIZE, EVERY = 1500, 25
FAULTS: Mapping[str, str] = {
    "divergence": "divergence",
    "plateau": "plateau",
    "not finite": "not_finite",
    "rate jump": "learning_rate_jump",
    "repetition": "data_repetition",
    "course falls": "outside_forecast",
    "course stops": "outside_forecast",
}
Floats = np.ndarray[Any, np.dtype[np.float64]]


def learning_rates(rng: np.random.Generator) -> Floats:
    """Return a warm-up and one of four courses after it."""
    at = np.arange(1, SIZE + 1)
    warm = float(rng.choice([10, 50, 150]))
    course = [
        np.ones(SIZE),
        1 - at / SIZE,
        0.5 * (1 + np.cos(np.pi * at / SIZE)),
        np.minimum(1, (SIZE - at + 1) / (0.2 * SIZE)),
    ][rng.integers(4)]
    return np.asarray(1e-3 * np.minimum(at / warm, 1) * course)


def make_run(rng: np.random.Generator, fault: str | None) -> tuple[list[dict[str, Any]], int, Schedule]:
    """Return the records of a run, the step at which its fault begins, and its learning rate."""
    at = np.arange(1, SIZE + 1)
    rate = learning_rates(rng)
    area = np.cumsum(rate) / 1e-3
    annealed = 0.25 * np.maximum(0, 1 - rate / np.maximum.accumulate(rate)) * (at > 150)
    mean = 2 + 6 * (area + 20) ** -rng.uniform(0.15, 0.35) - annealed
    sigma = float(rng.uniform(0.01, 0.06))
    # The first forecast is made at the 24th held-out reading: before it nothing can leave a band.
    where = SIZE // 4 if fault == "plateau" else int(rng.integers(500, 1000)) + 150 * (fault or "").startswith("course")
    after = np.maximum(0, at - where)
    train, held_out = mean.copy(), mean + 0.1
    rates = rate.copy()
    match fault:
        case "divergence":
            train = train + 10 * sigma * np.minimum(after / 200, 1)
        case "plateau":
            train[where:], held_out[where:] = train[where], held_out[where]
        case "rate jump":
            rates[where:] *= float(rng.choice([0.1, 3.0, 10.0]))
        case "repetition":
            train = train * (1 - 0.5 * np.minimum(after / 500, 1))
            held_out[where:] = held_out[where]
    accuracy = 1 / (1 + np.exp(2 * held_out - 6.5))
    if fault == "course falls":
        accuracy = accuracy * np.where(after > 0, 0.85, 1)
    if fault == "course stops":
        accuracy[where:] = 0.9 * accuracy[where]
    seen = train + sigma * rng.normal(size=SIZE)
    records: list[dict[str, Any]] = []
    for place, step in enumerate(at.tolist()):
        loss = float("nan") if fault == "not finite" and place == where else float(seen[place])
        records.append({"kind": "train", "step": step, "loss_nats": loss, "learning_rate": float(rates[place])})
        if step % EVERY == 0:
            noise = 0.3 * sigma * rng.normal()
            records.append(
                {
                    "kind": "eval",
                    "step": step,
                    "loss_nats": float(held_out[place] + noise),
                    "mlm_accuracy": float(accuracy[place] - 0.1 * noise + 0.001 * rng.normal()),
                }
            )
    return records, where + 1, Schedule(at.astype(np.float64), rate)


def alarms_of(records: list[dict[str, Any]], schedule: Schedule | None) -> list[Alarm]:
    """Return what a monitor tells of a run."""
    monitor = Monitor(Foresight(schedule, SIZE if schedule is not None else None))
    return [alarm for record in records for alarm in monitor.observe(record)]


def judge_runs(num: int) -> dict[str, Any]:
    """Return and print recall and delay of each fault, and in how many well runs each alarm is raised.

    Args:
        num: runs of each kind.
    """
    found: dict[str, Any] = {}
    print(f"\nwhole runs of {SIZE:,} training and {SIZE // EVERY} held-out readings, {num} of each kind")
    for known in (True, False):
        rng, counts = np.random.default_rng(500), dict.fromkeys(FAULTS.values(), 0)
        better = 0
        for _ in range(2 * num):
            records, _, schedule = make_run(rng, None)
            told = alarms_of(records, schedule if known else None)
            better += any(one.kind == "outside_forecast" and one.severity == "info" for one in told)
            for kind in {one.kind for one in told if one.severity != "info" or one.kind == "plateau"} & set(counts):
                counts[kind] += 1
        name = "well runs, plan known" if known else "well runs, plan not known"
        found[name] = {**counts, "better than foretold": better, "runs": 2 * num}
        print(f"  {name}: alarms in {found[name]}")
    for fault, kind in FAULTS.items():
        rng, delays = np.random.default_rng(600), []
        for _ in range(num):
            records, where, schedule = make_run(rng, fault)
            told = [one.step for one in alarms_of(records, schedule) if one.kind == kind and one.step >= where]
            delays += [told[0] - where] if told else []
        delay = float(np.median(delays)) if delays else None
        found[fault] = {"recall": round(len(delays) / num, 3), "median_delay_steps": delay}
        print(f"  {fault:15}: recall {len(delays) / num:.3f}, median delay {delay} steps")
    return found


if __name__ == "__main__":
    judge_runs(20)
