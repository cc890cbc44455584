"""`xuebu train`: pretraining on a built corpus, and going on with a run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from xuebu.cli.flags import OptionalName, OptionalPath, RecipeFlags, parse, value_of
from xuebu.cli.launch import launch
from xuebu.cli.screen import make_console, make_progress, print_plain, print_table
from xuebu.cli.study import STOP_CODES, print_run
from xuebu.errors import ConfigError
from xuebu.train.changes import FREE_KEYS, ROUNDING_KEYS
from xuebu.train.settings import Recipe

DEFAULT_RECIPE = "sample"
# Reasons to stop that are no failure, and what lets the run go on.
BUDGETS = {"time budget": " --train.max-hours MORE", "money budget": " --train.max-cost MORE"}
_RESUME_FLAGS = ("--resume", "--inexact", "--steps", "--processes", "--help")

OptionalSteps = Annotated[int | None, tyro.conf.arg(metavar="INT")]


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """Pretrain an encoder on a corpus that `xuebu corpus build` made, or go on with a run.

    A resumed run writes the same bytes as one that was never interrupted; it takes its settings from its own run.toml.
    Several processes, on one or many machines: torchrun --nproc-per-node N -m xuebu train ...
    """

    corpus: OptionalPath = None
    """Folder of a built corpus."""
    vocab: OptionalPath = None
    """Folder or vocab.txt of a vocabulary; without, one is made from the training side of the corpus."""
    initial: OptionalPath = None
    """Folder of a trained model, ours or a Hugging Face BERT, to go on from: its weights, architecture and vocabulary
    instead of new ones."""
    out: OptionalPath = None
    """Folder of the new run."""
    resume: OptionalPath = None
    """Folder of a run to go on with; its settings come from it, and only those that change no result may be given."""
    inexact: bool = False
    """With --resume: go on even where machine, torch or code differ from the run's; close, but not equal."""
    steps: OptionalSteps = None
    """With --resume: make a finished run this long, by a further leg of its learning-rate schedule."""
    list_checkpoints: OptionalPath = None
    """Folder of a run: list its checkpoints, each proven by its digests, and do nothing else."""
    processes: Annotated[int, tyro.conf.arg(metavar="INT")] = 1
    """Train with so many processes on this machine; each gets its share of cores or a GPU."""
    recipe: str = DEFAULT_RECIPE
    """Shipped recipe by name, or the path of a TOML file; its settings are the defaults of the flags below."""
    preset: OptionalName = None
    """Model preset that replaces the recipe's [model]; `xuebu presets` lists them."""
    settings: RecipeFlags = field(default_factory=Recipe)
    """Settings of the recipe."""


def train(arguments: Sequence[str]) -> int:
    """Run the command."""
    own_recipe = _recipe_of_run(arguments)
    asked = parse(TrainArguments, arguments, prog="xuebu train", default_recipe=DEFAULT_RECIPE, own_recipe=own_recipe)
    if asked.list_checkpoints is not None:
        return _list_checkpoints(asked.list_checkpoints)
    if asked.steps is not None and asked.resume is None:
        raise ConfigError("--steps extends a run that is named by --resume; a new run has --train.steps")
    if asked.inexact and asked.resume is None:
        raise ConfigError("--inexact allows a run that is named by --resume to go on; a new run has no use for it")
    missing = [flag for flag, value in (("--corpus", asked.corpus), ("--out", asked.out)) if value is None]
    if missing and asked.resume is None:
        raise ConfigError(f"{' and '.join(missing)} missing: name the corpus and the new run, or a run to --resume")
    if asked.processes < 1:
        raise ConfigError("--processes must be at least 1")
    if asked.processes > asked.settings.batches.sequences_per_step:
        raise ConfigError(
            f"--processes {asked.processes} is more than the {asked.settings.batches.sequences_per_step} sequences of "
            "a step (`batches.sequences_per_step`)"
        )
    if asked.processes > 1:
        return launch(asked.processes, ["train", *_without_processes(arguments)])
    return _train(asked, own_recipe)


