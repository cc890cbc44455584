"""A corpus built by datatrove, on one machine or many (extra `cluster`): the same steps, hence the same corpus.

datatrove runs a pipeline as many tasks, each of which calls the pipeline's steps with its rank; any callable of
(documents, rank, number of tasks) is a step. Here a stage is such a pipeline. A task of the first reads one part of the
input, as datatrove's documents, and sieves them, so that filters of datatrove may stand in between; one of each later
stage is a task of a step of `build.STEPS`. All machines must see the folders of the texts and of the corpus.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from xuebu.config import check_settings
from xuebu.corpus.build import begin_work, steps_for
from xuebu.corpus.card import Card, load_card
from xuebu.corpus.coverage import CharacterList, read_character_list
from xuebu.corpus.document import Document
from xuebu.corpus.equals import num_buckets
from xuebu.corpus.finishing import finish_corpus, refuse_empty
from xuebu.corpus.parts import Part, cut_files
from xuebu.corpus.reading import read_documents_of, sieve_documents
from xuebu.corpus.settings import CorpusSettings
from xuebu.corpus.sources import DocumentReader
from xuebu.corpus.work import Step, Work, run_task
from xuebu.errors import ConfigError, MissingExtraError
from xuebu.files import sha256_bytes
from xuebu.progress import SILENT, Progress

_BYTES_A_KEY = 16  # of the input; a bucket is smaller where sentences are longer, or the input is not compressed


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of a build: a pipeline of datatrove.

    Attributes:
        name: for its logs and jobs.
        pipeline: its steps.
        tasks: how many tasks it has; all must be done before the next stage begins.
    """

    name: str
    pipeline: list[Any]
    tasks: int


@dataclass(frozen=True, slots=True)
class ReadPart:
    """Yields the documents of a task's part of the input, as datatrove's."""

    work: Work
    parts: tuple[Part, ...]
    identities: tuple[str, ...]

    def __call__(self, data: Any, rank: int, world_size: int) -> Iterator[Any]:
        """Yield datatrove's documents; what ours have besides text and id is their metadata."""
        from datatrove.data import Document as Record

        if self.work.is_done("sieve", rank, self.identities[rank]):
            return
        for document in read_documents_of(self.work, rank, self.parts[rank], self.identities[rank]):
            facts = asdict(document)
            yield Record(text=facts.pop("text"), id=facts.pop("id"), metadata=facts)


@dataclass(frozen=True, slots=True)
class SievePart:
    """Cleans and sieves the documents that come, as a task's part of the input."""

    work: Work
    identities: tuple[str, ...]

    def __call__(self, data: Iterable[Any], rank: int, world_size: int) -> None:
        """Write what is left of the documents; metadata that other steps added are left out."""
        known = Document.__dataclass_fields__.keys()
        documents = (
            Document(text=each.text, id=each.id, **{k: v for k, v in each.metadata.items() if k in known})
            for each in data
        )
        if not self.work.is_done("sieve", rank, self.identities[rank]):
            sieve_documents(self.work, rank, documents, self.identities[rank])


@dataclass(frozen=True, slots=True)
class RunTask:
    """Does a task of a step."""

    work: Work
    step: Step

    def __call__(self, data: Any, rank: int, world_size: int) -> None:
        """Do the task of this rank, unless it is done."""
        run_task(self.step, self.work, rank)


@dataclass(frozen=True, slots=True)
class Survey:
    """Counts the files that gave no document."""

    work: Work
    reader: DocumentReader

    def __call__(self, data: Any, rank: int, world_size: int) -> None:
        """Do it, in the one task that there is."""
        refuse_empty(self.work, self.reader, SILENT)


@dataclass(frozen=True, slots=True)
class Finish:
    """Puts the parts together and writes the card."""

    work: Work
    out: Path
    lists: tuple[CharacterList, ...]

    def __call__(self, data: Any, rank: int, world_size: int) -> None:
        """Do it, in the one task that there is."""
        finish_corpus(self.work, self.out, self.lists, progress=SILENT)


def corpus_stages(
    documents: DocumentReader,
    out: Path,
    settings: CorpusSettings | None = None,
    *,
    coverage_lists: Sequence[Path] = (),
    progress: Progress = SILENT,
) -> list[Stage]:
    """Return the stages of a build, to be run one after the other by any executor of datatrove.

    They give the corpus that `build.build_corpus` gives, to the byte. Stages that were interrupted can be launched
    again, by the same call: tasks that are done are not done again.

    A compressed file is one task, since nobody decompresses it for others; so is a dump without its index.

    Args:
        documents: of files; data sets of the hub are not read.
        out: the corpus folder; all machines must see it, and the files, under the same path.
        settings: the defaults if None.
        coverage_lists: as in `build_corpus`.
        progress: where it is noted that an unfinished build is gone on with.

    Raises:
        ConfigError: a setting is out of its range, or the documents are not those of files.
        InputError: a file cannot be read.
    """
    settings = settings or CorpusSettings()
    check_settings(settings, where="corpus settings")
    if documents.hub:
        raise ConfigError("data sets of the hub are not read on a cluster; save them as .parquet or .jsonl first")
    lists = tuple(read_character_list(path) for path in coverage_lists)
    out = out.resolve()
    parts = tuple(cut_files(documents.files, settings, whole=True))
    identities = tuple(part.identity() for part in parts)
    identity = sha256_bytes("\n".join(identities).encode())
    work = begin_work(out, settings, identity, progress)
    work = replace(
        work,
        num_parts=len(parts),
        num_buckets=num_buckets(sum(part.size for part in parts) // _BYTES_A_KEY),
        identity=identity,
    )
    stages = [
        Stage("read", [ReadPart(work, parts, identities), SievePart(work, identities)], len(parts)),
        Stage("files", [Survey(work, DocumentReader(documents.files, documents.num_unknown, settings, SILENT))], 1),
    ]
    stages += [Stage(step.name, [RunTask(work, step)], step.num_tasks(work)) for step in steps_for(settings)]
    return [*stages, Stage("finish", [Finish(work, out, lists)], 1)]


def run_locally(stages: Sequence[Stage], out: Path, logs: Path, *, workers: int = 1) -> Card:
    """Run the stages of a build by datatrove's local executor, and return the card of the corpus.

    Args:
        stages: as `corpus_stages` returned them.
        out: the corpus folder that was given there.
        logs: folder for datatrove's logs.
        workers: tasks at once.

    Raises:
        MissingExtraError: datatrove is not installed.
        InputError: as in `build_corpus`.
    """
    try:
        from datatrove.executor import LocalPipelineExecutor
    except ModuleNotFoundError:
        raise MissingExtraError.of("cluster", "a corpus on a cluster") from None
    for stage in stages:
        LocalPipelineExecutor(
            stage.pipeline,
            tasks=stage.tasks,
            workers=workers,
            logging_dir=str(logs / stage.name),
            skip_completed=False,  # by our own marks, which know whether the input is the same
        ).run()
    return load_card(out)
