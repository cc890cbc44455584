"""The page of a corpus: one HTML file with its card's figures, tables and charts, which asks no host for anything."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import xuebu
from xuebu.charts.corpus import KINDS, corpus_figures, list_name
from xuebu.charts.marks import Label
from xuebu.errors import InputError
from xuebu.files import write_atomic
from xuebu.fonts import cjk_font, lettering_line
from xuebu.report.card import card_tables, name_table
from xuebu.report.facts import ReportChart, read_table
from xuebu.report.frame import AUTO, chart_view, environment, page_style, report_chart
from xuebu.report.tables import Grid, Row, part
from xuebu.report.view import Headline, flat_rows
from xuebu.report.words import Language, Words

CARD_PAGE_NAME = "corpus.html"
MAX_SHOWN = 300
MAX_COMMON = 30


def write_card_page(
    card: Path, out: Path, *, title: str | None = None, language: Language = "en", font: str | None = AUTO
) -> Path:
    """Write the page of a corpus from its card.

    Args:
        card: card.json, or the folder of a built corpus.
        out: the HTML file.
        title: of the page; the corpus folder's name if None.
        language: of the page.
        font: family with Chinese characters for the charts; "auto" takes the first one installed, if any; None draws
            English labels only.

    Returns:
        `out`.

    Raises:
        InputError: there is no card, it is damaged, or `out` cannot be written.
    """
    path = card / "card.json" if card.is_dir() else card
    if not path.is_file():
        raise InputError(f"{path}: not there; no finished corpus, build it with `xuebu corpus build`")
    table = read_table(path)
    chosen = cjk_font() if font == AUTO else font
    charts = tuple(report_chart(figure, chosen, language) for figure in corpus_figures(table))
    name = path.resolve().parent.name if title is None else title
    try:
        write_atomic(out, render_card_page(table, title=name, charts=charts, chart_font=chosen, language=language))
    except OSError as error:
        raise InputError(f"{error.filename or out}: {error.strerror or error}; choose another file by --out") from None
    return out


def render_card_page(
    card: Mapping[str, Any],
    *,
    title: str,
    charts: tuple[ReportChart, ...] = (),
    chart_font: str | None = None,
    language: Language = "en",
) -> str:
    """Return the page as one HTML document; equal arguments give equal text, and every string in them is escaped.

    Args:
        card: content of card.json.
        title: of the page.
        charts: in the order of the page.
        chart_font: that drew them.
        language: "en" or "zh".
    """
    words = Words(language)
    makers = (_duplicate_table, _kind_table, partial(name_table, kind="scripts"), partial(name_table, kind="licences"))
    own = [table for make in makers if (table := make(card, words)) is not None]
    template = environment().get_template("corpus.html")
    return template.render(
        t=words,
        language=language,
        style=page_style(),
        version=xuebu.__version__,
        title=title,
        lead=_lead(card, words),
        headlines=_headlines(card, words),
        charts=[chart_view(chart, language) for chart in charts],
        lettering="" if chart_font or not charts else lettering_line(None, language),
        tables=[*card_tables(card, words), *own],
        rare=_rare(card, words),
        settings=flat_rows(part(card, "settings"), words),
        digests=_digests(card, words),
        limits=_limits(card, words),
    )


def _lead(card: Mapping[str, Any], words: Words) -> str:
    return words(
        "card_lead",
        sentences=words.count(card.get("sentences")),
        characters=words.count(card.get("characters")),
        documents=words.count(card.get("documents")),
        distinct=words.count(card.get("distinct_characters")),
    )


def _headlines(card: Mapping[str, Any], words: Words) -> list[Headline]:
    held_out, whole = part(card, "splits", "held_out").get("characters"), card.get("characters")
    cleaned, read = card.get("characters_cleaned"), card.get("characters_read")
    shares: list[tuple[str, Any, Any, str]] = [
        (words("held_out_share"), held_out, whole, words("of_characters", count=words.count(whole))),
        (words("kept_share"), whole, cleaned, words("of_cleaned", count=words.count(cleaned))),
        (words("cleaned_share"), cleaned, read, words("of_read", count=words.count(read))),
    ]
    for entry in card.get("coverage") or []:
        if str(entry.get("name")).startswith("standard"):
            basis = words("of_list", covered=words.count(entry.get("covered")), size=words.count(entry.get("size")))
            shares.append((_list_words(entry["name"], words), entry.get("covered"), entry.get("size"), basis))
    cards = [
        Headline(name=name, value=words.percent(one / of), interval="", basis=basis)
        for name, one, of, basis in shares
        if one is not None and of
    ]
    if card.get("duplicate_share") is not None:
        basis = words("duplicates_found", count=words.count(card.get("duplicates")))
        value = words.percent(card["duplicate_share"], 2)
        cards.append(Headline(name=words("card_duplicate_share"), value=value, interval="", basis=basis))
    return cards


def _list_words(name: str, words: Words) -> str:
    return words("standard_list", name=list_name(name).shown(words.language))


def _duplicate_table(card: Mapping[str, Any], words: Words) -> Grid | None:
    found = part(card, "duplicates_by_unit")
    units = [unit for unit in ("document", "paragraph", "sentence") if unit in found]
    if not units:
        return None
    rows = tuple((words(f"unit_{unit}"), words.count(found[unit])) for unit in units)
    return Grid(words("duplicates_table"), (words("unit"), words("found")), rows, (words("duplicates_note"),))


def _kind_table(card: Mapping[str, Any], words: Words) -> Grid | None:
    profile = part(card, "profile")
    if not profile.get("kinds"):
        return None
    total = sum(profile["kinds"].values()) or 1
    named = [(KINDS.get(name, Label(name)).shown(words.language), count) for name, count in profile["kinds"].items()]
    kinds = tuple((name, words.count(count), words.percent(count / total, 2)) for name, count in named)
    names = "".join(f"{character}{words.count(count)} " for character, count in profile["common"][:MAX_COMMON])
    note = (words("common_note", characters=names.strip()),) if names else ()
    return Grid(words("kinds"), (words("kind"), words("count"), words("share")), kinds, note)


def _rare(card: Mapping[str, Any], words: Words) -> list[tuple[str, str]]:
    rows = []
    for occurrences, characters in part(card, "profile", "rare").items():
        more = len(characters) - MAX_SHOWN
        shown = characters[:MAX_SHOWN] + (words("and_more_rare", count=words.count(more)) if more > 0 else "")
        rows.append((words("occurring", count=occurrences, characters=words.count(len(characters))), shown))
    return rows


def _digests(card: Mapping[str, Any], words: Words) -> list[Row]:
    splits = part(card, "splits")
    rows = [
        (words("card_digest"), card.get("digest")),
        ("train.jsonl", part(splits, "train").get("digest")),
        ("held_out.jsonl", part(splits, "held_out").get("digest")),
        (words("card_format"), card.get("format")),
    ]
    return [(name, words.plain(value)) for name, value in rows]


def _limits(card: Mapping[str, Any], words: Words) -> list[str]:
    names = ["limit_coverage", "limit_leaks"]
    if part(card, "settings").get("near_duplicates", "ignore") == "ignore":
        names.append("limit_near")
    names.append("limit_form")
    return [words(name) for name in names]
