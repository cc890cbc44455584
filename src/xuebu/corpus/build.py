"""Building a corpus: documents in; train.jsonl, held_out.jsonl and a card out. Nothing is dropped uncounted.

The input is cut into parts. They are read, and then the steps of `STEPS` are taken one after the other, each by as many
processes as wanted. What a step leaves to the next lies on the disk, in `out`/.unfinished.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from xuebu.config import check_settings, to_table
from xuebu.corpus.card import Card
from xuebu.corpus.coverage import read_character_list
from xuebu.corpus.dedup import UNITS
from xuebu.corpus.document import Document
from xuebu.corpus.equals import num_buckets
from xuebu.corpus.finishing import (
    HELD_OUT_NAME,
    MEGABYTE,
    REFUSED_NAME,
    TRAIN_NAME,
    Meter,
    check_sides,
    finish_corpus,
    refuse_empty,
)
from xuebu.corpus.holding_out import compare_part, count_left, gather_shown, hold_out_part, index_held_out
from xuebu.corpus.items import DIGESTS, ITEMS
from xuebu.corpus.parts import Part, cut_documents, num_workers
from xuebu.corpus.reading import (
    DOCUMENTS,
    FINGERPRINTS,
    GROUP_NAMES,
    REGROUPED,
    SIDES,
    TALLY,
    find_near,
    place_part,
    sieve_part,
)
from xuebu.corpus.settings import CorpusSettings
from xuebu.corpus.sources import DocumentReader
from xuebu.corpus.thinning import (
    CANDIDATES,
    GROUPS,
    NAMES,
    RUNS,
    THINNED,
    mark_bucket,
    name_bucket,
    settle_part,
    thin_part,
)
from xuebu.corpus.work import WORK_NAME, Step, Work, run_task
from xuebu.corpus.workers import Workers
from xuebu.errors import InputError
from xuebu.files import read_json, sha256_bytes, write_json
from xuebu.progress import SILENT, Progress

__all__ = ["HELD_OUT_NAME", "REFUSED_NAME", "STEPS", "TRAIN_NAME", "build_corpus", "steps_for"]

_CHANGED = "the input is not what it was before the interruption: beginning anew"

_NEAR_FILES = (FINGERPRINTS, DIGESTS, GROUP_NAMES)
_DIGESTS = tuple(f"{side}.{unit}" for side in SIDES for unit in UNITS)
_NAMES = tuple(f"{side}.{name}" for side in SIDES for name in NAMES)

STEPS = (
    Step("near", "find near-duplicates", find_near, "one"),
    Step("place", "split", place_part, "parts", spent=_NEAR_FILES),
    Step("sides", "split", check_sides, "one"),
    Step("mark", "find equal sentences", mark_bucket, "buckets"),
    Step("thin", "drop copies", thin_part, "parts", spent=(DOCUMENTS, ITEMS, TALLY, REGROUPED, *_DIGESTS)),
    Step("name", "find equal ids and titles", name_bucket, "buckets"),
    Step("settle", "sift held-out", settle_part, "parts", spent=(*_NAMES, GROUPS)),
    Step("index", "index held-out", index_held_out, "one"),
    Step("compare", "compare with held-out", compare_part, "parts", spent=(THINNED["held_out"], RUNS)),
    Step("gather", "compare with held-out", gather_shown, "one"),
    Step("hold_out", "hold out", hold_out_part, "parts", spent=(CANDIDATES,)),
    Step("left", "count", count_left, "buckets"),
)
"""What is done after reading, in order."""


def steps_for(settings: CorpusSettings) -> tuple[Step, ...]:
    """Return the steps after reading that such settings need."""
    return STEPS if settings.near_duplicates != "ignore" else STEPS[2:]


def build_corpus(
    documents: Iterable[Document],
    out: Path,
    settings: CorpusSettings | None = None,
    *,
    coverage_lists: Sequence[Path] = (),
    workers: int = 1,
    progress: Progress = SILENT,
) -> Card:
    """Build a corpus from documents, and return its card.

    Each document is put on its side of the split by its group's name, cleaned, cut and sieved; then equal documents,
    paragraphs and sentences are dropped (see `dedup.copies_in`) and held-out documents that share text with training
    are refused (see `overlap.shares_text`). Documents keep their order; whatever is dropped leaves a gap and is
    counted. Where near-duplicates are asked for, it is known which documents they are before the sides are parted.

    Written to `out`: train.jsonl, held_out.jsonl, card.md, refused.jsonl if asked, and card.json last, which marks the
    corpus as complete. Until then all is in `out`/.unfinished, and a finished corpus that was there stays as it was.
    The same documents and settings give the same bytes, whatever the number of workers. After an interruption of any
    kind the same call goes on with what is not done; other settings, and files that changed, begin anew.

    Memory does not grow with the text; a worker takes some 0.3 GB. While near-duplicates are sought, 60 bytes a
    document are added. Disk: about twice the text while building.

    Args:
        documents: read once, in order. A `DocumentReader` of files can be gone on with; documents that come from
            elsewhere are read again.
        out: the corpus folder; made if it is not there.
        settings: the defaults if None.
        coverage_lists: files of one character a line; the card says how many of each the corpus shows.
        workers: processes; several need a script whose top level is guarded by `__name__`.
        progress: where progress is shown.

    Raises:
        InputError: a document or list is wrong, `out` cannot be written, or nothing is left on a side of the split.
        ConfigError: a setting is out of its range.
    """
    settings = settings or CorpusSettings()
    check_settings(settings, where="corpus settings")
    lists = [read_character_list(path) for path in coverage_lists]
    reader = documents if isinstance(documents, DocumentReader) else None
    can_go_on = reader is not None and not reader.hub
    try:
        with Workers(num_workers(reader.files, workers) if reader and not reader.hub else workers) as pool:
            if can_go_on:
                work = begin_work(out, settings, "", progress)
            else:
                work = _emptied(Work(out / WORK_NAME, settings, survives=False))
            work = _read(documents, work, pool, progress)
            refuse_empty(work, reader, progress)
            steps = steps_for(settings)
            with progress.task("deduplicate, hold out", sum(step.num_tasks(work) for step in steps), "tasks") as task:
                for step in steps:
                    task.show(step.title)
                    for _ in pool.map(partial(run_task, step, work), range(step.num_tasks(work))):
                        task.advance()
        return finish_corpus(work, out, lists, progress=progress)
    except OSError as error:
        raise InputError(
            f"{error.filename or out}: {error.strerror or error}; the corpus is not finished"
            + ("; the same command goes on where it stopped" if can_go_on else "")
        ) from None
    finally:
        if not can_go_on:
            shutil.rmtree(out / WORK_NAME, ignore_errors=True)


def begin_work(out: Path, settings: CorpusSettings, identity: str, progress: Progress) -> Work:
    """Return the folder to work in: that of an interrupted build of the same settings and input, or an empty one.

    Args:
        out: the corpus folder.
        settings: of the corpus.
        identity: of the input; "" where it is not known yet.
        progress: where it is noted that an unfinished build is gone on with.
    """
    work = Work(out / WORK_NAME, settings)
    path = work.folder / "build.json"
    if path.exists() and read_json(path) == _facts(settings):
        progress.note(f"{work.folder}: an unfinished build of these settings; going on with it")
        if not identity:
            return work
        if not work.is_done_for_another("input", 0, identity):
            work.done("input", 0, {}, identity)
            return work
        progress.note(_CHANGED)
    elif path.exists():
        progress.note(f"{work.folder}: an unfinished build of other settings or another version; beginning anew")
    work = _emptied(work)
    if identity:
        work.done("input", 0, {}, identity)
    return work


def _emptied(work: Work) -> Work:
    if work.folder.exists():
        (work.folder / "build.json").unlink(missing_ok=True)  # what is half removed must not be gone on with
        shutil.rmtree(work.folder)
    write_json(work.folder / "build.json", _facts(work.settings))
    return work


def _facts(settings: CorpusSettings) -> dict[str, Any]:
    """Return what must be the same for a build to be gone on with."""
    return {"code": _code_digest(), "settings": to_table(settings)}


@cache
def _code_digest() -> str:
    """Return a digest of the code that a corpus follows from: this folder, and by what files are read and hashed."""
    root = Path(__file__).parent
    paths = [*sorted(root.glob("*.py")), root.parent / "files.py", root.parent / "rng.py"]
    return sha256_bytes(b"".join(path.name.encode() + b"\0" + path.read_bytes() + b"\0" for path in paths))


def _read(documents: Iterable[Document], work: Work, pool: Workers, progress: Progress) -> Work:
    """Read and sieve all parts; returns the work with what is known then."""
    if isinstance(documents, DocumentReader):
        parts = documents.parts()
        total = None if documents.hub else sum(file.path.stat().st_size for file in documents.files)
    else:
        parts, total = cut_documents(documents), None
    identities: list[str] = []
    with progress.task("read and clean", None if total is None else -(-total // MEGABYTE), "MB") as task:
        meter = Meter(task)

        def pending() -> Iterator[tuple[int, Part, str]]:
            for number, part in enumerate(parts):
                identities.append(part.identity())
                if work.is_done("sieve", number, identities[-1]):
                    meter.add(part.size)
                else:
                    yield number, part, identities[-1]

        for size in pool.map(partial(_sieve, work), pending()):
            meter.add(size)
    identity = sha256_bytes("\n".join(identities).encode())
    if work.is_done_for_another("input", 0, identity):  # later steps may have removed what would be needed again
        progress.note(_CHANGED)
        return _read(documents, _emptied(work), pool, progress)
    work = replace(work, num_parts=len(identities), identity=identity)
    work.done("input", 0, {})
    return replace(work, num_buckets=num_buckets(sum(result["sentence"] for result in work.of_parts("sieve"))))


def _sieve(work: Work, item: tuple[int, Part, str]) -> int:
    number, part, identity = item
    sieve_part(work, number, part, identity)
    return part.size
