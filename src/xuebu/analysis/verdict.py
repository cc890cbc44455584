"""Findings: what the numbers mean, in plain words, each with its evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from xuebu.analysis.chance import ChanceTest
from xuebu.analysis.fit import CurveFit
from xuebu.analysis.forecast import Forecast
from xuebu.analysis.intervals import Interval
from xuebu.analysis.rates import STEPS, Rates
from xuebu.analysis.rolling import RollingComparison
from xuebu.analysis.wording import improves, is_accuracy, measured, percent, plain
from xuebu.history.series import Series

Severity = Literal["bad", "warn", "good", "info"]
ORDER: tuple[Severity, ...] = ("bad", "warn", "good", "info")
READING_ERROR = 0.01
SMALL_GAIN = 0.1
SPENT_RATE = 0.1
MISFIT = 0.5


@dataclass(frozen=True, slots=True)
class Finding:
    """One statement about a run.

    Args:
        flag: a fixed name for programs, e.g. "below_counting".
        severity: "bad" (the result cannot stand), "warn", "good" or "info".
        text: for people, one or two sentences.
        evidence: the numbers behind it.
    """

    flag: str
    severity: Severity
    text: str
    evidence: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "flag": self.flag,
            "severity": self.severity,
            "text": self.text,
            "evidence": plain(dict(self.evidence)),
        }


def judge_counting(baselines: Mapping[str, Any] | None) -> Finding | None:
    """Say whether the model beats counting (the n-gram), from the study's baselines.

    Args:
        baselines: as in baselines.json; missing keys are coped with.
    """
    part = baselines.get("mlm") if baselines else None
    found = _interval_of(part.get("difference_from_ngram")) if isinstance(part, Mapping) else None
    if not isinstance(part, Mapping) or found is None:
        return None
    model, ngram = (_accuracy_of(part.get(name)) for name in ("model", "ngram"))
    told = ""
    if model is not None and ngram is not None:
        told = f"model {percent(model)}, n-gram {percent(ngram)} on the same held-out input: "
    evidence = {"difference": found.value, "low": found.low, "high": found.high, "level": found.level}
    difference = f"a difference of {found.words(100, ' points')}"
    if found.high is not None and found.high < 0:
        text = f"The run is too short to beat counting: an n-gram table knows more ({told}{difference})."
        return Finding("below_counting", "bad", text, evidence)
    if found.low is not None and found.low > 0:
        return Finding("above_counting", "good", f"The model beats counting ({told}{difference}).", evidence)
    return Finding(
        "counting_undecided", "warn", f"Whether the model beats counting is open ({told}{difference}).", evidence
    )


def judge_chance(test: ChanceTest | None) -> Finding | None:
    """Say whether next-sentence or sentence-order prediction is better than guessing."""
    if test is None:
        return None
    is_order = test.metric == "sop_accuracy"
    code, name = ("sop", "Sentence-order prediction") if is_order else ("nsp", "Next-sentence prediction")
    evidence = {"accuracy": test.accuracy, "standard_errors": test.standard_errors, "predictions": test.num_predictions}
    if test.distinguishable:
        return Finding(f"{code}_learned", "good", f"{name} is learned: {test.summary()}.", evidence)
    text = (
        f"{name} is not distinguishable from chance: {test.summary()}. Were the sentences shuffled "
        "before pairing, or is the run too short?"
    )
    return Finding(f"{code}_at_chance", "bad", text, evidence)


def judge_line(
    comparison: RollingComparison | None, line: CurveFit | None, curve: CurveFit | None, forecast: Forecast | None
) -> Finding | None:
    """Say whether a straight line is the wrong model: by out-of-sample error, explained by its residuals."""
    if comparison is None or line is None or curve is None or comparison.refused or comparison.error_ratio is None:
        return None
    evidence: dict[str, Any] = {
        "decision": comparison.decision,
        "error_ratio": comparison.error_ratio.value,
        "low": comparison.error_ratio.low,
        "high": comparison.error_ratio.high,
        "origins": comparison.num_origins,
    }
    if line.residuals and curve.residuals:
        evidence["line_lag1_autocorrelation"] = line.residuals.lag1_autocorrelation
        evidence["line_durbin_watson"] = line.residuals.durbin_watson
        evidence["curve_lag1_autocorrelation"] = curve.residuals.lag1_autocorrelation
    if comparison.decision != "second":
        text = f"A straight line is not refuted: {comparison.verdict}."
        return Finding("line_not_refuted", "info", text, evidence)
    text = f"A straight line is the wrong model of this run: {comparison.verdict}."
    if line.residuals and curve.residuals:
        text += (
            f" Around the line, readings stay on one side for long (lag-1 autocorrelation "
            f"{line.residuals.lag1_autocorrelation:.2f}, Durbin-Watson {line.residuals.durbin_watson:.2f}); around the "
            f"{curve.family} curve: {curve.residuals.lag1_autocorrelation:.2f}."
        )
        if curve.residuals.lag1_autocorrelation > MISFIT:
            text += " That curve is not the whole truth either."
    if forecast is not None and forecast.line_value is not None:
        metric, target = forecast.metric, forecast.target_step
        own = forecast.of(curve.family)
        evidence |= {"target_step": target, "line_value": forecast.line_value}
        text += f" Prolonged to step {target:,} the line says {measured(forecast.line_value, metric)}"
        if own is not None:
            evidence |= {"curve_value": own.value, "curve_low": own.low, "curve_high": own.high}
            text += (
                f", the {curve.family} curve {measured(own.value, metric)} "
                f"({measured(own.low, metric)} to {measured(own.high, metric)} if that family is right)"
            )
        text += ": a level read off the line does not follow."
    return Finding("line_is_wrong_model", "warn", text, evidence)


def judge_trend(series: Series, rates: Rates | None, rate_spent: bool) -> Finding | None:
    """Say whether the run still learns, has leveled off, or cannot be told, from the slope of its last third.

    Leveled off: no growth can be seen, and what the upper end of the interval would add over as many steps as the last
    third is less than a tenth of all that was gained.
    """
    if rates is None or rates.last_third is None:
        return None
    if rates.last_third.low is None or rates.last_third.high is None:
        text = f"Whether the run was still learning at its end cannot be told: {rates.last_third.note}."
        return Finding("trend_undecided", "info", text, {"rate": rates.last_third.value, "unit": rates.unit})
    way, scale = improves(series.metric), 100.0 if is_accuracy(series.metric) else 1.0
    sign = way or 1
    value, low, high = rates.last_third.value, rates.last_third.low, rates.last_third.high
    low, high = (low, high) if sign > 0 else (-high, -low)
    third = len(series) // 3
    span = float(series.step[-1] - series.step[-third]) / STEPS
    gained = scale * sign * float(series.value[-third:].mean() - series.value[: max(1, len(series) // 20)].mean())
    rate = rates.last_third.words(unit=f" {rates.unit} over the last third", digits=2)
    because = " The learning rate had nearly reached zero by then, which levels off any curve." if rate_spent else ""
    evidence = {"rate": value, "low": rates.last_third.low, "high": rates.last_third.high, "unit": rates.unit}
    evidence["rate_spent"] = rate_spent
    if way == 0 and (low > 0 or high < 0):
        text = f"{series.metric} was still {'rising' if low > 0 else 'falling'} at the end: {rate}.{because}"
        return Finding("moving", "info", f"{text} Its name does not tell whether that is to improve.", evidence)
    if low > 0:
        return Finding("learning", "good", f"The run was still learning: {rate}.{because}", evidence)
    if high < 0:
        return Finding("worsening", "bad", f"The run was getting worse at its end: {rate}.", evidence)
    if way and gained > 0 and high * span < SMALL_GAIN * gained:
        return Finding("plateaued", "info", f"The run has leveled off: {rate}.{because}", evidence)
    return Finding(
        "trend_undecided",
        "info",
        f"Whether the run was still learning at its end cannot be told: {rate}.{because}",
        evidence,
    )


def judge_noise(series: Series, curve: CurveFit | None) -> Finding | None:
    """Say whether readings rest on too few predictions: one reading's standard error of a point or more."""
    if not is_accuracy(series.metric):
        return None
    share = float(series.value[-max(1, len(series) // 10) :].mean())
    binomial = share * (1 - share)
    if series.count is not None:
        count = float(np.median(series.count))
        error = math.sqrt(binomial / count)
        told = f"each reading rests on about {count:,.0f} predictions"
        evidence: dict[str, Any] = {"predictions": count, "standard_error": error}
    elif series.kind == "train" and curve is not None and curve.residuals is not None:
        noise = np.diff(series.value - curve.predict(series.step))
        error = math.sqrt(float(noise @ noise) / (2 * noise.size))
        count = binomial / error**2 if error > 0 else math.inf
        told = f"readings scatter as if each rested on about {count:,.0f} predictions (their number is not recorded)"
        evidence = {"implied_predictions": count, "standard_error": error}
    else:
        return None
    if error < READING_ERROR:
        return None
    evidence["held_out"] = series.kind == "eval"
    told = (
        f"Accuracy is read off few predictions: {told}, so one reading is off by {100 * error:.1f} points as a rule. "
    )
    if series.kind == "eval":
        text = told + "All readings share them, so the level is uncertain by that much, the shape of the curve less."
    else:
        text = told + "Much of the scatter, and of what limits r, is this noise and not the model."
    return Finding("few_predictions", "warn", text, evidence)


def learning_rate_spent(learning_rate: Series | None) -> bool:
    """Say whether the learning rate ended below a tenth of its highest value."""
    if learning_rate is None or not len(learning_rate):
        return False
    return float(learning_rate.value[-1]) < SPENT_RATE * float(learning_rate.value.max())


def sort_findings(findings: list[Finding]) -> tuple[Finding, ...]:
    """Return the findings, the most important first; equals keep their order."""
    return tuple(sorted(findings, key=lambda finding: ORDER.index(finding.severity)))


def model_interval(baselines: Mapping[str, Any] | None, level: float) -> Interval | None:
    """Return the model's accuracy on the full held-out input as the study recorded it, or None."""
    part = baselines.get("mlm") if baselines else None
    entry = part.get("model") if isinstance(part, Mapping) else None
    if not isinstance(entry, Mapping):
        return None
    found = _interval_of({**entry, "value": entry.get("accuracy"), "level": entry.get("level", level)})
    if found is None or found.low is None or found.high is None:
        return None
    count = entry.get("predictions")
    note = (
        f"{count:,} predictions of the full held-out evaluation"
        if isinstance(count, int)
        else "full held-out evaluation"
    )
    return Interval(found.value, found.low, found.high, found.level, found.method or "as in baselines.json", note)


def _accuracy_of(entry: Any) -> float | None:
    score = entry.get("accuracy") if isinstance(entry, Mapping) else None
    return float(score) if isinstance(score, int | float) else None


def _interval_of(found: Any) -> Interval | None:
    """Return an interval of baselines.json, or None where it is not one."""
    if not isinstance(found, Mapping) or not isinstance(found.get("value"), int | float):
        return None
    low, high = (found.get(name) if isinstance(found.get(name), int | float) else None for name in ("low", "high"))
    level = found.get("level")
    return Interval(
        float(found["value"]), low, high, level if isinstance(level, float) else 0.95, str(found.get("method", ""))
    )
