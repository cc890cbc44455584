import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xuebu.analysis.analyze import analyze_history, choose_series
from xuebu.analysis.prospect import forecast_run
from xuebu.errors import InputError
from xuebu.history.importers import read_any
from xuebu.history.records import History, HistoryWriter, Table, read_history


def write_run(path: Path, *, points: int = 60, nsp: bool = True, top: float = 0.2, seed: int = 0) -> History:
    rng = np.random.default_rng(seed)
    last = 3000
    with HistoryWriter(path / "history.jsonl") as writer:
        writer.append({"kind": "event", "event": "start", "step": 0, "flops_per_token": 6e6, "device": "cpu"})
        for step in range(10, last + 1, 10):
            level = top - 0.15 * float(np.exp(-step / 800))
            stamp = {"step": step, "tokens": step * 2000, "seconds": step * 0.1}
            rate = 1e-3 * (1 - step / last)
            train = {"mlm_accuracy": rng.binomial(1500, level) / 1500, "mlm_predictions": 1500, "learning_rate": rate}
            writer.append({"kind": "train", **stamp, **train})
            if points and step % (last // points) == 0:
                held_out: dict[str, Any] = {"mlm_accuracy": level + rng.normal() * 0.001, "mlm_predictions": 4000}
                if nsp:
                    held_out |= {"nsp_accuracy": 0.76, "nsp_predictions": 900}
                writer.append({"kind": "eval", **stamp, **held_out})
    return read_any(path)


def write_study(path: Path, size: int = 1000, seed: int = 5) -> Path:
    """Write a file of the published study's shape: a saturating curve read off one small batch, NSP at chance."""
    rng = np.random.default_rng(seed)
    step = np.arange(1, size + 1) * 100
    level = 0.57 - 0.42 * np.exp(-step / (0.16 * step[-1]))
    content = {
        "steps": step.tolist(),
        "mlm_acc": (rng.binomial(220, level) / 220).tolist(),
        "nsp_acc": (rng.binomial(32, 0.5, size) / 32).tolist(),
        "loss": (9 - 10 * level + rng.normal(scale=0.1, size=size)).tolist(),
        "lr": (5e-5 * (1 - step / step[-1])).tolist(),
    }
    path.write_text(json.dumps(content))
    return path


def flags(history: History, **options: Any) -> dict[str, str]:
    return {finding.flag: finding.text for finding in analyze_history(history, **options).verdict}


def test_the_published_kind_of_history_is_redone_and_refuted(tmp_path: Path) -> None:
    path = write_study(tmp_path / "study.json")
    content = json.loads(path.read_text())
    step, value = np.array(content["steps"], dtype=float), np.array(content["mlm_acc"])
    started = time.process_time()
    found = analyze_history(read_any(path))
    assert time.process_time() - started < 3
    slope, offset = np.polyfit(step, value, 1)
    line = found.fits["linear"]
    assert found.correlations["pearson"].coefficient == pytest.approx(np.corrcoef(step, value)[0, 1], abs=1e-13)
    assert line.parameters["scale"] == pytest.approx(slope, rel=1e-9)
    assert line.parameters["offset"] == pytest.approx(offset, rel=1e-9)
    assert line.r_squared == pytest.approx(np.corrcoef(step, value)[0, 1] ** 2, abs=1e-12)
    by_flag = {finding.flag: finding for finding in found.verdict}
    assert "does not follow" in by_flag["line_is_wrong_model"].text
    assert by_flag["line_is_wrong_model"].evidence["line_value"] == pytest.approx(offset + slope * 200_000)
    assert "shuffled" in by_flag["nsp_at_chance"].text
    assert by_flag["few_predictions"].evidence["implied_predictions"] == pytest.approx(220, rel=0.25)
    assert "learning rate" in by_flag["plateaued"].text
    assert [finding.severity for finding in found.verdict] == ["bad", "warn", "warn", "info"]
    line_intervals = [one for one in found.correlations["pearson"].intervals if one.residuals_of == "linear"]
    assert all(one.p_value is None for one in line_intervals)
    assert found.forecast is not None
    assert found.forecast.interval is not None
    assert found.forecast.interval.value == pytest.approx(0.57, abs=0.04)
    assert (found.forecast.interval.high or 1) < 0.65 < found.fits["linear"].predict(200_000)


def test_a_run_is_analyzed_on_its_held_out_readings(tmp_path: Path) -> None:
    history = write_run(tmp_path)
    found = analyze_history(history)
    assert (found.kind, found.num_points, found.median_count, found.first_step) == ("eval", 60, 4000, 50)
    assert found.headline is not None
    assert found.headline.value == pytest.approx(history.column("eval", "mlm_accuracy").value[-1], abs=1 / 4000)
    assert "moves the whole curve" in found.headline.note
    assert any("moves the whole curve" in note for note in found.notes)
    assert found.nsp is not None
    assert found.nsp.distinguishable
    assert found.cost is not None
    assert found.cost.tokens == 6_000_000
    assert found.cost.flop == pytest.approx(3.6e13)
    assert analyze_history(history, kind="train").num_points == 300
    priced = analyze_history(history, price_per_device_hour=2.0).cost
    assert priced is not None
    assert priced.price == pytest.approx(2 * 300 / 3600)


def test_baselines_come_first_in_the_verdict(tmp_path: Path) -> None:
    difference = {"value": -0.18, "low": -0.2, "high": -0.16, "level": 0.95, "method": "paired"}
    entry = {"accuracy": 0.195, "predictions": 9000, "low": 0.18, "high": 0.21}
    baselines = {"mlm": {"model": entry, "difference_from_ngram": difference}}
    found = analyze_history(write_run(tmp_path), baselines=baselines)
    assert found.verdict[0].flag == "below_counting"
    assert found.headline is not None
    assert (found.headline.value, found.headline.low) == (0.195, 0.18)
    assert found.to_json()["baselines"] == baselines


@pytest.mark.parametrize("points", [1, 2, 3, 5, 10, 12, 20, 30])
def test_few_evaluations_are_said_to_be_few(tmp_path: Path, points: int) -> None:
    found = analyze_history(write_run(tmp_path, points=points))
    assert found.num_points == points
    assert ("too_few_points" in {finding.flag for finding in found.verdict}) == (points < 20)
    assert bool(found.correlations) == (points >= 3)
    assert found.headline is not None
    json.dumps(found.to_json(), allow_nan=False)
    assert "readings of mlm_accuracy" in found.summary()


def test_nsp_may_be_missing(tmp_path: Path) -> None:
    found = analyze_history(write_run(tmp_path, nsp=False))
    assert found.nsp is None
    assert found.to_json()["nsp"] is None
    assert not {"nsp_at_chance", "nsp_learned"} & {finding.flag for finding in found.verdict}


def test_a_constant_series_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with HistoryWriter(path) as writer:
        for step in range(1, 41):
            writer.append({"kind": "eval", "step": step, "mlm_accuracy": 0.0, "mlm_predictions": 500})
    found = analyze_history(read_history(path))
    assert found.verdict[0].flag == "constant"
    assert not found.fits
    assert found.headline is not None
    assert found.headline.high is not None
    assert 0 < found.headline.high < 0.02


def test_a_history_of_losses_alone_is_analyzed(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    rng = np.random.default_rng(0)
    with HistoryWriter(path) as writer:
        for step in range(1, 81):
            loss = 3 + 4 * float(np.exp(-step / 20)) + rng.normal() * 0.02
            writer.append({"kind": "train", "step": step * 10, "mlm_loss_nats": loss})
    found = analyze_history(read_history(path))
    assert found.metric == "mlm_loss_nats"
    assert found.correlations["pearson"].coefficient < 0
    assert found.rates is not None
    assert found.rates.unit == "nats per 10,000 steps"
    assert "line_is_wrong_model" in {finding.flag for finding in found.verdict}


def test_no_metric_and_percentages_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with HistoryWriter(path) as writer:
        writer.append({"kind": "train", "step": 7, "mlm_accuracy": 51.3})
    history = read_history(path)
    with pytest.raises(InputError, match="51.3 at step 7; an accuracy is a fraction"):
        analyze_history(history)
    with pytest.raises(InputError, match="no reading of perplexity in its eval or train records"):
        analyze_history(history, metric="perplexity")
    with pytest.raises(InputError, match="in its eval records"):
        choose_series(history, kind="eval")


def test_uneven_steps_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with HistoryWriter(path) as writer:
        for step in [*range(1, 30), 500, 1000]:
            writer.append({"kind": "train", "step": step, "mlm_accuracy": 0.1 + step / 10_000})
    assert any("unevenly spaced" in note for note in analyze_history(read_history(path)).notes)


def test_the_json_has_the_promised_keys_and_the_same_bytes_twice(tmp_path: Path) -> None:
    history = write_run(tmp_path)
    first, second = (json.dumps(analyze_history(history, seed=3).to_json(), allow_nan=False) for _ in range(2))
    assert first == second
    content = json.loads(first)
    assert content["schema_version"] == 1
    assert set(content) == {
        "schema_version",
        "source",
        "format",
        "metric",
        "kind",
        "num_points",
        "first_step",
        "last_step",
        "median_count",
        "level",
        "seed",
        "verdict",
        "headline",
        "rates",
        "comparison",
        "forecast",
        "nsp",
        "sop",
        "cost",
        "correlations",
        "associations",
        "noise_split",
        "fits",
        "baselines",
        "notes",
        "alarms",
    }
    assert set(content["correlations"]) == {"pearson", "spearman", "kendall"}
    assert set(content["fits"]) == {"linear", "logarithmic", "power_law", "saturating"}


def test_the_level_widens_intervals(tmp_path: Path) -> None:
    history = write_run(tmp_path)
    narrow, wide = (analyze_history(history, level=level).correlations["pearson"].intervals[0] for level in (0.8, 0.99))
    assert narrow.low is not None
    assert wide.low is not None
    assert wide.low < narrow.low


def test_importing_the_analysis_loads_neither_scipy_nor_torch() -> None:
    code = (
        "import sys, xuebu.analysis.analyze, xuebu.analysis.compare, xuebu.history.importers;"
        "print(sorted({'scipy', 'torch', 'matplotlib', 'statsmodels'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def write_extended_run(folder: Path, *, extra: int) -> History:
    """600 steps along one saturating curve, then `extra` readings along another, much lower one."""
    path = folder / "history.jsonl"
    rng = np.random.default_rng(4)
    with HistoryWriter(path) as writer:
        for step in range(10, 601, 10):
            value = 0.5 * (1 - np.exp(-step / 150)) + 0.002 * rng.normal()
            writer.append({"kind": "eval", "step": step, "mlm_accuracy": float(value), "mlm_predictions": 4000})
        writer.append({"kind": "event", "event": "extend", "step": 600, "total_steps": 1200, "breaks_fits": True})
        for step in range(610, 610 + 10 * extra, 10):
            value = 0.2 + 0.1 * (1 - np.exp(-(step - 600) / 150)) + 0.002 * rng.normal()
            writer.append({"kind": "eval", "step": step, "mlm_accuracy": float(value), "mlm_predictions": 4000})
    return read_history(path)


def test_no_fit_crosses_the_step_at_which_a_run_was_extended(tmp_path: Path) -> None:
    analysis = analyze_history(write_extended_run(tmp_path, extra=60))
    assert (analysis.first_step, analysis.last_step, analysis.num_points) == (610, 1200, 60)
    assert any("extended at step 600" in note and "after it alone" in note for note in analysis.notes)
    assert float(analysis.fits["saturating"].predict(1200.0)) == pytest.approx(0.2982, abs=0.003)


def test_too_few_readings_after_an_extension_leave_those_before_it(tmp_path: Path) -> None:
    analysis = analyze_history(write_extended_run(tmp_path, extra=2))
    assert (analysis.first_step, analysis.last_step) == (10, 600)
    assert any("those before" in note for note in analysis.notes)


def test_the_forecast_of_an_extended_run_goes_to_its_new_end(tmp_path: Path) -> None:
    found = forecast_run(write_extended_run(tmp_path, extra=30))
    assert found.scenarios[0].kind == "planned" and found.scenarios[0].end == 1200
    level = found.scenarios[0].forecast.level.value  # across the break it would be near 0.5, the first leg's end
    assert level is not None and 0.28 < level < 0.36


def test_values_beyond_computing_are_refused() -> None:
    step = np.arange(60)
    table = Table(step, {"mlm_loss_nats": 10.0 ** (300 - step)})
    with pytest.raises(InputError, match=r"run: mlm_loss_nats is 1e\+300 at step 0, too large"):
        analyze_history(History("run", "own", table, Table(step[:0], {})))
