"""Runs laid over each other: alignment, identity, paired differences, time to a level, seeds and references."""

import json

import numpy as np
import pytest

from xuebu.analysis.align import Aligned, align, identity, places
from xuebu.analysis.intervals import Interval
from xuebu.analysis.pairing import (
    bands_of,
    duel,
    group_seeds,
    hold_against_reference,
    load_reference,
    reference_folder,
    save_reference,
)
from xuebu.analysis.replicates import band_of, band_of_json, difference_of_bands, hold_against
from xuebu.analysis.runs import Run, compare_runs
from xuebu.analysis.versus import compare_curves
from xuebu.errors import InputError
from xuebu.history.records import History, table_of

STEP = np.arange(1, 101) * 10


def curve(step: np.ndarray, pace: float = 300.0) -> np.ndarray:
    return 0.5 - 0.4 * np.exp(-step / pace)


def history(values: np.ndarray, step: np.ndarray = STEP, *, tokens: bool = True, name: str = "mlm_accuracy") -> History:
    rows = []
    for place, (at, value) in enumerate(zip(step, values, strict=True)):
        stamp = {"tokens": 128 * int(at), "seconds": 0.5 * place} if tokens else {}
        rows.append({"step": int(at), name: float(value), **stamp})
    events = ({"kind": "event", "event": "start", "flops_per_token": 1000.0},) if tokens else ()
    return History("memory", "xuebu history", table_of([], "train")[0], table_of(rows, "eval")[0], events)


def run(name: str, values: np.ndarray, facts: dict | None = None, **said: object) -> Run:
    return Run(name, history(values, **said), None, {}, facts or {})


def noisy(seed: int, pace: float = 300.0, sigma: float = 0.005) -> np.ndarray:
    return curve(STEP, pace) + np.random.default_rng(seed).normal(scale=sigma, size=STEP.size)


def test_axes_are_read_from_the_records() -> None:
    one = history(curve(STEP))
    series = one.column("eval", "mlm_accuracy")
    assert places(one, series, "step") == pytest.approx(STEP)
    assert places(one, series, "tokens") == pytest.approx(128 * STEP)
    assert places(one, series, "flop") == pytest.approx(128_000 * STEP)
    assert places(one, series, "seconds")[-1] == 49.5
    bare = history(curve(STEP), tokens=False)
    with pytest.raises(InputError, match="no record has tokens; align by step"):
        places(bare, bare.column("eval", "mlm_accuracy"), "tokens")


def test_common_places_are_paired_and_others_interpolated_but_never_beyond() -> None:
    x = STEP.astype(float)
    pair = align((x, x), (x[4:60], 2 * x[4:60]), "step")
    assert pair.exact
    assert (pair.x == x[4:60]).all()
    assert pair.other == pytest.approx(2 * pair.first)
    odd = align((x, x), (x[:50] + 3, x[:50] + 3), "step")
    assert not odd.exact
    assert odd.x.min() >= 13
    assert odd.first == pytest.approx(odd.other)
    with pytest.raises(InputError, match="0 readings along step lie within both"):
        align((x[:20], x[:20]), (x[50:], x[50:]), "step")
    still = align(
        (np.array([0.0, *x]), np.array([9.0, *x])), (np.array([0.0, 0.0, *x]), np.array([7.0, 8.0, *x])), "step"
    )
    assert still.other[0] == 8.0


def test_identity_names_the_first_record_that_differs() -> None:
    one = noisy(0)
    two = one.copy()
    assert "identical in all 100 common records" in identity(history(one), history(two)).summary()
    two[60] += 1e-12
    found = identity(history(one), history(two))
    assert (found.last_same, found.first_different, found.metric) == (600, 610, "mlm_accuracy")
    assert found.summary().startswith("identical up to step 600 (then mlm_accuracy at step 610")
    two[0] = 0.0
    assert "different from the first common record on" in identity(history(one), history(two)).summary()
    assert identity(history(one), history(one, STEP + 1)).summary() == "no common step to compare"
    missing = identity(history(one), history(one, name="mlm_loss_nats"))
    assert missing.values[0] is None or missing.values[1] is None


