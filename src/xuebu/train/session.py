"""Sessions of a run: starting one, going on with one, making one longer, and what each is allowed to change."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from xuebu.errors import ResumeError, TrainingError
from xuebu.model.encoder import PretrainingModel
from xuebu.model.pretrained import save_pretrained
from xuebu.progress import SILENT, Progress
from xuebu.tokens.store import Store
from xuebu.tokens.vocab import Vocabulary, load_vocabulary
from xuebu.train.changes import ROUNDING_KEYS, adopt, extend
from xuebu.train.checkpoint import list_checkpoints
from xuebu.train.folder import (
    RunFacts,
    RunFolder,
    code_digest,
    parse_run_facts,
    read_run_facts,
    set_leg_aside,
    write_run_facts,
)
from xuebu.train.initial import digest_of_initial, make_counted_initial
from xuebu.train.lock import hold_folder
from xuebu.train.machine import adapt_machine, check_machine, resolve_machine, usable_cores
from xuebu.train.parallel import ALONE, World, is_restart, launch_name
from xuebu.train.schedule import ngram_scale
from xuebu.train.settings import Recipe
from xuebu.train.stop import StopRequest, stop_on_signals
from xuebu.train.trainer import Outcome, Trainer

__all__ = ["is_finished", "is_relaunch", "locked", "resume_run", "start_run", "stop_on_signals"]


def start_run(
    folder: RunFolder,
    recipe: Recipe,
    *,
    train_store: Path,
    held_out_store: Path,
    vocabulary: Path,
    world: World = ALONE,
    progress: Progress = SILENT,
    stop: StopRequest | None = None,
) -> Outcome:
    """Train a new run in a folder that holds none.

    Args:
        folder: where; made if need be. Stores and vocabulary may lie inside it.
        recipe: what to train and how.
        train_store, held_out_store, vocabulary: folders.
        world: this process, among how many.
        progress: where to report.
        stop: how to end early.

    Raises:
        ResumeError: the folder holds a run already, or what is left of one.
        XuebuError: as the parts that are asked.
    """
    with ExitStack() as held:
        opened: list[tuple[Store, Store, Vocabulary]] = []

        def begin() -> str:
            _refuse_what_is_there(folder)
            opened.append(_open_data(train_store, held_out_store, vocabulary, prove=True))
            make_counted_initial(folder, recipe, opened[0][0], opened[0][2], progress=progress)
            threads = recipe.train.threads or max(1, usable_cores() // world.local_size)
            facts = RunFacts(
                recipe=recipe,
                machine=resolve_machine(
                    dataclasses.replace(recipe.train, threads=threads), recipe.model.attention_dropout
                ),
                train_store=_relative(train_store, folder.path),
                held_out_store=_relative(held_out_store, folder.path),
                vocabulary=_relative(vocabulary, folder.path),
                digests=_digests(*opened[0]) | digest_of_initial(folder),
                processes=world.size,
            )
            held.enter_context(locked(folder))
            return facts.to_toml()

        facts = parse_run_facts(world.agree(begin), str(folder.run_toml))
        data = opened[0] if opened else _open_data(train_store, held_out_store, vocabulary)
        held.enter_context(_telling_of_missing_kernels())
        trainer = Trainer(folder, facts, *data, world=world, progress=progress, stop=stop)
        world.agree(lambda: write_run_facts(folder, facts))
        for line in facts.machine.notes:
            progress.note(line)
        cut, total = trainer.loader.count_cut_tokens(), data[0].num_tokens
        if cut:
            filled = recipe.batches.sequences in ("segments", "full")
            where = "their sequence" if filled else f"the first {recipe.batches.sentence_tokens} of their sentence"
            progress.note(
                f"{cut:,} of {total:,} training tokens ({cut / total:.1%}) stand beyond {where} and are not trained on "
                "(batches.sequence_length)"
            )
        return _train(trainer, "start")


def _refuse_what_is_there(folder: RunFolder) -> None:
    if folder.run_toml.exists():
        raise ResumeError(f"{folder.path}: holds a run already; go on with it by --resume, or choose another folder")
    if folder.history.exists() or list_checkpoints(folder.checkpoints):
        raise ResumeError(
            f"{folder.path}: holds the history or checkpoints of a run without its run.toml; choose another folder"
        )


def resume_run(
    folder: RunFolder,
    *,
    inexact: bool = False,
    steps: int | None = None,
    recipe: Recipe | None = None,
    world: World = ALONE,
    progress: Progress = SILENT,
    stop: StopRequest | None = None,
) -> Outcome:
    """Go on with a run from its newest whole checkpoint, exactly as if it had never stopped.

    Args:
        folder: the run.
        inexact: go on even where this machine, torch or code is another than the run's: close, but not equal.
        steps: make a finished run this long, by a further leg of its schedule; None: as long as it is.
        recipe: the run's own, with other values for the few settings that may change; None: as they are.
        world: this process, among how many.
        progress: where to report.
        stop: how to end early.

    Raises:
        ResumeError: the run cannot go on exactly, or not with that recipe or length; says what differs.
        InputError: not a run folder.
    """
    with ExitStack() as held:
        opened: list[tuple[Store, Store, Vocabulary]] = []

        def begin() -> tuple[str, list[str]]:
            facts = read_run_facts(folder)
            held.enter_context(locked(folder))
            facts, changes = _adapt(folder, facts, recipe, steps, inexact=inexact)
            opened.append(_open_data(*_places(folder, facts), prove=True))
            changes += _check_origin(folder, facts, _digests(*opened[0]) | digest_of_initial(folder))
            changes += check_machine(facts.machine)
            if facts.numpy_version not in ("", np.__version__):
                changes.append(f"numpy_version was {facts.numpy_version!r}, is {np.__version__!r}")
            if facts.processes != world.size:
                changes.append(f"processes was {facts.processes}, is {world.size}")
            if changes and not (inexact or is_relaunch(folder)):
                again = f"Start {facts.processes} as before, or go" if facts.processes != world.size else "Go"
                raise ResumeError(
                    f"{folder.path}: cannot go on exactly: {'; '.join(changes)}. {again} on all the same with "
                    f"`xuebu train --resume {folder.path} --inexact` (an event of the history)"
                )
            facts = dataclasses.replace(facts, processes=world.size)  # what the next session is held against
            if facts != read_run_facts(folder):
                write_run_facts(folder, facts)
            if facts.recipe.train.legs and not is_finished(folder):
                set_leg_aside(folder, facts.recipe.train.legs[-1])
            return facts.to_toml(), changes

        text, changes = world.agree(begin)
        facts = parse_run_facts(text, str(folder.run_toml))
        data = opened[0] if opened else _open_data(*_places(folder, facts))
        held.enter_context(_telling_of_missing_kernels())
        trainer = Trainer(folder, facts, *data, world=world, progress=progress, stop=stop)
        for problem in trainer.restore():
            progress.note(f"passed over a damaged checkpoint: {problem}")
        return _train(trainer, "resume", changes=changes)


def _adapt(
    folder: RunFolder, facts: RunFacts, asked: Recipe | None, steps: int | None, *, inexact: bool
) -> tuple[RunFacts, list[str]]:
    """Return a run's facts with what may change, and what of it is inexact."""
    recipe, changes = facts.recipe, list[str]()
    machine = facts.machine
    if asked is not None:
        recipe, changes = adopt(recipe, asked, inexact=inexact)
        names = [key.removeprefix("train.") for key in ROUNDING_KEYS]
        changed = [name for name in names if getattr(recipe.train, name) != getattr(facts.recipe.train, name)]
        machine = adapt_machine(machine, recipe.train, changed)
    if steps is not None:
        listed = list_checkpoints(folder.checkpoints)
        recipe = extend(recipe, steps, done=listed[0][0] if listed else 0)
    return dataclasses.replace(facts, recipe=recipe, machine=machine), changes


