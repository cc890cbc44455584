"""The ways a run may go on: scenarios, schedules, pace and costs, through the command too."""

import json
import math

import numpy as np
import pytest

from xuebu.analysis.cost import Pace, modelled_pace, pace_of
from xuebu.analysis.prospect import Prices, forecast_run, planned_schedule
from xuebu.cli import main
from xuebu.errors import InputError
from xuebu.history.importers import read_any

SETTINGS = {"steps": 4000, "learning_rate": 1e-3, "schedule": "cosine", "warmup_steps": 200, "final_share": 0.1}


def rate_at(step, settings=SETTINGS):
    warmup, steps, floor = settings["warmup_steps"], settings["steps"], settings["final_share"]
    if step < warmup:
        return settings["learning_rate"] * step / warmup
    done = (step - warmup) / (steps - warmup)
    return settings["learning_rate"] * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))


def write_run(folder, last=2000, *, rates=True, pace=True, total=4000):
    rng = np.random.default_rng(0)
    lines = [{"kind": "event", "event": "start", "step": 0, "total_steps": total, "flops_per_token": 2e7}]
    for step in range(20, last + 1, 20):
        accuracy = 0.5 - 0.4 * (step / 400 + 1) ** -0.7 + 0.003 * rng.normal()
        record = {"kind": "eval", "step": step, "mlm_accuracy": round(accuracy, 5), "mlm_predictions": 4000}
        lines.append(record)
        train = {"kind": "train", "step": step, "mlm_loss_nats": 5 - 4 * accuracy}
        if rates:
            train["learning_rate"] = rate_at(step)
        if pace:
            train |= {"tokens": 5000 * step, "seconds": 0.5 * step}
        lines.append(train)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "history.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def run(tmp_path):
    write_run(tmp_path / "run")
    table = "".join(f"{key} = {value!r}\n" for key, value in SETTINGS.items()).replace("'", '"')
    (tmp_path / "run" / "run.toml").write_text("[train]\n" + table, encoding="utf-8")
    return tmp_path / "run"


def test_the_planned_schedule_is_the_trainer_s():
    planned = planned_schedule(SETTINGS)
    at = [0, 100, 200, 1500, 4000]
    assert planned.at(at) == pytest.approx([rate_at(step) for step in at], rel=1e-3)
    line = planned_schedule(SETTINGS | {"schedule": "linear", "final_share": 0.0})
    assert line.at([200, 2100, 4000]) == pytest.approx([1e-3, 0.5e-3, 0])
    flat = planned_schedule(SETTINGS | {"schedule": "constant"})
    assert flat.at([200, 4000]) == pytest.approx([1e-3, 1e-3])


@pytest.mark.parametrize(
    "change",
    [{"steps": None}, {"schedule": "sawtooth"}, {"legs": [1000]}, {"schedule_hours": 2.0}, {"warmup_steps": 4000}],
)
def test_a_schedule_of_another_kind_is_not_guessed(change):
    assert planned_schedule(SETTINGS | change) is None


def test_scenarios_of_a_run_under_way(run):
    found = forecast_run(read_any(run), target=0.48, settings=SETTINGS, prices=Prices(per_device_hour=3.6))
    assert [scenario.kind for scenario in found.scenarios] == ["planned", "twice", "decay now", "hold"]
    planned, twice, decay, hold = found.scenarios
    assert (planned.end, twice.end, decay.end, hold.end) == (4000, 8000, 2400, 4000)
    assert found.planned_end == 4000
    assert twice.forecast.level.value > planned.forecast.level.value > hold.forecast.level.value
    assert twice.from_start and not planned.from_start
    assert planned.cost.steps == 2000
    assert twice.cost.steps == 8000
    assert planned.cost.seconds == pytest.approx(1000)
    assert planned.cost.price == pytest.approx(1.0)  # 1,000 s of one device at 3.6 an hour
    assert planned.cost.flop == pytest.approx(2000 * 5000 * 2e7)
    early, middle, late = twice.to_target
    assert early.steps <= middle.steps <= late.steps
    assert middle.price == pytest.approx(middle.steps * 0.5 / 1000)
    chances, costs = zip(*twice.by_cost, strict=True)
    assert list(chances) == sorted(chances)
    assert chances[-1] == twice.forecast.target.probability
    assert [cost.price for cost in costs] == pytest.approx([cost.steps * 0.5 / 1000 for cost in costs])
    assert costs[-1].steps == 8000
    assert "decay to 0 from now" in found.summary() and "another run from its first step on" in found.summary()


