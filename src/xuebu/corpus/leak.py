"""Leak check: which sentences of a corpus overlap the texts of evaluation sets, and the corpus without them."""

from __future__ import annotations

import shutil
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xuebu.corpus.build import HELD_OUT_NAME, REFUSED_NAME, TRAIN_NAME
from xuebu.corpus.card import CARD_NAME, Card, load_card
from xuebu.corpus.coverage import measure_coverage
from xuebu.corpus.dedup import digests_of, keep_sentences
from xuebu.corpus.document import CorpusFile, SentenceDocument
from xuebu.corpus.evaluation_texts import EvaluationSet
from xuebu.corpus.overlap import MIN_SHARED_RUNS, RUN_CHARACTERS, bare_text, code_points, run_hashes
from xuebu.corpus.refusals import REASONS, RefusalCount, Refusals
from xuebu.corpus.sentences import split_sentences
from xuebu.corpus.tally import Tally, counts_of, profile_of_tallies
from xuebu.errors import ConfigError, InputError
from xuebu.files import DigestWriter, sha256_bytes, to_json, write_atomic
from xuebu.progress import SILENT, Progress, show_text

UInt64 = npt.NDArray[np.uint64]
MIN_CHARACTERS = 10
MAX_EXAMPLES = 10
WORK_NAME = ".unfinished"

_END = "\0"
_BATCH_CHARACTERS = 1 << 19


class Overlap(IntEnum):
    """What a sentence of the corpus has in common with the evaluation sets."""

    NONE = 0
    EQUAL = 1
    LONG_RUN = 2


@dataclass(frozen=True, slots=True)
class SetLeaks:
    """What of one evaluation set the corpus holds.

    Attributes:
        name: of the set's file.
        texts: texts long enough to compare.
        too_short: texts that are not.
        whole: texts of which each sentence long enough to compare equals one of the corpus.
        in_part: other texts with an equal sentence, or with three or more runs of 20 characters that the corpus holds.
        examples: of whole texts, up to ten.
    """

    name: str
    texts: int
    too_short: int
    whole: int
    in_part: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SplitLeaks:
    """What of one split of the corpus is in the evaluation sets.

    Attributes:
        documents, sentences: in the split.
        equal: sentences equal to a sentence of a set.
        long_run: other sentences that share three or more runs of 20 characters with the sets.
        documents_with: documents with at least one such sentence.
    """

    documents: int
    sentences: int
    equal: int
    long_run: int
    documents_with: int


@dataclass(frozen=True, slots=True)
class LeakReport:
    """The overlap of a corpus and evaluation sets, seen from both sides."""

    sets: tuple[SetLeaks, ...]
    splits: dict[str, SplitLeaks]

    @property
    def found(self) -> bool:
        """Return whether any sentence of the corpus overlaps a set."""
        return any(each.documents_with for each in self.splits.values())

    def summary(self) -> str:
        """Return the report in plain words; names and texts are safe for a terminal."""
        lines = []
        for each in self.sets:
            share = f" ({(each.whole + each.in_part) / each.texts:.1%})" if each.texts else ""
            lines.append(
                f"{show_text(each.name)}: of {each.texts:,} texts the corpus holds {each.whole:,} whole and "
                f"{each.in_part:,} in part{share}; {each.too_short:,} too short to compare"
            )
            lines += [f"    {show_text(example[:60])}" for example in each.examples[:3]]
        lines += [
            f"{name}: {each.equal:,} of {each.sentences:,} sentences equal one of a set, {each.long_run:,} more share "
            f"a long run; they stand in {each.documents_with:,} of {each.documents:,} documents"
            for name, each in self.splits.items()
        ]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {
            "sets": [{**asdict(each), "examples": list(each.examples)} for each in self.sets],
            "splits": {name: asdict(each) for name, each in self.splits.items()},
        }


