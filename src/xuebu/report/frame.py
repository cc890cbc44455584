"""What all pages share: their templates, their style, and charts as parts of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xuebu.charts.draw import render
from xuebu.charts.marks import Figure, Label
from xuebu.report.facts import ReportChart
from xuebu.report.svg import inline_svg
from xuebu.report.words import Language

if TYPE_CHECKING:
    import jinja2

AUTO = "auto"
"""As the font of charts: the first one with Chinese characters that is installed."""


def environment() -> jinja2.Environment:
    """Return what renders the templates of pages; it escapes what they are given."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page_style() -> str:
    """Return the style sheet of all pages."""
    return (Path(__file__).parent / "style.css").read_text(encoding="utf-8")


def chart_view(chart: ReportChart, language: Language) -> dict[str, Any]:
    """Return what a template shows of a chart."""
    title, description = chart.title.shown(language), chart.description.shown(language)
    pictures = [
        inline_svg(picture, prefix=f"{chart.name}-{number}", description=description)
        for number, picture in enumerate(chart.pictures, start=1)
    ]
    shown = {"title": title, "description": description, "pictures": pictures}
    return {"name": chart.name, "whole": chart.whole, **shown}


def report_chart(figure: Figure, font: str | None, language: Language) -> ReportChart:
    """Return a figure as SVG in the page's language; panels that stand side by side become pictures that can wrap."""
    untitled = dataclasses.replace(figure, title=Label(""))  # the page writes the title itself
    parts = [untitled]
    if not figure.shared_x:
        narrow = dataclasses.replace(untitled, num_columns=1, column_inches=4.8, row_inches=3.5)
        parts = [dataclasses.replace(narrow, panels=(panel,)) for panel in figure.panels]
    return ReportChart(
        name=figure.name,
        title=figure.title,
        description=figure.description,
        whole=figure.shared_x,
        pictures=tuple(render(part, "svg", font=font, language=language).decode("utf-8") for part in parts),
    )
