import numpy as np
import pytest

from xuebu.analysis.replicates import band_of
from xuebu.charts.compared import ROLES, readings, run_comparison, seed_bands
from xuebu.charts.draw import STROKES, render
from xuebu.charts.smooth import smooth_readings
from xuebu.history.series import Series


def test_every_run_is_one_line_of_its_own_role(make_run):
    runs = {"甲": make_run(seed=1), "b & c": make_run(seed=2, total=3000)}
    figure = run_comparison(runs)
    for panel in figure.panels:
        assert [(mark.role, mark.label.en) for mark in panel.marks] == [("run_1", "甲"), ("run_2", "b & c")]
    accuracy, by_token, loss, _ = figure.panels
    for mark, run in zip(accuracy.marks, runs.values(), strict=True):
        series = run.column("eval", "mlm_accuracy")
        assert (mark.x, mark.y) == (tuple(series.step), tuple(series.value))
    assert loss.marks[0].y == tuple(runs["甲"].column("eval", "mlm_loss_nats").value)
    tokens = runs["b & c"].column("train", "tokens")  # linear in the step here
    np.testing.assert_allclose(
        by_token.marks[1].x, np.array(accuracy.marks[1].x) * tokens.value[0] / tokens.step[0] / 1e6
    )
    assert b"b &amp; c" in render(figure, "svg")


def test_tokens_are_those_of_the_readings(make_run):
    run = make_run(held_out=False)
    (line,) = run_comparison({"a": run}).panels[1].marks
    np.testing.assert_allclose(np.array(line.x) * 1e6, run.column("train", "tokens").value)


def test_training_readings_are_smoothed_and_said_to_be(make_run):
    run = make_run(held_out=False)
    panel = run_comparison({"a": run, "b": make_run()}).panels[0]
    assert "smoothed" in panel.note.en
    series = run.column("train", "mlm_accuracy")
    assert panel.marks[0].y == tuple(smooth_readings(series).level)
    assert run_comparison({"b": make_run()}).panels[0].note is None


def test_what_no_run_recorded_is_said(make_run):
    panel = run_comparison({"a": make_run(nsp=False)}).panels[3]
    assert panel.marks == () and "no run recorded" in panel.nothing.en
    assert readings(make_run(nsp=False), "nsp_accuracy") is None


def test_more_runs_than_colors_are_refused(history):
    with pytest.raises(ValueError, match="at most 6"):
        run_comparison({str(number): history for number in range(7)})
    strokes = [STROKES[role] for role in ROLES]
    assert len({stroke.color for stroke in strokes}) == len({stroke.dash for stroke in strokes}) == len(ROLES) == 6


@pytest.mark.parametrize("span", [1, 5, 40])
def test_smoothing_is_the_weighted_line_through_what_came_before(span):
    value = np.random.default_rng(2).normal(size=80).cumsum()
    found = smooth_readings(Series(np.arange(80), value), span)
    for place in (0, 1, 2, 7, 79):
        weights = np.exp(-(place - np.arange(place + 1)) / span)
        step, past = np.arange(place + 1), value[: place + 1]
        line = np.polyfit(step, past, 1 if place >= 2 else 0, w=np.sqrt(weights))
        variance = np.average((past - np.polyval(line, step)) ** 2, weights=weights)
        assert found.level[place] == pytest.approx(np.polyval(line, place), rel=1e-9)
        assert found.spread[place] == pytest.approx(variance**0.5, rel=1e-5, abs=1e-7)


def test_smoothing_does_not_lag_behind_a_falling_loss():
    step = np.arange(200)
    found = smooth_readings(Series(step, 9 - 0.02 * step), 10)
    np.testing.assert_allclose(found.level[2:], 9 - 0.02 * step[2:], atol=1e-9)
    assert found.spread[2:].max() < 1e-6


def test_smoothing_never_looks_ahead():
    value = np.random.default_rng(3).normal(size=50)
    whole = smooth_readings(Series(np.arange(50), value), 8).level
    part = smooth_readings(Series(np.arange(20), value[:20]), 8).level
    np.testing.assert_array_equal(whole[:20], part)


def band(name: str, offset: float, runs: int = 3):
    step = np.arange(1.0, 21.0) * 100
    rng = np.random.default_rng(runs)
    curves = [(f"{name}{run}", step, 0.2 + offset + step / 1e4 + 0.002 * rng.normal(size=20)) for run in range(runs)]
    return band_of(name, curves, metric="mlm_accuracy", kind="eval")


def test_seeds_are_a_mean_with_the_room_of_a_further_run_and_a_difference():
    first, other = band("a", 0.0), band("<b>", 0.01)
    figure = seed_bands((first, other))
    means, differences = figure.panels
    room, line = means.marks[:2]
    np.testing.assert_allclose(line.y, first.mean)
    np.testing.assert_allclose(np.array(room.high) - np.array(line.y), first.half_next)
    gap_room, gap = differences.marks[:2]
    np.testing.assert_allclose(gap.y, other.mean - first.mean)
    np.testing.assert_allclose(np.array(gap_room.high) - gap.y, np.hypot(first.half_mean, other.half_mean))
    assert "a further run within" in figure.description.en and b"&lt;b&gt;" in render(figure, "svg")


def test_a_reference_has_its_runs_beside_it_and_an_accuracy_stays_between_0_and_1():
    wide = band("two", 0.75, 2)
    figure = seed_bands((wide,), {"mine": (wide.x, wide.mean - 0.1)})
    (panel,) = figure.panels
    assert max(panel.marks[0].high) <= 1.0 and panel.marks[-1].label.en == "mine"
    with pytest.raises(ValueError, match="at most 6"):
        seed_bands((wide,) * 7)
