"""What each section of the page says: values from the facts become the words and numbers that the template places."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from xuebu.analysis.analyze import FIXED_MASKS
from xuebu.analysis.intervals import normal_quantile, wilson_bounds
from xuebu.report.facts import ReportFacts
from xuebu.report.tables import Grid, Row, interval_text, is_accuracy, level_of, part, rate_name, recommended
from xuebu.report.words import Words

WANTED_PREDICTIONS = 2000
CUT_WORTH_SAYING = 0.005


@dataclass(frozen=True, slots=True)
class Headline:
    """One headline figure: what it is, its value, the interval, and what stands behind it."""

    name: str
    value: str
    interval: str
    basis: str
    unit: str = ""
    tone: str = ""


def _last_reading(facts: ReportFacts, kind: str, metric: str) -> dict[str, Any]:
    """Return the last reading of a metric with Wilson's interval, in the shape of an entry of baselines.json."""
    if not facts.history.has(kind, metric):
        return {}
    series = facts.history.column(kind, metric)
    entry: dict[str, Any] = {"accuracy": float(series.value[-1])}
    if series.count is not None:
        entry["predictions"] = int(series.count[-1])
        bounds = wilson_bounds(entry["accuracy"], entry["predictions"], normal_quantile(0.95))
        entry["low"], entry["high"] = bounds
    return entry


def model_entry(facts: ReportFacts, task: str) -> tuple[dict[str, Any], str]:
    """Return the model's accuracy on a task ("mlm", "nsp", "sop") with its interval, and the kind of its records.

    The final score on all held-out predictions where there is one; else the last evaluation; for a log without any, the
    mean over the end of the run that the analysis took, since single training batches are noisy.
    """
    if final := part(facts.baselines, task, "model"):
        return final, "eval"
    if held_out := _last_reading(facts, "eval", f"{task}_accuracy"):
        return held_out, "eval"
    chance = part(facts.analysis, task)  # there is none for "mlm"
    end = part(facts.analysis, "headline") if task == "mlm" else part(chance, "interval")
    about = (facts.analysis or {}).get("metric") if task == "mlm" else chance.get("metric")
    if about == f"{task}_accuracy" and end.get("value") is not None:
        return {**end, "note": "", "accuracy": end["value"]}, "train"
    return _last_reading(facts, "train", f"{task}_accuracy"), "train"


def headlines(facts: ReportFacts, words: Words) -> tuple[Headline, ...]:
    """Return the headline figures that the facts hold, each with its interval and what stands behind it."""
    found = []
    for task in ("mlm", "nsp", "sop"):
        entry, kind = model_entry(facts, task)
        if entry.get("accuracy") is not None:
            name = words(f"{task}_accuracy" if kind == "eval" else f"{task}_accuracy_train")
            interval = interval_text(words, entry, factor=100.0, unit=words.percent_sign)
            found.append(Headline(name, words.percent(entry["accuracy"]), interval, _basis(facts, words, entry, task)))
        other, key = ("ngram", "difference_ngram") if task == "mlm" else ("overlap_rule", "difference_overlap")
        difference = part(facts.baselines, task, f"difference_from_{other}")
        if difference.get("value") is not None:
            value, interval = words.points(difference["value"]), interval_text(words, difference, factor=100.0)
            unit, tone, count = words("unit_points"), _tone(difference), entry.get("predictions")
            basis = words("same_predictions", count=words.count(count)) if count else words("same_questions")
            found.append(Headline(words(key), value, interval, basis, unit, tone))
    found.extend(_analysis_headlines(facts, words))
    bits = (facts.baselines or {}).get("model_bits_per_character")
    if isinstance(bits, int | float):
        counted = (facts.baselines or {}).get("ngram_bits_per_character")
        behind = [] if counted is None else [words("named", name=words("ngram"), value=words.number(counted))]
        if count := part(facts.baselines, "mlm", "model").get("predictions"):
            behind.insert(0, words("predictions", count=words.count(count)))
        interval = interval_text(words, part(facts.baselines, "mlm", "loss_nats"), factor=1 / math.log(2), digits=2)
        found.append(Headline(words("bits"), words.number(bits), interval, words("comma").join(behind)))
    return tuple(found)