class LeakIndex:
    """The sentences and runs of evaluation sets, and which of them a corpus has shown so far.

    Memory: some 40 bytes a character of the sets; the corpus streams by.
    """

    def __init__(self, sets: Sequence[EvaluationSet], *, min_characters: int = MIN_CHARACTERS) -> None:
        """Index the sets.

        Args:
            sets: the evaluation sets.
            min_characters: shorter sentences, in letters and digits, are passed over: everybody says them.
        """
        self.sets, self.min_characters = sets, min_characters
        sentences: list[str] = []
        self._owners: list[int] = []
        for number, text in enumerate(chain.from_iterable(each.texts for each in sets)):
            pieces = [bare_text(piece) for line in text.split("\n") for piece in split_sentences(line)]
            long = [piece for piece in pieces if len(piece) >= min_characters]
            if not long and len(whole := "".join(pieces)) >= min_characters:
                long = [whole]
            sentences += long
            self._owners += [number] * len(long)
        digests = digests_of(sentences)
        self._digests, self._digest_of = np.unique(digests, return_inverse=True)
        hashes, owner = _runs_of(sentences)
        self._runs, self._run_of = np.unique(hashes, return_inverse=True)
        self._run_text = np.asarray(self._owners, dtype=np.int64)[owner]
        self._shown = np.zeros(len(self._digests), dtype=bool)
        self._runs_shown = np.zeros(len(self._runs), dtype=bool)

    def mark(self, sentences: Sequence[str]) -> npt.NDArray[np.uint8]:
        """Return `Overlap` of each sentence of the corpus, uint8[sentences], and take note of what it shows.

        A sentence with 20 or 21 characters overlaps where all its runs are in the sets.
        """
        bare = [bare_text(sentence) for sentence in sentences]
        marks = np.zeros(len(bare), dtype=np.uint8)
        hashes, owner = _runs_of(bare)
        known = _places(self._runs, hashes)
        self._runs_shown[known[known >= 0]] = True
        shared = np.bincount(owner[known >= 0], minlength=len(bare))
        all_runs = np.bincount(owner, minlength=len(bare))
        marks[(shared > 0) & (shared >= np.minimum(all_runs, MIN_SHARED_RUNS))] = Overlap.LONG_RUN
        equal = _places(self._digests, digests_of(bare))
        self._shown[equal[equal >= 0]] = True
        marks[equal >= 0] = Overlap.EQUAL
        return marks

    def found(self) -> tuple[SetLeaks, ...]:
        """Return what of each set the corpus has shown so far."""
        count = sum(len(each.texts) for each in self.sets)
        owners = np.asarray(self._owners, dtype=np.int64)
        sentences = np.bincount(owners, minlength=count)
        equal = np.bincount(owners[self._shown[self._digest_of]], minlength=count)
        runs = np.bincount(self._run_text[self._runs_shown[self._run_of]], minlength=count)
        whole = (sentences > 0) & (equal == sentences)
        in_part = ~whole & ((equal > 0) | (runs >= MIN_SHARED_RUNS))
        results, start = [], 0
        for each in self.sets:
            own = slice(start, start := start + len(each.texts))
            leaked = np.flatnonzero(whole[own])[:MAX_EXAMPLES]
            results.append(
                SetLeaks(
                    name=each.name,
                    texts=int(np.count_nonzero(sentences[own])),
                    too_short=int(np.count_nonzero(sentences[own] == 0)),
                    whole=int(np.count_nonzero(whole[own])),
                    in_part=int(np.count_nonzero(in_part[own])),
                    examples=tuple(each.texts[place] for place in leaked.tolist()),
                )
            )
        return tuple(results)


def marked_documents(
    documents: Iterable[SentenceDocument], index: LeakIndex
) -> Iterator[tuple[SentenceDocument, list[int]]]:
    """Yield each document with the `Overlap` of its sentences, in order; in memory is about a megabyte of text."""
    batch: list[SentenceDocument] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += sum(map(len, document.sentences))
        if size >= _BATCH_CHARACTERS:
            yield from _marked(batch, index)
            batch, size = [], 0
    yield from _marked(batch, index)


