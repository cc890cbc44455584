"""The report of a run: one HTML page with everything in it, which opens from disk and asks no host for anything."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import xuebu
from xuebu.charts.marks import Figure
from xuebu.charts.run import draw_figures, history_figures
from xuebu.errors import InputError
from xuebu.files import write_atomic
from xuebu.fonts import cjk_font, lettering_line
from xuebu.history.records import FILE_NAME, read_history
from xuebu.report import view
from xuebu.report.card import card_rows, card_tables
from xuebu.report.corpus import CARD_PAGE_NAME, write_card_page
from xuebu.report.facts import (
    ReportFacts,
    read_fills,
    read_sessions,
    read_table,
    read_toml,
)
from xuebu.report.frame import AUTO, chart_view, environment, page_style, report_chart
from xuebu.report.growth import growth_tables
from xuebu.report.masks import mask_table
from xuebu.report.scores import score_tables
from xuebu.report.verdict import verdict_of
from xuebu.report.words import Language, Words

REPORT_NAME = "report.html"
_ENVIRONMENT_TABLES = ("run", "machine", "versions", "environment", "digests")


def write_report(run_folder: Path, *, language: Language = "en", font: str | None = AUTO) -> Path:
    """Draw the charts of a run and write its report.

    Args:
        run_folder: holds history.jsonl, and any of run.toml, analysis.json, baselines.json, fills.json,
            sessions.jsonl and corpus/card.json; what is not there is named in the report.
        language: of the page.
        font: family with Chinese characters for the charts; "auto" takes the first one installed, if any; None
            draws English labels only.

    Returns:
        report.html in the run folder; the charts lie beside it in charts/, and the corpus card's page in corpus.html.

    Raises:
        InputError: there is no history, or one of the files is damaged.
    """
    chosen = cjk_font() if font == AUTO else font
    facts = read_facts(run_folder)
    figures = run_figures(facts)
    draw_figures(figures, run_folder / "charts", font=chosen)
    charts = tuple(report_chart(figure, chosen, language) for figure in figures)
    facts = dataclasses.replace(facts, charts=charts, chart_font=chosen)
    if facts.corpus_card is not None:
        card = run_folder / "corpus" / "card.json"
        write_card_page(card, run_folder / CARD_PAGE_NAME, title=facts.title, language=language, font=chosen)
        facts = dataclasses.replace(facts, card_page=CARD_PAGE_NAME)
    path = run_folder / REPORT_NAME
    write_atomic(path, render_page(facts, language=language))
    return path


def read_facts(run_folder: Path) -> ReportFacts:
    """Return what a run folder's files say, without charts.

    Raises:
        InputError: there is no history, or one of the files is damaged.
    """
    history_path = run_folder / FILE_NAME
    if not history_path.is_file():
        raise InputError(f"{run_folder}: not a run folder (it has no {FILE_NAME})")
    files = {name: run_folder / name for name in ("run.toml", "analysis.json", "baselines.json", "fills.json")}
    files["corpus/card.json"] = run_folder / "corpus" / "card.json"
    there = {name: path for name, path in files.items() if path.is_file()}
    sessions = run_folder / "sessions.jsonl"
    tables = {name: read_table(path) for name, path in there.items() if name.endswith(".json") and name != "fills.json"}
    analysis = tables.get("analysis.json")
    num_sessions, session_seconds = read_sessions(sessions) if sessions.is_file() else (None, None)
    return ReportFacts(
        title=run_folder.resolve().name,
        history=read_history(history_path),
        run=read_toml(there["run.toml"]) if "run.toml" in there else {},
        analysis=analysis,
        baselines=tables.get("baselines.json") or (analysis or {}).get("baselines"),
        corpus_card=tables.get("corpus/card.json"),
        masks=read_table(masks) if (masks := run_folder / "masks.json").is_file() else None,
        fills=read_fills(there["fills.json"]) if "fills.json" in there else (),
        num_sessions=num_sessions,
        session_seconds=session_seconds,
        absent=tuple(name for name in files if name not in there),
    )


def run_figures(facts: ReportFacts) -> tuple[Figure, ...]:
    """Return the charts that a run's facts allow."""
    return history_figures(
        facts.history, analysis=facts.analysis, baselines=facts.baselines, session_seconds=facts.session_seconds
    )


def render_page(facts: ReportFacts, *, language: Language = "en") -> str:
    """Return the report as one HTML document; equal facts give equal text.

    Args:
        facts: what it shows; every string in it is escaped.
        language: "en" or "zh".
    """
    words = Words(language)
    lead, statements = verdict_of(facts, words)
    environment_tables = {key: value for key, value in facts.run.items() if key in _ENVIRONMENT_TABLES}
    recipe = {key: value for key, value in facts.run.items() if key not in _ENVIRONMENT_TABLES}
    content: dict[str, Any] = {
        "title": facts.title,
        "lead": lead,
        "statements": statements,
        "headlines": view.headlines(facts, words),
        "baseline_tables": view.baseline_tables(facts, words),
        "class_table": view.class_table(facts, words),
        "score_tables": score_tables(facts, words),
        "growth_tables": growth_tables(facts, words),
        "lettering": lettering_line(facts.chart_font, language),
        "charts": [chart_view(chart, language) for chart in facts.charts],
        "fills": view.fills(facts),
        "mask_table": mask_table(facts, words),
        "card_tables": card_tables(facts.corpus_card or {}, words),
        "card_rows": card_rows(facts.corpus_card or {}, words),
        "card_page": facts.card_page,
        "recipe": view.grouped_rows(recipe, words),
        "run_rows": view.run_rows(facts, words),
        "environment": view.flat_rows(environment_tables, words),
        "limits": view.limits(facts, words),
        "notes": view.notes(facts, words),
        "analyzed": facts.analysis is not None,
    }
    template = environment().get_template("report.html")
    return template.render(t=words, language=language, style=page_style(), version=xuebu.__version__, **content)
