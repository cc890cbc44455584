import dataclasses
import json
import re

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from xuebu.charts.figures import step_correlation, training_curves
from xuebu.charts.marks import Band, Label, Level, Line, Points
from xuebu.errors import InputError
from xuebu.history.records import History, table_of


def marks_of(panel, kind, role=None):
    return [mark for mark in panel.marks if isinstance(mark, kind) and role in (None, mark.role)]


def labels_in(value):
    if isinstance(value, Label):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from labels_in(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from labels_in(item)


def empty_history():
    return History("memory", "xuebu history", table_of([], "train")[0], table_of([], "eval")[0])


def test_training_curves_has_the_four_panels_in_order(history, baselines):
    figure = training_curves(history, baselines=baselines)
    assert [panel.title.en for panel in figure.panels] == ["MLM accuracy", "NSP accuracy", "MLM loss", "Learning rate"]
    assert [panel.y_unit for panel in figure.panels] == ["fraction", "fraction", "number", "rate"]
    assert (figure.name, figure.num_columns) == ("training_curves", 2)


def test_readings_are_the_historys(history, baselines):
    figure = training_curves(history, baselines=baselines)
    for number, metric in enumerate(["mlm_accuracy", "nsp_accuracy", "mlm_loss_nats"]):
        (line,) = marks_of(figure.panels[number], Line, "held_out")
        (points,) = marks_of(figure.panels[number], Points, "train")
        for mark, kind in ((line, "eval"), (points, "train")):
            series = history.column(kind, metric)
            np.testing.assert_array_equal(mark.x, series.step)
            np.testing.assert_array_equal(mark.y, series.value)


def test_the_band_is_wilsons_interval(history):
    (band,) = marks_of(training_curves(history).panels[0], Band)
    series = history.column("eval", "mlm_accuracy")
    low, high = proportion_confint(series.value * series.count, series.count, 0.05, "wilson")
    np.testing.assert_allclose(band.low, low, rtol=1e-9)
    np.testing.assert_allclose(band.high, high, rtol=1e-9)


def test_baselines_are_levels_that_say_their_value(history, baselines):
    mlm, nsp, *_ = training_curves(history, baselines=baselines).panels
    assert [(level.y, level.label.en) for level in marks_of(mlm, Level)] == [
        (0.381, "n-gram counts 38.1 %"),
        (0.041, "most frequent 4.1 %"),
    ]
    assert [(level.y, level.role) for level in marks_of(nsp, Level)] == [(0.69, "counting"), (0.5, "chance")]


@pytest.mark.parametrize("tables", [None, {}, {"mlm": None}, {"mlm": {"ngram": {}}, "nsp": {"overlap_rule": None}}])
def test_baselines_that_are_missing_draw_nothing(history, tables):
    mlm, nsp, *_ = training_curves(history, baselines=tables).panels
    assert marks_of(mlm, Level) == []
    assert [level.y for level in marks_of(nsp, Level)] == [0.5]


def test_a_run_without_nsp_says_so(make_run):
    panel = training_curves(make_run(nsp=False)).panels[1]
    assert panel.marks == ()
    assert "not recorded" in panel.nothing.en and "未记录" in panel.nothing.zh


def test_an_empty_history_says_so_in_every_panel():
    figure = training_curves(empty_history())
    assert all(panel.marks == () and panel.nothing is not None for panel in figure.panels)
    assert "not recorded" in figure.description.en


def test_the_note_tells_the_last_reading_and_its_predictions(history):
    note = training_curves(history).panels[0].note
    last = history.column("eval", "mlm_accuracy").value[-1]
    assert note.en == f"{100 * last:.1f} % at step 2,000, 4,000 predictions"
    assert "4,000 次预测" in note.zh


def test_without_held_out_readings_the_panel_says_so(make_run):
    panel = training_curves(make_run(held_out=False)).panels[0]
    assert marks_of(panel, Line) == marks_of(panel, Band) == []
    assert "nothing was held out" in panel.note.en


def test_a_log_that_has_only_the_summed_loss_is_drawn():
    rows = [{"step": step, "loss_nats": 9.0 - step, "learning_rate": 5e-5} for step in (1, 2, 3)]
    history = History("log", "published study", table_of(rows, "train")[0], table_of([], "eval")[0])
    panel = training_curves(history).panels[2]
    assert panel.title.en == "Loss"
    assert panel.marks[0].y == (8.0, 7.0, 6.0)


def test_fits_and_residuals_are_the_analysis_own(history, analysis):
    figure = step_correlation(history, json.loads(json.dumps(analysis.to_json())))
    main, *residuals = figure.panels
    series = history.column("eval", "mlm_accuracy")
    assert marks_of(main, Points, "held_out")[0].y == tuple(series.value)
    for family, panel in zip(["linear", "saturating"], residuals, strict=True):
        fit = analysis.fits[family]
        line = marks_of(main, Line, family)[0]
        assert (line.x[0], line.x[-1]) == (series.step[0], series.step[-1])
        np.testing.assert_allclose(line.y, fit.predict(np.array(line.x)), rtol=1e-9)
        (points,) = marks_of(panel, Points, family)
        np.testing.assert_allclose(points.y, series.value - fit.predict(series.step), atol=1e-12)
        assert f"{fit.residuals.durbin_watson:.2f}" in panel.note.en


def test_residuals_share_one_scale_that_holds_them_all(history, analysis):
    _, *panels = step_correlation(history, analysis.to_json()).panels
    assert panels[0].y_range == panels[1].y_range
    low, high = panels[0].y_range
    assert low == -high
    assert all(low < y < high for panel in panels for mark in marks_of(panel, Points) for y in mark.y)


def test_the_forecast_stands_at_its_target(history, analysis):
    table = analysis.to_json()
    interval = {"value": 0.19, "low": 0.17, "high": 0.21, "level": 0.9}
    table["forecast"] = {"target_step": 4000, "interval": interval}
    main = step_correlation(history, table).panels[0]
    (band,) = marks_of(main, Band, "forecast")
    assert (band.x, band.low, band.high) == ((4000.0,), (0.17,), (0.21,))
    assert "90 %" in band.label.en
    (ahead,) = marks_of(main, Line, "forecast")
    assert (ahead.x[0], ahead.x[-1]) == (2000, 4000)
    np.testing.assert_allclose(ahead.y[-1], analysis.fits["saturating"].predict(4000), rtol=1e-9)


@pytest.mark.parametrize(
    "forecast",
    [
        None,
        {"target_step": 4000, "interval": None, "refused": "too few readings"},
        {"target_step": 4000, "interval": {"value": 0.2, "low": None, "high": None}},
        {"target_step": 2000, "interval": {"value": 0.2, "low": 0.1, "high": 0.3}},
    ],
)
def test_no_forecast_draws_nothing_beyond_the_readings(history, analysis, forecast):
    main = step_correlation(history, analysis.to_json() | {"forecast": forecast}).panels[0]
    assert marks_of(main, Band, "forecast") == []
    assert max(max(mark.x) for mark in main.marks if not isinstance(mark, Level)) == 2000


def test_the_note_quotes_the_recommended_interval(history, analysis):
    table = analysis.to_json()
    table["correlations"]["pearson"] = {
        "coefficient": -0.5,
        "intervals": [
            {"low": -0.9, "high": 0.9, "recommended": False},
            {"low": -0.71, "high": -0.2, "level": 0.95, "effective_size": 24.3, "recommended": True},
        ],
    }
    note = step_correlation(history, table).panels[0].note
    assert note.en == "Pearson r = −0.500, 95 % interval −0.71 to −0.20, as from 24 independent readings"
    table["correlations"]["pearson"]["intervals"].pop()
    assert "no interval" in step_correlation(history, table).panels[0].note.en


def test_without_fits_only_the_readings_are_shown(make_run):
    run = make_run(num_evals=1, num_train=1)
    table = {"metric": "mlm_accuracy", "kind": "eval", "first_step": 2000, "last_step": 2000, "fits": {}}
    (panel,) = step_correlation(run, table).panels
    assert panel.note is None
    assert marks_of(panel, Points)[0].x == (2000.0,)


def test_a_loss_is_in_nats_not_percent(history, analysis):
    from xuebu.analysis.analyze import analyze_history

    table = analyze_history(history, metric="mlm_loss_nats").to_json()
    figure = step_correlation(history, table)
    assert {panel.y_unit for panel in figure.panels} == {"number"}
    assert {panel.y_label.en for panel in figure.panels} == {"nats per prediction"}
    assert marks_of(figure.panels[0], Band, "held_out") == []


def test_an_analysis_of_another_history_is_refused(analysis):
    with pytest.raises(InputError, match="mlm_accuracy"):
        step_correlation(empty_history(), analysis.to_json())


def test_every_label_is_in_both_languages_with_the_same_figures(history, analysis, baselines):
    figures = [training_curves(history, baselines=baselines), step_correlation(history, analysis.to_json())]
    labels = {label for figure in figures for label in labels_in(figure)}
    assert len(labels) > 20
    for label in labels:
        assert re.search("[一-鿿]", label.zh), label
        english, chinese = (
            sorted(re.findall(r"\d[\d,.]*\d|\d", text)) for text in (label.en.replace("lag-1", ""), label.zh)
        )
        assert english == chinese, label


def test_figures_are_values_that_compare_equal(history, analysis, baselines):
    assert training_curves(history, baselines=baselines) == training_curves(history, baselines=baselines)
    assert step_correlation(history, analysis.to_json()) == step_correlation(history, analysis.to_json())


@pytest.mark.parametrize(
    ("language", "shown"), [("en", "step"), ("zh", "步数"), ("both", "步数 step")], ids=["en", "zh", "both"]
)
def test_a_label_in_each_language(language, shown):
    assert Label("step", "步数").shown(language) == shown
    assert Label("R²").shown(language) == "R²"
