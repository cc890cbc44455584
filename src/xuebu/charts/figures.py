"""The charts of a run, as values and labels: what each panel shows is decided and tested here, without a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from xuebu.analysis.curves import basis
from xuebu.analysis.intervals import normal_quantile, wilson_bounds
from xuebu.analysis.series import Floats, Series
from xuebu.charts.marks import Band, Figure, Label, Level, Line, Mark, Panel, Points, Role
from xuebu.history.records import History

NUM_CURVE_POINTS = 200
BAND_LEVEL = 0.95
STEP = Label("step", "步数")
ACCURACY = Label("accuracy", "准确率")
POINTS = Label("points", "百分点")
NATS = Label("nats per prediction", "奈特/次预测")
HELD_OUT = Label("held out", "留出集")
IN_TRAINING = Label("training batches", "训练批次")

_METRICS = {
    "mlm_accuracy": Label("MLM accuracy", "掩码预测准确率"),
    "nsp_accuracy": Label("NSP accuracy", "下一句预测准确率"),
    "sop_accuracy": Label("SOP accuracy", "句序预测准确率"),
    "mlm_loss_nats": Label("MLM loss", "掩码预测损失"),
    "loss_nats": Label("Loss (MLM + NSP)", "损失（掩码 + 下一句）"),
    "learning_rate": Label("Learning rate", "学习率"),
}
_FITS: tuple[tuple[Role, Label], ...] = (
    ("linear", Label("straight line", "直线")),
    ("saturating", Label("saturating curve", "饱和曲线")),
)
_Levels = tuple[tuple[tuple[str, str], Role, Label], ...]
_MLM_LEVELS: _Levels = (
    (("mlm", "ngram"), "counting", Label("n-gram counts", "n 元计数")),
    (("mlm", "most_frequent"), "frequency", Label("most frequent", "最高频字")),
)
_NSP_LEVELS: _Levels = ((("nsp", "overlap_rule"), "counting", Label("overlap rule", "重叠规则")),)
_CHANCE = Level(y=0.5, role="chance", label=Label("chance", "随机"))


def training_curves(history: History, *, baselines: Mapping[str, Any] | None = None) -> Figure:
    """Return the four panels of a run: MLM accuracy, accuracy on pairs (NSP or SOP), loss, learning rate.

    Args:
        history: of a run or an imported log; a panel whose metric it lacks says so.
        baselines: the content of baselines.json, drawn as horizontal lines; what it lacks is not drawn.

    Returns:
        The figure "training_curves". Accuracies are fractions, losses nats a prediction. Held-out accuracies carry a
        95 % band for the number of predictions behind them.
    """
    tables = baselines or {}
    return Figure(
        name="training_curves",
        title=Label("Training curves", "训练曲线"),
        description=_curves_description(history),
        panels=(
            _accuracy_panel(history, "mlm_accuracy", _levels(tables, _MLM_LEVELS)),
            _accuracy_panel(history, f"{pair_task([history])}_accuracy", (*_levels(tables, _NSP_LEVELS), _CHANCE)),
            _loss_panel(history),
            _learning_rate_panel(history),
        ),
        num_columns=2,
        column_inches=5.6,
    )


def pair_task(histories: Iterable[History]) -> str:
    """Return what was asked of sentence pairs: "sop" where it is all that any history records, else "nsp"."""
    recorded = {
        task
        for history in histories
        for task in ("nsp", "sop")
        for kind in ("train", "eval")
        if history.has(kind, f"{task}_accuracy")
    }
    return "sop" if recorded == {"sop"} else "nsp"


def step_correlation(history: History, analysis: Mapping[str, Any]) -> Figure:
    """Return step against accuracy with the straight and the saturating fit, and what each fit leaves over.

    Args:
        history: the one that was analyzed.
        analysis: `Analysis.to_json()` of it.

    Returns:
        The figure "step_correlation": readings, fits and forecast as far as there are any, then a panel of residuals
        for each fit, on one scale, so that the structure left in them can be compared.

    Raises:
        InputError: the history lacks the metric that the analysis is about.
    """
    metric, kind = str(analysis["metric"]), str(analysis["kind"])
    series = history.column(kind, metric)
    title = _METRICS.get(metric, Label(metric.replace("_", " "), metric))
    is_share = "accuracy" in metric
    axis = ACCURACY if is_share else NATS if metric.endswith("_nats") else title
    fits = {name: fit for name, fit in (analysis.get("fits") or {}).items() if fit and fit.get("parameters")}
    drawn = [(name, label) for name, label in _FITS if name in fits]
    first, last = float(series.step[0]), float(series.step[-1])
    main = Panel(
        title=Label("Readings and fits", "读数与拟合") if drawn else Label("Readings", "读数"),
        x_label=STEP,
        y_label=axis,
        y_unit="fraction" if is_share else "number",
        marks=(
            *_reading_marks(series),
            *(_curve(fits[name], _begin(fits[name], first), last, name, label) for name, label in drawn),
            *_forecast_marks(analysis, fits, last),
        ),
        note=_correlation_note(analysis),
        height=1.2,
    )
    left_over = [_left_over(series, fits[name], first, name) for name, _ in drawn]
    limit = 1.08 * max((abs(rest) for points in left_over for rest in points.y), default=0.0)
    axis = POINTS if is_share else axis
    residuals = [
        _residual_panel(label, points, fits[name], limit, axis)
        for (name, label), points in zip(drawn, left_over, strict=True)
    ]
    return Figure(
        name="step_correlation",
        title=Label(f"{title.en} against the step", f"{title.zh}随步数的变化"),
        description=_correlation_description(analysis, title),
        panels=(main, *residuals),
        shared_x=True,
    )


def _levels(tables: Mapping[str, Any], wanted: _Levels) -> tuple[Level, ...]:
    levels = []
    for (task, name), role, label in wanted:
        accuracy = ((tables.get(task) or {}).get(name) or {}).get("accuracy")
        if accuracy is not None:
            shown = percent_text(accuracy)
            named = Label(*(f"{text} {shown}" for text in (label.en, label.zh, label.shown("both"))))
            levels.append(Level(y=float(accuracy), role=role, label=named))
    return tuple(levels)


def _accuracy_panel(history: History, metric: str, levels: tuple[Level, ...]) -> Panel:
    marks: list[Mark] = []
    note = None
    if history.has("eval", metric):
        held_out = history.column("eval", metric)
        marks += [line_of(held_out, "held_out", HELD_OUT), *interval_bands(held_out)]
        note = _last_reading(held_out)
    elif history.has("train", metric):
        note = Label(
            "nothing was held out: each point is one training batch",
            "没有留出集：每点为一个训练批次",
            "无留出集 nothing held out: each point is one training batch",
        )
    if history.has("train", metric):
        marks.append(points_of(history.column("train", metric), "train", IN_TRAINING))
    title = _METRICS[metric]
    return Panel(
        title=title,
        x_label=STEP,
        y_label=ACCURACY,
        y_unit="fraction",
        marks=(*marks, *levels) if marks else (),
        note=note,
        nothing=Label(f"{title.en} was not recorded", f"未记录{title.zh}"),
    )


def _loss_panel(history: History) -> Panel:
    marks: list[Mark] = []
    metric, title = "mlm_loss_nats", _METRICS["mlm_loss_nats"]
    if not (history.has("train", metric) or history.has("eval", metric)) and history.has("train", "loss_nats"):
        metric = "loss_nats"  # a log that recorded only the sum
        title = _METRICS[metric] if history.has("train", "mlm_accuracy") else Label("Loss", "损失")
    if history.has("eval", metric):
        marks.append(line_of(history.column("eval", metric), "held_out", HELD_OUT))
    if history.has("train", metric):
        marks.append(points_of(history.column("train", metric), "train", IN_TRAINING))
    return Panel(
        title=title,
        x_label=STEP,
        y_label=NATS,
        y_unit="number",
        marks=tuple(marks),
        nothing=Label("loss was not recorded", "未记录损失"),
    )


def _learning_rate_panel(history: History) -> Panel:
    marks: tuple[Mark, ...] = ()
    if history.has("train", "learning_rate"):
        marks = (line_of(history.column("train", "learning_rate"), "schedule", None),)
    return Panel(
        title=_METRICS["learning_rate"],
        x_label=STEP,
        y_label=Label("learning rate", "学习率"),
        y_unit="rate",
        marks=marks,
        nothing=Label("learning rate was not recorded", "未记录学习率"),
    )


def _reading_marks(series: Series) -> list[Mark]:
    if series.kind != "eval":
        return [points_of(series, "train", IN_TRAINING)]
    return [points_of(series, "held_out", HELD_OUT), *interval_bands(series)]


def _residual_panel(label: Label, points: Points, fit: Mapping[str, Any], limit: float, axis: Label) -> Panel:
    left = fit.get("residuals") or {}
    note = None
    if (lag1 := left.get("lag1_autocorrelation")) is not None and (watson := left.get("durbin_watson")) is not None:
        told = Label("lag-1 autocorrelation {0}, Durbin-Watson {1}", "一阶自相关 {0}，杜宾-沃森 {1}")
        note = labelled(told, (_signed(lag1), f"{watson:.2f}"), "自相关")
    return Panel(
        title=Label(f"Residuals of the {label.en}", f"{label.zh}的残差"),
        x_label=STEP,
        y_label=axis,
        y_unit="points" if axis == POINTS else "number",
        marks=(Level(y=0.0, role="chance"), points),
        note=note,
        height=0.5,
        y_range=(-limit, limit) if limit else None,
    )


def _fitted(fit: Mapping[str, Any], step: Floats) -> Floats:
    """Return a fit of analysis.json at steps."""
    values = fit["parameters"]
    start = float(fit.get("start") or 0)
    return np.asarray(
        values["offset"] + values["scale"] * basis(fit["family"], step, values.get("shape") or 1.0, start)
    )


def _begin(fit: Mapping[str, Any], first: float) -> float:
    """Return the step from which on a fit was fitted: bent curves leave a run's start-up out."""
    return max(first, float(fit.get("start") or first))


