"""How good are the forecasts? Real training curves, seen to 20, 30 and 50 %, against four baselines, family by family.

For each curve: the mean of the final tenth of the steps with a 90 % interval; the step of a target (the level of the
smoothed curve at 80 % of the steps); whether that target, and a level a tenth of the range beyond the end of the curve,
are reached at all. Families are the sources of the curves (first word of the name): no constant may be judged on the
family that chose it, so the spread of the intervals and the other constants are also chosen anew without each family.

    XUEBU_SHARED_DATA=DIR python benchmarks/forecasts.py [--quick] [--per-curve] [--leave-family-out]

DIR must hold curves/csv/*.csv (step,value,metric,name) and, where the schedule is known, curves/lr/NAME.csv (step,lr).
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from machine import facts, shared_data
from xuebu.analysis.annealing import Schedule
from xuebu.analysis.curves import Family, basis
from xuebu.analysis.ensemble import DEFAULTS, EnsembleSettings
from xuebu.analysis.fit import min_points, profile_fit
from xuebu.analysis.outlook import CurveForecast, forecast_curve, reach_target
from xuebu.history.series import Floats, Series

SHARES = (0.2, 0.3, 0.5)
SKIPPED = ("grad_norm", "learning_rate", "epoch")
HARD = ("nsp_acc", "reward")  # a metric at chance level, and rewards of a game
CAP_ERROR, CAP_SCORE, NEAR = 10.0, 20.0, math.log(1.25)
NORMAL = 1.6449


@dataclass(frozen=True)
class Case:
    """One curve cut at one share of its steps, with what came after."""

    name: str
    family: str
    share: float
    series: Series
    window: tuple[float, float]
    truth: float
    range: float
    target: float | None
    target_step: float | None
    beyond: float | None
    beyond_reached: bool
    schedule: Schedule | None


@dataclass(frozen=True)
class Score:
    """What one method made of one case; errors and widths in ranges of the curve."""

    case: Case
    value: float
    error: float
    held: bool
    width: float
    interval_score: float
    near: bool | None
    answers: tuple[tuple[float, bool], ...]
    seconds: float
    flat: bool = False


def smooth(step: Floats, value: Floats, num: int = 100) -> tuple[Floats, Floats]:
    """Return bin centers and running means of five bins, as the target is defined on."""
    if len(step) > num:
        edges = np.linspace(step[0], step[-1], num + 1)
        at = np.clip(np.searchsorted(edges, step, "right") - 1, 0, num - 1)
        count = np.bincount(at, minlength=num)
        kept = count > 0
        step = np.bincount(at, step, num)[kept] / count[kept]
        value = np.bincount(at, value, num)[kept] / count[kept]
    return step, np.convolve(np.pad(value, 2, "edge"), np.ones(5) / 5, "valid")


def cases(folder: Path) -> Iterator[Case]:
    """Yield every curve at every share that leaves at least ten readings."""
    for path in sorted((folder / "csv").glob("*.csv")):
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        metric, name = rows[0]["metric"], rows[0]["name"]
        if any(word in metric for word in SKIPPED):
            continue
        step = np.array([float(row["step"]) for row in rows])
        value = np.array([float(row["value"]) for row in rows])
        rates, schedule = folder / "lr" / f"{name}.csv", None
        if rates.is_file():
            table = np.loadtxt(rates, delimiter=",", skiprows=1)
            schedule = Schedule(table[:, 0], table[:, 1])
        span = step[-1] - step[0]
        truth = float(value[step >= step[-1] - 0.1 * span].mean())
        at, level = smooth(step, value)
        goal = float(np.interp(step[0] + 0.8 * span, at, level))
        range_ = abs(float(level[:5].mean()) - truth) + 1e-12
        beyond = truth + math.copysign(0.1 * range_, truth - float(level[:5].mean()))
        for share in SHARES:
            seen = step <= step[0] + share * span
            if seen.sum() < 10:
                continue
            past, later = level[at <= step[0] + share * span], level[at > step[0] + share * span]
            reached = (past.max() >= goal) if truth > past[-1] else (past.min() <= goal)
            asked = not reached and abs(goal - past[-1]) >= 0.02 * range_
            first = None
            if asked:
                hit = (level >= goal) if truth > past[-1] else (level <= goal)
                first = float(at[hit.argmax()])
            up = beyond > past[-1]
            open_ = not ((past.max() >= beyond) if up else (past.min() <= beyond))
            yield Case(
                name=f"{name}:{metric}",
                family=name.split("_")[0],
                share=share,
                series=Series(step[seen].astype(np.int64), value[seen], None, metric),
                window=(step[-1] - 0.1 * span, step[-1]),
                truth=truth,
                range=range_,
                target=goal if asked else None,
                target_step=first,
                beyond=beyond if open_ else None,
                beyond_reached=bool((later.max() >= beyond) if up else (later.min() <= beyond)),
                schedule=schedule,
            )


Method = Callable[[Case], tuple[float, float, float, CurveForecast | None]]


def xuebu(settings: EnsembleSettings) -> Method:
    """Return the forecast under test."""

    def method(case: Case) -> tuple[float, float, float, CurveForecast | None]:
        found = forecast_curve(
            case.series, window=case.window, target=case.target, schedule=case.schedule, settings=settings
        )
        low, high = found.level.low, found.level.high
        assert low is not None and high is not None
        return found.level.value, low, high, found

    return method


def last_value(case: Case) -> tuple[float, float, float, None]:
    """The mean of the last tenth of what was seen, with the spread of its readings."""
    _, level = smooth(case.series.step.astype(float), case.series.value, 200)
    tail = level[-max(3, len(level) // 10) :]
    half = NORMAL * float(tail.std(ddof=1))
    return float(tail.mean()), float(tail.mean()) - half, float(tail.mean()) + half, None


def one_law(family: Family) -> Method:
    """Return least squares of one law after the first 5 % of the steps, with the spread of its residuals."""

    def method(case: Case) -> tuple[float, float, float, None]:
        step, value = case.series.step.astype(np.float64), case.series.value
        kept = step > step[0] + 0.05 * (step[-1] - step[0])
        if kept.sum() >= min_points(family):
            step, value = step[kept], value[kept]
        offset, scale, shape = profile_fit(family, step, value[:, None])

        def curve(at: Floats) -> Floats:
            return np.asarray(offset[0] + scale[0] * basis(family, at, shape[0], float(step[0])))

        mean = float(curve(np.linspace(*case.window, 21)).mean())
        half = NORMAL * float((value - curve(step)).std(ddof=1)) / math.sqrt(max(1.0, value.size / 10))
        return mean, mean - half, mean + half, None

    return method


def score(case: Case, method: Method) -> Score:
    """Judge one answer."""
    begin = time.perf_counter()
    value, low, high, found = method(case)
    seconds = time.perf_counter() - begin
    miss = max(0.0, low - case.truth, case.truth - high)
    near, answers = None, []
    if case.target is not None and case.target_step is not None:
        goal = found.target if found else None
        step = goal.likely_step if goal else None
        near = step is not None and abs(math.log(step / case.target_step)) < NEAR
        answers += [(goal.probability, True)] if goal else []
    if case.beyond is not None and found is not None:
        answers += [(reach_target(found.paths, case.series, case.beyond).probability, case.beyond_reached)]
    return Score(
        case=case,
        value=value,
        error=min(CAP_ERROR, abs(value - case.truth) / case.range),
        held=low <= case.truth <= high,
        width=(high - low) / case.range,
        interval_score=min(CAP_SCORE, (high - low + 20 * miss) / case.range),
        near=near,
        answers=tuple(answers),
        seconds=seconds,
        flat=found is not None and found.trend == "flat",
    )


def family_mean(scores: Sequence[Score], *, hard: bool) -> float:
    """Return the mean over families of the mean error; without the three hard curves unless `hard`."""
    kept = [one for one in scores if hard or not any(word in one.case.name for word in HARD)]
    return float(np.mean([np.mean(errors) for errors in by_family(kept).values()]))


def by_family(scores: Sequence[Score]) -> dict[str, list[float]]:
    """Return the errors of each family."""
    found: dict[str, list[float]] = {}
    for one in scores:
        found.setdefault(one.case.family, []).append(one.error)
    return found


def summarize(scores: Sequence[Score], base: Sequence[Score]) -> dict[str, Any]:
    """Return every figure of one method; `base` is the last value on the same cases."""
    asked = [one for one in scores if one.near is not None]
    trending = [(one, other) for one, other in zip(scores, base, strict=True) if one.near is not None]
    answers = [answer for one in scores for answer in one.answers]
    return {
        "cases": len(scores),
        "family_mean_error": family_mean(scores, hard=True),
        "family_mean_error_without_hard": family_mean(scores, hard=False),
        "mean_error": float(np.mean([one.error for one in scores])),
        "cover": float(np.mean([one.held for one in scores])),
        "cover_by_share": {str(s): float(np.mean([one.held for one in scores if one.case.share == s])) for s in SHARES},
        "interval_score": float(np.mean([one.interval_score for one in scores])),
        "step_within_1.25": float(np.mean([bool(one.near) for one in asked])) if answers else None,
        "beats_last_value": float(np.mean([one.error < other.error for one, other in trending])),
        "brier": float(np.mean([(chance - reached) ** 2 for chance, reached in answers])) if answers else None,
        "questions": len(answers),
        "called_flat": sorted({one.case.name for one in scores if one.flat}),
        "worst_seconds": max(one.seconds for one in scores),
    }


def bootstrap_difference(
    one: Sequence[Score], other: Sequence[Score], draws: int = 10000
) -> tuple[float, float, float]:
    """Return the difference of the family means of the error, with a 95 % interval over families drawn anew."""
    ours, theirs = by_family(one), by_family(other)
    each = np.array([np.mean(ours[name]) - np.mean(theirs[name]) for name in ours])
    rng = np.random.default_rng(0)
    means = each[rng.integers(0, each.size, (draws, each.size))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975)).tolist()
    return float(each.mean()), low, high


# What a developer might have chosen otherwise; each set of constants is judged on the families that did not choose it.
ALTERNATIVES: tuple[dict[str, Any], ...] = (
    {},
    {"starts": (0.03, 0.12, 0.3)},
    {"starts": (0.05, 0.25)},
    {"origins": (0.2, 0.4, 0.6, 0.8)},
    {"drops": (0.2, 0.4, 0.7)},
    {"drops": (0.4, 0.8, 1.2)},
    {"unannealed": 0.4},
    {"constant": 0.4},
    {"floor": 0.1},
    {"floor": 0.4},
    {"num_bins": 80},
    {"scarcity": 0.0},
)
SPREADS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.85, 1.0)


def leave_family_out(all_cases: Sequence[Case]) -> tuple[list[Score], dict[str, str]]:
    """Return scores where, for each family, the constants and the spread were chosen on the other families only.

    Constants by the family mean of the interval score; then the smallest spread whose intervals hold in 90 % of the
    cases, the families weighted alike.
    """
    table = [[score(case, xuebu(replace(DEFAULTS, **other))) for case in all_cases] for other in ALTERNATIVES]
    chosen, scores = {}, []
    spreads: dict[tuple[int, float], list[Score]] = {}
    for family in dict.fromkeys(case.family for case in all_cases):
        others = [index for index, case in enumerate(all_cases) if case.family != family]

        def mean_over(of: Callable[[Score], float], row: Sequence[Score], kept: Sequence[int] = others) -> float:
            groups: dict[str, list[float]] = {}
            for index in kept:
                groups.setdefault(row[index].case.family, []).append(of(row[index]))
            return float(np.mean([np.mean(values) for values in groups.values()]))

        best = min(range(len(ALTERNATIVES)), key=lambda index: mean_over(lambda one: one.interval_score, table[index]))
        for spread in SPREADS:
            if (best, spread) not in spreads:
                settings = replace(DEFAULTS, **ALTERNATIVES[best], spread=spread)
                spreads[best, spread] = [score(case, xuebu(settings)) for case in all_cases]
            if mean_over(lambda one: float(one.held), spreads[best, spread]) >= 0.9:
                break
        chosen[family] = f"{ALTERNATIVES[best] or 'as shipped'}, spread {spread}"
        scores += [one for one in spreads[best, spread] if one.case.family == family]
    order = {id(case): index for index, case in enumerate(all_cases)}
    return sorted(scores, key=lambda one: order[id(one.case)]), chosen


def show(name: str, found: dict[str, Any]) -> str:
    """Return one row of the table."""
    near = "–" if found["brier"] is None else f"{100 * found['step_within_1.25']:.0f} %"
    brier = "–" if found["brier"] is None else f"{found['brier']:.3f}"
    shares = " / ".join(f"{100 * value:.0f}" for value in found["cover_by_share"].values())
    return (
        f"| {name} | {found['family_mean_error']:.3f} | {found['family_mean_error_without_hard']:.3f} | "
        f"{100 * found['cover']:.0f} % ({shares}) | {found['interval_score']:.2f} | "
        f"{near} | {100 * found['beats_last_value']:.0f} % | {brier} |"
    )


def main() -> None:
    """Print the table, the families, and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only curves seen to 50 %%")
    parser.add_argument("--per-curve", action="store_true", help="one line for each curve")
    parser.add_argument("--leave-family-out", action="store_true", help="choose the constants anew without each family")
    asked = parser.parse_args()
    folder = shared_data() / "curves"
    all_cases = [case for case in cases(folder) if not asked.quick or case.share == SHARES[-1]]
    methods: dict[str, Method] = {
        "xuebu": xuebu(DEFAULTS),
        "last value": last_value,
        "power law": one_law("power_law"),
        "saturating exponential": one_law("saturating"),
        "logarithm": one_law("logarithmic"),
    }
    scores = {name: [score(case, method) for case in all_cases] for name, method in methods.items()}
    chosen: dict[str, str] = {}
    if asked.leave_family_out:
        scores["xuebu, family left out"], chosen = leave_family_out(all_cases)
    base = scores["last value"]
    figures = {name: summarize(found, base) for name, found in scores.items()}
    print(f"{len({case.name for case in all_cases})} curves, {len(all_cases)} cases, errors and scores in ranges\n")
    print("| method | family mean | without hard | cover (20 / 30 / 50 %) | score | step x1.25 | beats last | Brier |")
    print("|---|---|---|---|---|---|---|---|")
    for name, found in figures.items():
        print(show(name, found))
    print("\n| family | cases | " + " | ".join(methods) + " | cover |\n|---|---|" + "---|" * (len(methods) + 1))
    for family, errors in by_family(scores["xuebu"]).items():
        held = [one.held for one in scores["xuebu"] if one.case.family == family]
        means = " | ".join(f"{np.mean(by_family(found)[family]):.3f}" for found in (scores[name] for name in methods))
        print(f"| {family} | {len(errors)} | {means} | {100 * np.mean(held):.0f} % |")
    differences = {name: bootstrap_difference(scores["xuebu"], scores[name]) for name in methods if name != "xuebu"}
    print("\ndifference of the family mean to each baseline, 95 % interval over families drawn anew:")
    for name, (mean, low, high) in differences.items():
        print(f"  {name}: {mean:+.3f} ({low:+.3f} to {high:+.3f})")
    for family, choice in chosen.items():
        print(f"  chosen without {family}: {choice}")
    print(f"called flat: {', '.join(figures['xuebu']['called_flat']) or 'none'}")
    if asked.per_curve:
        for one, other in zip(scores["xuebu"], base, strict=True):
            missed = "" if one.held else "  MISSED"
            last = f"{other.error:.3f}"
            print(f"{one.case.name} {one.case.share}: {one.error:.3f} (last {last}) ±{one.width / 2:.3f}{missed}")
    print(json.dumps({"machine": facts(), "figures": figures, "differences": differences, "chosen": chosen}))


if __name__ == "__main__":
    main()
