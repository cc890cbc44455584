"""The folder in which a corpus is built: what its steps leave there, and which of their tasks are done.

A step is a number of tasks, one a part of the input or one a bucket of keys, none of which needs another of the same
step. A task takes what earlier steps wrote and writes its own files, then, last, a mark that says that it is done and
what it counted. So tasks may run in any order and on any machine that sees the folder, and after an interruption those
that are done are not done again.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from xuebu.corpus.refusals import REASONS, RefusalCount, Refusals
from xuebu.corpus.settings import CorpusSettings
from xuebu.errors import InputError
from xuebu.files import DigestWriter, naming, read_json, sync_folder, to_json, write_atomic, write_bytes

WORK_NAME = ".unfinished"

Result = dict[str, Any]
"""What a task counted: plain values."""


@dataclass(frozen=True, slots=True)
class Work:
    """A corpus that is being built.

    Attributes:
        folder: of its files.
        settings: of the corpus.
        num_parts: parts of the input; known once it was read.
        num_buckets: into which keys are cut; no result depends on it.
        identity: of the input, once it was read; what was done for another is not done.
        survives: whether what is done must survive a power cut.
    """

    folder: Path
    settings: CorpusSettings
    num_parts: int = 0
    num_buckets: int = 1
    identity: str = ""
    survives: bool = True

    def part(self, number: int, name: str) -> Path:
        """Return a file of a part."""
        return self.folder / "parts" / f"{number:06d}" / name

    def bucket(self, number: int, name: str) -> Path:
        """Return a file of a bucket of keys."""
        return self.folder / "buckets" / f"{number:06d}" / name

    def block(self, number: int, name: str) -> Path:
        """Return a file of a block of held-out text."""
        return self.folder / "blocks" / f"{number:06d}" / name

    def refused(self, step: str, number: int) -> Path:
        """Return the file of what a task refused."""
        return self.part(number, f"refused.{step}.jsonl")

    def each_part(self, name: str) -> list[Path]:
        """Return a file of every part."""
        return [self.part(number, name) for number in range(self.num_parts)]

    def each_bucket(self, name: str) -> list[Path]:
        """Return a file of every bucket."""
        return [self.bucket(number, name) for number in range(self.num_buckets)]

    def _mark(self, step: str, number: int) -> Path:
        return self.folder / "done" / f"{step}.{number:06d}.json"

    def is_done(self, step: str, number: int, identity: str | None = None) -> bool:
        """Return whether a task is done, for the same input."""
        mark = self._mark(step, number)
        return mark.exists() and read_json(mark)["identity"] == (self.identity if identity is None else identity)

    def is_done_for_another(self, step: str, number: int, identity: str) -> bool:
        """Return whether a task is done, but for another input."""
        return self._mark(step, number).exists() and not self.is_done(step, number, identity)

    def done(self, step: str, number: int, result: Result, identity: str | None = None) -> None:
        """Say that a task is done; what it wrote must be on the disk."""
        mark = {"identity": self.identity if identity is None else identity, "result": result}
        path, text = self._mark(step, number), to_json(mark, indent=None)
        if not self.survives:
            write_bytes(path, text.encode(), sync=False)
            return
        for folder in (self.part(number, ""), self.bucket(number, ""), self.block(number, "")):
            if folder.exists():
                sync_folder(folder)
        write_atomic(path, text)

    def result(self, step: str, number: int = 0) -> Result:
        """Return what a task counted."""
        result: Result = read_json(self._mark(step, number))["result"]
        return result

    def of_parts(self, step: str) -> Iterator[Result]:
        """Yield what the tasks of a step counted, one a part."""
        return (self.result(step, number) for number in range(self.num_parts))

    def of_buckets(self, step: str) -> Iterator[Result]:
        """Yield what the tasks of a step counted, one a bucket."""
        return (self.result(step, number) for number in range(self.num_buckets))

    @contextmanager
    def writing(self, path: Path) -> Iterator[IO[bytes]]:
        """Open a file of a task, and see that it is on the disk at the end, as far as a build must survive."""
        with naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb", buffering=1 << 20) as stream:
                yield stream
                stream.flush()
                if self.survives:
                    os.fsync(stream.fileno())

    def write_arrays(self, path: Path, **arrays: npt.NDArray[Any]) -> None:
        """Write a file of arrays, for `read_arrays`."""
        with self.writing(path) as stream:
            np.savez(stream, allow_pickle=False, **arrays)

    @contextmanager
    def refusing(self, step: str, number: int) -> Iterator[Refusals]:
        """Give an account of refusals to a task, whose texts are written aside if the settings ask for it."""
        if not self.settings.write_refused:
            yield Refusals()
            return
        aside = DigestWriter(self.refused(step, number), sync=self.survives)
        try:
            yield Refusals(aside.write_line)
            aside.close()
        finally:
            aside.abandon()


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays that `Work.write_arrays` wrote.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        with np.load(path) as stored:
            return dict(stored)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        raise missing(path) from None


def read_values(path: Path) -> Any:
    """Return the plain values of a JSON file of a task.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        return read_json(path)
    except InputError:
        raise missing(path) from None


def missing(path: Path) -> InputError:
    """Return the error that a file of an unfinished build is not there, or not whole, though it must be."""
    work = next((each for each in path.parents if each.name == WORK_NAME), path.parent)
    return InputError(f"{path}: missing or damaged, and the unfinished build needs it; remove {work} and build again")


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a build.

    Attributes:
        name: of it, as its tasks are marked.
        title: what a user reads.
        run: does one of its tasks and returns what it counted.
        unit: what its tasks are: the parts of the input, the buckets of keys, or one task alone.
        spent: files of a part that are not needed any more once its task is done.
    """

    name: str
    title: str
    run: Callable[[Work, int], Result]
    unit: Literal["parts", "buckets", "one"]
    spent: tuple[str, ...] = ()

    def num_tasks(self, work: Work) -> int:
        """Return how many tasks the step has."""
        return {"parts": work.num_parts, "buckets": work.num_buckets}.get(self.unit, 1)


def run_task(step: Step, work: Work, number: int) -> None:
    """Do a task of a step, unless it is done."""
    if not work.is_done(step.name, number):
        work.done(step.name, number, step.run(work, number))
    for name in step.spent:
        work.part(number, name).unlink(missing_ok=True)


def counted(refusals: Refusals) -> dict[str, list[int]]:
    """Return an account of refusals as plain values."""
    return {reason: [each.count, each.characters] for reason, each in refusals.counts().items()}


def together(accounts: Iterable[dict[str, list[int]]]) -> dict[str, RefusalCount]:
    """Return several accounts that `counted` gave as one, in the order of `REASONS`."""
    sums: dict[str, tuple[int, int]] = {}
    for account in accounts:
        for reason, (count, characters) in account.items():
            before = sums.get(reason, (0, 0))
            sums[reason] = (before[0] + count, before[1] + characters)
    return {reason: RefusalCount(*sums[reason]) for reason in REASONS if reason in sums}
