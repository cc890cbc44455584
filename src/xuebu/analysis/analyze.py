"""The whole analysis of one history: every number with its interval, and a verdict in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xuebu.analysis import verdict as judges
from xuebu.analysis.annealing import is_spent, recorded_schedule
from xuebu.analysis.anomalies import Alarm, condense, scan
from xuebu.analysis.association import Association, associations_of
from xuebu.analysis.chance import MIN_READINGS, ChanceTest, hold_against_chance, mean_of_readings
from xuebu.analysis.correlation import COEFFICIENTS, Correlation, correlate, noise_of
from xuebu.analysis.cost import Cost, cost_of
from xuebu.analysis.curves import FAMILIES, Family
from xuebu.analysis.fit import CurveFit, fit_curve, min_points
from xuebu.analysis.forecast import Forecast, forecast_level
from xuebu.analysis.health import judge_health, main_metric
from xuebu.analysis.intervals import Interval, proportion_interval
from xuebu.analysis.rates import Rates, rates_of
from xuebu.analysis.rolling import RollingComparison, compare_families
from xuebu.analysis.sampling import NoiseSplit, split_noise
from xuebu.analysis.start import start_of_growth
from xuebu.analysis.verdict import Finding
from xuebu.analysis.wording import is_accuracy, measured, plain
from xuebu.errors import InputError
from xuebu.history.readings import locate
from xuebu.history.records import History
from xuebu.history.series import Series

SCHEMA_VERSION = 1
LARGEST_VALUE = 1e100
METRICS = ("mlm_accuracy", "mlm_loss_nats", "loss_nats")
MIN_POINTS = 3
FIXED_MASKS = (
    "every held-out reading uses the same predictions: their sampling error moves the whole curve up or down together, "
    "so it belongs to levels and not to differences between steps"
)


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """What a history shows.

    Args:
        source: path of the history.
        format: what it was recognized as.
        metric: the metric analyzed.
        kind: "eval" (held out) or "train".
        num_points: readings.
        first_step: of the readings.
        last_step: of the readings.
        median_count: predictions behind a reading, in the middle; None where not recorded.
        level: confidence level of all intervals.
        seed: of the bootstraps.
        headline: the level at the end of the run.
        verdict: findings, the most important first.
        correlations: by coefficient; empty where there is none to compute.
        fits: by family, as far as there are readings enough.
        rates: growth per 10,000 steps.
        comparison: line against saturating curve on unseen readings.
        forecast: level at twice the steps.
        nsp: next-sentence prediction against chance; None where it was not recorded.
        sop: sentence-order prediction likewise.
        baselines: as given.
        cost: of the run so far, as far as the history tells.
        notes: what was mended while reading, and what to know.
        series: the readings themselves; not in the JSON.
        alarms: what a monitor of the run would have said, in order of step.
        associations: step and metric with the learning rate held fixed; metric and loss, in levels and differences.
        noise_split: a training reading's own noise and the model's; None where the counts do not tell.
    """

    source: str
    format: str
    metric: str
    kind: str
    num_points: int
    first_step: int
    last_step: int
    median_count: int | None
    level: float
    seed: int
    headline: Interval | None
    verdict: tuple[Finding, ...]
    correlations: Mapping[str, Correlation]
    fits: Mapping[Family, CurveFit]
    rates: Rates | None
    comparison: RollingComparison | None
    forecast: Forecast | None
    nsp: ChanceTest | None
    sop: ChanceTest | None
    baselines: Mapping[str, Any] | None
    cost: Cost | None
    notes: tuple[str, ...]
    series: Series
    alarms: tuple[Alarm, ...] = ()
    associations: tuple[Association, ...] = ()
    noise_split: NoiseSplit | None = None

    def summary(self) -> str:
        """Say the verdict in plain words, the most important first, then the numbers."""
        what = "held-out" if self.kind == "eval" else "training"
        lines = [
            f"{self.num_points:,} {what} readings of {self.metric}, steps {self.first_step:,} to {self.last_step:,}"
        ]
        if self.headline is not None:
            scale, unit = (100.0, " %") if is_accuracy(self.metric) else (1.0, "")
            lines.append(f"at the end: {self.headline.words(scale, unit, 2)}, {self.headline.method}")
        marks = {"bad": "!!", "warn": "! ", "good": "+ ", "info": "  "}
        lines += [f"{marks[finding.severity]} {finding.text}" for finding in self.verdict]
        if self.forecast is not None:
            lines.append(f"twice the steps: {self.forecast.summary()}")
        if self.rates is not None:
            lines.append(self.rates.summary())
        lines += [correlation.summary() for correlation in self.correlations.values()]
        lines += [one.headline() for one in self.associations]
        lines += [self.noise_split.summary()] if self.noise_split else []
        lines += [fit.summary() for fit in self.fits.values()]
        lines += [f"cost: {self.cost.summary()}"] if self.cost else []
        return "\n".join(lines + [f"note: {note}" for note in self.notes])

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values under a schema version."""
        simple = ("source", "format", "metric", "kind", "num_points", "first_step", "last_step", "median_count")
        nested = ("headline", "rates", "comparison", "forecast", "nsp", "sop", "cost", "noise_split")
        return {
            "schema_version": SCHEMA_VERSION,
            **{name: getattr(self, name) for name in (*simple, "level", "seed")},
            "verdict": [finding.to_json() for finding in self.verdict],
            **{name: found.to_json() if (found := getattr(self, name)) is not None else None for name in nested},
            "correlations": {name: found.to_json() for name, found in self.correlations.items()},
            "associations": [one.to_json() for one in self.associations],
            "fits": {name: found.to_json() for name, found in self.fits.items()},
            "baselines": plain(dict(self.baselines)) if self.baselines is not None else None,
            "notes": list(self.notes),
            "alarms": [alarm.to_json() for alarm in condense(self.alarms, most=100)],
        }