def _left_over(series: Series, fit: Mapping[str, Any], first: float, role: Role) -> Points:
    """Return what a fit leaves over of the readings that it was fitted to."""
    inside = series.step >= _begin(fit, first)
    step = series.step[inside].astype(np.float64)
    return Points(x=_plain(step), y=_plain(series.value[inside] - _fitted(fit, step)), role=role)


def _curve(fit: Mapping[str, Any], first: float, last: float, role: Role, label: Label | None) -> Line:
    step = np.linspace(first, last, NUM_CURVE_POINTS if last > first else 1)
    return Line(x=_plain(step), y=_plain(_fitted(fit, step)), role=role, label=label)


def _forecast_marks(analysis: Mapping[str, Any], fits: Mapping[str, Any], last: float) -> list[Mark]:
    """Return the two fits carried on to the forecast's target, and the forecast's interval there."""
    forecast = analysis.get("forecast") or {}
    interval, target = forecast.get("interval") or {}, forecast.get("target_step")
    if target is None or interval.get("low") is None or interval.get("high") is None or target <= last:
        return []
    marks: list[Mark] = []
    for name, _ in _FITS:
        if name in fits:
            role: Role = "forecast" if name == "saturating" else "linear"
            marks.append(_curve(fits[name], last, float(target), role, None))
    level = _level(interval)
    label = Label(f"forecast, {level} interval", f"预测，{level} 区间", f"预测 forecast, {level} interval")
    at = (float(target),)
    marks.append(
        Band(x=at, low=(float(interval["low"]),), high=(float(interval["high"]),), role="forecast", label=label)
    )
    if interval.get("value") is not None:
        marks.append(Points(x=at, y=(float(interval["value"]),), role="forecast"))
    return marks


