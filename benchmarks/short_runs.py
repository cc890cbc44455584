"""How good are forecasts of short runs of our own, on their schedule and stretched? Family by family.

    python benchmarks/short_runs.py tiny=runs/a,runs/b mini=runs/c,runs/d [--leave-family-out] [--longer runs/c=runs/d]

A family is named by the caller: runs of one recipe and corpus belong together. Every finished run folder gives its
curves of MLM accuracy and loss, held out and in training, of at least 20 readings; each is cut at 20, 30 and 50 % and
judged as in `forecasts.py`, the learning rate as its run.toml plans it. With --leave-family-out the constant `rise` is
chosen anew without each family: the smallest on a grid with which at most 5 % of the cases end better than their
interval, families weighted alike. --longer pairs a run with one of the same recipe and more steps: from half of the
first and from all of it, the end of the second is forecast.
"""

from __future__ import annotations

import argparse
import json
import math
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from forecasts import SHARES, Case, Score, last_value, score, smooth, summarize, xuebu
from machine import facts
from xuebu.analysis.annealing import Schedule
from xuebu.analysis.ensemble import DEFAULTS
from xuebu.analysis.outlook import forecast_curve
from xuebu.analysis.prospect import planned_schedule
from xuebu.analysis.wording import improves
from xuebu.history.records import read_history
from xuebu.history.series import Series

METRICS = ("mlm_accuracy", "mlm_loss_nats")
LEAST = 20
RISES = tuple(round(0.02 * k, 2) for k in range(21))


def curves(folder: Path) -> Iterator[tuple[str, Series, Schedule | None]]:
    """Yield the curves of a run folder with its planned schedule."""
    history = read_history(folder / "history.jsonl")
    settings = tomllib.loads((folder / "run.toml").read_text(encoding="utf-8"))["train"]
    for kind in ("eval", "train"):
        for metric in METRICS:
            if history.has(kind, metric) and len(series := history.column(kind, metric)) >= LEAST:
                yield f"{folder.name}:{kind}:{metric}", series, planned_schedule(settings)


def cases(family: str, folder: Path) -> Iterator[Case]:
    """Yield every curve of a run at every share that leaves at least ten readings."""
    for name, series, schedule in curves(folder):
        step, value = series.step.astype(np.float64), series.value
        span, (at, level) = step[-1] - step[0], smooth(step, value)
        truth = float(value[step >= step[-1] - 0.1 * span].mean())
        begin, goal = float(level[:5].mean()), float(np.interp(step[0] + 0.8 * span, at, level))
        # A run that never learned has no range to speak of.
        range_ = max(abs(begin - truth), 0.01)
        beyond = truth + math.copysign(0.1 * range_, truth - begin)
        for share in SHARES:
            seen, early = step <= step[0] + share * span, at <= step[0] + share * span
            if seen.sum() < 10:
                continue
            sign = math.copysign(1.0, truth - begin)
            best, later = float((sign * level[early]).max()), sign * level[~early]
            asked = best < sign * goal and abs(goal - level[early][-1]) >= 0.02 * range_
            hit = later >= sign * goal
            yield Case(
                name=name,
                family=family,
                share=share,
                series=series.part(0, int(seen.sum())),
                window=(step[-1] - 0.1 * span, step[-1]),
                truth=truth,
                range=range_,
                target=goal if asked and hit.any() else None,
                target_step=float(at[~early][hit.argmax()]) if asked and hit.any() else None,
                beyond=beyond if best < sign * beyond else None,
                beyond_reached=bool((later >= sign * beyond).any()),
                schedule=schedule,
            )


def too_low(scores: Sequence[Score]) -> float:
    """Return the share of cases that end better than their interval, families weighted alike."""
    found: dict[str, list[bool]] = {}
    for one in scores:
        sign = improves(one.case.series.metric)
        missed = not one.held and sign * (one.case.truth - one.value) > 0
        found.setdefault(one.case.family, []).append(missed)
    return float(np.mean([np.mean(family) for family in found.values()]))


