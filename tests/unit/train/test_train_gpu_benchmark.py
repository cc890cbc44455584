"""The benchmark for GPUs runs without one, on toy models, and needs neither data nor the flags' library."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("tyro", "transformers", "accelerate", "scipy", "tokenizers"):
        monkeypatch.setitem(sys.modules, name, None)  # as if not installed
    spec = importlib.util.spec_from_file_location("gpu_benchmark", BENCHMARKS / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_every_part_runs_on_a_cpu(benchmark, capsys):
    result = benchmark.main(["--smoke"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == result
    assert result["peak_flops"] > 0 and result["copy_bytes_per_second"] > 0
    assert result["reference"]["updates"] >= 2
    cost = result["deterministic"]
    assert cost["cost"] == pytest.approx(1 - cost["on_tokens_per_second"] / cost["off_tokens_per_second"])
    assert result["fp8"] == {"skipped": "needs a GPU with fp8"}
    for row in result["cases"]:
        assert row["tokens_per_second"] > 0 and 0 < row["mfu"] and 0 <= row["padding"] < 0.5
        assert row["backward_is_deterministic"] and row["graphs"] == row["recompiles"] == 0
        peers = row["peers"]
        assert peers["Trainer bf16 + SDPA"] == {"skipped": "accelerate is not installed"}
        assert set(peers["Trainer bf16 + SDPA + compile"]) == {"skipped"}


def test_cases_that_there_is_no_time_for_are_named(benchmark, monkeypatch, capsys):
    machine = dataclasses.replace(benchmark.machine_of("cpu"), device="cuda")
    monkeypatch.setattr(benchmark.time, "monotonic", iter([0.0, 100.0, 200.0]).__next__)
    monkeypatch.setattr(benchmark, "measure_case", lambda case, *_: {"case": case.name})
    first, second = benchmark.cases(smoke=True)
    rows = benchmark.measure_all([first, second], machine, 1e12, 250.0)
    assert rows == [{"case": first.name}, {"case": second.name, "skipped": "no time left"}]
    assert "packed 64" in (printed := capsys.readouterr().out) and "not measured: no time left" in printed


def test_without_a_gpu_nothing_is_measured(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(benchmark.torch.cuda, "is_available", lambda: False)
    assert benchmark.main([]) == {}
    assert "not measured: torch sees no GPU here" in capsys.readouterr().out


def test_the_flops_are_those_of_the_formula(benchmark):
    packed = benchmark.cases(smoke=True)[1]
    batches = benchmark.make_batches(packed)
    share = sum(b.num_predictions for b in batches) / sum(b.num_tokens for b in batches)
    weights = 2 * (4 * 32 * 32 + 2 * 32 * 64)
    assert benchmark.flops_of(packed, batches) == pytest.approx(6 * weights + 12 * 2 * 32 * 64 + 6 * 32 * 200 * share)