def _check_origin(folder: RunFolder, facts: RunFacts, digests: dict[str, str]) -> list[str]:
    """Return a line if the code is another.

    Raises:
        ResumeError: corpus, vocabulary or a store is another: that is no matter of rounding.
    """
    differing = [name for name in {**digests, **facts.digests} if facts.digests.get(name) != digests.get(name)]
    changed_data = [name for name in differing if name != "code"]
    if changed_data:
        raise ResumeError(f"{folder.path}: the run was made from another {' and '.join(changed_data)}; it cannot go on")
    return [f"{name} has changed" for name in differing]


def _open_data(
    train_store: Path, held_out_store: Path, vocabulary: Path, *, prove: bool = False
) -> tuple[Store, Store, Vocabulary]:
    """Open what a run is made from; prove the stores' files by digest: a flipped bit must not be trained on."""
    stores = Store.open(train_store), Store.open(held_out_store)
    if prove:
        for store in stores:
            store.verify()
    return *stores, load_vocabulary(vocabulary)


def _places(folder: RunFolder, facts: RunFacts) -> tuple[Path, Path, Path]:
    """Return the folders of stores and vocabulary; an absolute path replaces the run's own."""
    return folder.path / facts.train_store, folder.path / facts.held_out_store, folder.path / facts.vocabulary


