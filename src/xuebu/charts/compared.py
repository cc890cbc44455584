"""Runs side by side in one chart: what steps and tokens bought each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import get_args

import numpy as np

from xuebu.analysis.align import Axis
from xuebu.analysis.replicates import Band
from xuebu.analysis.wording import is_accuracy
from xuebu.charts.figures import ACCURACY, NATS, STEP, pair_task
from xuebu.charts.marks import Band as Room
from xuebu.charts.marks import Figure, Label, Level, Line, Mark, Panel, RunRole, Unit
from xuebu.charts.smooth import smooth_readings
from xuebu.history.records import History
from xuebu.history.series import Floats, Series

ROLES: tuple[RunRole, ...] = get_args(RunRole)
MILLION = 1e6
TOKENS = Label("million tokens", "百万词元")
_AXES: Mapping[Axis, Label] = {
    "step": STEP,
    "tokens": Label("tokens", "词元"),
    "seconds": Label("seconds", "秒"),
    "flop": Label("floating-point operations", "浮点运算"),
}
_PANELS: tuple[tuple[str, Label, Label, Unit], ...] = (
    ("mlm_accuracy", Label("MLM accuracy", "掩码预测准确率"), ACCURACY, "fraction"),
    ("mlm_loss_nats", Label("MLM loss", "掩码预测损失"), NATS, "number"),
)
_PAIR_TITLES = {
    "nsp": Label("NSP accuracy", "下一句预测准确率"),
    "sop": Label("SOP accuracy", "句序预测准确率"),
}


def run_comparison(runs: Mapping[str, History]) -> Figure:
    """Return the figure "comparison": accuracy by step and by token, loss and accuracy on pairs by step, a line a run.

    Args:
        runs: at most six histories by name, the order is that of the colors. A run without held-out readings is shown
            by its training readings, smoothed over the ones before each.

    Raises:
        ValueError: there are more runs than colors that can be told apart.
    """
    if len(runs) > len(ROLES):
        raise ValueError(f"{len(runs)} runs in one chart; at most {len(ROLES)} can be told apart")
    accuracy, loss = (_panel(runs, *panel) for panel in _PANELS)
    task = pair_task(runs.values())
    pairs = _panel(runs, f"{task}_accuracy", _PAIR_TITLES[task], ACCURACY, "fraction")
    return Figure(
        name="comparison",
        title=Label("Comparison of runs", "训练对比"),
        description=_description(runs),
        panels=(accuracy, _by_token(runs), loss, pairs),
        num_columns=2,
        column_inches=5.6,
    )


def seed_bands(bands: Sequence[Band], runs: Mapping[str, tuple[Floats, Floats]] = MappingProxyType({})) -> Figure:
    """Return the figure "seed_bands": each recipe's mean over its seeds, where a further run lies, and differences.

    Args:
        bands: one a recipe, of one metric along one axis; a saved reference is one.
        runs: places and readings of single runs to show against the first band.

    Raises:
        ValueError: there are more bands and runs than colors that can be told apart.
    """
    if len(bands) + len(runs) > len(ROLES):
        raise ValueError(f"{len(bands)} bands and {len(runs)} runs in one chart; at most {len(ROLES)} in all")
    first, axis = bands[0], _AXES[bands[0].axis]
    accurate = is_accuracy(first.metric)
    unit: Unit = "fraction" if accurate else "number"
    name = Label(first.metric)
    marks: list[Mark] = []
    for role, band in zip(ROLES, bands, strict=False):
        ends = np.stack([band.mean - band.half_next, band.mean + band.half_next])
        low, high = np.clip(ends, 0.0, 1.0) if accurate else ends
        marks += [
            Room(x=_tuple(band.x), low=_tuple(low), high=_tuple(high), role=role),
            Line(x=_tuple(band.x), y=_tuple(band.mean), role=role, label=Label(f"{band.name} ({len(band.runs)})")),
        ]
    for role, (run, (x, y)) in zip(ROLES[len(bands) :], runs.items(), strict=False):
        marks.append(Line(x=_tuple(x), y=_tuple(y), role=role, label=Label(run)))
    share = f"{100 * first.level:g} %"
    panels = [
        Panel(
            title=Label(f"mean {first.metric}", "平均", f"平均 mean {first.metric}"),
            x_label=axis,
            y_label=name,
            y_unit=unit,
            marks=tuple(marks),
            note=Label(f"shaded: a further run, {share}", f"阴影：另一次训练，{share}"),
        )
    ]
    differences: list[Mark] = []
    for role, band in zip(ROLES[1:], bands[1:], strict=False):
        x = band.x[(band.x >= first.x[0]) & (band.x <= first.x[-1])]
        gap = np.interp(x, band.x, band.mean) - np.interp(x, first.x, first.mean)
        half = np.hypot(np.interp(x, band.x, band.half_mean), np.interp(x, first.x, first.half_mean))
        differences += [
            Room(x=_tuple(x), low=_tuple(gap - half), high=_tuple(gap + half), role=role),
            Line(x=_tuple(x), y=_tuple(gap), role=role, label=Label(f"{band.name} − {first.name}")),
        ]
    if differences:
        panels.append(
            Panel(
                title=Label("difference of the means", "平均之差"),
                x_label=axis,
                y_label=Label("difference", "差"),
                y_unit="points" if accurate else "number",
                marks=(*differences, Level(y=0.0, role="chance")),
                note=Label(f"shaded: {share} between seeds", f"阴影：种子之间，{share}"),
            )
        )
    told = "; ".join(band.summary() for band in bands)
    return Figure(
        name="seed_bands",
        title=Label("Runs that differ only in their seed", "只有种子不同的训练"),
        description=Label(f"{told}.", f"{told}。"),
        panels=tuple(panels),
        num_columns=len(panels),
        column_inches=5.6,
    )


def _tuple(values: Floats) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _panel(runs: Mapping[str, History], metric: str, title: Label, axis: Label, unit: Unit) -> Panel:
    lines = [
        _line(shown, shown.step.astype(float), role, name)
        for role, (name, history) in zip(ROLES, runs.items(), strict=False)
        if (shown := readings(history, metric)) is not None
    ]
    return Panel(
        title=title,
        x_label=STEP,
        y_label=axis,
        y_unit=unit,
        marks=tuple(lines),
        note=_note([history for history in runs.values() if history.has("train", metric)], metric),
        nothing=Label(f"no run recorded {title.en}", f"没有一次训练记录{title.zh}"),
    )


def _by_token(runs: Mapping[str, History]) -> Panel:
    lines = []
    for role, (name, history) in zip(ROLES, runs.items(), strict=False):
        shown = readings(history, "mlm_accuracy")
        kind = next((one for one in ("eval", "train") if history.has(one, "tokens")), None)
        if shown is not None and kind is not None:
            tokens = history.column(kind, "tokens")
            lines.append(_line(shown, np.interp(shown.step, tokens.step, tokens.value) / MILLION, role, name))
    return Panel(
        title=Label("MLM accuracy by tokens seen", "掩码预测准确率与词元数"),
        x_label=TOKENS,
        y_label=ACCURACY,
        y_unit="fraction",
        x_unit="number",
        marks=tuple(lines),
        nothing=Label("no run recorded tokens", "没有一次训练记录词元数"),
    )


def readings(history: History, metric: str) -> Series | None:
    """Return the held-out readings of a metric, else the training readings smoothed, None where there are neither."""
    if history.has("eval", metric):
        return history.column("eval", metric)
    if not history.has("train", metric):
        return None
    series = history.column("train", metric)
    return Series(series.step, smooth_readings(series).level, series.count, series.metric, series.kind)


def _note(histories: Sequence[History], metric: str) -> Label | None:
    if all(history.has("eval", metric) for history in histories):
        return None
    return Label("of training batches, smoothed, where nothing was held out", "没有留出集的训练：训练批次，已平滑")


def _line(series: Series, x: Floats, role: RunRole, name: str) -> Line:
    return Line(x=tuple(x.tolist()), y=tuple(series.value.tolist()), role=role, label=Label(name))


def _description(runs: Mapping[str, History]) -> Label:
    ends = [
        (name, f"{100 * shown.value[-1]:.1f} %", f"{shown.step[-1]:,}")
        for name, history in runs.items()
        if (shown := readings(history, "mlm_accuracy")) is not None
    ]
    english = "; ".join(f"{name} {value} at step {step}" for name, value, step in ends)
    chinese = "；".join(f"{name} 第 {step} 步 {value}" for name, value, step in ends)
    return Label(f"MLM accuracy at the end: {english}.", f"最后的掩码预测准确率：{chinese}。")
