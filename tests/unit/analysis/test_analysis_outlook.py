"""Forecasts of whole curves: what they recover, when they refuse, and that they mean what they say."""

import json
import math
import time

import numpy as np
import pytest

from xuebu.analysis.annealing import Schedule, decay_from, hold_from, make_schedule, multi_power_drop
from xuebu.analysis.ensemble import EnsembleSettings, clip_spikes, forecast_paths
from xuebu.analysis.outlook import beginning_of, bounds_of, forecast_curve
from xuebu.errors import InputError
from xuebu.history.series import Series

STEP = np.arange(100, 10001, 50)


def series(value, metric="value", step=STEP):
    return Series(step, value, None, metric)


def power(step=STEP, noise=0.0, seed=0):
    clean = 2 + 3 * (np.asarray(step) / 1000 + 0.1) ** -0.5
    return clean + noise * np.random.default_rng(seed).normal(size=clean.size)


def saturating(step=STEP, noise=0.0, seed=0):
    clean = 0.6 - 0.4 * np.exp(-np.asarray(step) / 4000)
    return clean + noise * np.random.default_rng(seed).normal(size=clean.size)


def constant_rate(end=40000):
    return Schedule([0, end], [1e-3, 1e-3])


def test_a_power_law_without_noise_is_carried_on():
    found = forecast_curve(series(power()), window=(27000, 30000), schedule=constant_rate())
    truth = power(np.arange(27000, 30001)).mean()
    assert truth in found.level
    assert found.level.value == pytest.approx(truth, abs=0.1 * float(power([10000])[0] - truth))
    assert found.trend == "falling"
    assert found.laws["power_law"] > 0.5


def test_a_saturating_accuracy_is_carried_on_and_stays_below_one():
    found = forecast_curve(series(saturating(noise=0.01), "accuracy"), window=(18000, 20000), schedule=constant_rate())
    assert found.level.high <= 1
    # Laws that never stop growing keep three quarters of the prior: too high, by less than a tenth of the growth.
    assert 0.59 < found.level.value < 0.64
    line = np.polyval(np.polyfit(STEP, saturating(noise=0.01), 1), 19000)
    assert found.level.value < line - 0.1


def test_noise_without_trend_is_called_flat():
    rng = np.random.default_rng(3)
    flat = sum(
        forecast_curve(series(0.5 + 0.05 * rng.normal(size=STEP.size), "nsp_accuracy"), window=(18000, 20000)).trend
        == "flat"
        for _ in range(12)
    )
    assert flat >= 11


def test_a_constant_is_flat_and_forecast_exactly():
    found = forecast_curve(series(np.full(STEP.size, 0.25)), window=(18000, 20000), target=0.3)
    assert found.trend == "flat"
    assert (found.level.low, found.level.value, found.level.high) == (0.25, 0.25, 0.25)
    assert found.target.probability_never == 1
    assert found.target.step is None


def test_a_trend_is_not_called_flat():
    assert forecast_curve(series(power(noise=0.3)), window=(18000, 20000)).trend == "falling"
    assert forecast_curve(series(saturating(noise=0.02), "accuracy"), window=(18000, 20000)).trend == "rising"


def test_a_smooth_curve_that_no_law_fits_is_not_flat():
    value = np.where(STEP < 8000, 3 - STEP / 10000, 2.2 - (STEP - 8000) / 2500)
    assert forecast_curve(series(value), window=(18000, 20000)).trend == "falling"


def test_a_sure_fall_is_not_hidden_behind_the_first_readings():
    step = np.arange(100, 10001, 100)
    value = 2.5 + 1.5 * (step / 1000.0) ** -0.3
    value[:3] = 11.0
    assert forecast_curve(Series(step, value, None, "loss"), window=(14000, 15000)).trend == "falling"


def test_readings_crowded_in_one_place_are_one_line():
    step = np.concatenate([np.arange(1, 201), [10**6]])
    with pytest.raises(InputError, match="crowd in 2 of 120"):
        forecast_curve(Series(step, 3 / np.sqrt(step), None, "loss"), window=(10**6, 2 * 10**6))


def test_a_curve_that_has_converged_has_leveled_off():
    value = 2 + 3 * np.exp(-STEP / 300)
    assert forecast_curve(series(value), window=(18000, 20000), schedule=constant_rate()).trend == "leveled off"


def test_the_unit_of_the_metric_does_not_matter():
    one = forecast_curve(series(power(noise=0.05)), window=(18000, 20000), target=2.8)
    other = forecast_curve(series(7 - 10 * power(noise=0.05)), window=(18000, 20000), target=7 - 28.0)
    assert other.level.value == pytest.approx(7 - 10 * one.level.value, rel=2e-3)
    # The paths are sorted the other way round, so their noise falls on others: equal up to that.
    assert other.level.high - other.level.low == pytest.approx(10 * (one.level.high - one.level.low), rel=0.25)
    assert other.target.probability == pytest.approx(one.target.probability, abs=0.1)


def test_same_arguments_same_forecast():
    one, two = (forecast_curve(series(power(noise=0.1)), window=(18000, 20000), target=2.6) for _ in range(2))
    assert one.to_json() == two.to_json()


