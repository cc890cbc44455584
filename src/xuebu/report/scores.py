"""Tables of the final evaluation beyond one number: accuracy by class of character, and calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xuebu.charts.scores import class_name
from xuebu.report.facts import ReportFacts
from xuebu.report.tables import Grid, Row, part
from xuebu.report.words import Words


def score_tables(facts: ReportFacts, words: Words) -> tuple[Grid, ...]:
    """Return the tables that baselines.json allows."""
    tables = (_character_table(facts, words), _calibration_table(facts, words))
    return tuple(table for table in tables if table is not None)


def _cells(words: Words, entry: Mapping[str, Any]) -> Row:
    return words.percent(entry.get("accuracy")), words.shares(entry.get("low"), entry.get("high"))


def _character_table(facts: ReportFacts, words: Words) -> Grid | None:
    rows: list[Row] = []
    for key, entry in part(facts.baselines, "mlm", "by_character").items():
        model, ngram = part(entry, "model"), part(entry, "ngram")
        counts = words.count(model.get("predictions")), words.count(part(entry).get("training_count"))
        rows.append((class_name(str(key)).shown(words.language), *_cells(words, model), *_cells(words, ngram), *counts))
    interval = words("interval", level=words.percent(0.95, 0))
    heads = (
        *(words("character"), words("model"), interval, words("ngram"), interval),
        *(words("num_predictions"), words("training_count")),
    )
    return Grid(words("by_character"), heads, tuple(rows), (words("character_note"),)) if rows else None


def _calibration_table(facts: ReportFacts, words: Words) -> Grid | None:
    found = part(facts.baselines, "calibration")
    rows = tuple(
        (words.percent(one.get("probability")), *_cells(words, one), words.count(one.get("predictions")))
        for one in found.get("bins") or []
        if isinstance(one, Mapping)
    )
    if not rows:
        return None
    interval = words("interval", level=words.percent(0.95, 0))
    heads = (words("probability_given"), words("share_right"), interval, words("num_predictions"))
    errors = [found.get(name) for name in ("ece", "ece_if_calibrated")]
    ece, chance = (words("points", value=words.number(None if one is None else 100 * one, 1)) for one in errors)
    note = words("calibration_note", ece=ece, chance=chance)
    return Grid(words("calibration"), heads, rows, (note,))
