"""Forecasts renewed while a run is watched: calm runs stay in their band, broken ones leave it."""

import pickle

import numpy as np
import pytest

from xuebu.analysis.annealing import make_schedule
from xuebu.analysis.anomalies import Monitor
from xuebu.analysis.ensemble import forecast_paths
from xuebu.analysis.foresight import FIRST_AT, MOST_KEPT, TOTAL_RISK, Foresight, reading_noise, simultaneous_band

NUM = 80


def accuracies(seed: int, size: int = NUM, fall: float = 0.0, at: int = 50) -> np.ndarray:
    rng = np.random.default_rng(seed)
    step = np.arange(1, size + 1)
    level = 0.6 - 0.5 * (1 + step / rng.uniform(3, 12)) ** -rng.uniform(0.4, 0.9)
    return level * np.where(step > at, 1 - fall, 1.0) + rng.uniform(0.001, 0.006) * rng.normal(size=size)


def told(values: np.ndarray, foresight: Foresight) -> list[tuple[int, str]]:
    monitor = Monitor(foresight)
    records = ({"kind": "eval", "step": 10 * (at + 1), "mlm_accuracy": float(x)} for at, x in enumerate(values))
    alarms = [alarm for record in records for alarm in monitor.observe(record)]
    return [(alarm.step, alarm.severity) for alarm in alarms if alarm.kind == "outside_forecast"]


def test_calm_runs_stay_inside_and_broken_ones_do_not() -> None:
    schedule = make_schedule("constant", 10 * NUM)
    calm = sum(bool(told(accuracies(seed), Foresight(schedule, 10 * NUM))) for seed in range(20))
    assert calm <= 20 * TOTAL_RISK
    for seed in range(5):
        found = told(accuracies(seed, fall=0.25), Foresight(schedule, 10 * NUM))
        assert found and 510 < found[0][0] <= 560 and found[0][1] == "warn"


def test_better_than_foretold_is_no_warning() -> None:
    found = told(accuracies(1, fall=-0.3), Foresight(make_schedule("constant", 10 * NUM), 10 * NUM))
    assert found and {severity for _, severity in found} == {"info"}


def test_forecasts_are_renewed_at_each_doubling_and_memory_is_bounded() -> None:
    foresight = Foresight(metric="mlm_accuracy")
    values = accuracies(2, 2000)
    assert foresight.band(10) is None
    for at, value in enumerate(values[:1000], start=1):
        foresight.learn(at, float(value))
    assert foresight.num_forecasts == 1 + int(np.log2(1000 / FIRST_AT))
    size = len(pickle.dumps(foresight))
    for at, value in enumerate(values[1000:], start=1001):
        foresight.learn(at, float(value))
    assert len(pickle.dumps(foresight)) < 1.5 * size
    assert len(foresight._step) < MOST_KEPT
    band = foresight.band(2000)
    assert band is not None and band[0] < values[-100:].mean() < band[1]
    foresight.learn(5, 0.0)  # a step that is behind is left out
    assert foresight.band(2000) == band


def test_the_band_holds_whole_paths() -> None:
    step = np.arange(1.0, 61.0)
    rng = np.random.default_rng(3)
    paths = forecast_paths(step, 3 + 5 * step**-0.4 + 0.01 * rng.normal(size=60), window=(118.0, 120.0))
    low, high = simultaneous_band(paths, 0.01, 0.05, 0)
    drawn = paths.level + 0.01 * np.random.default_rng(7).standard_normal(paths.level.shape)
    inside = ((drawn >= low) & (drawn <= high)).all(axis=1).mean()
    assert inside == pytest.approx(0.95, abs=0.03)
    rarer = simultaneous_band(paths, 0.01, 0.005, 0)
    assert (rarer[0] < low).all() and (rarer[1] > high).all()


def test_the_noise_of_readings_is_that_around_a_bend() -> None:
    at = np.linspace(0, 1, 400)
    values = 2 + at**2 + 0.05 * np.random.default_rng(4).normal(size=400)
    assert reading_noise(values) == pytest.approx(0.05, rel=0.1)


def test_constant_readings_and_training_readings() -> None:
    foresight = Foresight(metric="loss_nats", kind="train")
    for at in range(1, 60):
        foresight.learn(at, 1.0)
    assert foresight.num_forecasts == 0 and foresight.band(60) is None
    monitor = Monitor(Foresight(kind="train"))
    rng = np.random.default_rng(5)
    values = 3 + 4 * np.arange(1, 201) ** -0.5 + 0.02 * rng.normal(size=200)
    values[120:] += 1.0
    records = ({"kind": "train", "step": at, "loss_nats": float(x)} for at, x in enumerate(values, start=1))
    assert "outside_forecast" in {alarm.kind for record in records for alarm in monitor.observe(record)}