def test_intervals_hold_on_curves_of_known_law():
    rng = np.random.default_rng(8)
    held = []
    for seed in range(40):
        exponent, offset, noise = rng.uniform(0.2, 1.2), rng.uniform(0, 3), 10 ** rng.uniform(-3, -1)
        whole = np.arange(50, 10001, 50)
        clean = offset + (whole / 1000 + rng.uniform(0.01, 0.3)) ** -exponent
        value = clean + noise * np.random.default_rng(seed).normal(size=whole.size)
        seen = whole <= 10000 * rng.choice([0.2, 0.3, 0.5])
        found = forecast_curve(
            series(value[seen], step=whole[seen]), window=(9000, 10000), schedule=constant_rate(10000)
        )
        held.append(value[whole >= 9000].mean() in found.level)
    assert np.mean(held) >= 0.9


def test_a_known_decay_is_foreseen():
    schedule = make_schedule("late-decay", 10000, 1e-3)
    step = np.arange(50, 10001, 50.0)
    value = 2 + (step / 1000 + 0.05) ** -0.5 - 0.2 * multi_power_drop(schedule, step)
    seen = series(value[:100], "loss", step[:100].astype(np.int64))
    truth = value[step >= 9500].mean()
    aware = forecast_curve(seen, window=(9500, 10000), schedule=schedule)
    naive = forecast_curve(seen, window=(9500, 10000), schedule=constant_rate(10000))
    assert abs(aware.level.value - truth) < 0.5 * abs(naive.level.value - truth)
    assert truth in aware.level
    assert aware.clocks["multi_power"] + aware.clocks["tissue"] > 0.5


def test_decay_now_takes_off_loss_that_holding_does_not():
    schedule = constant_rate(20000)
    levels = [
        forecast_curve(
            series(power(), "loss"), window=(11900, 12000), schedule=schedule, future=change(schedule, 10000, 12000)
        )
        for change in (decay_from, hold_from)
    ]
    assert levels[0].level.value < levels[1].level.value - 0.1
    assert "decay to 0 from step 10,000" in levels[0].summary()


def test_the_beginning_of_a_masked_language_model_leaves_room_for_a_rise():
    rng = np.random.default_rng(3)
    flat = 0.04 + 0.001 * rng.normal(size=STEP.size)
    ends = {
        metric: forecast_curve(series(value, metric), window=(19000, 20000)).level
        for metric, value in (
            ("mlm_accuracy", flat),
            ("other_accuracy", flat),
            ("mlm_loss_nats", 6.7 - flat),
            ("nsp_accuracy", 0.46 + flat),
        )
    }
    room = 0.2 * math.log(2)
    assert ends["mlm_accuracy"].high == pytest.approx(0.04 + room * 0.36, abs=0.006)
    assert ends["mlm_accuracy"].low == pytest.approx(ends["other_accuracy"].low, abs=1e-4)
    assert ends["other_accuracy"].high < 0.045
    assert ends["mlm_loss_nats"].low == pytest.approx(6.66 - room * 2.66, abs=0.05)
    assert ends["nsp_accuracy"].high < 0.52


def test_the_beginning_is_over_once_counting_is_reached():
    assert beginning_of(series(np.linspace(0.1, 0.3, STEP.size), "mlm_accuracy")) == 0.40
    assert beginning_of(series(np.linspace(0.1, 0.5, STEP.size), "mlm_accuracy")) is None
    assert beginning_of(series(np.linspace(8.0, 5.0, STEP.size), "mlm_loss_nats")) == 4.0
    assert beginning_of(series(np.linspace(8.0, 3.0, STEP.size), "mlm_loss_nats")) is None
    assert beginning_of(series(np.linspace(8.0, 5.0, STEP.size), "loss_nats")) is None


def test_a_run_that_is_over_is_carried_to_another_schedule_with_a_wider_interval():
    def width(end, **other):
        schedule = make_schedule("cosine", end, 1e-3)
        level = forecast_curve(
            series(power(noise=0.01), "loss"),
            window=(19000, 20000),
            schedule=schedule,
            future=make_schedule("cosine", 20000, 1e-3),
            settings=EnsembleSettings(**other),
        ).level
        return level.high - level.low

    assert width(10000) == pytest.approx(1.3 * width(10000, changed=1.0), rel=0.05)
    assert width(15000) == width(15000, changed=1.0)


def test_a_change_during_the_warm_up_keeps_the_unit_of_progress():
    rising = Schedule([0, 10000, 20000], [0, 5e-4, 1e-3])
    held = forecast_curve(
        series(power()), window=(19000, 20000), schedule=rising, future=hold_from(rising, 10000, 20000)
    )
    as_planned = forecast_curve(series(power()), window=(19000, 20000), schedule=rising)
    assert as_planned.level.value < held.level.value < held.now


