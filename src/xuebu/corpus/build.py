"""Building a corpus: documents in; train.jsonl, held_out.jsonl and a card out. Nothing is dropped uncounted."""

from __future__ import annotations

import math
import shutil
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xuebu.config import check_settings
from xuebu.corpus.card import CARD_NAME, Card
from xuebu.corpus.coverage import CharacterList, measure_coverage, read_character_list
from xuebu.corpus.dedup import UNITS, copies_in, keep_sentences, mark_equals, sentence_digest
from xuebu.corpus.document import CorpusFile, Document, SentenceDocument
from xuebu.corpus.overlap import BLOCK_CHARACTERS, overlapping_documents
from xuebu.corpus.refusals import Refusals
from xuebu.corpus.settings import CorpusSettings, Unit
from xuebu.corpus.sieve import sieve_document
from xuebu.corpus.sources import DocumentReader
from xuebu.corpus.split import group_place
from xuebu.corpus.staging import NearStage, SievedSide, UniqueIds
from xuebu.corpus.tally import Tally, counts_of, profile_of_tallies
from xuebu.errors import InputError
from xuebu.files import DigestWriter, sha256_bytes, sync_folder, to_json, write_atomic
from xuebu.progress import SILENT, Progress, Task
from xuebu.rng import key_of

Marks = dict[Unit, npt.NDArray[np.uint8]]

WORK_NAME = ".unfinished"
TRAIN_NAME, HELD_OUT_NAME, REFUSED_NAME = "train.jsonl", "held_out.jsonl", "refused.jsonl"


def build_corpus(
    documents: Iterable[Document],
    out: Path,
    settings: CorpusSettings | None = None,
    *,
    coverage_lists: Sequence[Path] = (),
    progress: Progress = SILENT,
) -> Card:
    """Build a corpus from documents, and return its card.

    Each document is put on its side of the split by its group's name, cleaned, cut and sieved; then equal documents,
    paragraphs and sentences are dropped (see `dedup.copies_in`) and held-out documents that share text with training
    are refused (see `overlap.overlapping_documents`). Documents keep their order; whatever is dropped leaves a gap and
    is counted.

    Written to `out`: train.jsonl, held_out.jsonl, card.md, refused.jsonl if asked, and card.json last, which marks the
    corpus as complete. Until then all is in `out`/.unfinished, and a finished corpus that was there stays as it was.
    The same documents and settings give the same bytes.

    Where near-duplicates are asked for, it is known which documents they are before the sides are parted (see
    `near.SignatureStore`).

    Memory does not grow with the text; it takes some 30 bytes a document and one a sentence, and 60 more a document
    while near-duplicates are sought. Disk: about twice the text while building.

    Args:
        documents: read once, in order. Files that a `DocumentReader` passed over are counted in the card.
        out: the corpus folder; made if it is not there.
        settings: the defaults if None.
        coverage_lists: files of one character a line; the card says how many of each the corpus shows.
        progress: where progress is shown.

    Raises:
        InputError: a document or list is wrong, `out` cannot be written, or nothing is left on a side of the split.
        ConfigError: a setting is out of its range.
    """
    settings = settings or CorpusSettings()
    check_settings(settings, where="corpus settings")
    lists = [read_character_list(path) for path in coverage_lists]
    work = out / WORK_NAME
    try:
        if work.exists():
            shutil.rmtree(work)
        work.mkdir(parents=True)
        with ExitStack() as open_files:
            card = _Build(work, settings, progress, open_files).run(documents, lists)
        _publish(card, work, out)
    except OSError as error:
        raise InputError(f"{error.filename or out}: {error.strerror or error}; the corpus is not finished") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return card


def _publish(card: Card, work: Path, out: Path) -> None:
    """Move the finished files to their places, and write the card last."""
    (out / CARD_NAME).unlink(missing_ok=True)
    for name in (TRAIN_NAME, HELD_OUT_NAME, REFUSED_NAME):
        if (work / name).exists():
            (work / name).replace(out / name)
        else:
            (out / name).unlink(missing_ok=True)
    sync_folder(out)
    write_atomic(out / "card.md", card.to_markdown())
    write_atomic(out / CARD_NAME, to_json(card.to_json()))


@dataclass(slots=True)
class _Read:
    """What was read, and how near the documents' groups came to the held-out side."""

    documents: int = 0
    characters: int = 0
    characters_cleaned: int = 0
    smallest_place: float = 1.0