def test_json_is_plain(run):
    found = forecast_run(read_any(run), target=0.48, settings=SETTINGS).to_json()
    content = json.loads(json.dumps(found, allow_nan=False))
    assert content["schema_version"] == 1
    assert content["pace"]["source"] == "measured"
    assert content["scenarios"][0]["forecast"]["target"]["probability_never"] <= 1
    assert {"probability", "steps", "tokens", "device_hours", "price"} <= set(content["scenarios"][0]["by_cost"][0])


def test_a_finished_run_is_asked_for_twice_its_steps(tmp_path):
    found = forecast_run(read_any(write_run(tmp_path, last=4000)))
    assert [scenario.kind for scenario in found.scenarios] == ["twice"]
    assert found.scenarios[0].forecast.schedule == "stretched to step 8,000"
    assert found.planned_end is None


def test_steps_asked_for_come_first(run):
    found = forecast_run(read_any(run), steps=10000, settings=SETTINGS)
    assert [(one.kind, one.end) for one in found.scenarios[:2]] == [("longer", 10000), ("twice", 20000)]
    with pytest.raises(InputError, match="step 1,000 is not beyond the last reading, step 2,000"):
        forecast_run(read_any(run), steps=1000)


def test_without_a_known_future_the_usual_schedules_are_averaged_over(tmp_path):
    found = forecast_run(read_any(write_run(tmp_path)))
    assert found.scenarios[0].forecast.schedule == "schedule not recorded"
    assert any("not what it will do" in note for note in found.notes)
    assert [scenario.kind for scenario in found.scenarios] == ["planned", "twice"]
    without = forecast_run(read_any(write_run(tmp_path, rates=False)))
    assert without.scenarios[0].forecast.clocks.keys() >= {"constant", "cosine"}


def test_a_schedule_can_be_named(tmp_path):
    history = read_any(write_run(tmp_path, rates=False))
    found = forecast_run(history, shape="linear")
    assert found.scenarios[0].forecast.schedule == "linear"
    assert "schedule taken as linear" in found.notes
    ended = forecast_run(history, shape="linear", planned=2000)
    assert [(one.kind, one.forecast.schedule) for one in ended.scenarios] == [("twice", "stretched to step 4,000")]
    with pytest.raises(InputError, match="cannot end at step 0"):
        forecast_run(history, shape="linear", planned=0)
    with pytest.raises(InputError, match="give one of constant, linear"):
        forecast_run(history, shape="zigzag")


def test_pace_measured_unknown_and_modelled(tmp_path):
    measured = pace_of(read_any(write_run(tmp_path)))
    assert (measured.tokens_per_step, measured.seconds_per_step, measured.source) == (5000, 0.5, "measured")
    unknown = pace_of(read_any(write_run(tmp_path, pace=False)))
    assert unknown.source == "unknown"
    assert unknown.cost(100) is None
    model = modelled_pace(tokens_per_step=1e6, flop_per_token=6e8, peak_flops=1e15, utilization=0.3, num_devices=2)
    assert model.seconds_per_step == pytest.approx(1.0)
    cost = model.cost(3600, num_devices=2, price_per_device_hour=2.0, watts_per_device=700)
    assert (cost.device_hours, cost.price, cost.energy_kwh) == pytest.approx((2, 4, 1.4))
    assert "modelled" in cost.summary() and "1.4 kWh" in cost.summary()
    with pytest.raises(ValueError, match="utilization above 0 and at most 1"):
        modelled_pace(tokens_per_step=1, flop_per_token=1, peak_flops=1, utilization=30)


def test_seconds_alone_are_enough_for_a_price():
    cost = Pace(None, 2.0, 1e9, "measured", "seconds").cost(1800, price_per_device_hour=10.0)
    assert (cost.seconds, cost.price, cost.tokens, cost.flop) == (3600, 10, 0, None)


