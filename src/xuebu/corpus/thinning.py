"""The steps of a build that take repeats away: of documents, paragraphs and sentences, of ids, and of titles."""

from __future__ import annotations

from array import array
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from xuebu.corpus.dedup import UNITS, Mark, copies_in, keep_sentences
from xuebu.corpus.document import CorpusFile, SentenceDocument
from xuebu.corpus.equals import find_repeats, read_repeats, read_table, write_table
from xuebu.corpus.overlap import comparable_text, run_hashes
from xuebu.corpus.reading import DOCUMENTS, SIDES, Side, regrouped
from xuebu.corpus.refusals import Refusals
from xuebu.corpus.settings import CorpusSettings, Unit
from xuebu.corpus.tally import Tally
from xuebu.corpus.work import Result, Work, counted
from xuebu.files import DigestWriter, write_bytes
from xuebu.rng import key_of

THINNED: dict[Side, str] = {"train": "train.thinned.jsonl", "held_out": "held_out.thinned.jsonl"}
CANDIDATES, RUNS, GROUPS = "candidates.jsonl", "runs", "train.group"
NAMES = ("id", "title")


def mark_bucket(work: Work, bucket: int) -> Result:
    """Find what is equal among documents, paragraphs and sentences; returns how many are not the first."""
    counts: Result = {}
    for unit in UNITS:
        training, held_out = (work.each_part(f"{side}.{unit}") for side in SIDES)
        repeats, _ = find_repeats(training, held_out, bucket, work.num_buckets)
        repeats.write(work.bucket(bucket, unit), sync=work.survives)
        counts[unit] = len(repeats.part)
    return counts


def _marks(work: Work, number: int, unit: Unit, count: int) -> npt.NDArray[np.uint8]:
    """Return the `Mark` of each document, paragraph or sentence of a part: uint8[count]."""
    marks = np.zeros(count, dtype=np.uint8)
    repeats = read_repeats(number, work.each_bucket(unit))
    marks[repeats.place] = np.where(repeats.crosses, Mark.IN_TRAINING, Mark.REPEATED)
    return marks


def thin_part(work: Work, number: int) -> Result:
    """Write what is left of a part without the copies that the settings drop, each side for itself."""
    sieved = work.result("sieve", number)
    marks = {unit: _marks(work, number, unit, sieved[unit]) for unit in UNITS}
    _, groups = regrouped(work, number)
    owners = {side: set(read_table(work.part(number, f"{side}.document"))[1].tolist()) for side in SIDES}
    sides = {side: _ThinnedSide(work, number, side) for side in SIDES}
    tally, training_repeats = Tally(), 0
    paragraph = sentence = 0
    try:
        with work.refusing("thin", number) as refusals:
            for place, document in enumerate(CorpusFile(work.part(number, DOCUMENTS))):
                paragraph_marks = marks["paragraph"][paragraph : paragraph + len(document.paragraphs) + 1]
                sentence_marks = marks["sentence"][sentence : sentence + len(document.sentences)]
                paragraph += len(paragraph_marks)
                sentence += len(sentence_marks)
                side = next((side for side, own in owners.items() if place in own), None)
                if side is None:  # a near-duplicate that goes
                    continue
                kept: SentenceDocument | None = document
                repeats = 0
                if sentence_marks.any():
                    own = (int(marks["document"][place]), paragraph_marks.tolist(), sentence_marks.tolist())
                    kept, repeats = _without_copies(document, own, work.settings, refusals)
                if kept is None:
                    continue
                if place in groups:
                    kept = replace(kept, group=groups[place])
                sides[side].append(kept)
                if side == "train":
                    tally.add(kept)
                    training_repeats += repeats
        for thinned in sides.values():
            thinned.close()
    finally:
        for thinned in sides.values():
            thinned.documents.abandon()
    keys = np.frombuffer(tally.groups, dtype=np.uint64)
    write_table(work.part(number, GROUPS), keys, np.arange(len(keys), dtype=np.uint32), sync=work.survives)
    return {
        "refusals": counted(refusals),
        "train": tally.to_json(),
        "training_repeats": training_repeats,
    }