def _tone(difference: Mapping[str, Any]) -> str:
    low, high = difference.get("low"), difference.get("high")
    return "bad" if high is not None and high < 0 else "good" if low is not None and low > 0 else ""


def _basis(facts: ReportFacts, words: Words, entry: Mapping[str, Any], task: str) -> str:
    parts = [words("predictions", count=words.count(entry["predictions"]))] if entry.get("predictions") else []
    chance = part(facts.analysis, task)
    if task != "mlm" and chance.get("standard_errors") is not None and chance.get("accuracy") == entry["accuracy"]:
        errors = words.number(chance["standard_errors"], 1)
        parts.append(words("chance_distance", errors=errors, chance=words.percent(chance.get("chance", 0.5), 0)))
    return words("comma").join(parts)


def _analysis_headlines(facts: ReportFacts, words: Words) -> list[Headline]:
    found = []
    pearson = part(facts.analysis, "correlations", "pearson")
    if pearson.get("coefficient") is not None:
        chosen = recommended(pearson)
        basis = words("readings", count=words.count(pearson.get("num")))
        if chosen.get("effective_size") is not None:
            basis += words("comma") + words("as_independent", count=words.count(chosen["effective_size"]))
        value = words.number(pearson["coefficient"], 3)
        told = interval_text(words, chosen, digits=2) if chosen else words("no_trusted_interval")
        found.append(Headline(words("pearson"), value, told, basis))
    rates = part(facts.analysis, "rates")
    for name in ("end_of_curve", "last_third", "line"):
        if (rate := part(rates, name)).get("value") is not None:
            value, unit = words.number(rate["value"], 1, sign=True), words("unit_points") if is_accuracy(facts) else ""
            told, beside = interval_text(words, rate), words(f"rate_{name}")
            found.append(Headline(rate_name(facts, words), value, told, beside, unit))
            break
    forecast = part(facts.analysis, "forecast")
    interval, line = part(forecast, "interval"), forecast.get("line_value")
    if interval.get("value") is not None and is_accuracy(facts):
        name, value = words("forecast", step=words.count(forecast.get("target_step"))), words.percent(interval["value"])
        told = interval_text(words, interval, factor=100.0, unit=words.percent_sign)
        beside = "" if line is None else words("named", name=words("linear"), value=words.percent(line))
        found.append(Headline(name, value, told, beside))
    return found


def baseline_tables(facts: ReportFacts, words: Words) -> tuple[Grid, ...]:
    """Return the tables of the model beside counting, on the same predictions."""
    tables = []
    for task, others in (("mlm", ("ngram", "most_frequent")), ("nsp", ("overlap_rule",)), ("sop", ())):
        entry, _ = model_entry(facts, task)
        if not part(facts.baselines, task) or entry.get("accuracy") is None:
            continue
        rows: list[Row] = [(words("model"), *_level_cells(words, entry), "")]
        clusters = (facts.baselines or {}).get("clusters")
        notes = [words("clusters", count=words.count(clusters))] if isinstance(clusters, int) else []
        for name in others:
            if (other := part(facts.baselines, task, name)).get("accuracy") is None:
                continue
            difference = part(facts.baselines, task, f"difference_from_{name}")
            shown = "–"
            if difference.get("value") is not None:
                span = words.span(difference.get("low"), difference.get("high"), factor=100.0)
                shown = f"{words.points(difference['value'])} ({span})"
            quoted = f"“{other['token']}”" if other.get("token") else None
            if detail := other.get("description") or other.get("order_description") or quoted:
                notes.append(words("named", name=words(name), value=words.said(str(detail))))
            rows.append((words(name), *_level_cells(words, other), shown))
        if task != "mlm":
            rows.append((words("chance"), words.percent(0.5), "", "", ""))
        level = words("interval", level=level_of(words, facts.baselines))
        heads = (words("method"), words("accuracy"), level, words("num_predictions"), words("model_minus"))
        tables.append(Grid(words(task), heads, tuple(rows), tuple(notes)))
    return tuple(tables)