def check_leaks(
    corpus: Path, sets: Sequence[EvaluationSet], *, min_characters: int = MIN_CHARACTERS, progress: Progress = SILENT
) -> LeakReport:
    """Return which sentences of a built corpus overlap evaluation sets; the corpus is only read.

    Raises:
        InputError: the corpus is not finished, or damaged.
    """
    load_card(corpus)
    index = LeakIndex(sets, min_characters=min_characters)
    splits = {}
    for split, name in (("train", TRAIN_NAME), ("held_out", HELD_OUT_NAME)):
        count = _Count()
        with progress.task(f"compare {split}", unit="documents") as task:
            for document, marks in marked_documents(_documents_of(corpus / name), index):
                count.add(document, marks)
                task.advance()
        splits[split] = count.result()
    return LeakReport(index.found(), splits)


def remove_leaks(
    corpus: Path,
    out: Path,
    sets: Sequence[EvaluationSet],
    *,
    whole_documents: bool = False,
    min_characters: int = MIN_CHARACTERS,
    progress: Progress = SILENT,
) -> tuple[LeakReport, Card]:
    """Write a built corpus without what overlaps evaluation sets; returns what was found, and the new card.

    Order is kept. Each sentence that goes leaves a gap, so that no pair of neighbors crosses it, and is counted in the
    card; so is a document of which nothing is left. The card's coverage of lists other than the standard characters is
    left out, since it told of the corpus before. Where the corpus was built with `write_refused`, refused.jsonl holds
    what goes here. The same corpus and sets give the same bytes.

    Args:
        corpus: folder of a built corpus; stays as it is.
        out: folder of the new one.
        sets: the evaluation sets.
        whole_documents: a document with one such sentence goes as a whole.
        min_characters: as in LeakIndex.
        progress: where progress is shown.

    Raises:
        ConfigError: `out` is the corpus itself, or holds one.
        InputError: the corpus is not finished, `out` cannot be written, or nothing would be left of a split.
    """
    card = load_card(corpus)
    if (out / CARD_NAME).exists() or out.resolve() == corpus.resolve():
        raise ConfigError(f"{out}: holds a finished corpus; choose another folder by --out")
    index = LeakIndex(sets, min_characters=min_characters)
    tallies, digests, splits = [], [], {}
    refused: DigestWriter | None = None
    kept_digests = array("Q")
    work = out / WORK_NAME
    try:
        shutil.rmtree(work, ignore_errors=True)
        refused = DigestWriter(work / REFUSED_NAME) if card.settings.write_refused else None
        refusals = Refusals(refused.write_line if refused else None)
        for split, name in (("train", TRAIN_NAME), ("held_out", HELD_OUT_NAME)):
            count, tally, writer = _Count(), Tally(), DigestWriter(work / name)
            try:
                with progress.task(f"write {split}", unit="documents") as task:
                    for document, marks in marked_documents(_documents_of(corpus / name), index):
                        task.advance()
                        count.add(document, marks)
                        if kept := _without(document, marks, whole_documents, refusals):
                            writer.write_line(kept.to_line())
                            tally.add(kept)
                            if card.duplicates_left:
                                kept_digests.frombytes(digests_of(kept.sentences).tobytes())
                digests.append(writer.close())
            finally:
                writer.abandon()
            splits[split] = count.result()
            tallies.append(tally)
            if splits[split].documents and not tally.documents:
                raise InputError(f"{corpus / name}: nothing is left of it without what the evaluation sets hold")
        new = replace(
            card,
            digest=sha256_bytes(" ".join(digests).encode()),
            train_digest=digests[0],
            held_out_digest=digests[1],
            whole=counts_of(tallies),
            train=counts_of(tallies[:1]),
            held_out=counts_of(tallies[1:]),
            duplicates_left=len(kept_digests) - len(np.unique(np.frombuffer(kept_digests, dtype=np.uint64))),
            refusals=_together(card.refusals, refusals.counts()),
            coverage=measure_coverage(
                (),
                tallies[0].characters.keys() | tallies[1].characters.keys(),
                tallies[0].characters.keys(),
                standard=not card.settings.token_ids,
            ),
            profile=profile_of_tallies(tallies),
        )
        if refused:
            refused.close()
        for name in (TRAIN_NAME, HELD_OUT_NAME, *([REFUSED_NAME] if refused else [])):
            (work / name).replace(out / name)
        write_atomic(out / "card.md", new.to_markdown())
        write_atomic(out / CARD_NAME, to_json(new.to_json()))
    except OSError as error:
        raise InputError(f"{error.filename or out}: {error.strerror or error}; nothing was finished") from None
    finally:
        if refused:
            refused.abandon()
        shutil.rmtree(work, ignore_errors=True)
    return LeakReport(index.found(), splits), new