def _correlation_note(analysis: Mapping[str, Any]) -> Label | None:
    pearson = (analysis.get("correlations") or {}).get("pearson") or {}
    if pearson.get("coefficient") is None:
        return None
    value = _signed(pearson["coefficient"], 3)
    chosen: Mapping[str, Any] = next((item for item in pearson.get("intervals") or [] if item.get("recommended")), {})
    if chosen.get("low") is None:
        none = Label("Pearson r = {0}; no interval of it can be vouched for", "皮尔逊 r = {0}；没有可信的区间")
        return labelled(none, (value,), "相关系数")
    figures = [value, _level(chosen), _signed(chosen["low"]), _signed(chosen["high"])]
    told = Label("Pearson r = {0}, {1} interval {2} to {3}", "皮尔逊 r = {0}，{1} 区间 {2} 至 {3}")
    if (size := chosen.get("effective_size")) is not None:
        told = Label(told.en + ", as from {4} independent readings", told.zh + "，相当于 {4} 次独立读数")
        figures.append(f"{size:,.0f}")
    return labelled(told, figures, "相关系数")


def labelled(label: Label, figures: Sequence[str], short: str) -> Label:
    """Return a label with figures in its places; in a bilingual chart a short Chinese head before the English."""
    english = label.en.format(*figures)
    return Label(english, label.zh.format(*figures), f"{short} {english}".strip())