def _level_cells(words: Words, entry: Mapping[str, Any]) -> Row:
    span = words.shares(entry.get("low"), entry.get("high"))
    return (words.percent(entry.get("accuracy")), span, words.count(entry.get("predictions")))


def class_table(facts: ReportFacts, words: Words) -> Grid | None:
    """Return accuracy by class of masked position, from the final scores, else from the last evaluation."""
    rows: list[Row] = []
    classes = part(facts.baselines, "mlm", "by_class")
    for name in ("mask", "random", "kept"):
        model = part(classes, name, "model") or _last_reading(facts, "eval", f"mlm_accuracy_{name}")
        if model.get("accuracy") is not None:
            others = [_with_ends(part(classes, name, other), words) for other in ("ngram", "most_frequent")]
            rows.append((words(f"class_{name}"), *_level_cells(words, model), *others))
    if not rows:
        return None
    level = words("interval", level=level_of(words, facts.baselines))
    heads = (words("class"), words("model"), level, words("num_predictions"), words("ngram"), words("most_frequent"))
    keep = [column for column in range(len(heads)) if any(row[column] != "–" for row in rows)]
    shown = tuple(tuple(row[column] for column in keep) for row in rows)
    return Grid(words("classes"), tuple(heads[column] for column in keep), shown, (words("class_note"),))


def _with_ends(entry: Mapping[str, Any], words: Words) -> str:
    """Return an accuracy with its interval in brackets, as far as there are any."""
    shown, ends = words.percent(entry.get("accuracy")), words.shares(entry.get("low"), entry.get("high"))
    return shown if ends == "–" else f"{shown} ({ends})"


def fills(facts: ReportFacts) -> list[dict[str, Any]]:
    """Return each example as pieces of text, with the first candidate in every blank, and the candidates."""
    shown = []
    for example in facts.fills:
        masks = [list(mask["candidates"]) for mask in example["masks"]]
        pieces = str(example["text"]).split("[MASK]")
        if len(pieces) != len(masks) + 1:
            pieces = [str(example["text"])]
        firsts = [candidates[0]["token"] if candidates else "" for candidates in masks]
        shown.append({"pieces": pieces, "firsts": firsts, "masks": masks, "truth": example.get("truth")})
    return shown


def run_rows(facts: ReportFacts, words: Words) -> tuple[Row, ...]:
    """Return steps, tokens, time, speed and machine of the run, as far as the history has them."""
    history = facts.history
    start = history.event("start") or {}
    rows: list[Row] = []
    steps = [int(table.step[-1]) for table in (history.train, history.eval) if len(table)]
    last = {
        name: max(float(history.column(kind, name).value[-1]) for kind in ("train", "eval") if history.has(kind, name))
        for name in ("tokens", "seconds")
        if history.has("train", name) or history.has("eval", name)
    }
    if steps:
        total = start.get("total_steps")
        shown = words.count(max(steps))
        rows.append((words("steps"), f"{shown} / {words.count(total)}" if total not in (None, max(steps)) else shown))
    if "tokens" in last:
        rows.append((words("tokens"), words.count(last["tokens"])))
    if "seconds" in last:
        rows.append((words("seconds"), words.duration(last["seconds"])))
        if last.get("tokens") and last["seconds"] > 0:
            rows.append((words("tokens_per_second"), words.count(last["tokens"] / last["seconds"])))
    if last.get("tokens") and isinstance(start.get("flops_per_token"), int | float):
        rows.append((words("flop"), f"{last['tokens'] * start['flops_per_token']:.3g}"))
    if history.has("train", "mfu"):
        rows.append((words("mfu"), words.percent(float(np.median(history.column("train", "mfu").value)))))
    if (tokens := start.get("training_tokens")) and (share := cut_share(facts)) is not None:
        rows.append((words("training_tokens"), words.count(tokens)))
        cut = words("cut_reason", share=words.percent(share))
        rows.append((words("cut_tokens"), f"{words.count(start['cut_tokens'])} ({cut})"))
    for name in ("num_parameters", "device", "precision", "threads"):
        if start.get(name) is not None:
            rows.append((words(name), words.plain(start[name])))
    if facts.num_sessions:
        rows.append((words("sessions"), words.count(facts.num_sessions)))
    if where := inexact_resumes(facts, words):
        rows.append((words("inexact"), where))
    return tuple(rows)