def test_the_command_prints_and_writes(run, capsys):
    assert main(["forecast", str(run), "--target", "mlm_accuracy=0.48", "--price", "3.6", "--watts", "100"]) == 0
    printed = capsys.readouterr().out
    assert "held-out mlm_accuracy: rising" in printed
    assert "twice the steps, to 8,000" in printed and "kWh" in printed
    content = json.loads((run / "forecast.json").read_text(encoding="utf-8"))
    assert content["scenarios"][0]["forecast"]["schedule"] == "cosine, planned to step 4,000"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--target", "0.6"], "must be metric=value, such as mlm_accuracy=0.60"),
        (["--target", "mlm_accuracy=high"], "must be metric=value"),
        (["--target", "mlm_accuracy=nan"], "the target is nan"),
        (["--target", "mlm_accuracy=0.6", "--metric", "mlm_loss_nats"], "give one"),
        (["--metric", "perplexity"], "no reading of perplexity"),
        (["--steps", "100"], "is not beyond the last reading"),
        (["--price", "-1"], "--price -1 must be a number above 0"),
        (["--devices", "0"], "--devices 0 must be at least 1"),
        (["--level", "1.5"], "--level 1.5 must be"),
    ],
)
def test_mistakes_get_one_line(run, capsys, flags, said):
    assert main(["forecast", str(run), *flags]) == 2
    printed = capsys.readouterr()
    assert said in printed.err and printed.err.count("\n") == 1
    assert not (run / "forecast.json").exists()


def test_a_damaged_run_toml_is_named(run, capsys):
    (run / "run.toml").write_text("[train\n", encoding="utf-8")
    assert main(["forecast", str(run)]) == 2
    assert "run.toml: cannot be read" in capsys.readouterr().err


def test_the_end_that_a_framework_recorded_is_known_and_a_spent_rate_is_held_to_it(tmp_path):
    path = write_run(tmp_path / "run", last=3800)
    path.write_text(path.read_text(encoding="utf-8").replace("total_steps", "max_steps"), encoding="utf-8")
    found = forecast_run(read_any(path))
    assert (found.planned_end, found.scenarios[0].kind, found.scenarios[0].end) == (4000, "planned", 4000)
    assert any("held to the end" in note for note in found.notes)


def test_a_changed_schedule_says_that_its_interval_is_not_calibrated(run):
    said = [
        any("may be too narrow" in note for note in forecast_run(read_any(run), settings=settings).notes)
        for settings in (None, SETTINGS)
    ]
    assert said == [False, True]


def test_an_end_that_the_settings_contradict_is_refused(run):
    with pytest.raises(InputError, match="plans 4,000 steps, not 9,000"):
        forecast_run(read_any(run), settings=SETTINGS, planned=9000)
    assert forecast_run(read_any(run), settings=SETTINGS, planned=4000).planned_end == 4000


@pytest.mark.parametrize(
    "metric, target, said",
    [
        ("mlm_accuracy", 58.0, r"lies between 0 and 1; 58 % is 0\.58"),
        ("mlm_accuracy", -0.1, "lies between 0 and 1$"),
        ("mlm_loss_nats", -1.0, "never below 0"),
    ],
)
def test_a_target_that_the_metric_cannot_have_is_refused(run, metric, target, said):
    with pytest.raises(InputError, match=said):
        forecast_run(read_any(run), metric=metric, target=target)


def test_a_price_without_a_pace_is_said(tmp_path):
    found = forecast_run(read_any(write_run(tmp_path, pace=False)), prices=Prices(per_device_hour=2.0))
    assert any("no hours, money or energy" in note for note in found.notes)


def test_what_was_left_out_while_reading_is_said(tmp_path):
    rows = [f"{step},{'nan' if step % 700 == 0 else 3 / step**0.5}" for step in range(100, 6000, 100)]
    path = tmp_path / "log.csv"
    path.write_text("step,val_loss\n" + "\n".join(rows) + "\n", encoding="utf-8")
    assert any("not finite" in note for note in forecast_run(read_any(path)).notes)


def test_too_few_readings_are_one_line(tmp_path, capsys):
    path = write_run(tmp_path, last=100)
    assert main(["forecast", str(path)]) == 2
    assert "history.jsonl: 5 of the 10 readings of mlm_accuracy that a forecast needs" in capsys.readouterr().err


def test_a_missing_path_is_one_line(tmp_path, capsys):
    assert main(["forecast", str(tmp_path / "none")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
