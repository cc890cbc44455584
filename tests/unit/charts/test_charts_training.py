import dataclasses
import re

import numpy as np
import pytest

from xuebu.charts.draw import render
from xuebu.charts.marks import Band, Bars, Level, Line, Points, Spans
from xuebu.charts.scores import by_character, class_name, reliability
from xuebu.charts.smooth import smooth_readings
from xuebu.charts.training import against_counting, effort, loss_analysis
from xuebu.history.records import History, table_of


def marks_of(panel, kind, role=None):
    return [mark for mark in panel.marks if isinstance(mark, kind) and role in (None, mark.role)]


def entry(accuracy, predictions=100, half=0.02):
    return {"accuracy": accuracy, "low": accuracy - half, "high": accuracy + half, "predictions": predictions}


TABLES = {
    "mlm": {
        "ngram": entry(0.38),
        "most_frequent": entry(0.04),
        "difference_from_ngram": {"value": -0.2, "low": -0.22, "high": -0.18},
        "by_class": {"mask": {"ngram": entry(0.35), "most_frequent": entry(0.03)}},
        "by_character": {
            "han_1_100": {"model": entry(0.21, 4000), "ngram": entry(0.46, 4000)},
            "han_1501_up": {"model": entry(0.02, 345), "ngram": {"accuracy": 0.2, "low": None, "high": None}},
            "latin": {"model": entry(0.3, 12)},
        },
    },
    "calibration": {
        "bins": [{"probability": 0.1, **entry(0.12, 300)}, {"probability": 0.6, **entry(0.5, 301)}],
        "ece": 0.06,
        "ece_if_calibrated": 0.02,
    },
}


def own_run(records, evals=(), events=({"event": "start"},)):
    return History("memory", "xuebu history", table_of(records, "train")[0], table_of(evals, "eval")[0], events)


def test_the_loss_is_smoothed_with_its_scatter_around_it(history):
    main, _ = loss_analysis(history).panels
    series = history.column("train", "mlm_loss_nats")
    smooth = smooth_readings(series)
    (line,), (band,) = marks_of(main, Line, "smoothed"), marks_of(main, Band, "smoothed")
    assert line.y == tuple(smooth.level)
    np.testing.assert_allclose(np.array(band.high) - band.low, 2 * smooth.spread, atol=1e-12)
    np.testing.assert_allclose((np.array(band.high) + band.low) / 2, line.y)
    assert marks_of(main, Points, "train")[0].y == tuple(series.value)
    assert marks_of(main, Line, "held_out")[0].y == tuple(history.column("eval", "mlm_loss_nats").value)


def test_the_gap_of_equal_losses_is_zero_and_of_shifted_ones_the_shift():
    """Means over ten steps and evaluations of the same falling curve: no lag shows up as a gap."""

    def curve(step):
        return 9.0 - 0.01 * np.asarray(step)

    steps = range(10, 2001, 10)
    train = [{"step": s, "mlm_loss_nats": float(curve(np.arange(s - 9, s + 1) - 0.5).mean())} for s in steps]
    evals = [{"step": s, "mlm_loss_nats": float(curve(s)) + 0.25} for s in range(40, 2001, 40)]
    _, panel = loss_analysis(own_run(train, evals)).panels
    (line,) = marks_of(panel, Line)
    np.testing.assert_allclose(line.y[:-1], 0.25, atol=1e-9)
    assert panel.note.en.endswith("a rise is overfitting")
    single = [row | {"mlm_loss_nats": float(curve(row["step"]))} for row in train]  # of others: one batch each
    _, panel = loss_analysis(own_run(single, evals, events=())).panels
    np.testing.assert_allclose(marks_of(panel, Line)[0].y[1:-1], 0.25 - 0.05, atol=1e-9)


def test_a_log_without_loss_or_held_out_text_says_so(make_run):
    assert loss_analysis(own_run([{"step": 1, "mlm_accuracy": 0.1}])) is None
    panel = loss_analysis(make_run(held_out=False)).panels[1]
    assert panel.marks == () and "nothing was held out" in panel.nothing.en


def test_tokens_and_seconds_add_up():
    train = [
        {"step": 10 * n, "tokens": 1000 * n, "seconds": 8.0 * n, "mlm_accuracy": 0.1, "mlm_predictions": 150}
        | {"tokens_per_second": 100.0 + n}
        for n in range(1, 11)
    ]
    evals = [{"step": 10 * n, "tokens": 1000 * n, "mlm_accuracy": 0.02 * n} for n in range(1, 11)]
    shares, speed, gain = effort(own_run(train, evals), session_seconds=100.0).panels
    (bars,) = marks_of(shares, Bars)
    assert bars.value == pytest.approx((0.15, 0.85, 0.8, 0.2))
    assert shares.y_names[0].en == "tokens: predicted 15.0 %"
    assert marks_of(speed, Level)[0].y == 105.5
    assert marks_of(gain, Bars)[0].value == pytest.approx([0.02] * 10)
    shares = effort(own_run(train, evals, events=())).panels[0]  # of another trainer: what its counts mean is not known
    assert shares.marks == () and "not recorded" in shares.nothing.en
    assert effort(own_run([{"step": 1, "mlm_accuracy": 0.1}])) is None


