"""How much does a recipe learn from each token? Fixed text, questions and budgets; the rules are in docs/records.md.

A variant is a recipe with changed switches, by name, in benchmarks/speedrun.toml; the queue there says which are run
on which track and size with which seeds. Runs go one after another; each finished one is a line of OUT/log.jsonl.
Killed at any moment, the program goes on where it stopped, and several may work on one queue: a run is claimed by a
lock.

    XUEBU_SHARED_DATA=DIR python benchmarks/speedrun.py run [--out runs/speedrun] [--threads 1] [--queue FILE] [--quick]
    python benchmarks/speedrun.py table [--out runs/speedrun] [--against c-b16-lr1e-3]

The folder DIR must hold wiki_paragraphs/, zhwiki/ and, for the second track, zh_histories_modern/ and zh_laws/.
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import json
import math
import os
import shutil
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from machine import facts, shared_data, wiki_files
from speedrun_results import read_log, table_of
from xuebu.config import settings_from, to_table
from xuebu.runtime import prepare_environment

QUEUE = Path(__file__).with_name("speedrun.toml")
BUDGETS = {"tiny": 4_000_000, "mini": 6_000_000}
"""Real tokens that a run may see."""
PREDICTIONS = 40_000
"""At most so many held-out predictions decide a score."""
STANDING = ("tc5-modern", "classic-b16-lr5e-4")
"""The standing record of each size: at `mini` the tuned classic recipe, until there is one."""
CURVE_PREDICTIONS, CURVE_POINTS = 6_000, 20
"""The first of the same questions are asked along the run; tokens and seconds to a target are read off there."""
MORE_FILES = ("zh_histories_modern/modern.jsonl", "zh_laws/laws.jsonl")


@dataclass(frozen=True)
class Run:
    """One entry of the queue: a variant on a track at a size, with a seed."""

    track: str
    size: str
    variant: str
    seed: int
    changes: tuple[tuple[str, Any], ...]

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.track}-{self.size}-{self.variant}-{self.seed}"


def read_queue(path: Path) -> list[Run]:
    """Return the runs of a queue file in its order; a variant that is `like` another changes more."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))

    def changes_of(name: str) -> dict[str, Any]:
        own = dict(table["variants"][name])
        parent = own.pop("like", None)
        return {**(changes_of(parent) if parent else {}), **own}

    return [
        Run(entry["track"], entry["size"], variant, seed, tuple(sorted(changes_of(variant).items())))
        for entry in table["queue"]
        for seed in entry["seeds"]
        for variant in entry["variants"]
    ]


def prepare_track(out: Path, track: str) -> None:
    """Build corpus, vocabulary and stores of a track, and score counting on its questions, unless they are there."""
    from xuebu.batches.baselines import score_baselines
    from xuebu.batches.loader import Loader
    from xuebu.batches.settings import BatchSettings
    from xuebu.corpus.build import build_corpus
    from xuebu.corpus.card import load_card
    from xuebu.corpus.sources import read_documents
    from xuebu.files import write_json
    from xuebu.study import StudyFolder, prepare_tokens

    study = StudyFolder(out / "tracks" / track)
    if (study.path / "baselines.json").exists():
        return
    recipe = track_recipe()
    if not (study.corpus / "card.json").exists():
        files = wiki_files() + ([shared_data() / name for name in MORE_FILES] if track == "mixed" else [])
        build_corpus(read_documents(files, recipe.corpus), study.corpus, recipe.corpus)
    prepare_tokens(study, study.corpus, load_card(study.corpus).digest, recipe)
    vocabulary, train, _ = open_track(out, track)
    loader = Loader(train, vocabulary, BatchSettings(), 0)
    questions = questions_of(out, track, PREDICTIONS)
    counting = score_baselines(train, (loader.batch(step) for step in range(1, 33)), questions, vocabulary)
    kinds = np.concatenate([batch.mask_kinds for batch in questions])
    by_class = {name: float(counting.ngram_correct[kinds == kind].mean()) for kind, name in enumerate(CLASSES)}
    tokens = {"training_tokens": train.num_tokens, "entries": vocabulary.num_tokens}
    write_json(study.path / "baselines.json", {**counting.to_json(), "ngram_by_class": by_class, **tokens})


CLASSES = ("mask", "random", "kept")
_QUICK = """
variants.quick.budget = 60000
[[queue]]
track = "wiki"
size = "tiny"
seeds = [0]
variants = ["quick"]
"""


