"""How fast is pretraining? xuebu's trainer against transformers' Trainer and a plain loop.

All train one size of model on the same sentence pairs, 64 an update (contenders.py says how), on Wikipedia where
XUEBU_SHARED_DATA names it, else on the built-in sample; without dropout, then with 0.1. xuebu runs as it is: loader,
history, a checkpoint every 250 steps; no evaluation, since the others have none. The contenders take turns, slice by
slice of whole updates, so that a busy minute falls on all. Counted are real tokens: padding is none. Ratios are paired
by round, with the interval of the median from the order of the rounds. What surrounds an update is timed apart.

    python benchmarks/pretraining.py [--preset tiny|mini|reference|all] [--rounds 5] [--seconds 2] [--quick]

transformers' Trainer needs `pip install transformers accelerate`; tcmalloc is Debian's libtcmalloc-minimal4, and
torch_compile needs a C++ compiler. What is not there is skipped by name.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from contenders import ROWS, TCMALLOC, TITLES, VOCABULARY, Contender, around_step, prepare, useful_flops, work
from machine import facts
from xuebu.runtime import prepare_environment

BEST = ("trainer-compiled", "trainer-tcmalloc")
GROUPS = {0.0: tuple(TITLES), 0.1: ("xuebu", "trainer-fp32", "trainer-tcmalloc")}
GOALS = {
    "tiny": {(0.0, "trainer-fp32"): 12.0, (0.0, "best"): 8.0, (0.1, "trainer-fp32"): 8.5},
    "mini": {(0.0, "trainer-fp32"): 6.5, (0.0, "best"): 4.3, (0.1, "trainer-fp32"): 5.0},
    "reference": {(0.0, "trainer-fp32"): 3.2, (0.0, "best"): 1.9, (0.1, "trainer-fp32"): 2.7},
}
"""How many times as fast xuebu is meant to be."""
ENVIRONMENT = dict(os.environ)
"""As it was found: what xuebu sets for itself (xuebu.runtime) is set in its process only."""


class FailedError(Exception):
    """A contender's process has ended before its time; says what it wrote last."""


class Worker:
    """A contender's process."""

    def __init__(self, asked: Contender) -> None:
        self.asked = asked
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        environment = {"LD_PRELOAD": TCMALLOC} if asked.kind == "trainer-tcmalloc" else {}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", json.dumps(asdict(asked))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**ENVIRONMENT, **environment},
        )

    def begin(self, seconds: float, least: int = 1) -> None:
        """Let it train for `seconds` and `least` updates, to the end of the one in progress."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{seconds} {least}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has said why

    def end_slice(self) -> dict[str, Any]:
        """Wait for the end of the slice and return what was done in it."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            lines = self.errors.read().strip().split("\n")
            raise FailedError(lines[-1] or f"killed ({self.process.wait()}), for want of memory perhaps")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        self.errors.close()


def missing(kind: str, quick: bool) -> str:
    """Return why a contender cannot be asked at all; "" if it can."""
    if kind in BEST and quick:
        return "--quick does not wait for the compiler"
    if kind == "trainer-tcmalloc":
        try:
            ctypes.CDLL(TCMALLOC)
        except OSError:
            return f"{TCMALLOC} is not there"
    return ""


def measure(asked: argparse.Namespace, preset: str, dropout: float, folder: str) -> dict[str, Any]:
    """Return the slices of each contender of a group, and the peaks measured between them."""
    import torch

    from xuebu.train.machine import measure_peak, usable_cores

    torch.set_num_threads(usable_cores())
    skipped = {kind: why for kind in GROUPS[dropout] if (why := missing(kind, asked.quick))}
    kinds = [kind for kind in GROUPS[dropout] if kind not in skipped]
    workers = {kind: Worker(Contender(kind, preset, dropout, folder)) for kind in kinds}
    try:
        slices: dict[str, list[dict[str, Any]]] = {kind: [] for kind in workers}

        def ask(kind: str, seconds: float, least: int = 1) -> dict[str, Any]:
            try:
                workers[kind].begin(seconds, least)
                found = workers[kind].end_slice()
            except FailedError as error:
                if kind == "xuebu":
                    raise SystemExit(f"xuebu failed: {error}") from None
                found = {"skipped": f"failed: {error}"}
            if "skipped" in found:
                skipped[kind] = found["skipped"]
                workers.pop(kind).end()
                slices.pop(kind)
            return found

        for kind in list(workers):  # builds, compiles and warms up
            ask(kind, 0.0, least=2)
        peaks: dict[str, list[float]] = {"fp32": [], "bf16": []}
        for number in range(asked.rounds):
            for precision, rates in peaks.items():
                rates.append(measure_peak("cpu", precision))
            for kind in list(workers)[:: 1 if number % 2 == 0 else -1]:
                one = ask(kind, asked.seconds)
                if kind in slices:
                    slices[kind].append(one)
    finally:
        for worker in workers.values():
            worker.end()
    return {"slices": slices, "skipped": skipped, "peaks": {name: float(np.median(p)) for name, p in peaks.items()}}


