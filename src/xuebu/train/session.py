"""Sessions of a run: starting one, going on with one, and what each is allowed to change."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from xuebu.errors import ResumeError
from xuebu.model.pretrained import save_pretrained
from xuebu.progress import SILENT, Progress
from xuebu.tokens.store import Store
from xuebu.tokens.vocab import Vocabulary, load_vocabulary
from xuebu.train.checkpoint import list_checkpoints
from xuebu.train.folder import RunFacts, RunFolder, code_digest, read_run_facts, write_run_facts
from xuebu.train.machine import check_machine, resolve_machine
from xuebu.train.settings import Recipe
from xuebu.train.trainer import Outcome, StopRequest, Trainer


def start_run(
    folder: RunFolder,
    recipe: Recipe,
    *,
    train_store: Path,
    held_out_store: Path,
    vocabulary: Path,
    progress: Progress = SILENT,
    stop: StopRequest | None = None,
) -> Outcome:
    """Train a new run in a folder that holds none.

    Args:
        folder: where; made if need be. Stores and vocabulary may lie inside it.
        recipe: what to train and how.
        train_store, held_out_store, vocabulary: folders.
        progress: where to report.
        stop: how to end early.

    Raises:
        ResumeError: the folder holds a run already, or what is left of one.
        XuebuError: as the parts that are asked.
    """
    if folder.run_toml.exists():
        raise ResumeError(f"{folder.path}: holds a run already; go on with it by --resume, or choose another folder")
    if folder.history.exists() or list_checkpoints(folder.checkpoints):
        raise ResumeError(
            f"{folder.path}: holds the history or checkpoints of a run without its run.toml; choose another folder"
        )
    data = _open_data(train_store, held_out_store, vocabulary)
    facts = RunFacts(
        recipe=recipe,
        machine=resolve_machine(recipe.train, recipe.model.hidden_size),
        train_store=_relative(train_store, folder.path),
        held_out_store=_relative(held_out_store, folder.path),
        vocabulary=_relative(vocabulary, folder.path),
        digests=_digests(*data),
    )
    with locked(folder):
        trainer = Trainer(folder, facts, *data, progress=progress, stop=stop)
        write_run_facts(folder, facts)
        cut, total = trainer.loader.count_cut_tokens(), data[0].num_tokens
        if cut:
            progress.note(
                f"{cut:,} of {total:,} training tokens ({cut / total:.1%}) stand beyond the first "
                f"{recipe.batches.sentence_tokens} of their sentence and are not trained on (batches.sequence_length)"
            )
        return _train(trainer, "start")


def resume_run(
    folder: RunFolder, *, inexact: bool = False, progress: Progress = SILENT, stop: StopRequest | None = None
) -> Outcome:
    """Go on with a run from its newest whole checkpoint, exactly as if it had never stopped.

    Args:
        folder: the run.
        inexact: go on even where this machine, torch or code is another than the run's: close, but not equal.
        progress: where to report.
        stop: how to end early.

    Raises:
        ResumeError: the run cannot go on exactly; says what differs.
        InputError: not a run folder.
    """
    facts = read_run_facts(folder)
    places = (facts.train_store, facts.held_out_store, facts.vocabulary)
    data = _open_data(*(_absolute(place, folder.path) for place in places))
    differing = [name for name, digest in _digests(*data).items() if facts.digests.get(name) != digest]
    changed_data = [name for name in differing if name != "code"]
    if changed_data:
        raise ResumeError(f"{folder.path}: the run was made from another {' and '.join(changed_data)}; it cannot go on")
    changes = [f"{name} has changed" for name in differing] + check_machine(facts.machine)
    if changes and not inexact:
        raise ResumeError(
            f"{folder.path}: cannot go on exactly: {'; '.join(changes)}. Go on all the same with "
            f"`xuebu train --resume {folder.path} --inexact` (recorded in sessions.jsonl)"
        )
    with locked(folder):
        trainer = Trainer(folder, facts, *data, progress=progress, stop=stop)
        for problem in trainer.restore():
            progress.note(f"passed over a damaged checkpoint: {problem}")
        return _train(trainer, "resume", changes=changes)


def _open_data(train_store: Path, held_out_store: Path, vocabulary: Path) -> tuple[Store, Store, Vocabulary]:
    """Open what a run is made from, and prove the stores' files by digest: a flipped bit must not be trained on."""
    stores = Store.open(train_store), Store.open(held_out_store)
    for store in stores:
        store.verify()
    return *stores, load_vocabulary(vocabulary)


def is_finished(folder: RunFolder) -> bool:
    """Whether a run has done all of its steps and its model is written."""
    if not folder.run_toml.exists() or not (folder.model / "config.json").exists():
        return False
    newest = list_checkpoints(folder.checkpoints)
    return bool(newest) and newest[0][0] >= read_run_facts(folder).recipe.train.steps


def _train(trainer: Trainer, event: str, **details: Any) -> Outcome:
    _log_session(trainer.folder, event, step=trainer.step, **details)
    try:
        outcome = trainer.run()
    except BaseException as error:
        _log_session(trainer.folder, "failed", step=trainer.step, error=f"{type(error).__name__}: {error}")
        raise
    if outcome.finished:
        save_pretrained(outcome.model, trainer.loader.vocabulary, trainer.folder.model)
    _log_session(
        trainer.folder, "finished" if outcome.finished else "stopped", step=outcome.step, reason=outcome.reason
    )
    return outcome


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


def _absolute(path: str, base: Path) -> Path:
    return base / path  # an absolute path replaces the base


def _log_session(folder: RunFolder, event: str, **details: Any) -> None:
    record = {"event": event, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "pid": os.getpid(), **details}
    with folder.sessions.open("a", encoding="utf-8") as stream:
        stream.write(
            json.dumps({key: value for key, value in record.items() if value != ""}, ensure_ascii=False) + "\n"
        )


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Hold the run folder for one process; the lock of a dead process is gone with it.

    Raises:
        ResumeError: another process trains in the folder.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    with (folder.path / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResumeError(
                f"{folder.path}: another process is working in this folder; wait for it or end it"
            ) from None
        yield


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn Ctrl-C or SIGTERM into a request to stop after the step in progress.

    A second Ctrl-C, or either where the request says `at_once`, raises KeyboardInterrupt with the signal's name.
    """
    request = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if request.at_once or (request.reason and number == signal.SIGINT):
            raise KeyboardInterrupt(name)
        request.reason = name

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