def leave_family_out(all_cases: Sequence[Case]) -> tuple[list[Score], dict[str, float]]:
    """Return scores where `rise` was chosen on the other families, and what was chosen."""
    table = {rise: [score(case, xuebu(replace(DEFAULTS, rise=rise))) for case in all_cases] for rise in RISES}
    scores, chosen = [], {}
    for family in dict.fromkeys(case.family for case in all_cases):
        enough = (
            rise for rise, row in table.items() if too_low([one for one in row if one.case.family != family]) <= 0.05
        )
        chosen[family] = next(enough, RISES[-1])
        scores += [one for one in table[chosen[family]] if one.case.family == family]
    return scores, chosen


def longer(first: Path, second: Path) -> Iterator[tuple[str, float, float, float, float]]:
    """Yield name, end of the longer run, and what the shorter one, its schedule stretched, says of it."""
    ends = {name.split(":", 1)[1]: (series, schedule) for name, series, schedule in curves(second)}
    for name, series, schedule in curves(first):
        other, future = ends[name.split(":", 1)[1]]
        step = other.step.astype(np.float64)
        window = (step[-1] - 0.1 * (step[-1] - step[0]), float(step[-1]))
        for share in (0.5, 1.0):
            seen = series.part(0, int((series.step <= share * series.step[-1]).sum()))
            found = forecast_curve(seen, window=window, schedule=schedule, future=future)
            assert found.level.low is not None and found.level.high is not None
            truth = float(other.value[step >= window[0]].mean())
            yield f"{name} {share:g} -> {second.name}", truth, found.level.value, found.level.low, found.level.high


def main() -> None:
    """Print the figures, the families, the misses, and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="+", help="NAME=FOLDER,FOLDER...")
    parser.add_argument("--leave-family-out", action="store_true")
    parser.add_argument("--longer", nargs="*", default=[], help="FOLDER=FOLDER of more steps")
    asked = parser.parse_args()
    named = [one.split("=", 1) for one in asked.families]
    all_cases = [
        case for family, folders in named for folder in folders.split(",") for case in cases(family, Path(folder))
    ]
    methods = {"xuebu": xuebu(DEFAULTS), "without a rise": xuebu(replace(DEFAULTS, rise=0.0)), "last value": last_value}
    scores = {name: [score(case, method) for case in all_cases] for name, method in methods.items()}
    if asked.leave_family_out:
        scores["family left out"], chosen = leave_family_out(all_cases)
        print("rise chosen without:", ", ".join(f"{family} {rise:g}" for family, rise in chosen.items()))
    order = {id(case): at for at, case in enumerate(all_cases)}
    figures = {}
    for name, found in scores.items():
        found.sort(key=lambda one: order[id(one.case)])
        figures[name] = summarize(found, scores["last value"]) | {"ends_better": too_low(found)}
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in figures[name].items()))
        for family, _ in named:
            own = [one for one in found if one.case.family == family]
            held, points = (np.mean([getattr(one, part) for one in own]) for part in ("held", "interval_score"))
            print(f"  {family}: {len(own)} cases, cover {100 * held:.0f} %, score {points:.2f}")
    for one in scores["xuebu"]:
        if not one.held:
            print(f"missed: {one.case.name} {one.case.share}: {one.value:.4g} for {one.case.truth:.4g}")
    stretched = [row for pair in asked.longer for row in longer(*(Path(part) for part in pair.split("=", 1)))]
    for name, truth, value, low, high in stretched:
        missed = "" if low <= truth <= high else "  MISSED"
        print(f"{name}: {value:.4g} ({low:.4g} to {high:.4g}), came {truth:.4g}{missed}")
    print(json.dumps({"benchmark": "short_runs", "machine": facts(), "figures": figures, "stretched": stretched}))


if __name__ == "__main__":
    main()