def test_a_run_at_half_the_pace_takes_twice_the_steps() -> None:
    found = compare_curves(
        Aligned("step", STEP.astype(float), noisy(1, 150), noisy(2, 300), True), "mlm_accuracy", "eval", target=0.45
    )
    assert found.to_target is not None
    ratio = found.to_target.ratio
    assert ratio is not None
    assert 2.0 in ratio
    assert ratio.high is not None and ratio.low is not None
    assert ratio.high / ratio.low < 1.5
    assert found.mean_difference.high is not None
    assert found.mean_difference.high < 0
    assert "to 45.0 % it took" in found.summary()
    assert json.dumps(found.to_json())


def test_a_level_that_one_does_not_reach() -> None:
    pair = Aligned("step", STEP.astype(float), noisy(1, 150), noisy(2, 3000), True)
    found = compare_curves(pair, "mlm_accuracy", "eval", target=0.45)
    assert found.to_target is not None
    assert found.to_target.other is None
    assert found.to_target.ratio is None
    assert "not both runs' trends reach it" in found.summary()
    loss = compare_curves(Aligned("step", pair.x, 3 - pair.first, 3 - pair.other, True), "mlm_loss_nats", "eval")
    assert loss.to_target is not None
    assert loss.to_target.ratio is not None
    assert loss.to_target.ratio.value > 1


def test_shared_noise_cancels_in_the_paired_difference() -> None:
    shared = np.random.default_rng(3).normal(scale=0.02, size=STEP.size)
    one, two = noisy(4, sigma=0.001) + shared, noisy(5, sigma=0.001) + shared + 0.004
    found = compare_curves(Aligned("step", STEP.astype(float), one, two, True), "mlm_accuracy", "eval")
    assert 0.004 in found.mean_difference
    assert found.mean_difference.low is not None
    assert found.mean_difference.low > 0.003


def test_intervals_of_the_mean_difference_cover() -> None:
    hits = 0
    for seed in range(30):
        pair = Aligned("step", STEP.astype(float), noisy(2 * seed), noisy(2 * seed + 1) + 0.002, True)
        hits += 0.002 in compare_curves(pair, "mlm_accuracy", "eval", seed=seed).late_difference
    assert hits >= 26


def test_equal_runs_have_no_difference_and_no_noise() -> None:
    pair = Aligned("step", STEP.astype(float), curve(STEP), curve(STEP), True)
    found = compare_curves(pair, "mlm_accuracy", "eval")
    assert (found.mean_difference.low, found.mean_difference.value, found.mean_difference.high) == (0.0, 0.0, 0.0)