def _train(asked: TrainArguments, own_recipe: Recipe | None) -> int:
    from xuebu.progress import SILENT
    from xuebu.study import StudyFolder, prepare_run, resume_and_describe, train_and_describe
    from xuebu.train.folder import RunFolder
    from xuebu.train.initial import settings_of_initial
    from xuebu.train.parallel import join_world
    from xuebu.train.session import is_relaunch
    from xuebu.train.stop import stop_on_signals

    world = join_world(sharded=asked.settings.train.sharding == "full")
    console = make_console()
    progress = make_progress(console) if world.is_main else SILENT
    with stop_on_signals() as stop:
        resume = asked.resume
        out = asked.out
        if resume is None and out is not None and world.agree(lambda: is_relaunch(RunFolder(out))):
            resume = out  # torchrun repeats the command after a process has died, or when a machine joins
        if resume is not None:
            changed = asked.settings if own_recipe is not None and asked.settings != own_recipe else None
            result = resume_and_describe(
                StudyFolder(resume),
                inexact=asked.inexact,
                steps=asked.steps,
                recipe=changed,
                world=world,
                progress=progress,
                stop=stop,
            )
        else:
            corpus, recipe, initial = asked.corpus, asked.settings, asked.initial
            assert corpus is not None and out is not None  # `train` has looked
            if initial is not None:
                recipe = dataclasses.replace(recipe, model=settings_of_initial(initial, recipe.model))
            folder = StudyFolder(out)
            world.agree(
                lambda: prepare_run(
                    folder, corpus, recipe, vocabulary=asked.vocab, initial=initial, progress=progress, stop=stop
                )
            )
            result = train_and_describe(folder, recipe, world=world, progress=progress, stop=stop)
    if not world.is_main:
        return 0 if result.finished or result.reason in BUDGETS else STOP_CODES.get(result.reason, 1)
    path = result.folder.path
    if result.analysis is None:
        flags = f" --processes {world.size}" if world.size > 1 else ""
        flags += BUDGETS.get(result.reason, "")  # the old one would stop the run at once
        print_plain(
            console,
            f"stopped ({result.reason}) and saved at step {result.step:,}; go on with: xuebu train --resume {path}"
            f"{flags}",
        )
        return 0 if result.reason in BUDGETS else STOP_CODES.get(result.reason, 1)
    print_run(console, path, result.analysis)
    return 0


def _recipe_of_run(arguments: Sequence[str]) -> Recipe | None:
    """Return the recipe of the run to resume, or None for a new run; refuse flags that a run cannot change.

    Raises:
        ConfigError: a flag beside --resume is none of those.
    """
    flags = [word.partition("=")[0] for word in arguments if word.startswith("--")]
    if "--resume" not in flags or "--help" in flags:
        return None
    free = {f"--{key.replace('_', '-')}" for key in (*FREE_KEYS, *ROUNDING_KEYS)}
    others = [flag for flag in flags if flag not in _RESUME_FLAGS and flag.replace("_", "-") not in free]
    if others:
        raise ConfigError(
            f"--resume takes its settings from the run's own run.toml; leave out {' '.join(others)} (what may change: "
            f"{', '.join(FREE_KEYS)}; with --inexact {', '.join(ROUNDING_KEYS)}; --steps N extends a finished run)"
        )
    from xuebu.train.folder import RunFolder, read_run_facts

    folder = RunFolder(Path(value_of("--resume", arguments) or "."))
    return read_run_facts(folder).recipe if folder.run_toml.exists() else None  # `resume_run` says that it is no run


def _without_processes(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of each single process."""
    kept, skip = list[str](), False
    for word in arguments:
        if skip or word.startswith("--processes="):
            skip = False
        elif word == "--processes":
            skip = True
        else:
            kept.append(word)
    return kept


def _list_checkpoints(run: Path) -> int:
    """Print a run's checkpoints, newest first; exit code 1 if one is damaged."""
    from xuebu.train.checkpoint import prove_checkpoints
    from xuebu.train.folder import RunFolder, read_run_facts

    folder, console = RunFolder(run), make_console()
    steps = read_run_facts(folder).recipe.train.steps
    entries = prove_checkpoints(folder.checkpoints)
    if not entries:
        print_plain(console, f"{run}: no checkpoints yet")
        return 0
    rows = [
        [
            f"{entry.step:,}",
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.saved_at)) if entry.saved_at else "",
            f"{entry.num_bytes / 1e6:,.1f}",
            entry.problem or "whole",
        ]
        for entry in entries
    ]
    print_table(console, [">step", "saved", ">MB", "digests"], rows, f"{folder.checkpoints} (of {steps:,} steps)")
    return 1 if any(entry.problem for entry in entries) else 0
