"""How accuracy grew, as tables: correlations with every interval and its assumption, fitted curves, rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xuebu.report.facts import ReportFacts
from xuebu.report.tables import Grid, Row, interval_text, is_accuracy, level_of, naive, part, rate_name, recommended
from xuebu.report.words import TEXTS, Words


def growth_tables(facts: ReportFacts, words: Words) -> tuple[Grid, ...]:
    """Return what the analysis found: correlations, curves and rates."""
    return tuple(
        table
        for table in (make(facts, words) for make in (_correlation_table, _interval_table, _curve_table, _rate_table))
        if table is not None
    )


def _correlation_table(facts: ReportFacts, words: Words) -> Grid | None:
    rows: list[Row] = []
    for name in ("pearson", "spearman", "kendall"):
        found = part(facts.analysis, "correlations", name)
        if found.get("coefficient") is not None:
            spans = (
                words.span(one.get("low"), one.get("high"), digits=3) for one in (naive(found), recommended(found))
            )
            rows.append((words(f"{name}_name"), words.number(found["coefficient"], 3), *spans))
    heads = (words("coefficient"), words("value"), words("naive"), words("honest"))
    return Grid(words("correlations"), heads, tuple(rows), (words("naive_note"),)) if rows else None


def _interval_table(facts: ReportFacts, words: Words) -> Grid | None:
    """Return every interval of Pearson's r with what it assumes and what speaks against it."""
    rows: list[Row] = []
    for one in part(facts.analysis, "correlations", "pearson").get("intervals") or []:
        span = words.span(one.get("low"), one.get("high"), digits=3)
        source = str(one.get("residuals_of") or "")
        doubts = [words("quote_this")] if one.get("recommended") else []
        doubts += [str(one["doubt"])] if one.get("doubt") else []
        noise = words(source) if source in TEXTS else source or "–"
        rows.append(
            (str(one.get("assumption")), noise, span, words.count(one.get("effective_size")), "; ".join(doubts) or "–")
        )
    level = words("interval", level=level_of(words, facts.analysis))
    heads = (words("if_true"), words("noise_from"), level, words("worth"), words("doubt"))
    return Grid(words("pearson_intervals"), heads, tuple(rows), wordy=True) if rows else None


def _curve_table(facts: ReportFacts, words: Words) -> Grid | None:
    rows: list[Row] = []
    for name, fit in part(facts.analysis, "fits").items():
        if not isinstance(fit, Mapping):
            continue
        left, end = part(fit, "residuals"), part(fit, "asymptote")
        rows.append(
            (
                words(name) if name in TEXTS else str(name),
                words.number(fit.get("r_squared"), 3),
                _scatter(left.get("sigma"), facts, words),
                words.number(left.get("lag1_autocorrelation")),
                words.number(left.get("durbin_watson")),
                _asymptote(end, facts, words),
            )
        )
    heads = (words("curve"), "R²", words("rmse"), words("lag1"), words("durbin_watson"), words("asymptote"))
    return Grid(words("curves"), heads, tuple(rows), _comparison(facts, words)) if rows else None


def _scatter(sigma: float | None, facts: ReportFacts, words: Words) -> str:
    if sigma is None or not is_accuracy(facts):
        return words.number(sigma, 3)
    return words("points", value=words.number(100 * sigma))


def _asymptote(end: Mapping[str, Any], facts: ReportFacts, words: Words) -> str:
    value, low, high = (end.get(name) for name in ("value", "low", "high"))
    if value is None:
        return "–"
    if low is None or high is None or (is_accuracy(facts) and high - low > 1):
        return words("not_fixed")  # an interval wider than all accuracies there are
    if is_accuracy(facts):
        return f"{words.percent(value)} ({words.span(low, high, factor=100.0)})"
    return f"{words.number(value)} ({words.span(low, high, digits=2)})"


def _comparison(facts: ReportFacts, words: Words) -> tuple[str, ...]:
    found = part(facts.analysis, "comparison")
    ratio = part(found, "error_ratio")
    if (found.get("first"), found.get("second")) != ("linear", "saturating") or ratio.get("value") is None:
        told = str(found.get("refused") or found.get("verdict") or "")
        return (told,) if told else ()
    told = words(
        "comparison",
        wins=found.get("num_second_better"),
        origins=found.get("num_origins"),
        ratio=words.number(ratio["value"], 1),
        interval=interval_text(words, ratio),
    )
    return (told,)


def _rate_table(facts: ReportFacts, words: Words) -> Grid | None:
    rows: list[Row] = []
    for name in ("line", "last_third", "end_of_curve"):
        if (rate := part(facts.analysis, "rates", name)).get("value") is not None:
            value = words.number(rate["value"], 2, sign=True)
            span = words.span(rate.get("low"), rate.get("high"), digits=2)
            rows.append((words(f"rate_{name}"), value, span, str(rate.get("method") or "–")))
    level = words("interval", level=level_of(words, facts.analysis))
    heads = (words("slope"), words("value"), level, words("method"))
    return Grid(rate_name(facts, words), heads, tuple(rows), _forecast_note(facts, words), wordy=True) if rows else None


def _forecast_note(facts: ReportFacts, words: Words) -> tuple[str, ...]:
    forecast = part(facts.analysis, "forecast")
    if forecast.get("refused"):
        return (words("forecast_refused", reason=forecast["refused"]),)
    if forecast.get("line_value") is None or not is_accuracy(facts):
        return ()
    step = words.count(forecast.get("target_step"))
    return (words("line_would_say", value=words.percent(forecast["line_value"]), step=step),)
