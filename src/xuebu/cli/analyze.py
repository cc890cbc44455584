"""`xuebu analyze`: what a history shows, and what it does not. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from xuebu.cli.flags import OptionalName, OptionalPath, parse
from xuebu.cli.screen import make_console, print_plain
from xuebu.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from xuebu.analysis.analyze import Analysis
    from xuebu.analysis.anomalies import Monitor
    from xuebu.charts.marks import Figure
    from xuebu.history.records import History


@dataclass(frozen=True, kw_only=True)
class AnalyzeArguments:
    """Say what a training history shows: correlation with honest intervals, fits judged out of sample, health.

    Reads anybody's log without options: a run folder of xuebu, trainer_state.json, TensorBoard events, W&B's history
    or CSV export, nanoGPT's and llm.c's text logs, lines like {'loss': 3.36, 'epoch': 1.02}, plain CSV, the published
    study's JSON. For a run folder the analysis, the charts and the report are written anew.
    """

    path: Annotated[Path, tyro.conf.Positional]
    """Run folder, log file, or folder of event files."""
    metric: OptionalName = None
    """Metric to analyze, by xuebu's name or the log's own, e.g. train/loss; without, the most telling one."""
    run: OptionalName = None
    """Which of several runs in one log; without, the one with the most readings."""
    out: OptionalPath = None
    """Folder for analysis.json and charts of a log; without, they are not written."""
    watch: bool = False
    """Go on reading a log that is still being written, and tell what goes wrong as it happens (Ctrl-C ends it)."""
    idle: float | None = None
    """With --watch: seconds without growth after which to end with the analysis."""
    until: int | None = None
    """Step at which the run is to end: says whether to stop it now, with the probability."""
    language: Literal["en", "zh"] = "en"
    """Language of the report."""
    seed: int = 0
    """Seed of the bootstrap."""


def analyze(arguments: Sequence[str]) -> int:
    """Run the command."""
    asked = parse(AnalyzeArguments, arguments, prog="xuebu analyze")
    from xuebu.analysis.analyze import analyze_history
    from xuebu.analysis.stopping import advise_stopping
    from xuebu.files import read_json, write_json
    from xuebu.history.importers import read_any
    from xuebu.history.records import FILE_NAME
    from xuebu.report.page import write_report

    if not asked.path.exists():
        raise InputError(f"{asked.path}: no such file or folder")
    console = make_console()
    if asked.watch:
        _watch(asked, console)
    is_run = asked.path.is_dir() and (asked.path / FILE_NAME).is_file()
    scores = asked.path / "baselines.json"
    baselines = read_json(scores) if is_run and scores.exists() else None
    history = read_any(asked.path, asked.run)
    analysis = analyze_history(history, baselines=baselines, metric=asked.metric, seed=asked.seed)
    print_plain(console, analysis.summary())
    content = analysis.to_json()
    if asked.until is not None:
        rate = history.column("train", "learning_rate") if history.has("train", "learning_rate") else None
        advice = advise_stopping(analysis.series, asked.until, learning_rate=rate)
        print_plain(console, f"stopping: {advice.summary()}")
        content["stopping"] = advice.to_json()
    out = asked.out if asked.out is not None or not is_run else asked.path
    if out is not None:
        write_json(out / "analysis.json", content)
    if is_run and asked.out is None:
        print_plain(console, f"\nreport    {write_report(asked.path, language=asked.language)}")
    elif out is not None:
        _draw_all(history, analysis, baselines or {}, out, console)
        print_plain(console, f"analysis  {out / 'analysis.json'}")
    return 0


def figures_of(history: History, analysis: Analysis, baselines: Mapping[str, Any]) -> tuple[Figure, ...]:
    """Return every chart that has something to show."""
    from xuebu.charts.run import history_figures

    figures = history_figures(history, analysis=analysis.to_json(), baselines=baselines)
    return tuple(figure for figure in figures if any(panel.marks for panel in figure.panels))


def _draw_all(history: History, analysis: Analysis, baselines: Mapping[str, Any], out: Path, console: Console) -> None:
    from xuebu.charts.run import draw_figures
    from xuebu.fonts import cjk_font

    for path in draw_figures(figures_of(history, analysis, baselines), out, font=cjk_font()):
        print_plain(console, f"chart     {path}")


def _watch(asked: AnalyzeArguments, console: Console) -> None:
    """Print alarms and now and then the latest readings until the log rests or Ctrl-C."""
    from xuebu.history.follow import follow

    monitor = None
    marks = {"bad": "!!", "warn": "! "}
    print_plain(console, f"watching {asked.path} (Ctrl-C ends it and analyzes what is there)")
    try:
        for history, records in follow(asked.path, asked.run, idle=asked.idle):
            monitor = monitor or _monitor_of(history, asked)
            for record in records:
                for alarm in monitor.observe(record):
                    print_plain(console, f"{marks.get(alarm.severity, '  ')} {alarm.text}")
            last = max((int(table.step[-1]) for table in (history.train, history.eval) if len(table)), default=0)
            print_plain(
                console, f"step {last:,}: {len(history.train):,} training, {len(history.eval):,} held-out records"
            )
    except KeyboardInterrupt:
        print_plain(console, "stopped watching")


def _monitor_of(history: History, asked: AnalyzeArguments) -> Monitor:
    """Return a monitor that also forecasts the metric asked for, else the held-out readings, else those of training."""
    from xuebu.analysis.anomalies import Monitor
    from xuebu.analysis.foresight import Foresight
    from xuebu.analysis.prospect import plan_of
    from xuebu.cli.forecast import train_settings
    from xuebu.history.readings import locate

    kind, metric = locate(history, asked.metric) if asked.metric else (None, None)
    kind = kind or ("train" if history.format != "own" and not len(history.eval) else "eval")
    return Monitor(Foresight(*plan_of(history, train_settings(asked.path)), metric=metric, kind=kind))
