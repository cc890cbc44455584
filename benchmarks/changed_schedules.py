"""Do forecasts hold for another schedule than the run's own? Nine curves of one model, each with its own schedule.

    XUEBU_SHARED_DATA=DIR python benchmarks/changed_schedules.py [--changed 1.3]

Each curve of Luo et al. (2025), cut at 20, 30 and 50 % and whole, is asked for the end of every other whose schedule
differs and that ends later: the mean loss over the last tenth, with a 90 % interval. All are one family: the factor on
the spread for runs that are over was chosen on these very curves.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from machine import facts, shared_data
from xuebu.analysis.annealing import Schedule
from xuebu.analysis.ensemble import DEFAULTS, EnsembleSettings
from xuebu.analysis.outlook import forecast_curve
from xuebu.history.series import Series

SHARES = (0.2, 0.3, 0.5, 1.0)
SAME = 1e-3


def curves(folder: Path) -> dict[str, tuple[Series, Schedule]]:
    """Return each curve with its schedule."""
    found = {}
    for path in sorted((folder / "csv").glob("mpl_*.csv")):
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        name = rows[0]["name"]
        step, value = (np.array([float(row[part]) for row in rows]) for part in ("step", "value"))
        rates = np.loadtxt(folder / "lr" / f"{name}.csv", delimiter=",", skiprows=1)
        found[name] = Series(step.astype(np.int64), value, None, "loss_nats"), Schedule(rates[:, 0], rates[:, 1])
    return found


def answers(
    runs: dict[str, tuple[Series, Schedule]], share: float, settings: EnsembleSettings
) -> Iterator[tuple[str, float, float, float, float]]:
    """Yield question, truth, forecast and the ends of its interval for runs cut at one share."""
    for name, (series, schedule) in runs.items():
        first, last = int(series.step[0]), int(series.step[-1])
        seen = series.part(0, int((series.step <= first + share * (last - first)).sum()))
        for other, (later, future) in runs.items():
            end = int(later.step[-1])
            grid = np.linspace(0, end, 200)
            apart = float(np.abs(schedule.at(grid) - future.at(grid)).max())
            if apart < SAME * schedule.peak or seen.step[-1] >= 0.95 * end:
                continue
            window = (end - 0.1 * (end - int(later.step[0])), float(end))
            level = forecast_curve(seen, window=window, schedule=schedule, future=future, settings=settings).level
            assert level.low is not None and level.high is not None
            truth = float(later.value[later.step >= window[0]].mean())
            yield f"{name} -> {other}", truth, level.value, level.low, level.high


def main() -> None:
    """Print coverage by share seen, the misses, and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changed", type=float, default=DEFAULTS.changed, help="factor on the spread of runs over")
    asked = parser.parse_args()
    runs = curves(shared_data() / "curves")
    figures = {}
    for share in SHARES:
        found = list(answers(runs, share, replace(DEFAULTS, changed=asked.changed)))
        held = [low <= truth <= high for _, truth, _, low, high in found]
        errors = [abs(value - truth) for _, truth, value, _, _ in found]
        figures[str(share)] = {"questions": len(found), "cover": float(np.mean(held)), "error": float(np.mean(errors))}
        print(
            f"seen to {100 * share:.0f} %: {len(found)} questions, cover {100 * np.mean(held):.0f} %, "
            f"mean error {np.mean(errors):.3f} nats"
        )
        for (name, truth, value, low, high), inside in zip(found, held, strict=True):
            if not inside:
                print(f"  missed: {name}: {value:.3f} ({low:.3f} to {high:.3f}), came {truth:.3f}")
    print(
        json.dumps({"benchmark": "changed_schedules", "changed": asked.changed, "figures": figures, "machine": facts()})
    )


if __name__ == "__main__":
    main()