def test_a_million_readings_take_less_than_two_seconds():
    step = np.arange(1, 1_000_001)
    value = 2 + (step / 1e5) ** -0.5 + 0.1 * np.random.default_rng(0).normal(size=step.size)
    begin = time.process_time()
    found = forecast_curve(Series(step, value, None, "loss"), window=(1.9e6, 2e6))
    assert time.process_time() - begin < 2
    assert 2 + 19.5**-0.5 in found.level


def test_targets():
    seen = series(power())
    near, far = power([15000])[0], power([10**9])[0] - 5
    found = forecast_curve(seen, window=(27000, 30000), target=float(near), schedule=constant_rate()).target
    assert found.probability > 0.95
    assert 15000 in found.step or abs(found.step.value - 15000) < 2000
    chances = [chance for _, chance in found.chances]
    assert chances == sorted(chances)
    assert found.likely_step == pytest.approx(found.step.value, rel=0.05)
    assert chances[-1] == found.probability
    assert "if reached, about step" in found.summary()
    never = forecast_curve(seen, window=(27000, 30000), target=float(far), schedule=constant_rate()).target
    assert never.probability_never == 1
    assert never.step is None and never.likely_step is None
    passed = forecast_curve(seen, window=(27000, 30000), target=5.0, schedule=constant_rate()).target
    assert passed.already and passed.probability == 1
    worse = forecast_curve(seen, window=(27000, 30000), target=100.0, schedule=constant_rate()).target
    assert not worse.already and worse.probability_never == 1


def test_a_higher_bar_is_not_easier():
    seen = series(saturating(noise=0.02), "accuracy")
    chances = [
        forecast_curve(seen, window=(18000, 20000), target=target).target.probability
        for target in (0.57, 0.6, 0.63, 0.7)
    ]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] > 0.5 > chances[-1]
    likely = [forecast_curve(seen, window=(18000, 20000), target=target).target.likely_step for target in (0.57, 0.7)]
    assert likely[0] is not None and likely[1] is None


def test_json_is_plain_and_never_nan():
    found = forecast_curve(series(power(noise=0.1)), window=(18000, 20000), target=2.0)
    text = json.dumps(found.to_json(), allow_nan=False)
    content = json.loads(text)
    assert content["schema_version"] == 1
    assert content["level"]["low"] < content["level"]["value"] < content["level"]["high"]
    assert sum(content["laws"].values()) == pytest.approx(1)
    assert sum(content["clocks"].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("readings", "options", "said"),
    [
        (9, {"window": (9000, 10000)}, "9 readings are too few for a forecast; at least 10"),
        (50, {"window": (1000, 2000)}, "must end beyond the last step"),
        (50, {"window": (20000, 10000)}, "must end beyond"),
        (50, {"window": (9000, 10000), "target": math.nan}, "the target is nan"),
        (50, {"window": (9000, 10000), "future": constant_rate()}, "only where the learning rate is recorded"),
    ],
)
def test_what_cannot_be_forecast_is_refused(readings, options, said):
    with pytest.raises(InputError, match=said):
        forecast_curve(series(power()[:readings], step=STEP[:readings]), **options)


def test_ten_readings_are_enough_and_wide():
    few = forecast_curve(series(power()[::20], step=STEP[::20]), window=(18000, 20000))
    many = forecast_curve(series(power()), window=(18000, 20000))
    assert few.level.high - few.level.low > many.level.high - many.level.low


def test_counts_weigh_readings():
    value = power(noise=0.0)
    count = np.full(STEP.size, 1000)
    value[150::7] += 1
    count[150::7] = 1
    found = forecast_curve(Series(STEP, value, count, "loss"), window=(18000, 20000), schedule=constant_rate())
    clean = forecast_curve(series(power(), "loss"), window=(18000, 20000), schedule=constant_rate())
    assert found.level.value == pytest.approx(clean.level.value, abs=0.02)


def test_one_spike_moves_nothing():
    value = power(noise=0.02)
    spiked = value.copy()
    spiked[190] = 1e6
    moved = forecast_curve(series(spiked), window=(18000, 20000)).level.value
    assert moved == pytest.approx(forecast_curve(series(value), window=(18000, 20000)).level.value, abs=0.03)
    assert clip_spikes(np.array([1.0, 1, 1, 9] * 10)).max() == 9


def test_a_schedule_of_zeros_so_far_falls_back_to_none():
    late = Schedule([0, 20000, 30000], [0, 0, 1e-3])
    found = forecast_curve(series(power()), window=(27000, 30000), schedule=late)
    assert "constant" in found.clocks


def test_bounds_by_name_and_readings():
    assert bounds_of(series(saturating(), "eval_accuracy")) == (0, 1)
    assert bounds_of(series(100 * saturating(), "eval_accuracy")) == (-math.inf, math.inf)
    assert bounds_of(series(power(), "mlm_loss_nats")) == (0, math.inf)
    assert bounds_of(series(power(), "reward")) == (-math.inf, math.inf)


def test_paths_refuse_what_they_cannot_use():
    with pytest.raises(ValueError, match="too few"):
        forecast_paths(np.arange(5.0), np.arange(5.0), window=(5, 9))
    with pytest.raises(ValueError, match="not beyond"):
        forecast_paths(np.arange(20.0), np.arange(20.0), window=(5, 9))
