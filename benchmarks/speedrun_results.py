"""The figures of the track: paired differences, p-values, and tokens and seconds to a target."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Line = dict[str, Any]


def read_log(out: Path) -> list[Line]:
    """Return the finished runs; a torn last line is left out."""
    path = out / "log.jsonl"
    lines = []
    for text in path.read_text(encoding="utf-8").split("\n") if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def paired_test(candidate: Sequence[float], record: Sequence[float]) -> tuple[float, float]:
    """Return mean difference and one-sided p-value that the candidate's loss is lower, by a paired t-test over seeds.

    Args:
        candidate, record: losses of the same seeds in the same order; with fewer than two there is no p-value: NaN.

    Source: Student 1908; pairs share initial weights, order and masks wherever the switches leave them alone.
    """
    from scipy import stats

    difference = np.asarray(candidate) - np.asarray(record)
    mean = float(difference.mean())
    if len(difference) < 2:
        return mean, math.nan
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
    if error == 0.0:
        return mean, 0.0 if mean < 0 else 1.0
    return mean, float(stats.t.cdf(mean / error, len(difference) - 1))


def reach(curve: Sequence[Sequence[float]], target: float, column: int) -> float | None:
    """Return tokens (column 1) or seconds (column 2) at which a curve's loss first is at or below the target.

    Between two evaluations a line is drawn; None if the target is not reached.
    """
    before: Sequence[float] | None = None
    for point in curve:
        if point[3] <= target:
            if before is None:
                return point[column]
            share = (before[3] - target) / (before[3] - point[3])
            return before[column] + share * (point[column] - before[column])
        before = point
    return None


MIN_SEEDS, MAX_P_VALUE = 3, 0.01
"""What makes a record: a lower loss by a paired test over at least so many seeds. Fewer are a screening, without p."""


def table_of(lines: Sequence[Line], out: Path, against: Sequence[str]) -> str:
    """Return a table a track and size, best mean loss first, each variant paired with the standing record.

    Args:
        lines: the log.
        out: where the tracks lie.
        against: names of standing records; each table takes the first that it holds.
    """
    parts = []
    for track, size in sorted({(line["track"], line["size"]) for line in lines}):
        here = [line for line in lines if (line["track"], line["size"]) == (track, size)]
        known = {line["variant"] for line in here}
        record = next((name for name in against if name in known), against[0])
        parts.append(_table(here, f"{track}, {size}", record))
        path = out / "tracks" / track / "baselines.json"
        if path.exists():
            counting = json.loads(path.read_text(encoding="utf-8"))
            classes = ", ".join(f"{name} {100 * value:.1f}" for name, value in counting["ngram_by_class"].items())
            parts.append(
                f"n-gram on the same input: {counting['ngram_nats']:.4f} nats, "
                f"{100 * counting['ngram_accuracy']:.2f} % ({classes})\n"
            )
    return "\n".join(parts)


def _table(lines: Sequence[Line], title: str, against: str) -> str:
    record = {line["seed"]: line for line in lines if line["variant"] == against}
    rows = []
    for variant in {line["variant"] for line in lines}:
        runs = {line["seed"]: line for line in lines if line["variant"] == variant}
        loss = float(np.mean([line["mlm_loss_nats"] for line in runs.values()]))
        seeds = sorted(runs.keys() & record.keys())
        difference, p_value = math.nan, math.nan
        if seeds and variant != against:
            pairs = [[chosen[seed]["mlm_loss_nats"] for seed in seeds] for chosen in (runs, record)]
            difference, p_value = paired_test(*pairs)
        if len(seeds) < MIN_SEEDS:
            p_value = math.nan
        share = _share_of_tokens([runs[seed] for seed in seeds], [record[seed] for seed in seeds])
        rows.append((loss, variant, runs, difference, p_value, share))
    head = (
        f"{title}\n\n| variant | seeds | nats | bits | accuracy | mask | random | kept | minus {against} | p "
        "| tokens to its loss | seconds |"
    )
    text = [head, "|---|---|---|---|---|---|---|---|---|---|---|---|"]
    for loss, variant, runs, difference, p_value, share in sorted(rows, key=lambda row: row[0]):
        means = {
            key: 100 * float(np.mean([line.get(key, math.nan) for line in runs.values()]))
            for key in ("mlm_accuracy", "mlm_accuracy_mask", "mlm_accuracy_random", "mlm_accuracy_kept")
        }
        seconds = float(np.mean([line["seconds"] for line in runs.values()]))
        text.append(
            f"| {variant} | {len(runs)} | {loss:.4f} | {loss / math.log(2):.3f} | "
            + " | ".join(f"{value:.2f}" for value in means.values())
            + f" | {_shown(difference, '+.4f')} | {_shown(p_value, '.4f')}{' *' * (p_value < MAX_P_VALUE)} | "
            + f"{_shown(share, '.2f')} | {seconds:.0f} |"
        )
    text.append(f"\n*: a record (p < {MAX_P_VALUE}, one-sided, over at least {MIN_SEEDS} seeds)")
    return "\n".join(text) + "\n"


def _share_of_tokens(runs: Sequence[Line], records: Sequence[Line]) -> float:
    """Return the mean share of the record's tokens after which a run has the record's last loss on the curve."""
    shares = []
    for run, record in zip(runs, records, strict=True):
        target, tokens = record["curve"][-1][3], record["curve"][-1][1]
        found = reach(run["curve"], target, 1)
        if found is None:
            return math.nan
        shares.append(found / tokens)
    return float(np.mean(shares)) if shares else math.nan


def _shown(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)