class _Count:
    """A running count of a split's overlaps."""

    def __init__(self) -> None:
        self.documents = self.sentences = self.documents_with = 0
        self.by_kind: Counter[int] = Counter()

    def add(self, document: SentenceDocument, marks: list[int]) -> None:
        self.documents += 1
        self.sentences += len(document.sentences)
        self.documents_with += any(marks)
        self.by_kind.update(marks)

    def result(self) -> SplitLeaks:
        equal, long_run = self.by_kind[Overlap.EQUAL], self.by_kind[Overlap.LONG_RUN]
        return SplitLeaks(self.documents, self.sentences, equal, long_run, self.documents_with)


def _without(
    document: SentenceDocument, marks: list[int], whole_documents: bool, refusals: Refusals
) -> SentenceDocument | None:
    """Return a document without its overlapping sentences, None if nothing is left; what goes is counted."""
    if not any(marks):
        return document
    if whole_documents:
        refusals.add("evaluation_document", *document.sentences, source=document.source, id=document.id)
        return None
    for sentence, mark in zip(document.sentences, marks, strict=True):
        if mark:
            reason = "evaluation_sentence" if mark == Overlap.EQUAL else "evaluation_overlap"
            refusals.add(reason, sentence, source=document.source, id=document.id)
    sentences, gaps = keep_sentences(document.sentences, document.gaps, [not mark for mark in marks])
    if not sentences:
        refusals.add("no_sentence_left", source=document.source, id=document.id)
        return None
    return replace(document, sentences=sentences, gaps=gaps)


def _together(*accounts: dict[str, RefusalCount]) -> dict[str, RefusalCount]:
    """Return the sums of several accounts, in the order of `REASONS`."""
    sums = {}
    for reason in REASONS:
        if counts := [account[reason] for account in accounts if reason in account]:
            sums[reason] = RefusalCount(sum(each.count for each in counts), sum(each.characters for each in counts))
    return sums


def _documents_of(path: Path) -> Iterable[SentenceDocument]:
    documents: Iterable[SentenceDocument] = CorpusFile(path)
    return documents


def _marked(batch: list[SentenceDocument], index: LeakIndex) -> Iterator[tuple[SentenceDocument, list[int]]]:
    marks = index.mark([sentence for document in batch for sentence in document.sentences]).tolist()
    start = 0
    for document in batch:
        yield document, marks[start : start + len(document.sentences)]
        start += len(document.sentences)


def _runs_of(sentences: Sequence[str]) -> tuple[UInt64, npt.NDArray[np.int64]]:
    """Return the hash of each run of 20 characters that lies inside of a sentence, and which sentence that is."""
    lengths = np.fromiter(map(len, sentences), dtype=np.int64, count=len(sentences))
    hashes = run_hashes(code_points(_END.join(sentences)))
    owner = np.repeat(np.arange(len(sentences)), lengths + 1)[: len(hashes)]
    ends = np.cumsum(lengths + 1) - 1  # where the parting characters stand
    inside = np.arange(len(hashes)) + RUN_CHARACTERS <= ends[owner]
    return hashes[inside], owner[inside]


def _places(sorted_values: UInt64, wanted: UInt64) -> npt.NDArray[np.int64]:
    """Return where each wanted value stands among sorted ones; -1 where it does not."""
    if not len(sorted_values):
        return np.full(len(wanted), -1)
    places = np.minimum(np.searchsorted(sorted_values, wanted), len(sorted_values) - 1)
    return np.where(sorted_values[places] == wanted, places, -1)