def cut_share(facts: ReportFacts) -> float | None:
    """Return the share of training tokens beyond the end of their row; None where it was not recorded."""
    start = facts.history.event("start") or {}
    tokens, cut = start.get("training_tokens"), start.get("cut_tokens")
    return cut / tokens if isinstance(tokens, int) and isinstance(cut, int) and tokens > 0 else None


def inexact_resumes(facts: ReportFacts, words: Words) -> str:
    """Return at which steps, and for what changes, the run went on other than exactly; empty where it did not."""
    found = []
    for event in facts.history.events:
        if event.get("event") != "inexact":
            continue
        step = words("at_step", step=words.count(event.get("step") or 0))
        changes = event.get("changes") or event.get("reason") or []
        listed = [changes] if isinstance(changes, str) else list(changes)
        found.append(": ".join([step, "; ".join(map(str, listed))]) if listed else step)
    return "; ".join(found)


def flat_rows(table: Mapping[str, Any], words: Words, prefix: str = "") -> tuple[Row, ...]:
    """Return a nested table as rows of (dotted key, value)."""
    rows: list[Row] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            rows.extend(flat_rows(value, words, f"{prefix}{key}."))
        else:
            rows.append((f"{prefix}{key}", words.plain(value)))
    return tuple(rows)


def grouped_rows(table: Mapping[str, Any], words: Words) -> tuple[tuple[str, tuple[Row, ...]], ...]:
    """Return the tables of a recipe as (name, rows), values outside any table first under the empty name."""
    loose = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    groups = {"": loose} | {key: value for key, value in table.items() if isinstance(value, Mapping)}
    return tuple((name, flat_rows(group, words)) for name, group in groups.items() if group)


def limits(facts: ReportFacts, words: Words) -> tuple[str, ...]:
    """Return what this report cannot show, as sentences."""
    entry, kind = model_entry(facts, "mlm")
    found = [words("limit_seed")]
    if kind == "train":
        found.append(words("limit_train"))
    else:
        found += [words("limit_source"), words("limit_masks")]
        if isinstance(count := entry.get("predictions"), int) and count < WANTED_PREDICTIONS:
            found.append(words("limit_predictions", count=words.count(count)))
    if part(facts.analysis, "correlations"):
        found.append(words("limit_correlation"))
    if part(facts.analysis, "forecast", "interval"):
        found.append(words("limit_forecast"))
    if (share := cut_share(facts)) is not None and share >= CUT_WORTH_SAYING:
        found.append(words("limit_cut", share=words.percent(share)))
    if where := inexact_resumes(facts, words):
        found.append(words("limit_inexact", where=where))
    if facts.absent:
        found.append(words("not_there", files=", ".join(facts.absent)))
    return tuple(found)


def notes(facts: ReportFacts, words: Words) -> tuple[Row, ...]:
    """Return what the analysis and the reading of the history noted, each once, as (text, its language).

    What `limits` says already is left out.
    """
    said = [*((facts.analysis or {}).get("notes") or ()), *facts.history.notes]
    own = dict.fromkeys(str(note) for note in said if note != FIXED_MASKS)
    return tuple((text := words.said(note), "en" if text == note else words.language) for note in own)