def _curves_description(history: History) -> Label:
    if history.has("eval", "mlm_accuracy"):
        series, where = history.column("eval", "mlm_accuracy"), Label("held-out", "留出集")
    elif history.has("train", "mlm_accuracy"):
        series, where = history.column("train", "mlm_accuracy"), Label("training-batch", "训练批次")
    else:
        return Label("Training curves; MLM accuracy was not recorded.", "训练曲线；未记录掩码预测准确率。")
    first, last = (percent_text(value) for value in (series.value[0], series.value[-1]))
    steps = f"{series.step[0]:,}", f"{series.step[-1]:,}"
    return Label(
        f"{where.en.capitalize()} MLM accuracy went from {first} at step {steps[0]} to {last} at step {steps[1]}.",
        f"{where.zh}掩码预测准确率从第 {steps[0]} 步的 {first} 到第 {steps[1]} 步的 {last}。",
    )


def _correlation_description(analysis: Mapping[str, Any], title: Label) -> Label:
    note = _correlation_note(analysis)
    first, last = analysis.get("first_step"), analysis.get("last_step")
    steps = f"{first:,}", f"{last:,}"
    english, chinese = (f" {note.en}.", f"{note.zh}。") if note else ("", "")
    return Label(
        f"{title.en} from step {steps[0]} to {steps[1]}, with a straight and a saturating fit.{english}",
        f"第 {steps[0]} 步到第 {steps[1]} 步的{title.zh}，附直线与饱和曲线拟合。{chinese}",
    )


def line_of(series: Series, role: Role, label: Label | None) -> Line:
    """Return a series as a line."""
    return Line(x=_plain(series.step), y=_plain(series.value), role=role, label=label)


def points_of(series: Series, role: Role, label: Label) -> Points:
    """Return a series as single points."""
    return Points(x=_plain(series.step), y=_plain(series.value), role=role, label=label)


def interval_bands(series: Series) -> tuple[Band, ...]:
    """Return Wilson's interval around each accuracy whose number of predictions is known."""
    if series.count is None or "accuracy" not in series.metric:
        return ()
    quantile = normal_quantile(BAND_LEVEL)
    pairs = [
        wilson_bounds(*reading, quantile) for reading in zip(_plain(series.value), _plain(series.count), strict=True)
    ]
    low, high = zip(*pairs, strict=True)
    level = f"{100 * BAND_LEVEL:g} %"
    label = Label(f"{level} interval", f"{level} 区间", f"区间 {level} interval")
    return (Band(x=_plain(series.step), low=low, high=high, role="held_out", label=label),)


def _last_reading(series: Series) -> Label:
    value, step = percent_text(series.value[-1]), f"{series.step[-1]:,}"
    told = Label("{0} at step {1}", "第 {1} 步为 {0}")
    if series.count is not None:
        told = Label(told.en + ", {2} predictions", told.zh + "，{2} 次预测")
    return labelled(told, (value, step, "" if series.count is None else f"{series.count[-1]:,}"), "最后读数")


def _plain(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def percent_text(value: float) -> str:
    """Return a fraction as charts write it: "17.7 %"."""
    return f"{100 * value:.1f} %"


def _signed(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}".replace("-", "−")


def _level(interval: Mapping[str, Any]) -> str:
    return f"{100 * interval.get('level', 0.95):g} %"


def signed_text(value: float, digits: int) -> str:
    """Return a number with its sign, none where it rounds to zero."""
    text = f"{value:+.{digits}f}"
    return (text if float(text) else text[1:]).replace("-", "−")