def median_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return the narrowest interval of the median between two ordered values that covers at least 90 %, with its level.

    Where there are too few values for 90 %, the whole range with the level it has.

    Source: the binomial distribution of the number of values below the median (order statistics).
    """
    ordered, n = np.sort(values), len(values)
    below = np.cumsum([math.comb(n, k) / 2**n for k in range(n)])
    levels = [1 - 2 * float(below[k]) for k in range((n + 1) // 2)]
    k = max((k for k, level in enumerate(levels) if level >= 0.9), default=0)
    return float(ordered[k]), float(ordered[n - 1 - k]), max(levels[k], 0.0)


def goal_of(preset: str, dropout: float, kind: str, kinds: list[str]) -> float | None:
    """Return the ratio that xuebu is meant to reach against a contender; the best setting's holds for tcmalloc's."""
    best = next((name for name in reversed(BEST) if name in kinds), "")
    return GOALS[preset].get((dropout, "best" if kind == best else kind))


def describe(preset: str, dropout: float, group: dict[str, Any], flops: float) -> list[dict[str, Any]]:
    """Return a row for each contender."""
    from xuebu.train.machine import resolve_machine
    from xuebu.train.settings import TrainSettings

    rates = {
        kind: np.array([one["tokens"] / one["seconds"] for one in found]) for kind, found in group["slices"].items()
    }
    own = resolve_machine(TrainSettings(device="cpu")).precision
    rows = []
    for kind, rate in rates.items():
        precision = own if kind == "xuebu" else "fp32" if kind.endswith("fp32") else "bf16"
        row: dict[str, Any] = {
            "contender": kind,
            "precision": precision,
            "tokens_per_second": float(np.median(rate)),
            "share_of_peak": float(np.median(rate)) * flops / group["peaks"][precision],
            "slices": [round(float(value), 1) for value in rate],
            "step_seconds": float(np.median([one["seconds"] / one["steps"] for one in group["slices"][kind]])),
        }
        if kind != "xuebu":
            ratio = rates["xuebu"] / rate
            low, high, level = median_interval(ratio)
            row["xuebu_is_times"] = {"median": float(np.median(ratio)), "low": low, "high": high, "level": level}
            row["goal"] = goal_of(preset, dropout, kind, list(rates))
        rows.append(row)
    return rows


def print_table(preset: str, dropout: float, rows: list[dict[str, Any]], skipped: dict[str, str]) -> None:
    """Print one group."""
    title = f"{preset}, {VOCABULARY[preset]:,} entries, dropout {dropout}"
    print(f"\n{title:<42}{'real tokens/s':>14}{'of GEMM peak':>14}{'xuebu is ... times as fast':>28}{'goal':>8}")
    for row in rows:
        ratio, goal = row.get("xuebu_is_times"), row.get("goal")
        shown = f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio else ""
        print(
            f"{TITLES[row['contender']]:<42}{row['tokens_per_second']:>14,.0f}{row['share_of_peak']:>14.1%}{shown:>28}"
            f"{f'>= {goal}' if goal else '':>8}"
        )
    for kind, why in skipped.items():
        print(f"{TITLES[kind]:<42}{'not measured: ' + why:>64}")
    sys.stdout.flush()


def measure_preset(asked: argparse.Namespace, preset: str) -> dict[str, Any]:
    """Measure and print both groups of a preset."""
    result: dict[str, Any] = {"rows_per_update": ROWS, "vocabulary": VOCABULARY[preset], "groups": {}}
    with tempfile.TemporaryDirectory() as folder:
        result["text"] = prepare(Path(folder), VOCABULARY[preset])
        plain = Contender("xuebu", preset, 0.0, folder)
        result["flops_per_token"] = flops = useful_flops(plain)
        for dropout in GROUPS:
            group = measure(asked, preset, dropout, folder)
            rows = describe(preset, dropout, group, flops)
            print_table(preset, dropout, rows, group["skipped"])
            result["groups"][str(dropout)] = {
                "rows": rows,
                "skipped": group["skipped"],
                "peak_flops": group["peaks"],
            }
        result["around_step"] = around = around_step(plain, result["groups"]["0.0"]["rows"][0]["step_seconds"])
    parts = ", ".join(f"{name} {share:.2%}" for name, share in around.items() if name != "total")
    print(f"around an update: {around['total']:.2%} of its time ({parts}); goal: under 3 %")
    return result


def main() -> None:
    """Measure, print a table for each group, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny", choices=(*VOCABULARY, "all"))
    parser.add_argument("--rounds", type=int, default=5, help="slices of each contender")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a slice; it ends with the update in progress")
    parser.add_argument("--quick", action="store_true", help="shows that it works, no more: 2 rounds of 1 second")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        work(Contender(**json.loads(asked.worker)))
        return
    prepare_environment()
    if asked.quick:
        asked.rounds, asked.seconds = 2, 1.0
    presets = list(VOCABULARY) if asked.preset == "all" else [asked.preset]
    results = {preset: measure_preset(asked, preset) for preset in presets}
    level = median_interval(np.zeros(asked.rounds))[2]
    print(f"text: {results[presets[0]]['text']}; intervals: {level:.0%}, of the median over {asked.rounds} rounds")
    print(json.dumps({"presets": results, "rounds": asked.rounds, "machine": facts()}))


if __name__ == "__main__":
    main()
