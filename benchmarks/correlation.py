"""Do the intervals of a correlation hold what they promise? Coverage by simulation, cell by cell.

    .venv/bin/python benchmarks/correlation.py [--quick] [--series 1000] [--out correlation.jsonl]

A cell is a process, a correlation rho from reading to reading and a number of readings. Each cell is written to --out
when it is done, those with at least 20
effective readings first; started again, the program goes on after the last. Processes:

    level_ar1     no trend, AR(1) noise
    level_arma    no trend, ARMA(1,1) noise: phi = rho, theta = -0.5 (wandering plus noise of the reading itself)
    level_ma      no trend, ARMA(1,1) noise: phi = rho, theta = 0.5
    level_arma21  no trend, ARMA(2,1) noise, roots rho and 0.5, theta = 0.3: outside the forms of noise that are fitted
    line_ar1      a line of twice the noise's scatter, AR(1) noise
    bend_ar1      1 - exp(-5 t) of twice the noise's scatter, AR(1) noise
    pair_ar1      two metrics, each AR(1), that correlate by 0.5

The estimand is that of `xuebu.analysis.estimand` (for a pair: the correlation of the stationary distribution). True
effective size: readings times variance over long-run variance; for a pair n / (1 + 2 sum of rho_x rho_y). A series is
refused where it gets no p-value. Coverage is over all series, and over those not refused.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import lfilter
from scipy.stats import rankdata

from machine import facts
from xuebu.analysis.correlation import coefficient_of, fisher_interval
from xuebu.analysis.estimand import COEFFICIENTS, Coefficient, grid_of, pearson_of, rank_coefficients_of
from xuebu.analysis.honest import EFFECTIVE_FLOOR, pair_memory, quote_pair, quote_step
from xuebu.analysis.influence import influence
from xuebu.analysis.likelihood import TrendNoise, trend_columns, trend_noise
from xuebu.history.series import Floats
from xuebu.rng import seed_of

PROCESSES = ("level_ar1", "level_arma", "level_ma", "level_arma21", "line_ar1", "bend_ar1", "pair_ar1")
RHOS = (0.0, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99)
SIZES = (50, 500, 100, 1000, 200, 5000)  # so that an interrupted run holds all scales
BATCH, DRAWS = 50, 1000
PAIR = 0.5
Polynomials = tuple[list[float], list[float]]


def polynomials(process: str, rho: float) -> Polynomials:
    """Return the moving-average and the autoregressive polynomial of a process's noise."""
    match process:
        case "level_arma":
            return [1.0, -0.5], [1.0, -rho]
        case "level_ma":
            return [1.0, 0.5], [1.0, -rho]
        case "level_arma21":
            return [1.0, 0.3], [1.0, -rho - 0.5, 0.5 * rho]
        case _:
            return [1.0], [1.0, -rho]


def autocorrelations(parts: Polynomials, lags: int) -> tuple[float, Floats]:
    """Return the variance over that of the innovations, and autocorrelations at lags 0 to `lags`."""
    length = 1 << 17
    impulse = lfilter(*parts, np.eye(1, length)[0])
    products = np.fft.irfft(np.abs(np.fft.rfft(impulse, 2 * length)) ** 2)[: lags + 1]
    return float(products[0]), products / products[0]


def noise(parts: Polynomials, rows: int, num: int, generator: np.random.Generator) -> Floats:
    """Return float64[rows, num] of noise of variance 1, in its stationary state."""
    burn = 200 + int(12 / (1 + sum(parts[1][1:])))
    drawn = lfilter(*parts, generator.normal(size=(rows, num + burn)), axis=1)[:, burn:]
    return np.asarray(drawn / math.sqrt(autocorrelations(parts, 1)[0]), dtype=np.float64)


def true_effective_size(parts: Polynomials, num: int, *, pair: bool) -> float:
    """Return the number of independent readings that these are worth; more than there are for negative correlation."""
    rho = autocorrelations(parts, 1 << 16)[1][1:]
    return num / (1 + 2 * float((rho**2 if pair else rho).sum()))


def trend_of(process: str, num: int) -> Floats:
    """Return the trend, in units of the noise's scatter."""
    share = np.linspace(0, 1, num)
    shape = {"line_ar1": share, "bend_ar1": 1 - np.exp(-5 * share)}.get(process)
    return np.zeros(num) if shape is None else np.asarray(2 * shape / shape.std())


def truth_on_grid(mean: Floats, step: Floats, parts: Polynomials, name: Coefficient) -> float:
    """Return what a coefficient of step and value estimates."""
    if name == "pearson":
        columns, place = trend_columns(step)
        along = columns[:, : place + 1].T @ mean
        left = math.sqrt(max(float(((mean - mean.mean()) ** 2).sum()) - float(along[place]) ** 2, 0.0))
        return float(pearson_of(np.array([[0.0, along[place], left]]), np.ones(1), 1, step.size)[0])
    rho, at = autocorrelations(parts, step.size)[1], grid_of(step.size)
    decay = np.array([rho[2] / rho[1] if abs(rho[1]) > 1e-9 else 0.0])
    both = rank_coefficients_of(mean[at][None], np.ones(1), rho[1:2], decay, step.size)
    return float(both[0][0] if name == "spearman" else both[1][0])