def test_gains_are_the_curve_between_tenths(history):
    gain = marks_of(effort(history).panels[2], Bars)[0].value
    assert sum(gain) == pytest.approx(history.column("eval", "mlm_accuracy").value[-1])


def test_counting_stands_beside_the_curve_with_its_interval(history):
    figure = against_counting(history, TABLES)
    (panel,) = figure.panels  # this history has no readings at [MASK] alone
    (band,) = marks_of(panel, Band, "counting")
    assert (band.low, band.high) == ((0.36, 0.36), (0.4, 0.4))
    assert [(one.y, one.role) for one in marks_of(panel, Level)] == [(0.38, "counting"), (0.04, "frequency")]
    assert "−20.0 points (interval −22.0 to −18.0)" in figure.description.en
    held_out = dict(history.eval.columns) | {"mlm_accuracy_mask": np.full(len(history.eval), 0.1)}
    both = dataclasses.replace(history, eval=dataclasses.replace(history.eval, columns=held_out))
    assert [panel.title.en for panel in against_counting(both, TABLES).panels][1] == "Positions that show [MASK]"


@pytest.mark.parametrize("tables", [{}, {"mlm": None}, {"mlm": {"ngram": {}}}])
def test_without_counting_there_is_no_such_chart(history, make_run, tables):
    assert against_counting(history, tables) is None
    assert against_counting(make_run(held_out=False), TABLES) is None


def test_classes_of_characters_are_rows_with_model_and_counting():
    (panel,) = by_character(TABLES).panels
    model, ngram = marks_of(panel, Spans)
    assert model.x == (0.21, 0.02, 0.3) and model.across
    assert (model.low[0], model.high[0]) == pytest.approx((0.19, 0.23))
    assert ngram.x == (0.46, 0.2) and (ngram.low[1], ngram.high[1]) == (0.2, 0.2)  # no interval: a point
    assert [round(y) for y in model.y] == [0, 1, 2] and [round(y) for y in ngram.y] == [0, 1]
    assert [name.en for name in panel.y_names] == [
        "Han, rank 1–100 (4,000)", "Han, rank 1,501 up (345)", "Latin letters (12)",
    ]  # fmt: skip
    assert class_name("of_tomorrow").en == "of_tomorrow"


def test_rows_of_classes_run_from_the_top_down_and_none_is_missing():
    svg = render(by_character(TABLES), "svg").decode()
    heights = [
        float(re.search(rf'y="([\d.]+)"[^>]*>{name}', svg)[1])
        for name in ("Han, rank 1–100", "Han, rank 1,501", "Latin letters")
    ]
    assert heights == sorted(heights) and len(set(heights)) == 3


def test_reliability_is_the_bins_beside_the_diagonal():
    figure = reliability(TABLES)
    (panel,) = figure.panels
    (points,), (line,) = marks_of(panel, Spans), marks_of(panel, Line)
    assert (points.x, points.y) == ((0.1, 0.6), (0.12, 0.5))
    assert line.x == line.y
    assert panel.note.en == "mean distance 6.0 points, by chance alone 2.0"
    assert "2 bins of 300–301 predictions" in figure.description.en
    assert "given 35.0 % and is right in 31.0 %" in figure.description.en


@pytest.mark.parametrize(
    "tables", [{}, {"calibration": None}, {"calibration": {"bins": []}}, {"mlm": {"by_character": {}}}]
)
def test_what_was_not_scored_is_not_drawn(tables):
    assert by_character(tables) is None and reliability(tables) is None


def test_every_label_is_in_both_languages_with_the_same_figures(history):
    from xuebu.charts.marks import Label

    def labels_in(value):
        if isinstance(value, Label):
            yield value
        elif dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                yield from labels_in(getattr(value, field.name))
        elif isinstance(value, tuple):
            for item in value:
                yield from labels_in(item)

    figures = [loss_analysis(history), effort(history), against_counting(history, TABLES), by_character(TABLES)]
    for label in {label for figure in [*figures, reliability(TABLES)] for label in labels_in(figure)}:
        if label.en:
            assert re.search("[一-鿿]", label.zh), label
            english, chinese = (sorted(re.findall(r"\d[\d,.]*\d|\d", text)) for text in (label.en, label.zh))
            assert english == chinese, label


def test_every_new_chart_can_be_drawn_the_same_twice(history):
    for figure in (loss_analysis(history), effort(history), by_character(TABLES), reliability(TABLES)):
        assert render(figure, "svg") == render(figure, "svg")