def track_recipe() -> Any:
    """Return the settings of corpus, vocabulary and store: the same for every run."""
    from xuebu.cli.flags import load_recipe

    recipe = load_recipe("mini-wiki")
    corpus = dataclasses.replace(recipe.corpus, held_out_fraction=0.06, near_duplicates="group")
    return dataclasses.replace(recipe, corpus=corpus)


def open_track(out: Path, track: str) -> tuple[Any, Any, Any]:
    """Return vocabulary, training store and held-out store."""
    from xuebu.study import StudyFolder
    from xuebu.tokens.store import Store
    from xuebu.tokens.vocab import load_vocabulary

    study = StudyFolder(out / "tracks" / track)
    return load_vocabulary(study.vocabulary), Store.open(study.store("train")), Store.open(study.store("held_out"))


def questions_of(out: Path, track: str, predictions: int) -> list[Any]:
    """Return the held-out questions: fixed text, pairs and masks, whatever a variant trains on."""
    from xuebu.batches.held_out import held_out_batches
    from xuebu.batches.settings import BatchSettings, EvaluationSettings

    vocabulary, _, held_out = open_track(out, track)
    return held_out_batches(
        held_out, vocabulary, settings=EvaluationSettings(), batches=BatchSettings(), predictions=predictions
    )