def analyze_history(
    history: History,
    *,
    baselines: Mapping[str, Any] | None = None,
    metric: str | None = None,
    kind: str | None = None,
    level: float = 0.95,
    seed: int = 0,
    price_per_device_hour: float | None = None,
) -> Analysis:
    """Analyze how a metric went with the steps.

    Args:
        history: what the run recorded.
        baselines: content of baselines.json, or None.
        metric: which metric; the first recorded of mlm_accuracy, mlm_loss_nats, loss_nats if None.
        kind: "eval" or "train"; held-out readings where there are any if None.
        level: confidence level of all intervals, e.g. 0.95.
        seed: of the bootstraps: same history and seed, same result.
        price_per_device_hour: for the cost; None if not asked.

    Raises:
        InputError: the metric is not in the history, or an accuracy is not a fraction.
    """
    series, broken = unbroken(history, choose_series(history, metric, kind))
    notes = [*history.notes, *([broken] if broken else [])]
    findings: list[Finding | None] = []
    correlations: dict[str, Correlation] = {}
    fits: dict[Family, CurveFit] = {}
    rates, comparison, forecast = None, None, None
    associations: tuple[Association, ...] = ()
    noise_split: NoiseSplit | None = None
    constant = float(np.ptp(series.value)) == 0
    if len(series) < MIN_POINTS or constant:
        findings.append(_nothing_to_fit(series, constant))
    else:
        start = start_of_growth(series)
        grown = series.part(start)
        if start:
            notes.append(
                f"the first {start} readings (to step {int(series.step[start - 1]):,}) are the start-up, before growth "
                f"was at its steepest: bent curves and the forecast are of the readings from step "
                f"{int(grown.step[0]):,} on; the line, its comparison and the correlations are of all"
            )
        fits = {
            family: fit_curve(series if family == "linear" else grown, family, level=level)
            for family in FAMILIES
            if len(series) >= min_points(family)
        }
        line, curve = fits.get("linear"), fits.get("saturating")
        comparison = compare_families(series, level=level) if curve else None
        trusted = trusted_family(fits, comparison)
        noise = noise_of(series)
        for name in COEFFICIENTS:
            correlations[name] = correlate(
                series, name, line=line, curve=curve, trusted=trusted, noise=noise, level=level, seed=seed
            )
        associations = associations_of(history, series, level=level, seed=seed)
        noise_split = split_noise(series, noise, level=level, seed=seed) if noise else None
        rates = rates_of(series, line, curve) if line else None
        if curve and line:
            rates_seen = recorded_schedule(history)
            ended = rates_seen is not None and is_spent(rates_seen, float(series.step[-1]))
            forecast = forecast_level(
                grown,
                {**fits, "linear": fit_curve(grown, "linear", level=level)},
                schedule=rates_seen if ended else None,
                level=level,
                seed=seed,
            )
            forecast = replace(forecast, line_value=float(line.predict(float(forecast.target_step))))
            if start:
                notes.append(
                    f"line or curve, from step {int(grown.step[0]):,} on alone: "
                    f"{compare_families(grown, level=level).verdict}"
                )
        if comparison is None or comparison.refused:
            findings.append(_too_few(series, comparison))
        findings.append(judges.judge_line(comparison, line, curve, forecast))
    findings.append(judges.judge_counting(baselines))
    nsp, sop = (_against_chance(history, f"{task}_accuracy", series.kind, level) for task in ("nsp", "sop"))
    findings += [judges.judge_chance(nsp), judges.judge_chance(sop)]
    findings.append(judges.judge_noise(series, fits.get("saturating")))
    rate = history.column("train", "learning_rate") if history.has("train", "learning_rate") else None
    findings.append(judges.judge_trend(series, rates, judges.learning_rate_spent(rate)))
    alarms = scan(history)
    findings += judge_health(history, alarms)
    if series.kind == "eval":
        notes.append(FIXED_MASKS)
    if len(series) > 2 and (spacing := np.diff(series.step)).max() > 3 * np.median(spacing):
        notes.append("the steps are unevenly spaced: autocorrelations count readings, not steps")
    return Analysis(
        source=history.path,
        format=history.format,
        metric=series.metric,
        kind=series.kind,
        num_points=len(series),
        first_step=int(series.step[0]),
        last_step=int(series.step[-1]),
        median_count=None if series.count is None else int(np.median(series.count)),
        level=level,
        seed=seed,
        headline=_headline(series, level, baselines),
        verdict=judges.sort_findings([finding for finding in findings if finding is not None]),
        correlations=correlations,
        fits=fits,
        rates=rates,
        comparison=comparison,
        forecast=forecast,
        nsp=nsp,
        sop=sop,
        baselines=baselines,
        cost=_cost_of(history, price_per_device_hour),
        notes=tuple(notes),
        series=series,
        alarms=alarms,
        associations=associations,
        noise_split=noise_split,
    )


