"""Does twice the training give a higher r? The published study's comparison of N with 2N steps, at laptop scale.

Trains preset mini on Chinese Wikipedia for N and for 2N steps (each with its own cosine schedule, as published), at two
seeds or more, and once on the same sentences in random order; then prints what docs/study.md quotes. Runs unattended,
and goes on where it was interrupted.

    XUEBU_SHARED_DATA=DIR python benchmarks/twice_the_steps.py [--steps 2000] [--seeds 2] [--out runs/twice] [--quick]

The folder DIR must hold wiki_paragraphs/*.jsonl and zhwiki/shard_a.jsonl; without it nothing is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from machine import facts, shared_data, wiki_files
from xuebu.analysis.analyze import analyze_history
from xuebu.analysis.fit import fit_curve
from xuebu.analysis.series import Series
from xuebu.corpus.document import CorpusFile
from xuebu.history.records import read_history
from xuebu.rng import draw_bits, key_of

ROWS = 32  # sequences a step: the published study's micro-batch, whose accuracy it recorded


@dataclass(frozen=True)
class Run:
    """One training run of the experiment."""

    name: str
    corpus: str
    steps: int
    seed: int


def runs_of(steps: int, seeds: int) -> list[Run]:
    """Return all runs, longest first, so that two workers end at about the same time."""
    ordered = [
        Run(f"{factor}n-seed{seed}", "ordered", factor * steps, seed) for factor in (2, 1) for seed in range(seeds)
    ]
    return [*ordered, Run("shuffled-seed0", "shuffled", steps, 0)]


def xuebu(*arguments: object) -> None:
    """Run a command of xuebu; end with its message if it fails."""
    command = [sys.executable, "-m", "xuebu", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[2:])}: {done.stderr.strip() or done.stdout.strip()}")


def prepare_corpora(folder: Path) -> None:
    """Build the corpus as it is written, and one of the same sentences in random order."""
    ordered, shuffled = folder / "ordered", folder / "shuffled"
    settings = ("--corpus.held-out-fraction", 0.04, "--corpus.script", "hans")
    if not (ordered / "card.json").exists():
        xuebu("corpus", "build", *wiki_files(), "--out", ordered, *settings)
    if not (shuffled / "card.json").exists():
        source = folder / "shuffled.jsonl"
        with source.open("w", encoding="utf-8") as stream:
            for split in ("train", "held_out"):
                for line in shuffle_sentences(ordered / f"{split}.jsonl"):
                    stream.write(line + "\n")
        xuebu("corpus", "build", source, "--out", shuffled, *settings)


def shuffle_sentences(path: Path) -> list[str]:
    """Return the documents of a split, as lines of JSON, with all sentences of the split in random order."""
    documents = list(CorpusFile(path))
    sentences = [sentence for document in documents for sentence in document.sentences]
    order = np.argsort(draw_bits(key_of("shuffle", path.stem), np.arange(len(sentences))))
    mixed = iter([sentences[index] for index in order])
    return [
        json.dumps(
            {
                "id": f"{path.stem}-{number}",
                "title": document.group,
                "text": "\n".join(next(mixed) for _ in document.sentences),
            },
            ensure_ascii=False,
        )
        for number, document in enumerate(documents)
    ]


def train(run: Run, folder: Path, extra: Sequence[str]) -> None:
    """Train a run, or go on with it."""
    out = folder / run.name
    if (out / "report.html").exists():
        return
    if (out / "run.toml").exists():
        xuebu("train", "--resume", out)
        return
    settings = {
        "batches.sequences-per-step": ROWS,
        "train.steps": run.steps,
        "train.warmup-steps": run.steps // 10,
        "train.seed": run.seed,
        "train.threads": 1,
        "train.record-every": 1,
        "train.evaluate-every": max(run.steps // 60, 1),
        "train.checkpoint-every": 250,
    }
    flags = [word for key, value in settings.items() for word in (f"--{key}", value)]
    xuebu("train", "--corpus", folder / run.corpus, "--out", out, "--recipe", "mini-wiki", *flags, *extra)


def thinned(series: Series, every: int) -> Series:
    """Return the readings at multiples of `every` steps: one training batch each, as the published study recorded."""
    keep = series.step % every == 0
    count = None if series.count is None else series.count[keep]
    return Series(series.step[keep], series.value[keep], count, series.metric, series.kind)


def part(series: Series, first: float, last: float) -> Series:
    """Return the readings in a window given as shares of the run."""
    end = series.step[-1]
    keep = (series.step > first * end) & (series.step <= last * end)
    count = None if series.count is None else series.count[keep]
    return Series(series.step[keep], series.value[keep], count, series.metric, series.kind)


def pearson(series: Series) -> float:
    """Return r of step and value."""
    return float(np.corrcoef(series.step, series.value)[0, 1])


def describe(run: Run, folder: Path) -> dict[str, Any]:
    """Return the figures of one run: levels, r by what is read and in which window, and its honest interval."""
    history = read_history(folder / run.name / "history.jsonl")
    held_out = history.column("eval", "mlm_accuracy")
    batches = thinned(history.column("train", "mlm_accuracy"), max(run.steps // 200, 1))
    scores = json.loads((folder / run.name / "baselines.json").read_text(encoding="utf-8"))
    quoted = analyze_history(history).correlations["pearson"].recommended
    return {
        **asdict(run),
        "accuracy": scores["mlm"]["model"],
        "ngram": scores["mlm"]["ngram"]["accuracy"],
        "nsp": scores.get("nsp", {}).get("model"),
        "overlap_rule": scores.get("nsp", {}).get("overlap_rule"),
        "readings_held_out": len(held_out.step),
        "readings_batches": len(batches.step),
        "predictions_a_batch": float(np.median(batches.count)) if batches.count is not None else None,
        "r_held_out": pearson(held_out),
        "r_held_out_interval": None if quoted is None else [quoted.low, quoted.high, quoted.effective_size],
        "r_batches": pearson(batches),
        "r_held_out_second_half": pearson(part(held_out, 0.5, 1.0)),
        "r_batches_second_half": pearson(part(batches, 0.5, 1.0)),
        "r_held_out_first_tenth_left_out": pearson(part(held_out, 0.1, 1.0)),
    }


def extrapolate(short: Run, long: Run, folder: Path) -> dict[str, float]:
    """Return what fits to the N-step run say for step 2N, and what the 2N-step run reached there."""
    seen = read_history(folder / short.name / "history.jsonl").column("eval", "mlm_accuracy")
    happened = read_history(folder / long.name / "history.jsonl").column("eval", "mlm_accuracy")
    said = {family: float(fit_curve(seen, family).predict(long.steps)) for family in ("linear", "saturating")}
    same_step = float(np.interp(short.steps, happened.step, happened.value))
    return {
        **said,
        "at_n_short_run": float(seen.value[-1]),
        "at_n_long_run": same_step,
        "at_2n_long_run": float(happened.value[-1]),
    }


def print_tables(results: dict[str, Any]) -> None:
    """Print what docs/study.md quotes."""
    print(f"\n{'run':<16}{'steps':>6}{'accuracy %':>20}{'r held out':>12}{'interval':>16}{'r of batches':>14}", end="")
    print(f"{'r 2nd half':>12}{'r batches 2nd':>15}{'NSP %':>20}")
    for row in results["runs"]:
        level, pairs = row["accuracy"], row["nsp"]
        interval = row["r_held_out_interval"]
        ends = "none" if interval is None or interval[0] is None else f"{interval[0]:.2f} to {interval[1]:.2f}"
        shown = f"{100 * level['accuracy']:.1f} ({100 * level['low']:.1f}-{100 * level['high']:.1f})"
        nsp = (
            ""
            if pairs is None
            else f"{100 * pairs['accuracy']:.1f} ({100 * pairs['low']:.1f}-{100 * pairs['high']:.1f})"
        )
        print(f"{row['name']:<16}{row['steps']:>6}{shown:>20}{row['r_held_out']:>12.3f}{ends:>16}", end="")
        print(
            f"{row['r_batches']:>14.3f}{row['r_held_out_second_half']:>12.3f}{row['r_batches_second_half']:>15.3f}{nsp:>20}"
        )
    print(
        "\nheld-out accuracy at 2N steps, %: said by fits to the run of N steps, and what the run of 2N steps reached"
    )
    print(f"{'seed':<6}{'line':>8}{'curve':>8}{'happened':>10}{'at N, N run':>14}{'at N, 2N run':>14}")
    for seed, row in results["extrapolations"].items():
        names = ("linear", "saturating", "at_2n_long_run", "at_n_short_run", "at_n_long_run")
        line, curve, happened, short, long = (100 * row[name] for name in names)
        print(f"{seed:<6}{line:>8.1f}{curve:>8.1f}{happened:>10.1f}{short:>14.1f}{long:>14.1f}")


def main() -> None:
    """Train what is missing, then print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="N; the longer runs have 2N")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), help="runs at a time, one core each"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/twice"))
    parser.add_argument("--quick", action="store_true", help="60 steps of preset tiny: shows that it works, no more")
    asked = parser.parse_args()
    steps, folder = (60, asked.out.with_name("twice-quick")) if asked.quick else (asked.steps, asked.out)
    if not (folder / "ordered" / "card.json").exists():
        shared_data()  # says what is missing
    folder.mkdir(parents=True, exist_ok=True)
    runs = runs_of(steps, asked.seeds)
    prepare_corpora(folder)
    with ThreadPoolExecutor(asked.workers) as pool:
        list(pool.map(lambda run: train(run, folder, ["--preset", "tiny"] if asked.quick else []), runs))
    by_name = {run.name: run for run in runs}
    results = {
        "runs": [describe(run, folder) for run in runs],
        "extrapolations": {
            seed: extrapolate(by_name[f"1n-seed{seed}"], by_name[f"2n-seed{seed}"], folder)
            for seed in range(asked.seeds)
        },
        "machine": facts(),
    }
    print_tables(results)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
