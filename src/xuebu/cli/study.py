"""`xuebu study`: the main job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.text import Text

from xuebu.cli.flags import OptionalName, RecipeFlags, parse
from xuebu.cli.screen import make_console, make_progress, print_plain, print_table
from xuebu.files import read_json
from xuebu.train.settings import Recipe

if TYPE_CHECKING:
    from xuebu.analysis.analyze import Analysis

DEFAULT_RECIPE = "sample"
DEFAULT_OUT = Path("runs/study")
STOP_CODES = {"SIGINT": 130, "SIGTERM": 143}


@dataclass(frozen=True, kw_only=True)
class StudyArguments:
    """Raw text to a corpus, a vocabulary, a pretrained model, an analysis, charts and a report.

    Goes on where it stopped when called again with the same arguments. Without inputs it takes the built-in sample.
    """

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Files and folders of text: .txt, .jsonl, wikiextractor output, the published study's .json; .gz .bz2 .xz."""
    out: Path = DEFAULT_OUT
    """Folder of the study."""
    recipe: str = DEFAULT_RECIPE
    """Shipped recipe by name, or the path of a TOML file; its settings are the defaults of the flags below."""
    preset: OptionalName = None
    """Model preset that replaces the recipe's [model]; `xuebu presets` lists them."""
    coverage: tuple[Path, ...] = ()
    """Files of characters, one a line, whose coverage the corpus card tells (e.g. the 8,105 standard characters)."""
    fresh: bool = False
    """Remove what an earlier study left in the folder, and begin anew."""
    language: Literal["en", "zh"] = "en"
    """Language of the report."""
    settings: RecipeFlags = field(default_factory=Recipe)
    """Settings of the recipe."""


def study(arguments: Sequence[str]) -> int:
    """Run the command."""
    asked = parse(StudyArguments, arguments, prog="xuebu study", default_recipe=DEFAULT_RECIPE)
    from xuebu.report.page import write_report
    from xuebu.study import StudyFolder, run_study
    from xuebu.train.session import stop_on_signals

    console = make_console()
    folder = StudyFolder(asked.out)
    with stop_on_signals() as stop:
        result = run_study(
            folder,
            asked.settings,
            asked.inputs,
            coverage_lists=asked.coverage,
            fresh=asked.fresh,
            progress=make_progress(console),
            stop=stop,
        )
    if result.analysis is None:
        print_plain(console, f"stopped ({result.reason}) and saved at step {result.step:,}; the same command goes on")
        return STOP_CODES.get(result.reason, 1)
    if asked.language != "en":
        write_report(folder.path, language=asked.language)
    print_run(console, folder.path, result.analysis)
    return 0


_MARKS = {"bad": ("!!", "red"), "warn": ("! ", "yellow"), "good": ("+ ", "green"), "info": ("  ", "")}


def print_run(console: Console, path: Path, analysis: Analysis) -> None:
    """Print verdict, headline figures, baselines, filled-in examples and where everything lies."""
    scores, fills = read_json(path / "baselines.json"), read_json(path / "fills.json")
    console.print()
    for finding in analysis.verdict:
        mark, color = _MARKS[finding.severity]
        console.print(Text(mark, style=color), Text(finding.text))
    console.print()
    pearson = analysis.correlations.get("pearson")
    if pearson is not None:
        print_plain(console, pearson.headline())
    if analysis.rates is not None:
        print_plain(console, analysis.rates.headline())
    if analysis.forecast is not None:
        print_plain(console, f"twice the steps: {analysis.forecast.headline()}")
    console.print()
    rows = []
    for task, name in (("mlm", "masked tokens"), ("nsp", "next sentence"), ("sop", "sentence order")):
        if task in scores:
            rows += _score_rows(scores[task], name)
    print_table(
        console,
        ["held-out accuracy", "", ">%", ">95 % interval", ">predictions"],
        rows,
        "Model and counting, same questions",
    )
    console.print()
    for fill in fills:
        print_plain(console, fill["text"])
        for mask in fill["masks"]:
            guesses = "  ".join(f"{guess['token']} {guess['probability']:.1%}" for guess in mask["candidates"])
            print_plain(console, f"    {guesses}    (was: {fill['truth']})")
    console.print()
    places = {
        "report": path / "report.html",
        "charts": path / "charts",
        "model": path / "model",
        "history": path / "history.jsonl",
        "analysis": path / "analysis.json",
    }
    for name, place in places.items():
        print_plain(console, f"{name:<9} {place}")


_NAMES = {
    "model": "this model",
    "ngram": "n-gram that sees both sides",
    "most_frequent": "most frequent token",
    "overlap_rule": "character-overlap rule",
    "difference_from_ngram": "model minus n-gram (points)",
    "difference_from_overlap_rule": "model minus overlap rule (points)",
}


def _score_rows(scores: dict[str, Any], task: str) -> list[list[str]]:
    rows = []
    for key, name in _NAMES.items():
        if key not in scores:
            continue
        entry = scores[key]
        difference = key.startswith("difference")
        value = entry["value"] if difference else entry["accuracy"]
        sign = "+" if difference else ""
        bounds = (
            "none" if entry["low"] is None else f"{100 * entry['low']:{sign}.1f} to {100 * entry['high']:{sign}.1f}"
        )
        count = f"{entry['predictions']:,}" if "predictions" in entry else ""
        rows.append([task, name, f"{100 * value:{sign}.1f}", bounds, count])
    return rows