def is_finished(folder: RunFolder) -> bool:
    """Whether a run has done all of its steps and its model is written."""
    if not folder.run_toml.exists() or not (folder.model / "config.json").exists():
        return False
    newest = list_checkpoints(folder.checkpoints)
    return bool(newest) and newest[0][0] >= read_run_facts(folder).recipe.train.steps


def is_relaunch(folder: RunFolder) -> bool:
    """Whether torchrun has started these processes anew: one had died, or another machine has come to the job."""
    if is_restart():
        return folder.run_toml.exists()
    name = launch_name()
    try:
        lines = folder.sessions.read_text(encoding="utf-8", errors="replace").splitlines() if name else []
    except OSError:
        return False
    return folder.run_toml.exists() and any(
        f'"launch": {json.dumps(name, ensure_ascii=False)}' in line for line in lines
    )


@contextmanager
def _telling_of_missing_kernels() -> Iterator[None]:
    """Turn torch's refusal of an operation without a deterministic kernel into one line."""
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        what = str(error).strip().partition("\n")[0].partition(". ")[0]
        raise TrainingError(
            f"{what}: this GPU cannot do it the same each time. Start a new run with "
            '`train.deterministic` = "off"; it will resume closely, not equally'
        ) from None


def _train(trainer: Trainer, event: str, *, changes: list[str] | None = None) -> Outcome:
    folder, world = trainer.folder, trainer.world
    details = {} if changes is None else {"changes": changes}
    if world.size > 1:
        details["processes"] = world.size  # type: ignore[assignment]
    if world.is_main:
        _log_session(folder, event, step=trainer.step, launch=launch_name(), **details)
    try:
        outcome = trainer.run(changes or ())
    except BaseException as error:
        if world.is_main:
            _log_session(folder, "failed", step=trainer.step, error=f"{type(error).__name__}: {error}")
        raise
    if outcome.finished:
        _write_results(trainer, outcome)
    if world.is_main:
        ended = "finished" if outcome.finished else "stopped"
        _log_session(folder, ended, step=outcome.step, reason=outcome.reason)
    return outcome


def _write_results(trainer: Trainer, outcome: Outcome) -> None:
    """Write the trained model; where time decided the length, run.toml says now what it was."""
    facts, train = trainer.facts, trainer.settings
    weights = trainer.snapshots.whole_weights()
    if not trainer.world.is_main:
        return
    model: PretrainingModel = outcome.model
    if trainer.world.sharded:
        model = PretrainingModel(facts.recipe.model, trainer.loader.vocabulary.num_tokens)
        model.load_state_dict(weights)
    if not ngram_scale(outcome.step, train):
        model.drop_ngrams()
    save_pretrained(model, trainer.loader.vocabulary, trainer.folder.model)
    if outcome.step < train.steps:
        done = dataclasses.replace(train, steps=outcome.step, warmup_steps=min(train.warmup_steps, outcome.step))
        write_run_facts(
            trainer.folder, dataclasses.replace(facts, recipe=dataclasses.replace(facts.recipe, train=done))
        )


def _digests(train_store: Store, held_out_store: Store, vocabulary: Vocabulary) -> dict[str, str]:
    return {
        "corpus": train_store.corpus_digest,
        "vocabulary": vocabulary.digest,
        "train_store": train_store.digest,
        "held_out_store": held_out_store.digest,
        "code": code_digest(),
    }


def _relative(path: Path, base: Path) -> str:
    resolved = path.resolve()
    return str(resolved.relative_to(base.resolve())) if resolved.is_relative_to(base.resolve()) else str(resolved)


def _log_session(folder: RunFolder, event: str, **details: Any) -> None:
    record = {"event": event, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "pid": os.getpid(), **details}
    line = json.dumps({key: value for key, value in record.items() if value != ""}, ensure_ascii=False) + "\n"
    with suppress(OSError), folder.sessions.open("a", encoding="utf-8") as stream:  # a full disk has its own error
        stream.write(line)


def locked(folder: RunFolder) -> AbstractContextManager[None]:
    """Hold the run folder for this process; see `hold_folder`."""
    return hold_folder(folder.path)