def recipe_of(out: Path, run: Run, threads: int) -> Any:
    """Return the recipe of a run: as many steps as its budget of tokens allows.

    A change is a dotted key of the recipe; `warmup` is the warm-up's share of the steps and `budget` another one in
    tokens.
    """
    from xuebu.batches.loader import Loader
    from xuebu.model.presets import preset_settings
    from xuebu.train.settings import Recipe

    base = dataclasses.replace(track_recipe(), model=preset_settings(run.size))
    table = to_table(base)
    table["train"] |= {"seed": run.seed, "threads": threads, "device": "cpu", "record_every": 10}
    table["evaluation"] |= {"predictions": CURVE_PREDICTIONS}
    changes = dict(run.changes)
    warmup, budget = changes.pop("warmup", 0.1), changes.pop("budget", BUDGETS[run.size])
    for key, value in changes.items():
        section, _, name = key.partition(".")
        table[section][name] = value
    table["train"] |= {"steps": 1_000_000_000, "warmup_steps": 0}
    recipe = settings_from(Recipe, table, where=run.variant)
    vocabulary, store, _ = open_track(out, run.track)
    loader = Loader(store, vocabulary, recipe.batches, run.seed)
    steps, tokens = 0, loader.batch(1).num_tokens
    while tokens <= budget:
        steps += 1
        tokens += loader.batch(steps + 1).num_tokens
    table["train"] |= {
        "steps": steps,
        "warmup_steps": round(warmup * steps),
        "evaluate_every": max(1, steps // CURVE_POINTS),
        "checkpoint_every": max(1, steps // 4),
        "keep_checkpoints": 1,
    }
    return settings_from(Recipe, table, where=run.variant)


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Hold a lock that ends with this process; False if another holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def do_run(out: Path, run: Run, threads: int) -> dict[str, Any] | None:
    """Train a run, or go on with it, and return its line of the log; None if it was asked to stop."""
    from xuebu.errors import ResumeError
    from xuebu.study import StudyFolder
    from xuebu.train.folder import RunFolder, code_digest, read_run_facts
    from xuebu.train.session import is_finished, resume_run, start_run, stop_on_signals

    folder, study = RunFolder(out / "runs" / run.name), StudyFolder(out / "tracks" / run.track)
    with stop_on_signals() as stop:
        try:
            outcome = resume_run(folder, stop=stop) if folder.run_toml.exists() else None
        except ResumeError as error:  # a run is of one code and one machine
            print(f"{run.name}: begun anew: {error}", flush=True)
            shutil.rmtree(folder.path)
            outcome = None
        if outcome is None:
            shutil.rmtree(folder.path, ignore_errors=True)
            stores = study.store("train"), study.store("held_out")
            recipe = recipe_of(out, run, threads)
            outcome = start_run(
                folder,
                recipe,
                train_store=stores[0],
                held_out_store=stores[1],
                vocabulary=study.vocabulary,
                stop=stop,
            )
    if not (outcome.finished and is_finished(folder)):
        return None
    line = {**describe(out, run, outcome.model), "code": code_digest(), "machine": facts()}
    line["recipe"] = to_table(read_run_facts(folder).recipe)
    return line


def describe(out: Path, run: Run, model: Any) -> dict[str, Any]:
    """Return the score of a finished run and its curve."""
    from xuebu.batches.ngram_counts import ngram_counts
    from xuebu.train.evaluation import evaluate
    from xuebu.train.folder import RunFolder, read_run_facts

    folder = RunFolder(out / "runs" / run.name)
    facts_of_run = read_run_facts(folder)
    questions, machine = questions_of(out, run.track, PREDICTIONS), facts_of_run.machine
    vocabulary, store, _ = open_track(out, run.track)
    with_rows = facts_of_run.recipe.train.ngram_rows
    counts = ngram_counts(store, vocabulary, with_rows=with_rows) if model.settings.ngram_prior else None
    score = evaluate(model, questions, machine, counts).metrics()
    if model.ngrams is not None or counts is not None:  # what the encoder knows by itself
        model.set_ngram_scale(0.0)
        without = evaluate(model, questions, machine, counts).metrics()
        score |= {f"{key}_without_ngrams": without[key] for key in ("mlm_loss_nats", "mlm_accuracy")}
    lines = folder.history.read_text(encoding="utf-8").splitlines()
    records = [record for record in map(json.loads, lines) if record["kind"] == "eval"]
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "run": run.name,
        "track": run.track,
        "size": run.size,
        "variant": run.variant,
        "seed": run.seed,
        "changes": dict(run.changes),
        "tokens": records[-1]["tokens"],
        "seconds": records[-1]["seconds"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **score,
        "bits_per_character": score["mlm_loss_nats"] / math.log(2.0),
        "curve": [
            [
                record["step"],
                record["tokens"],
                round(record["seconds"], 1),
                record["mlm_loss_nats"],
                record["mlm_accuracy"],
            ]
            for record in records
        ],
    }


def work(out: Path, queue: Path, threads: int) -> None:
    """Do the queue's runs that nobody has done or holds, in order, reading the queue anew before each."""
    while True:
        done = {line["run"] for line in read_log(out)}
        for run in read_queue(queue):
            if run.name in done:
                continue
            with claimed(out / "locks" / f"{run.name}.lock") as mine:
                if not mine or run.name in {line["run"] for line in read_log(out)}:
                    continue
                with claimed_wait(out / "locks" / f"track-{run.track}.lock"):
                    prepare_track(out, run.track)
                line = do_run(out, run, threads)
                if line is None:
                    print(f"{run.name}: stopped; the same command goes on", flush=True)
                    return
                append(out / "log.jsonl", line)
                for name in ("checkpoints", "model"):  # hundreds of megabytes; the history stays
                    shutil.rmtree(out / "runs" / run.name / name, ignore_errors=True)
                print(
                    f"{run.name}: {line['mlm_loss_nats']:.4f} nats, {100 * line['mlm_accuracy']:.2f} %, "
                    f"{line['seconds']:.0f} s",
                    flush=True,
                )
                break
        else:
            return


@contextmanager
def claimed_wait(path: Path) -> Iterator[None]:
    """Hold a lock, waiting for whoever holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def append(path: Path, line: dict[str, Any]) -> None:
    """Add a line, on the disk when this returns."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="do what is left of the queue")
    run.add_argument("--queue", type=Path, default=QUEUE)
    run.add_argument("--threads", type=int, default=1, help="of each run; a record at mini is timed with 2")
    run.add_argument("--quick", action="store_true", help="one run of 60,000 tokens: shows that it works, no more")
    show = commands.add_parser("table", help="print what the log holds")
    known = "the standing records that others are paired with, the first that a table holds"
    show.add_argument("--against", nargs="+", default=STANDING, help=known)
    for command in (run, show):
        command.add_argument("--out", type=Path, default=Path("runs/speedrun"))
    asked = parser.parse_args(arguments)
    if asked.command == "table":
        print(table_of(read_log(asked.out), asked.out, asked.against))
        return
    shared_data()  # says what is missing
    prepare_environment()
    out, queue = asked.out, asked.queue
    if asked.quick:
        out, queue = out.with_name(f"{out.name}-quick"), out.with_name(f"{out.name}-quick") / "queue.toml"
        out.mkdir(parents=True, exist_ok=True)
        queue.write_text(_QUICK, encoding="utf-8")
    work(out, queue, asked.threads)
    print(table_of(read_log(out), out, ["quick"] if asked.quick else STANDING))


if __name__ == "__main__":
    main()
