"""Does training in bfloat16 cost accuracy? A recipe in fp32 and in bf16 from the same seeds, held-out losses paired.

Each pair of runs shares initial weights, order and masks. Printed are the differences of the last held-out loss with
the 90 % interval of their mean (paired, Student's t); what is asked for is an interval within 0.02 nats either way.
A run that ends near the plateau on which every small run lingers tells nothing: when it leaves that is chance. The
default recipe is past it within some hundred steps. One thread; an interrupted experiment goes on where it stopped.

    PYTHONPATH=src python benchmarks/precision.py [--recipe modern-tiny] [--seeds 6] [--steps 800] [--out DIR] [--quick]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np

from contenders import prepare
from machine import facts
from xuebu.cli.flags import load_recipe
from xuebu.history.records import read_history
from xuebu.runtime import prepare_environment
from xuebu.study import StudyFolder
from xuebu.train.folder import RunFolder, read_run_facts
from xuebu.train.session import is_finished, resume_run, start_run

LIMIT_NATS, LEVEL = 0.02, 0.90


def train(study: StudyFolder, folder: Path, seed: int, precision: Literal["fp32", "bf16"], asked: Any) -> float:
    """Train one run, or go on with it, and return its last held-out loss in nats."""
    run = RunFolder(folder)
    if not is_finished(run):
        recipe = load_recipe(asked.recipe)
        settings = dataclasses.replace(
            recipe.train,
            steps=asked.steps,
            warmup_steps=asked.steps * recipe.train.warmup_steps // recipe.train.steps,
            evaluate_every=asked.steps,
            checkpoint_every=max(1, asked.steps // 4),
            seed=seed,
            threads=1,
            device="cpu",
            precision=precision,
        )
        recipe = dataclasses.replace(recipe, train=settings)
        if run.run_toml.exists():
            resume_run(run)
        else:
            start_run(
                run,
                recipe,
                train_store=study.store("train"),
                held_out_store=study.store("held_out"),
                vocabulary=study.vocabulary,
            )
    if read_run_facts(run).machine.precision != precision:
        raise SystemExit(f"not measured: this processor has no fast {precision}")
    return float(read_history(run.history).column("eval", "mlm_loss_nats").value[-1])


def describe(differences: np.ndarray) -> dict[str, Any]:
    """Return mean and interval of paired differences, bf16 minus fp32.

    Source: Student 1908; two one-sided tests at 5 % each are a 90 % interval within the limits (Schuirmann 1987).
    """
    from scipy.stats import t

    n, mean = len(differences), float(differences.mean())
    half = float(t.ppf(0.5 + LEVEL / 2, n - 1) * differences.std(ddof=1) / np.sqrt(n))
    low, high = mean - half, mean + half
    return {"mean": mean, "low": low, "high": high, "level": LEVEL, "within": low > -LIMIT_NATS and high < LIMIT_NATS}


def main() -> None:
    """Train all pairs, print a table, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="modern-tiny")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--out", type=Path, help="folder of the runs; without, they are not kept")
    parser.add_argument("--quick", action="store_true", help="shows that it works, no more: 2 seeds of 10 steps")
    asked = parser.parse_args()
    prepare_environment()
    if asked.quick:
        asked.seeds, asked.steps, asked.out = 2, 10, None
    with tempfile.TemporaryDirectory() as temporary:
        out = asked.out or Path(temporary)
        study = StudyFolder(out / "data")
        if not study.store("held_out").exists():
            prepare(out / "data", 0)
        losses = []
        for seed in range(asked.seeds):
            pair = [train(study, out / f"{name}-{seed}", seed, name, asked) for name in ("fp32", "bf16")]
            losses.append(pair)
            print(
                f"seed {seed}: fp32 {pair[0]:.4f}, bf16 {pair[1]:.4f}, difference {pair[1] - pair[0]:+.4f}", flush=True
            )
    table = np.array(losses)
    found = describe(table[:, 1] - table[:, 0])
    told = "within" if found["within"] else "NOT within"
    print(
        f"bf16 minus fp32: {found['mean']:+.4f} nats (90 % interval {found['low']:+.4f} to {found['high']:+.4f}), "
        f"{told} {LIMIT_NATS} either way; {asked.seeds} seeds of {asked.steps} steps of {asked.recipe}"
    )
    print(json.dumps({"losses": losses, **found, "steps": asked.steps, "recipe": asked.recipe, "machine": facts()}))


if __name__ == "__main__":
    main()