def choose_series(history: History, metric: str | None = None, kind: str | None = None) -> Series:
    """Return the readings to analyze: held-out ones where there are any.

    A metric may be given by our name or by the log's own ("train/loss"). Of another trainer's log without a metric of
    ours, or with fewer than eight held-out readings, the most telling one is taken (`main_metric`).

    Raises:
        InputError: nothing fits the choice, an accuracy lies outside 0 to 1, or a value is beyond 1e100.
    """
    kinds = ("eval", "train") if kind is None else (kind,)
    metrics: tuple[str, ...] = METRICS
    if metric is not None:
        own_kind, name = locate(history, metric)
        metrics = (name,)
        kinds = (own_kind,) if kind is None and own_kind is not None else kinds
    elif kind is None and history.aliases and not any(history.has(one, name) for one in kinds for name in METRICS[:2]):
        best = main_metric(history)
        kinds, metrics = ((best[0],), (best[1],)) if best else (kinds, METRICS)
    for name in metrics:
        for one in kinds:
            if history.has(one, name):
                series = history.column(one, name)
                if is_accuracy(name) and not ((series.value >= 0) & (series.value <= 1)).all():
                    bad = int(np.flatnonzero((series.value < 0) | (series.value > 1))[0])
                    raise InputError(
                        f"{history.path}: {name} is {series.value[bad]:g} at step {series.step[bad]}; "
                        "an accuracy is a fraction from 0 to 1 (divide percentages by 100)"
                    )
                if (large := np.flatnonzero(np.abs(series.value) > LARGEST_VALUE)).size:
                    raise InputError(
                        f"{history.path}: {name} is {series.value[large[0]]:g} at step {series.step[large[0]]}, too "
                        "large to compute with; leave that record out"
                    )
                return series
    raise InputError(f"{history.path}: no reading of {' or '.join(metrics)} in its {' or '.join(kinds)} records")