def truth_of_pair(name: Coefficient) -> float:
    """Return the coefficient of two normal values that correlate by PAIR."""
    match name:
        case "pearson":
            return PAIR
        case "spearman":
            return 6 / math.pi * math.asin(PAIR / 2)
        case "kendall":
            return 2 / math.pi * math.asin(PAIR)


def series_of(process: str, rho: float, num: int, rows: int, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Return the left-hand side (steps, or the first metric [rows, num]) and values [rows, num]."""
    parts = polynomials(process, rho)
    first: Floats = noise(parts, rows, num, generator)
    if process == "pair_ar1":
        other = noise(parts, rows, num, generator)
        return first, np.asarray(PAIR * first + math.sqrt(1 - PAIR**2) * other, dtype=np.float64)
    return np.arange(1, num + 1, dtype=np.float64) * 100.0, np.asarray(trend_of(process, num) + first)


def memory_of(name: Coefficient, x: Floats, y: Floats) -> Floats:
    """Return what the memory of a pair is told by: of ranks for a rank coefficient."""
    return pair_memory(x, y) if name == "pearson" else pair_memory(rankdata(x), rankdata(y))


def _effective_size(process: str, rho: float, num: int) -> float:
    return true_effective_size(polynomials(process, rho), num, pair=process == "pair_ar1")


def measure(process: str, rho: float, num: int, rows: int, names: tuple[Coefficient, ...]) -> dict[str, Any]:
    """Return coverage, refusals and what goes with them for one cell."""
    began, parts = time.perf_counter(), polynomials(process, rho)
    generator = np.random.default_rng(seed_of("correlation", process, str(rho), num))
    pair = process == "pair_ar1"
    seen: dict[Coefficient, list[tuple[bool, bool, bool, float, float, bool]]] = {name: [] for name in names}
    for first in range(0, rows, BATCH):
        count = min(BATCH, rows - first)
        left, values = series_of(process, rho, num, count, generator)
        fitted = memory = None if pair else trend_noise(left, values)
        for name in names:
            if pair:
                moves = np.stack([influence(name, x, y) for x, y in zip(left, values, strict=True)])
                parts = np.concatenate([memory_of(name, x, y) for x, y in zip(left, values, strict=True)])
                fitted, memory = (trend_noise(np.arange(num * 1.0), one, level_only=True) for one in (moves, parts))
            assert fitted is not None and memory is not None
            truth = truth_of_pair(name) if pair else truth_on_grid(trend_of(process, num), left, parts, name)
            seen[name] += [
                _one(
                    (fitted, memory),
                    name,
                    row,
                    (left[row] if pair else left, values[row]),
                    truth,
                    pair=pair,
                    seed=first + row,
                )
                for row in range(count)
            ]
    size = _effective_size(process, rho, num)
    found = {"process": process, "rho": rho, "num": num, "series": rows, "effective_size": round(size, 1)}
    for name, rows_seen in seen.items():
        found[name] = _told(np.array(rows_seen, dtype=np.float64))
    return {**found, "seconds": round(time.perf_counter() - began, 1)}


def _one(
    fitted: tuple[TrendNoise, TrendNoise],
    name: Coefficient,
    row: int,
    pairs: tuple[Floats, Floats],
    truth: float,
    *,
    pair: bool,
    seed: int,
) -> tuple[bool, bool, bool, float, float, bool]:
    x, y = pairs
    own = coefficient_of(name, x, y)[0] if pair or name == "pearson" else 0.0
    quoted = (
        quote_pair(*fitted, own, row=row, draws=DRAWS, seed=seed)
        if pair
        else quote_step(fitted[0], name, row=row, draws=DRAWS if name == "pearson" else 200, seed=seed, tested=False)
    )
    naive = fisher_interval(name, own, y.size, 0.95)
    assert naive[0] is not None and naive[1] is not None
    covered = quoted.low <= truth <= quoted.high
    apart = not quoted.refused and not quoted.low <= 0 <= quoted.high
    return (
        covered,
        quoted.refused,
        naive[0] <= truth <= naive[1],
        quoted.effective_size,
        quoted.high - quoted.low,
        apart,
    )


def _told(rows: Floats) -> dict[str, Any]:
    covered, refused, naive, size, width, apart = rows.T
    kept = refused == 0

    def share(values: Floats) -> list[float] | None:
        if not values.size:
            return None
        mean = float(values.mean())
        return [round(mean, 4), round(math.sqrt(max(mean * (1 - mean), 0.5 / values.size) / values.size), 4)]

    return {
        "coverage": share(covered),
        "coverage_not_refused": share(covered[kept]),
        "refused": share(refused),
        "coverage_naive": share(naive),
        "effective_size_median": round(float(np.median(size)), 1),
        "width_median": round(float(np.median(width)), 4),
        "without_0_not_refused": share(apart[kept]),
    }


def report(cells: list[dict[str, Any]], names: tuple[Coefficient, ...]) -> dict[str, Any]:
    """Print the table, and return what it comes to."""
    total: dict[str, Any] = {}
    for name in names:
        print(f"\n{name}: coverage of 95 % intervals in percent (Monte Carlo error); * true effective size below 20")
        print(
            f"{'process':<13} {'rho':>5} {'n':>5} {'series':>6} {'n_eff':>7} {'all':>12} {'not refused':>12} "
            f"{'refused':>7} {'naive':>6}"
        )
        for cell in cells:
            if name not in cell:
                continue
            one = cell[name]
            mark = " " if cell["effective_size"] >= EFFECTIVE_FLOOR else "*"
            kept = one["coverage_not_refused"]
            print(
                f"{cell['process']:<13} {cell['rho']:>5} {cell['num']:>5} {cell['series']:>6} "
                f"{cell['effective_size']:>6.0f}{mark} "
                f"{100 * one['coverage'][0]:>6.1f} ({100 * one['coverage'][1]:.1f}) "
                + (f"{100 * kept[0]:>6.1f} ({100 * kept[1]:.1f}) " if kept else f"{'none':>12} ")
                + f"{100 * one['refused'][0]:>7.1f} {100 * one['coverage_naive'][0]:>6.1f}"
            )
        total[name] = _total([cell for cell in cells if name in cell], name)
        print(json.dumps(total[name]))
    return total


def _total(cells: list[dict[str, Any]], name: str) -> dict[str, Any]:
    enough = [cell for cell in cells if cell["effective_size"] >= EFFECTIVE_FLOOR]
    covers = np.array([cell[name]["coverage"] for cell in enough])
    refused = np.array([cell[name]["refused"][0] for cell in enough])
    outside = (covers[:, 0] < 0.93) | (covers[:, 0] > 0.97)
    sure = (covers[:, 0] < 0.93 - 2 * covers[:, 1]) | (covers[:, 0] > 0.97 + 2 * covers[:, 1])
    return {
        "cells_with_20": len(enough),
        "coverage_least_mean_most": [round(float(f(covers[:, 0])), 4) for f in (np.min, np.mean, np.max)],
        "cells_outside_93_97": [_key(cell) for cell, out in zip(enough, outside, strict=True) if out],
        "outside_by_two_errors": [_key(cell) for cell, out in zip(enough, sure, strict=True) if out],
        "most_refused": round(float(refused.max()), 4),
        "mean_refused": round(float(refused.mean()), 4),
        "cells_below_20": len(cells) - len(enough),
    }


def _key(cell: dict[str, Any]) -> str:
    return f"{cell['process']} {cell['rho']} {cell['num']}"


def main() -> None:
    """Run the cells that --out does not hold yet, then print them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few cells of 200 series")
    parser.add_argument("--series", type=int, default=1000, help="series a cell")
    parser.add_argument("--ranks", action="store_true", help="Spearman and Kendall too (slow)")
    parser.add_argument("--out", type=Path, help="JSON lines, one a cell; cells found there are not run again")
    parser.add_argument("--report", action="store_true", help="print what --out holds and run nothing")
    asked = parser.parse_args()
    names: tuple[Coefficient, ...] = COEFFICIENTS if asked.ranks else ("pearson",)
    rows = 200 if asked.quick else asked.series
    rhos, sizes = ((0.0, 0.5, 0.9), (50, 500)) if asked.quick else (RHOS, SIZES)
    lines = asked.out.read_text(encoding="utf-8").splitlines() if asked.out and asked.out.exists() else []
    cells = [json.loads(line) for line in lines if line.endswith("}")]
    done = {_key(cell) for cell in cells if cell["series"] >= rows and names[-1] in cell}
    todo = [(p, rho, num) for num in sizes for rho in rhos for p in PROCESSES if f"{p} {rho} {num}" not in done]
    todo = [] if asked.report else sorted(todo, key=lambda cell: _effective_size(*cell) < EFFECTIVE_FLOOR)
    for number, (process, rho, num) in enumerate(todo, start=1):
        cells.append(measure(process, rho, num, rows, names))
        print(f"{number} of {len(todo)}: {_key(cells[-1])}, {cells[-1]['seconds']} s", file=sys.stderr)
        if asked.out:
            with asked.out.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(cells[-1]) + "\n")
    cells = sorted(
        {_key(cell): cell for cell in cells if cell["series"] >= rows}.values(),
        key=lambda cell: (PROCESSES.index(cell["process"]), cell["rho"], cell["num"]),
    )
    total = report(cells, names)
    print(json.dumps({"benchmark": "correlation", "series": rows, **total, "machine": facts()}))


if __name__ == "__main__":
    main()
