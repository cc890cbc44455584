"""The card of masks: what was hidden from the model, in training and in evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xuebu.batches.held_out import HELD_OUT_MASKING
from xuebu.report.facts import ReportFacts
from xuebu.report.tables import Grid, Row, part
from xuebu.report.view import model_entry
from xuebu.report.words import Words

_CLASSES = ("mask", "random", "kept")


def mask_table(facts: ReportFacts, words: Words) -> Grid | None:
    """Return how masks were drawn, as set and as counted; None for a log that does not tell."""
    recipe = part(facts.run, "batches")
    if recipe.get("mask_rate") is None:
        return None
    held_out = {name: getattr(HELD_OUT_MASKING, name) for name in ("mask_unit", "mask_rate")}
    held_out |= {name: getattr(HELD_OUT_MASKING, name) for name in ("mask_token_share", "random_token_share")}
    columns: tuple[Mapping[str, Any], Mapping[str, Any]] = (recipe, held_out)
    classes = part(facts.baselines, "mlm", "by_class")
    counts = [part(classes, name, "model").get("predictions") for name in _CLASSES]
    shown = " / ".join(words.count(count) for count in counts) if None not in counts else "–"
    rate, total = _counted(facts)
    final, kind = model_entry(facts, "mlm")
    asked = "matched_shares" if recipe.get("mask_replacement") == "matched" else "mask_shares"
    rows: list[Row] = [
        (words("mask_unit"), *(_unit(column, words) for column in columns)),
        (words("mask_rate"), _rate(recipe, words), words.percent(held_out["mask_rate"])),
        (words("measured_rate"), words.percent(rate), "–"),
        (words(asked), *(_shares(column, words) for column in columns)),
        *_measured(part(facts.masks or {}, "shares"), facts.masks or {}, words),
        (words("mask_counts"), "–", shown),
        (
            words("all_predictions"),
            words.count(total),
            words.count(final.get("predictions") if kind == "eval" else None),
        ),
        (words("mask_draw"), _draw(recipe, words), words("draw_held_out")),
    ]
    kept = tuple(row for row in rows if set(row[1:]) != {"–"})
    note = words("masks_note_short")
    if facts.history.has("eval", "mlm_accuracy"):
        series = facts.history.column("eval", "mlm_accuracy")
        if series.count is not None:
            note = words("masks_note", count=words.count(series.count[-1]))
    return Grid(words("mask_choice"), ("", words("training"), words("held_out_masks")), kept, (note,), wordy=True)


def _unit(column: Mapping[str, Any], words: Words) -> str:
    match column.get("mask_unit"):
        case "character" | "word" | "pmi" as unit:
            return words(f"unit_{unit}")
        case "ngram":
            return words("unit_ngram", longest=len(column.get("ngram_weights") or ()))
        case "span":
            return words("unit_span", longest=words.plain(column.get("span_words")))
        case unit:
            return words.plain(unit)


def _rate(recipe: Mapping[str, Any], words: Words) -> str:
    first, last, steps = (recipe.get(name) for name in ("mask_rate", "final_mask_rate", "mask_rate_steps"))
    if not last or not steps:
        return words.percent(first)
    ends = {"first": words.percent(first), "last": words.percent(last)}
    return words("rate_schedule", **ends, steps=words.count(steps))


def _draw(recipe: Mapping[str, Any], words: Words) -> str:
    copies = recipe.get("static_copies")
    return words("draw_copies", count=words.count(copies)) if copies else words("draw_training")


def _measured(shares: Mapping[str, Any], masks: Mapping[str, Any], words: Words) -> list[Row]:
    """Return the rows of masks.json: shares, whole words, and rates by class, as counted in the first batches."""
    rows: list[Row] = []
    if shares:
        found = {name: part(shares, name).get("share") for name in ("mask", "matched", "random", "kept")}
        first = found["matched"] or found["mask"]
        told = " / ".join(words.percent(share, 1) for share in (first, found["random"], found["kept"]))
        rows.append((words("measured_shares"), told, "–"))
    counts = part(masks, "counts")
    if touched := counts.get("touched_words"):
        share = words.percent(masks.get("whole_word_share"))
        rows.append((words("measured_whole"), words("of_count", share=share, count=words.count(touched)), "–"))
    classes = part(masks, "by_class")
    rates = [part(classes, name).get("rate") for name in ("han", "latin", "digit", "punctuation")]
    if any(rate is not None for rate in rates):
        rows.append((words("measured_classes"), " / ".join(map(words.percent, rates)), "–"))
    return rows


def _shares(column: Mapping[str, Any], words: Words) -> str:
    masked, drawn = column.get("mask_token_share"), column.get("random_token_share")
    if not isinstance(masked, int | float) or not isinstance(drawn, int | float):
        return "–"
    return " / ".join(words.percent(share, 0) for share in (masked, drawn, 1 - masked - drawn))


def _counted(facts: ReportFacts) -> tuple[float | None, int | None]:
    """Return the share of tokens predicted in training and their number; None where the records do not tell.

    Our own records count the predictions of every step since the record before.
    """
    history = facts.history
    if history.event("start") is None or not (history.has("train", "mlm_accuracy") and history.has("train", "tokens")):
        return None, None
    count = history.column("train", "mlm_accuracy").count
    if count is None:
        return None, None
    tokens, total = float(history.column("train", "tokens").value[-1]), int(count.sum())
    return (total / tokens if 0 < total < tokens else None), total