def _without_copies(
    document: SentenceDocument,
    marks: tuple[int, list[int], list[int]],
    settings: CorpusSettings,
    refusals: Refusals,
) -> tuple[SentenceDocument | None, int]:
    """Return a document without the copies in it, None if nothing is left, and how many repeated sentences stay.

    Args:
        document: with its paragraphs.
        marks: `Mark` of the document, of its paragraphs, of its sentences.
        settings: `deduplicate` and `deduplicate_unit` are used.
        refusals: where the copies are counted.
    """
    unit = settings.deduplicate_unit if settings.deduplicate else None
    sentence_marks = marks[2]
    keep = [True] * len(sentence_marks)
    whole = True
    for reason, start, end in copies_in(document, *marks, unit):
        texts = document.sentences[start:end]
        refusals.add(reason, *texts, source=document.source, id=document.id)
        keep[start:end] = [False] * len(texts)
        whole = whole and reason == "duplicate_document"
    sentences, gaps = keep_sentences(document.sentences, document.gaps, keep)
    if sentences:
        repeats = sum(kept and mark > 0 for kept, mark in zip(keep, sentence_marks, strict=True))
        return replace(document, sentences=sentences, gaps=gaps), repeats
    if not whole:
        refusals.add("no_sentence_left", source=document.source, id=document.id)
    return None, 0


class _ThinnedSide:
    """What is left of one side of a part, and the tables of its names.

    In the tables a document is its place on this side, doubled, plus 1 if it is held out.
    """

    def __init__(self, work: Work, number: int, side: Side) -> None:
        self.count = 0
        self.documents = DigestWriter(work.part(number, THINNED[side]), sync=work.survives)
        self._tables = {name: work.part(number, f"{side}.{name}") for name in NAMES}
        self._keys = {name: array("Q") for name in NAMES}
        self._places = {name: array("I") for name in NAMES}
        self._is_held_out = side == "held_out"
        self._sync = work.survives

    def append(self, document: SentenceDocument) -> None:
        """Add one document."""
        self.documents.write_line(document.to_line())
        keys = {"id": key_of(document.source, document.id)}
        if document.title:
            keys["title"] = key_of(document.title)
        for name, key in keys.items():
            self._keys[name].append(key)
            self._places[name].append(2 * self.count + self._is_held_out)
        self.count += 1

    def close(self) -> None:
        """Write all."""
        self.documents.close()
        for name, path in self._tables.items():
            keys, places = self._keys[name], self._places[name]
            key_array, place_array = np.frombuffer(keys, dtype=np.uint64), np.frombuffer(places, dtype=np.uint32)
            write_table(path, key_array, place_array, sync=self._sync)


def name_bucket(work: Work, bucket: int) -> Result:
    """Find documents of one id, held-out titles that are also in training, and how many groups there are."""
    for name in ("id", "title"):
        training, held_out = (work.each_part(f"{side}.{name}") for side in SIDES)
        repeats, _ = find_repeats(training, held_out, bucket, work.num_buckets)
        repeats.write(work.bucket(bucket, name), sync=work.survives)
    return {"train": find_repeats(work.each_part(GROUPS), (), bucket, work.num_buckets)[1]}


def settle_part(work: Work, number: int) -> Result:
    """Give each document an id of its own, and refuse what is held out and has a title of training.

    The second and later documents of one source and id become "17~2", "17~3": files of one folder often count their
    lines from 1 each. What is held out and left are candidates, to be compared with all training text.
    """
    ids = read_repeats(number, work.each_bucket("id"))
    ranks = dict(zip(ids.place.tolist(), ids.rank.tolist(), strict=True))
    titles = read_repeats(number, work.each_bucket("title"))
    in_training = set(titles.place[titles.crosses].tolist())
    training = THINNED["train"]
    if any(place % 2 == 0 for place in ranks):
        training = "train.renamed.jsonl"
        with DigestWriter(work.part(number, training), sync=work.survives) as renamed:
            for place, document in enumerate(CorpusFile(work.part(number, THINNED["train"]))):
                renamed.write_line(_mended(document, ranks.get(2 * place)).to_line())
    runs = [np.empty(0, dtype=np.uint64)]
    with (
        work.refusing("settle", number) as refusals,
        DigestWriter(work.part(number, CANDIDATES), sync=work.survives) as candidates,
    ):
        for place, document in enumerate(CorpusFile(work.part(number, THINNED["held_out"]))):
            if 2 * place + 1 in in_training:
                reason = "held_out_title_in_training"
                refusals.add(reason, *document.sentences, source=document.source, id=document.id)
                continue
            candidates.write_line(_mended(document, ranks.get(2 * place + 1)).to_line())
            runs.append(run_hashes(comparable_text(document.sentences), work.settings.shared_run))
    write_bytes(work.part(number, RUNS), np.unique(np.concatenate(runs)).astype("<u8").tobytes(), sync=work.survives)
    return {"refusals": counted(refusals), "renamed": len(ranks), "training": training}


def _mended(document: SentenceDocument, rank: int | None) -> SentenceDocument:
    return document if rank is None else replace(document, id=f"{document.id}~{rank + 1}")
