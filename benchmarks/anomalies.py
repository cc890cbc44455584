"""Faults put into clean curves: what the monitor finds, beside EMA z-score, CUSUM and Bayesian online change points.

The constants of the detector were chosen on the draws of --tuning: four shapes of curves, normal noise of lag-1
correlation 0 to 0.9 and, where XUEBU_SHARED_DATA is set, noise of three nanoGPT logs. Without it, everything is fresh:
other shapes, other correlations, and noise of four other sources (a RoBERTa, a draft head, a fine-tuning, the published
study's loss). A false-alarm rate is given for each kind of noise.

Faults: a spike that decays over 1.5 to 6 readings, a single wild reading (reported for itself: one that knew curve and
noise would find 90 % of 5 sigma at one false alarm in 10,000), a shift that stays; sigma is the standard deviation of
the readings there. The peers are given the same kind of level to subtract, and the threshold that gives them our
false-alarm rate on other clean curves. Precision depends on how rare faults are, so it is told for several rates.

The slower detectors are tried on whole runs of 1,500 training and 60 held-out readings, well ones and broken ones.

    python benchmarks/anomalies.py [--quick] [--tuning]
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import lfilter

import machine
from faulty_runs import judge_runs
from xuebu.analysis.jumps import JumpDetector
from xuebu.history import read_history

SIZE = 2000
SIGMAS = (3, 4, 5, 7, 10)
WINDOW = {"spike": 12, "single reading": 3, "shift": 40}
RARITIES = (200, 500, 1000, 2000)
TUNING_LOGS = ("nanogpt_adamw124M.log", "nanogpt_opt_a.log", "nanogpt_soap.log")
FRESH_LOGS = (
    "tb_roberta__events.out.tfevents.1685352489.Blackstar.848.7",
    "draft_head_star.trainer_state.json",
    "viettel_ft.trainer_state.json",
    "ref_bert_100k.training_history.json",
)
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Curves:
    """Where clean curves come from: which shapes and correlations, and noise of real curves in standard deviations."""

    tuning: bool
    real: dict[str, Floats]

    def draw(self, rng: np.random.Generator) -> tuple[Floats, Floats, str]:
        """Return a curve, the local standard deviation of its noise, and what kind of noise it is."""
        at = np.arange(1, SIZE + 1)
        mean = tuning_shape(rng, at) if self.tuning else fresh_shape(rng, at)
        sigma = float(rng.uniform(0.005, 0.06))
        if self.real and rng.random() < 0.5:
            name = sorted(self.real)[rng.integers(len(self.real))]
            pool = self.real[name]
            noise = np.resize(np.roll(pool, -int(rng.integers(pool.size))), SIZE)
            return mean + sigma * noise, np.full(SIZE, sigma * noise.std()), name
        rhos = (0.0, 0.0, 0.3, 0.6, 0.9) if self.tuning else (0.0, 0.15, 0.45, 0.75, 0.93)
        rho = float(rng.choice(rhos))
        noise = lfilter([math.sqrt(1 - rho**2)], [1.0, -rho], rng.normal(size=SIZE + 100))[100:]
        growing = 1 + (rng.random() < 0.5) * (mean - mean[-1]) / (mean[0] - mean[-1])
        return mean + sigma * growing * noise, sigma * np.broadcast_to(growing, (SIZE,)), f"normal, {rho:g}"

    def with_fault(self, rng: np.random.Generator, shape: str, sigmas: float) -> tuple[Floats, int]:
        """Return a curve with one fault, and its place."""
        values, sigma, _ = self.draw(rng)
        at = int(rng.integers(300, 1700))
        after = np.arange(SIZE - at)
        decay = 3.0 if self.tuning else rng.uniform(1.5, 6)
        course = {"spike": np.exp(-after / decay), "single reading": (after == 0) * 1.0, "shift": np.ones(SIZE - at)}
        values[at:] += sigmas * sigma[at] * course[shape]
        return values, at


def tuning_shape(rng: np.random.Generator, at: Floats) -> Floats:
    """Return a power law, an exponential, a logarithm, or a power law with a decay at the end."""
    match rng.integers(4):
        case 0:
            return np.asarray(2 + 6 * at ** -rng.uniform(0.2, 0.5))
        case 1:
            return np.asarray(3 + 3 * np.exp(-at / rng.uniform(100, 800)))
        case 2:
            return np.asarray(6 - 0.4 * np.log(at))
        case _:
            mean = 2.5 + 5 * at**-0.3
            mean[1600:] -= 0.2 * (1 - np.exp(-(at[1600:] - 1600) / 80))
            return np.asarray(mean)


def fresh_shape(rng: np.random.Generator, at: Floats) -> Floats:
    """Return a Weibull curve, a broken power law, two exponentials, or a logistic fall after a flat start."""
    share = at / SIZE
    match rng.integers(4):
        case 0:
            return np.asarray(2.2 + 5 * np.exp(-((at / rng.uniform(60, 400)) ** rng.uniform(0.4, 0.9))))
        case 1:
            return np.asarray(1.8 + 6 * at**-0.15 * (1 + (share / rng.uniform(0.1, 0.5)) ** 3) ** -0.1)
        case 2:
            return np.asarray(2.5 + 4 * np.exp(-at / 40) + 1.5 * np.exp(-at / rng.uniform(400, 2000)))
        case _:
            return np.asarray(3 + 5 * at**-0.3 + 1.2 / (1 + np.exp((share - rng.uniform(0.2, 0.7)) / 0.05)))


def real_noise(names: tuple[str, ...]) -> dict[str, Floats]:
    """Return what is left of real training losses around a running median, in standard deviations, without outliers."""
    shared, found = os.environ.get("XUEBU_SHARED_DATA"), {}
    for name in names:
        path = Path(shared or "") / "curves" / "raw" / name
        if shared and path.is_file():
            value = read_history(path).column("train", "loss_nats").value
            value = value[value.size // 9 :]
            blocks = np.lib.stride_tricks.sliding_window_view(value, 101)
            left = value[50:-50] - np.median(blocks, axis=1)
            around = np.lib.stride_tricks.sliding_window_view(np.pad(np.abs(left), 100, "reflect"), 201)
            left = left / (1.4826 * np.median(around, axis=1))
            found[name.split(".")[0].split("__")[0]] = np.clip(left, -3.5, 3.5)  # spikes are no noise
    return found


def ours(values: Floats) -> list[int]:
    """Return the places of our alarms."""
    detector = JumpDetector()
    return [at for at, value in enumerate(values.tolist()) if detector.update(at, value) is not None]


def residuals(values: Floats) -> Floats:
    """Return the readings less their exponential average, in running standard deviations (the peers' input)."""
    level, square = values[0], 0.0
    found = np.zeros(values.size)
    for at, value in enumerate(values.tolist()):
        gain = max(0.06, 1 / (at + 1))
        error = value - level
        found[at] = error / math.sqrt(square) if square > 0 and at > 24 else 0.0
        level += gain * error
        square += max(0.012, 1 / (at + 1)) * (error * error - square)
    return found


def z_score(values: Floats) -> Floats:
    """EMA z-score."""
    return residuals(values)


def cusum(values: Floats) -> Floats:
    """One-sided CUSUM with the textbook reference 0.5 (Page 1954); it starts anew at an alarm-sized value."""
    total, found = 0.0, np.zeros(values.size)
    for at, z in enumerate(residuals(values).tolist()):
        total = max(0.0, total + z - 0.5)
        found[at] = total
        total = min(total, 12.0)
    return found


def change_points(values: Floats) -> Floats:
    """Bayesian online change points (Adams and MacKay 2007): log odds of a run shorter than four readings.

    Normal readings of unknown mean and variance, hazard 1/250, run lengths to 150.
    """
    longest, hazard = 150, 1 / 250
    mean, strength = np.zeros(1), np.full(1, 1.0)
    shape, rate = np.full(1, 1.0), np.full(1, 1.0)
    weight = np.ones(1)
    gammas = np.array([math.lgamma(a + 0.5) - math.lgamma(a) for a in 1.0 + 0.5 * np.arange(longest + 2)])
    found = np.zeros(values.size)
    for at, x in enumerate(residuals(values).tolist()):
        spread = rate * (strength + 1) / strength
        order = (2 * (shape - 1)).astype(int)
        density = np.exp(gammas[order] - (shape + 0.5) * np.log1p((x - mean) ** 2 / (2 * spread))) / np.sqrt(spread)
        grown = weight * density * (1 - hazard)
        fresh = float((weight * density).sum() * hazard)
        weight = np.append(fresh, grown)
        mean, strength, shape, rate = (
            np.append(0.0, (strength * mean + x) / (strength + 1)),
            np.append(1.0, strength + 1),
            np.append(1.0, shape + 0.5),
            np.append(1.0, rate + strength * (x - mean) ** 2 / (2 * (strength + 1))),
        )
        weight, mean, strength, shape, rate = (one[:longest] for one in (weight, mean, strength, shape, rate))
        weight = weight / weight.sum()
        short = float(weight[:4].sum())
        found[at] = math.log(short / max(1e-300, 1 - short)) if at > 24 and mean[:4] @ weight[:4] > 0 else -50.0
    return found


PEERS: dict[str, Callable[[Floats], Floats]] = {
    "EMA z-score": z_score,
    "CUSUM": cusum,
    "Bayesian change points": change_points,
}


def episodes(scores: Floats, threshold: float) -> list[int]:
    """Return where a score rises over a threshold; readings over it within twelve are one alarm."""
    over = np.flatnonzero(scores > threshold)
    return [int(at) for place, at in enumerate(over) if place == 0 or at - over[place - 1] > 12]


def threshold_of(score: Callable[[Floats], Floats], curves: Curves, seed: int, num: int, rate: float) -> float:
    """Return the lowest threshold with at most so many alarms a clean reading."""
    rng = np.random.default_rng(seed)
    scores = [score(curves.draw(rng)[0]) for _ in range(num)]
    low, high = 0.0, float(max(one.max() for one in scores)) + 1
    for _ in range(30):
        middle = (low + high) / 2
        alarms = sum(len(episodes(one, middle)) for one in scores)
        low, high = (low, middle) if alarms <= num * SIZE * rate else (middle, high)
    return high


def false_alarms(find: Callable[[Floats], list[int]], curves: Curves, num: int) -> dict[str, Any]:
    """Return the rate of alarms on clean curves, that of each kind of noise, and the CPU time of a reading."""
    rng = np.random.default_rng(3001)
    drawn = [curves.draw(rng) for _ in range(num)]
    begin = time.process_time()
    counts = [len(find(values)) for values, _, _ in drawn]
    seconds = (time.process_time() - begin) / (num * SIZE)
    kinds = sorted({kind for _, _, kind in drawn})
    each = {one: [n for n, (_, _, kind) in zip(counts, drawn, strict=True) if kind == one] for one in kinds}
    return {
        "false_per_10000": round(sum(counts) / (num * SIZE) * 1e4, 2),
        "by_noise": {kind: round(sum(own) / (len(own) * SIZE) * 1e4, 2) for kind, own in each.items()},
        "clean_readings": num * SIZE,
        "us": round(1e6 * seconds, 1),
    }


def judge(find: Callable[[Floats], list[int]], curves: Curves, num_clean: int, num_faults: int) -> dict[str, Any]:
    """Return false alarms, recall, delay and precision of one detector, and print them."""
    row = false_alarms(find, curves, num_clean)
    print(f"{row['false_per_10000']} false alarms in 10,000 clean readings {row['by_noise']}; {row['us']} us a reading")
    recalls = []
    for shape, width in WINDOW.items():
        for sigmas in SIGMAS:
            rng, delays = np.random.default_rng(5000 + sigmas), []
            for _ in range(num_faults):
                values, at = curves.with_fault(rng, shape, sigmas)
                inside = [one for one in find(values[: at + width + 1]) if at <= one]
                delays += [inside[0] - at] if inside else []
            recall, delay = len(delays) / num_faults, float(np.median(delays)) if delays else None
            row[f"{shape} {sigmas}"] = {"recall": round(recall, 3), "median_delay": delay}
            recalls += [recall] if shape != "single reading" else []
            print(f"  {shape:15} {sigmas:2} sigma: recall {recall:.3f}, median delay {delay}")
    recall, false = float(np.mean(recalls)), row["false_per_10000"] / 1e4
    row["precision"] = {f"1 in {one}": round(recall / one / (recall / one + false + 1e-300), 3) for one in RARITIES}
    print(f"  precision over spikes and shifts of 3 to 10 sigma, at one fault in so many readings: {row['precision']}")
    return row


def main() -> None:
    quick, tuning = "--quick" in sys.argv[1:], "--tuning" in sys.argv[1:]
    num_clean, num_faults = (20, 12) if quick else (300, 200)
    curves = Curves(tuning, real_noise(TUNING_LOGS if tuning else FRESH_LOGS))
    print(f"noise of real curves: {', '.join(curves.real) or 'not used, XUEBU_SHARED_DATA is not set'}")
    print("\nxuebu: ", end="")
    results = {"xuebu": judge(ours, curves, num_clean, num_faults)}
    rate = max(results["xuebu"]["false_per_10000"] / 1e4, 1 / (num_clean * SIZE))
    for name, score in PEERS.items():
        share = 4 if name.startswith("Bayes") and not quick else 1  # a hundred times slower
        limit = threshold_of(score, curves, 177, num_clean // share, rate)
        print(f"\n{name}: ", end="")
        results[name] = judge(
            lambda values, score=score, limit=limit: episodes(score(values), limit),
            curves,
            num_clean // share,
            num_faults // share,
        )
    runs = judge_runs(6 if quick else 60)
    print(
        json.dumps(
            {
                "benchmark": "anomalies",
                "quick": quick,
                "tuning": tuning,
                "results": results,
                "runs": runs,
                "machine": machine.facts(),
            }
        )
    )


if __name__ == "__main__":
    main()
