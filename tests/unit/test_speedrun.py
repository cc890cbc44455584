import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def speedrun(monkeypatch):
    """The benchmark, which is no part of the package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("speedrun", BENCHMARKS / "speedrun.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "speedrun", module)
    spec.loader.exec_module(module)
    yield module
    for name in ("machine", "speedrun_results"):
        sys.modules.pop(name, None)


@pytest.fixture
def results(speedrun):
    return sys.modules["speedrun_results"]


def test_the_p_value_is_that_of_scipy(results):
    rng = np.random.default_rng(0)
    for size in (2, 3, 8):
        candidate, record = rng.normal(4.9, 0.05, size), rng.normal(5.0, 0.05, size)
        mean, p_value = results.paired_test(candidate, record)
        assert mean == pytest.approx(np.mean(candidate - record))
        assert p_value == pytest.approx(stats.ttest_rel(candidate, record, alternative="less").pvalue)
    assert results.paired_test([4.0], [5.0]) == (-1.0, pytest.approx(float("nan"), nan_ok=True))
    assert results.paired_test([4.0, 4.0], [5.0, 5.0]) == (-1.0, 0.0)


def test_a_target_is_read_off_a_line_between_two_evaluations(results):
    curve = [
        [10, 1000, 5.0, 7.0, 0.0],
        [20, 2000, 15.0, 6.0, 0.1],
        [30, 3000, 20.0, 6.5, 0.1],
        [40, 4000, 25.0, 5.0, 0.1],
    ]
    assert results.reach(curve, 6.25, 1) == 1750
    assert results.reach(curve, 6.25, 2) == 12.5
    assert results.reach(curve, 8.0, 1) == 1000
    assert results.reach(curve, 4.9, 1) is None


def test_a_torn_line_of_the_log_is_left_out(results, tmp_path):
    (tmp_path / "log.jsonl").write_text('{"run": "a"}\n{"run": "b"', encoding="utf-8")
    assert results.read_log(tmp_path) == [{"run": "a"}]
    assert results.read_log(tmp_path / "nothing") == []


def line(variant, seed, loss, accuracy=0.2):
    curve = [[1, 1000, 1.0, 6.0, 0.1], [4, 4000, 4.0, loss, 0.2]]
    scores = {f"mlm_accuracy{kind}": accuracy for kind in ("", "_mask", "_random", "_kept")}
    names = {"track": "wiki", "size": "tiny", "variant": variant, "seed": seed, "seconds": 4.0}
    return {**names, "mlm_loss_nats": loss, "curve": curve, **scores}


def test_the_table_pairs_seeds_and_leaves_others_out(results, tmp_path):
    (tmp_path / "tracks" / "wiki").mkdir(parents=True)
    counting = {"ngram_nats": 3.2, "ngram_accuracy": 0.42, "ngram_by_class": {"mask": 0.37}}
    (tmp_path / "tracks" / "wiki" / "baselines.json").write_text(json.dumps(counting), encoding="utf-8")
    lines = [line("classic", seed, 5.0 + 0.01 * seed) for seed in range(3)]
    lines += [line("new", seed, 4.0 + 0.02 * seed) for seed in range(4)]
    text = results.table_of(lines, tmp_path, ["missing", "classic"])
    rows = [[cell.strip() for cell in row.split("|")] for row in text.split("\n") if row.startswith("| ")][1:]
    assert [row[1] for row in rows] == ["new", "classic"]  # best first
    differences = [-1.0, -0.99, -0.98]
    p_value = stats.ttest_1samp(differences, 0, alternative="less").pvalue
    assert rows[0][2:4] == ["4", "4.0300"]
    assert rows[0][9:12] == ["-0.9900", f"{p_value:.4f} *", "0.63"]
    assert rows[1][9:12] == ["", "", "1.00"]
    few = results.table_of([one for one in lines if one["seed"] < 2], tmp_path, ["classic"])
    assert "| -0.9950 |  | 0.6" in few and " * |" not in few  # a screening has no p
    assert "n-gram on the same input: 3.2000 nats, 42.00 % (mask 37.0)" in text


def test_a_variant_changes_what_it_is_like(speedrun, tmp_path):
    path = tmp_path / "queue.toml"
    path.write_text(
        '[variants.a]\n"train.learning_rate" = 1e-3\nwarmup = 0.1\n[variants.b]\nlike = "a"\nwarmup = 0.2\n'
        '[[queue]]\ntrack = "wiki"\nsize = "tiny"\nseeds = [0, 1]\nvariants = ["b", "a"]\n',
        encoding="utf-8",
    )
    runs = speedrun.read_queue(path)
    assert [run.name for run in runs] == ["wiki-tiny-b-0", "wiki-tiny-a-0", "wiki-tiny-b-1", "wiki-tiny-a-1"]
    assert dict(runs[0].changes) == {"train.learning_rate": 1e-3, "warmup": 0.2}
    shipped = speedrun.read_queue(speedrun.QUEUE)
    assert len({run.name for run in shipped}) == len(shipped)


def test_a_run_is_claimed_by_one(speedrun, tmp_path):
    path = tmp_path / "locks" / "one.lock"
    with speedrun.claimed(path) as first, speedrun.claimed(path) as second:
        assert (first, second) == (True, False)
    with speedrun.claimed(path) as again:
        assert again
