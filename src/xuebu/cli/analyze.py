"""`xuebu analyze`: what a history shows, and what it does not. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from xuebu.cli.flags import OptionalPath, parse
from xuebu.cli.screen import make_console, print_plain
from xuebu.errors import InputError


@dataclass(frozen=True, kw_only=True)
class AnalyzeArguments:
    """Say what a training history shows: correlation with honest intervals, fits judged out of sample, forecasts.

    Reads a run folder of xuebu, its history.jsonl, or the published study's history JSON. For a run folder the
    analysis, the charts and the report are written anew.
    """

    path: Annotated[Path, tyro.conf.Positional]
    """Run folder or history file."""
    out: OptionalPath = None
    """Folder for analysis.json and charts of a history file; without, they are not written."""
    language: Literal["en", "zh"] = "en"
    """Language of the report."""
    seed: int = 0
    """Seed of the bootstrap."""


def analyze(arguments: Sequence[str]) -> int:
    """Run the command."""
    asked = parse(AnalyzeArguments, arguments, prog="xuebu analyze")
    from xuebu.analysis.analyze import analyze_history
    from xuebu.charts.draw import draw
    from xuebu.charts.figures import step_correlation, training_curves
    from xuebu.files import read_json, write_json
    from xuebu.fonts import cjk_font
    from xuebu.history.importers import read_any
    from xuebu.report.page import write_report

    if not asked.path.exists():
        raise InputError(f"{asked.path}: no such file or folder")
    console = make_console()
    scores = asked.path / "baselines.json"
    baselines = read_json(scores) if asked.path.is_dir() and scores.exists() else None
    history = read_any(asked.path)
    analysis = analyze_history(history, baselines=baselines, seed=asked.seed)
    print_plain(console, analysis.summary())
    if asked.path.is_dir():
        write_json(asked.path / "analysis.json", analysis.to_json())
        report = write_report(asked.path, language=asked.language)
        print_plain(console, f"\nreport    {report}")
    elif asked.out is not None:
        write_json(asked.out / "analysis.json", analysis.to_json())
        for name, figure in (
            ("training_curves", training_curves(history)),
            ("step_correlation", step_correlation(history, analysis.to_json())),
        ):
            for path in draw(figure, asked.out / name, font=cjk_font()):
                print_plain(console, f"chart     {path}")
        print_plain(console, f"analysis  {asked.out / 'analysis.json'}")
    return 0