def seeds(offset: float, count: int, first: int, scatter: float = 0.01) -> list[tuple[str, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(first)
    return [
        (f"seed {k}", STEP.astype(float), curve(STEP) + offset + scatter * rng.normal() + 0.001 * rng.normal(size=100))
        for k in range(count)
    ]


def band(name: str, curves: list[tuple[str, np.ndarray, np.ndarray]]):
    return band_of(name, curves, metric="mlm_accuracy", kind="eval")


def test_a_further_seed_lies_in_the_band_as_often_as_promised() -> None:
    inside = 0
    for trial in range(200):
        curves = seeds(0.0, 5, trial)
        held = hold_against(band("a", curves[:4]), "e", *curves[4][1:])
        inside += held.end.low <= held.end.value <= held.end.high
    assert 180 <= inside <= 198


def test_the_difference_between_seeds_covers() -> None:
    hits = 0
    for trial in range(150):
        one, two = band("a", seeds(0.0, 4, 2 * trial)), band("b", seeds(0.01, 3, 2 * trial + 1))
        hits += 0.01 in difference_of_bands(one, two)
    assert hits >= 136
    with pytest.raises(InputError, match="at least two runs of each"):
        difference_of_bands(one, band("c", seeds(0.0, 1, 0)))


def test_a_run_that_leaves_the_band_is_said_to() -> None:
    base = band("base", seeds(0.0, 4, 1, scatter=0.002))
    assert hold_against(base, "good", *seeds(0.0, 1, 1, scatter=0.002)[0][1:]).judged == "inside"
    away = curve(STEP)
    away[70:] -= 0.1
    found = hold_against(base, "bad", STEP.astype(float), away)
    assert (found.judged, found.leaves, found.longest) == ("left", 710.0, 30)
    assert "leaves the band for good at 710" in found.summary()
    one = band("one", seeds(0.0, 1, 2))
    assert "no other seed" in one.note
    with pytest.raises(InputError, match="8 are needed"):
        hold_against(base, "short", STEP[:5].astype(float), away[:5])


def test_bands_go_through_json_and_damage_is_named() -> None:
    one = band("a", seeds(0.0, 3, 3))
    again = band_of_json(json.loads(json.dumps(one.to_json())), "a.json")
    assert again.to_json() == one.to_json()
    for change in ({"x": [1, 2]}, {"mean": None}, {"schema_version": 9}, {"axis": "miles"}, {"scatter": ["a"] * 100}):
        with pytest.raises(InputError, match=r"a\.json: .*save it again"):
            band_of_json({**one.to_json(), **change}, "a.json")
    with pytest.raises(InputError, match=r"a\.json"):
        band_of_json([], "a.json")


def test_groups_are_what_differs_only_in_the_seed() -> None:
    facts = [{"train": {"steps": 10, "seed": seed}, "run": {"digests": {"code": "c"}, "at": seed}} for seed in (1, 2)]
    other = {"train": {"steps": 20, "seed": 1}, "run": {"digests": {"code": "c"}}}
    runs = [run(str(k), noisy(k), facts=one) for k, one in enumerate([*facts, other, {}, {}])]
    assert [[one.name for one in group] for group in group_seeds(runs)] == [["0", "1"], ["2"], ["3"], ["4"]]
    assert [len(group) for group in group_seeds(runs, (3, 2))] == [3, 2]
    with pytest.raises(InputError, match="add up to 5"):
        group_seeds(runs, (3, 3))
    found = bands_of(group_seeds(runs, (2, 2, 1)))
    assert found is not None
    assert isinstance(found.differences[0], Interval)
    assert found.differences[1] is None
    assert len(found.held) == 3
    assert "takes two seeds of each" in "\n".join(found.lines())


def test_references_are_kept_by_name(tmp_path) -> None:
    runs = [run("a", noisy(1)), run("b", noisy(2))]
    path = save_reference("base-1", runs, tmp_path, axis="tokens")
    assert path == tmp_path / "base-1.json"
    held = hold_against_reference(load_reference("base-1", tmp_path), [run("c", noisy(3))])
    assert (held[0].run, held[0].band, held[0].num) == ("c", "base-1", 100)
    for name in ("../x", "", "a b"):
        with pytest.raises(InputError, match="no name for a reference"):
            save_reference(name, runs, tmp_path)
    with pytest.raises(InputError, match="saved are: base-1"):
        hold_against_reference(load_reference("base-2", tmp_path), runs)
    with pytest.raises(InputError, match="none of the reference's metrics"):
        hold_against_reference(
            load_reference("base-1", tmp_path), [Run("d", history(noisy(3), name="perplexity"), None, {}, {})]
        )
    path.write_text("{}")
    with pytest.raises(InputError, match="not a saved reference"):
        hold_against_reference(load_reference("base-1", tmp_path), runs)
    assert reference_folder({"XUEBU_REFERENCES": "/r"}).as_posix() == "/r"
    assert reference_folder({"HOME": "/home/a"}).as_posix() == "/home/a/.local/share/xuebu/references"


def test_the_comparison_holds_all_of_it(tmp_path) -> None:
    from xuebu.analysis.analyze import analyze_history

    runs = [
        Run(name, one, analyze_history(one), {}, {})
        for name, one in (("a", history(noisy(1))), ("b", history(noisy(2))), ("c", history(noisy(3, 600))))
    ]
    found = compare_runs(runs, axis="tokens", groups=(2, 1))
    assert [one.run for one in found.duels] == ["b", "c"]
    assert found.seeds is not None
    content = json.loads(json.dumps(found.to_json()))
    assert content["schema_version"] == 1
    assert content["duels"][1]["curves"][0]["axis"] == "tokens"
    assert "c against a: mlm_accuracy by tokens" in found.summary()
    with pytest.raises(InputError, match="no record has tokens"):
        duel(runs[0], run("d", noisy(4), tokens=False), axis="tokens")