def unbroken(history: History, series: Series) -> tuple[Series, str | None]:
    """Return the readings since the last break of a run, and what to say of it; before it, where too few came after.

    A run that was extended warms up a second time: no curve, correlation or forecast holds across that step.
    """
    at = history.last_break
    if at is None or not (series.step[0] <= at < series.step[-1]):
        return series, None
    first = int(np.searchsorted(series.step, at, side="right"))
    if len(series) - first >= MIN_POINTS:
        return series.part(first), f"the run was extended at step {at:,}: this is of the readings after it alone"
    note = f"the run was extended at step {at:,}: too few readings since, this is of those before"
    return series.part(0, first), note


def trusted_family(fits: Mapping[Family, CurveFit], comparison: RollingComparison | None) -> Family | None:
    """Return the fit whose residuals stand for noise.

    The line where it predicts better; else the saturating curve, which holds the line as a limit; None where there
    are too few readings for either to be judged.
    """
    if comparison is None or comparison.refused is not None:
        return None
    return "linear" if comparison.decision == "first" or "saturating" not in fits else "saturating"


def _nothing_to_fit(series: Series, constant: bool) -> Finding:
    evidence = {"points": len(series)}
    if constant and len(series) >= MIN_POINTS:
        text = (
            f"Every reading is {measured(float(series.value[0]), series.metric)}: a constant has no correlation or fit."
        )
        return Finding("constant", "bad", text, evidence)
    told = "1 reading is" if len(series) == 1 else f"{len(series)} readings are"
    text = f"{told} too few for any correlation or fit; at least {MIN_POINTS} are needed."
    return Finding("too_few_points", "bad", text, evidence)


def _too_few(series: Series, comparison: RollingComparison | None) -> Finding:
    reason = (
        comparison.refused
        if comparison and comparison.refused
        else f"{len(series)} readings are too few to fit a curve"
    )
    text = f"Too few readings to tell a line from a curve, or noise from trend: {reason}. Evaluate more often."
    return Finding("too_few_points", "warn", text, {"points": len(series)})


def _against_chance(history: History, metric: str, kind: str, level: float) -> ChanceTest | None:
    """Hold an accuracy against guessing by the readings of a kind, else by those of training; None without any."""
    kinds = [one for one in (kind, "train") if history.has(one, metric)]
    return hold_against_chance(choose_series(history, metric, kinds[0]), level=level) if kinds else None


def _headline(series: Series, level: float, baselines: Mapping[str, Any] | None) -> Interval:
    """Return the level at the end: by the baselines' full evaluation, the last held-out reading, or a mean of training.

    The mean is of the last tenth of the readings.
    """
    last = float(series.value[-1])
    if series.kind == "eval" and series.metric == "mlm_accuracy" and (found := judges.model_interval(baselines, level)):
        return found
    tail = series.part(len(series) - max(MIN_READINGS, len(series) // 10)) if len(series) >= MIN_READINGS else None
    if is_accuracy(series.metric) and series.count is not None:
        part = series.part(len(series) - 1) if series.kind == "eval" or tail is None else tail
        assert part.count is not None
        total = int(part.count.sum())
        found = proportion_interval(min(total, round(float(part.value @ part.count))), total, level)
        note = f"{total:,} predictions; {found.note}" + (f"; {FIXED_MASKS}" if series.kind == "eval" else "")
        return Interval(found.value, found.low, found.high, level, found.method, note)
    if series.kind == "train" and tail is not None:
        return mean_of_readings(tail.value, level)
    return Interval(last, None, None, level, "last reading", "the number of predictions behind it is not recorded")


def _cost_of(history: History, price: float | None) -> Cost | None:
    """Return the cost of the run so far from its records and its start event; None where they do not tell."""
    start = history.event("start") or {}
    flop = start.get("flops_per_token")
    for kind in ("train", "eval"):
        if history.has(kind, "tokens") and history.has(kind, "seconds"):
            tokens, seconds = history.column(kind, "tokens"), history.column(kind, "seconds")
            if tokens.value[-1] <= 0 or seconds.value[-1] <= 0 or tokens.step[-1] <= 0:
                return None
            return cost_of(
                steps=int(tokens.step[-1]),
                tokens_per_step=float(tokens.value[-1]) / int(tokens.step[-1]),
                tokens_per_second=float(tokens.value[-1] / seconds.value[-1]),
                flop_per_token=float(flop) if isinstance(flop, int | float) and flop > 0 else None,
                price_per_device_hour=price,
                note="measured by the run; the FLOP count is the formula's",
            )
    return None