class _Build:
    """One build: its steps in `run`, and what they share."""

    def __init__(self, work: Path, settings: CorpusSettings, progress: Progress, open_files: ExitStack) -> None:
        self.work, self.settings, self.progress, self.open_files = work, settings, progress, open_files
        self.refused = self.writer(REFUSED_NAME) if settings.write_refused else None
        self.refusals = Refusals(self.refused.write_line if self.refused else None)
        self.training, self.held_out = self.side("train"), self.side("held_out")
        self.training_repeats = 0  # sentences of training that repeat an earlier one and stay

    def writer(self, name: str) -> DigestWriter:
        writer = DigestWriter(self.work / name)
        self.open_files.callback(writer.abandon)
        return writer

    def side(self, name: str) -> SievedSide:
        side = SievedSide(self.work, name)
        self.open_files.callback(side.abandon)
        return side

    def run(self, documents: Iterable[Document], lists: Sequence[CharacterList]) -> Card:
        """Take all steps; returns the card of the files that then lie in the work folder."""
        if isinstance(documents, DocumentReader) and self.refused:
            documents.aside = self.refused.write_line
        read = self.read(documents)
        training_marks, held_out_marks = self.mark_equals()
        unique_ids = UniqueIds(self.training.document_keys, self.held_out.document_keys)
        training, train_digest, titles = self.write_training(training_marks, unique_ids)
        held_out, held_out_digest, repeats = self.write_held_out(held_out_marks, unique_ids, titles, training.documents)
        if self.refused:
            self.refused.close()
        passed = len(training_marks["sentence"]) + len(held_out_marks["sentence"])
        found: dict[str, int] = {
            unit: int(np.count_nonzero(training_marks[unit]) + np.count_nonzero(held_out_marks[unit])) for unit in UNITS
        }
        if isinstance(documents, DocumentReader):
            self.refusals.include(documents.refusals)
        return Card(
            digest=sha256_bytes(f"{train_digest} {held_out_digest}".encode()),
            train_digest=train_digest,
            held_out_digest=held_out_digest,
            whole=counts_of([training, held_out]),
            train=counts_of([training]),
            held_out=counts_of([held_out]),
            documents_read=read.documents,
            characters_read=read.characters,
            characters_cleaned=read.characters_cleaned,
            duplicates=found["sentence"],
            duplicate_share=found["sentence"] / passed,
            duplicates_left=repeats + self.training_repeats,
            duplicates_by_unit=found,
            renamed_ids=unique_ids.num_renamed,
            refusals=self.refusals.counts(),
            coverage=measure_coverage(
                lists, training.characters.keys() | held_out.characters.keys(), training.characters.keys()
            ),
            settings=self.settings,
            profile=profile_of_tallies([training, held_out]),
        )

    def read(self, documents: Iterable[Document]) -> _Read:
        """Sieve every document and put it on its side."""
        read = _Read()
        near = None
        if self.settings.near_duplicates != "ignore":
            near = NearStage(self.work, self.settings.near_duplicate_similarity)
            self.open_files.callback(near.abandon)
        with self.progress.task("read and clean", unit="documents") as task:
            for document in documents:
                sieved = sieve_document(document, self.settings, self.refusals)
                read.documents += 1
                read.characters += len(document.text)
                read.characters_cleaned += sieved.characters
                if sieved.document and near:
                    near.append(sieved.document)
                elif sieved.document:
                    self.place(sieved.document, read)
                task.advance()
                if read.documents % 256 == 0:
                    task.show(f"{read.characters_cleaned:,} characters")
        if near:
            drop = self.settings.near_duplicates == "drop"
            for each in near.finish(drop, self.refusals, self.progress):
                self.place(each, read)
        self.training.finish()
        self.held_out.finish()
        self.check_sides(read)
        return read

    def place(self, document: SentenceDocument, read: _Read) -> None:
        """Put a document on the side of its group."""
        place = group_place(document.group)
        read.smallest_place = min(read.smallest_place, place)
        (self.held_out if place < self.settings.held_out_fraction else self.training).append(document)

    def check_sides(self, read: _Read) -> None:
        """Raise InputError where a side of the split is empty."""
        kept = self.training.num_documents + self.held_out.num_documents
        if not kept:
            reasons = ", ".join(f"{reason} {each.count:,}" for reason, each in self.refusals.counts().items())
            raise InputError(f"no sentence is left of {read.documents:,} documents ({reasons or 'nothing was read'})")
        if not self.training.num_documents:
            raise InputError(
                f"the groups of all {kept:,} documents fall on the held-out side; give more documents with titles of "
                "their own, or a smaller held_out_fraction"
            )
        if self.held_out.num_documents or not self.settings.held_out_fraction:
            return
        needed = math.ceil(read.smallest_place * 1000 + 1e-6) / 1000
        advice = f"set held_out_fraction = {needed:g} or more" if needed <= 0.5 else "give more documents"
        raise InputError(
            f"no group of {kept:,} documents falls on the held-out side at held_out_fraction = "
            f"{self.settings.held_out_fraction:g}; {advice}"
            + ('; a .txt file of many documents needs txt_documents = "blank-line"' if kept == 1 else "")
        )

    def mark_equals(self) -> tuple[Marks, Marks]:
        """Return what each document, paragraph and sentence of either side is among its equals."""
        training: Marks = {}
        held_out: Marks = {}
        for unit in UNITS:
            training[unit], held_out[unit] = mark_equals(self.training.digests(unit), self.held_out.digests(unit))
        return training, held_out

    def distinct(self, side: SievedSide, marks: Marks, unique_ids: UniqueIds, task: Task) -> Iterator[SentenceDocument]:
        """Yield a side's documents without what their marks drop, ids mended."""
        unit = self.settings.deduplicate_unit if self.settings.deduplicate else None
        paragraph = sentence = 0
        for number, document in enumerate(side):
            task.advance()
            paragraph_marks = marks["paragraph"][paragraph : paragraph + len(document.paragraphs) + 1].tolist()
            sentence_marks = marks["sentence"][sentence : sentence + len(document.sentences)].tolist()
            paragraph += len(paragraph_marks)
            sentence += len(sentence_marks)
            if not any(sentence_marks):
                yield unique_ids.mend(document)
                continue
            keep = [True] * len(sentence_marks)
            whole = True
            for reason, start, end in copies_in(
                document, int(marks["document"][number]), paragraph_marks, sentence_marks, unit
            ):
                texts = document.sentences[start:end]
                self.refusals.add(reason, *texts, source=document.source, id=document.id)
                keep[start:end] = [False] * len(texts)
                whole = whole and reason == "duplicate_document"
            if side is self.training:
                self.training_repeats += sum(kept and mark > 0 for kept, mark in zip(keep, sentence_marks, strict=True))
            sentences, gaps = keep_sentences(document.sentences, document.gaps, keep)
            if sentences:
                yield unique_ids.mend(replace(document, sentences=sentences, gaps=gaps))
            elif not whole:
                self.refusals.add("no_sentence_left", source=document.source, id=document.id)

    def write_training(self, marks: Marks, unique_ids: UniqueIds) -> tuple[Tally, str, npt.NDArray[np.uint64]]:
        """Write train.jsonl; returns its tally, its digest, and the keys of its titles, sorted."""
        tally, writer, titles = Tally(), self.writer(TRAIN_NAME), array("Q")
        with self.progress.task("write training", self.training.num_documents, "documents") as task:
            for document in self.distinct(self.training, marks, unique_ids, task):
                writer.write_line(document.to_line())
                tally.add(document)
                titles.append(key_of(document.title))
        return tally, writer.close(), np.unique(np.frombuffer(titles, dtype=np.uint64))

    def write_held_out(
        self,
        marks: Marks,
        unique_ids: UniqueIds,
        titles: npt.NDArray[np.uint64],
        num_training: int,
    ) -> tuple[Tally, str, int]:
        """Write held_out.jsonl; returns its tally, its digest, and how many of its sentences repeat another."""
        distinct = self.writer("held_out.distinct")
        characters = 0
        with self.progress.task("sift held-out", self.held_out.num_documents, "documents") as task:
            for document in self.distinct(self.held_out, marks, unique_ids, task):
                if document.title and _holds(titles, key_of(document.title)):
                    self.refuse("held_out_title_in_training", document)
                    continue
                distinct.write_line(document.to_line())
                characters += sum(map(len, document.sentences))
        distinct.close()

        candidates, training = CorpusFile(distinct.path), CorpusFile(self.work / TRAIN_NAME)
        tally, writer, digests = Tally(), self.writer(HELD_OUT_NAME), array("Q")
        total = num_training * math.ceil(characters / BLOCK_CHARACTERS)
        with self.progress.task("compare with held-out", total, "documents") as task:
            overlaps = overlapping_documents(_texts(candidates), lambda: _texts(training, task))
            for document, overlaps_training in zip(candidates, overlaps, strict=True):
                if overlaps_training:
                    self.refuse("held_out_overlaps_training", document)
                    continue
                writer.write_line(document.to_line())
                tally.add(document)
                if not self.settings.deduplicate or self.settings.deduplicate_unit != "sentence":
                    digests.frombytes(b"".join(map(sentence_digest, document.sentences)))
        self.check_held_out(tally)
        return tally, writer.close(), len(digests) - len(np.unique(np.frombuffer(digests, dtype=np.uint64)))

    def refuse(self, reason: str, document: SentenceDocument) -> None:
        """Count a whole document under a reason."""
        self.refusals.add(reason, *document.sentences, source=document.source, id=document.id)

    def check_held_out(self, tally: Tally) -> None:
        """Raise InputError if nothing is held out any more, and say so if most of it is gone."""
        before = self.held_out.num_documents
        if before and not tally.documents:
            raise InputError(
                f"all {before:,} held-out documents share text or titles with training; set a larger "
                "held_out_fraction, or give documents that repeat each other less"
            )
        if tally.documents < before / 2:
            self.progress.note(
                f"only {tally.documents:,} of {before:,} held-out documents share no long run of text with training; "
                "a larger held_out_fraction holds out more"
            )


def _holds(keys: npt.NDArray[np.uint64], key: int) -> bool:
    place = int(np.searchsorted(keys, np.uint64(key)))
    return place < len(keys) and int(keys[place]) == key


def _texts(documents: Iterable[SentenceDocument], task: Task | None = None) -> Iterator[str]:
    for document in documents:
        yield "".join(document.sentences).replace(" ", "")  # as a model sees them: spaces are no tokens
        if task:
            task.advance()
