"""The steps of a build that take repeats away: of documents, paragraphs and sentences, of ids, and of titles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from xuebu.corpus.dedup import UNITS, Mark, copies_in, keep_sentences
from xuebu.corpus.document import SentenceDocument, sentence_document_from
from xuebu.corpus.equals import find_repeats, read_repeats, write_table
from xuebu.corpus.items import Items, UInt64, starts_of
from xuebu.corpus.overlap import compared_codes, run_hashes
from xuebu.corpus.reading import DOCUMENTS, SIDES, TALLY, Side, Sides
from xuebu.corpus.refusals import Refusals
from xuebu.corpus.settings import CorpusSettings, Unit
from xuebu.corpus.tally import Tally
from xuebu.corpus.work import Result, Work, counted, missing, read_values
from xuebu.files import write_bytes
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
    """Write what is left of a part without the copies that the settings drop, each side for itself.

    Lines of training documents without a copy are taken over as they stand, and what the sieve counted is changed by
    the others alone: most text is not looked at again.
    """
    sieved = work.result("sieve", number)
    items = Items.read(work, number)
    sides = Sides.of(work, number, items)
    marks = {unit: _marks(work, number, unit, sieved[unit]) for unit in UNITS}
    copies_before = starts_of((marks["sentence"] > 0).astype(np.int64))
    ends = starts_of(items.sentences)
    has_copies = np.diff(copies_before[ends]) > 0
    is_same = sides.train & ~has_copies
    is_same[list(sides.groups)] = False
    left = {"train": is_same.copy(), "held_out": np.zeros(len(items), dtype=bool)}
    groups = items.group.copy()
    tally = Tally.from_json(read_values(work.part(number, TALLY)))
    paragraph_ends, lines = starts_of(items.paragraphs), starts_of(items.bytes)
    path, training_repeats = work.part(number, DOCUMENTS), 0
    _check_size(path, int(lines[-1]))
    with (
        path.open("rb") as source,
        work.refusing("thin", number) as refusals,
        work.writing(work.part(number, THINNED["train"])) as training,
        work.writing(work.part(number, THINNED["held_out"])) as held_out,
    ):
        done = 0
        for place in np.flatnonzero(~is_same).tolist():
            _copy(source, training, int(lines[place] - lines[done]))
            done = place + 1
            line = source.read(int(items.bytes[place])).decode()
            document = sentence_document_from(line, f"{path}:{place + 1}")
            tally.take_off(document)
            side = next((side for side in SIDES if getattr(sides, side)[place]), None)
            if side is None:  # a near-duplicate that goes
                continue
            repeats = 0
            if has_copies[place]:
                own = slice(int(paragraph_ends[place]), int(paragraph_ends[place + 1]))
                starts = starts_of(items.paragraph_sentences[own])[1:-1].tolist()
                own_marks = (
                    int(marks["document"][place]),
                    marks["paragraph"][own].tolist(),
                    marks["sentence"][ends[place] : ends[place + 1]].tolist(),
                )
                whole = replace(document, paragraphs=tuple(starts))
                kept, repeats = _without_copies(whole, own_marks, work.settings, refusals)
                if kept is None:
                    continue
                document = kept
            if place in sides.groups:
                document = replace(document, group=sides.groups[place])
                groups[place] = key_of(document.group)
            left[side][place] = True
            (training if side == "train" else held_out).write(document.to_line().encode() + b"\n")
            if side == "train":
                tally.add(document)
                training_repeats += repeats
        _copy(source, training, int(lines[-1] - lines[done]))
    for side in SIDES:
        _write_names(work, number, side, items, np.flatnonzero(left[side]))
    keys = groups[left["train"]]
    write_table(work.part(number, GROUPS), keys, np.arange(len(keys), dtype=np.uint32), sync=work.survives)
    return {
        "refusals": counted(refusals),
        "train": tally.to_json(),
        "training_repeats": training_repeats,
    }


def _check_size(path: Path, size: int) -> None:
    if not path.exists() or path.stat().st_size != size:
        raise missing(path)


def _copy(source: IO[bytes], out: IO[bytes], size: int) -> None:
    """Copy so many bytes."""
    while size > 0 and (data := source.read(min(size, 1 << 20))):
        out.write(data)
        size -= len(data)


def _write_names(work: Work, number: int, side: Side, items: Items, left: npt.NDArray[np.intp]) -> None:
    """Write the tables of the names of what is left of a side.

    In them a document is its place on this side, doubled, plus 1 if it is held out.
    """
    for name in NAMES:
        keys: UInt64 = getattr(items, name)[left]
        named = np.flatnonzero(keys)
        places = (2 * named + (side == "held_out")).astype(np.uint32)
        write_table(work.part(number, f"{side}.{name}"), keys[named], places, sync=work.survives)


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
        training, path = "train.renamed.jsonl", work.part(number, THINNED["train"])
        with work.writing(work.part(number, training)) as renamed, path.open("rb") as source:
            for place, line in enumerate(source):
                rank = ranks.get(2 * place)
                renamed.write(line if rank is None else _renamed(line, rank, f"{path}:{place + 1}"))
    runs = [np.empty(0, dtype=np.uint64)]
    path = work.part(number, THINNED["held_out"])
    with (
        work.refusing("settle", number) as refusals,
        work.writing(work.part(number, CANDIDATES)) as candidates,
        path.open("rb") as source,
    ):
        for place, line in enumerate(source):
            where = f"{path}:{place + 1}"
            document = sentence_document_from(line.decode(), where)
            if 2 * place + 1 in in_training:
                reason = "held_out_title_in_training"
                refusals.add(reason, *document.sentences, source=document.source, id=document.id)
                continue
            rank = ranks.get(2 * place + 1)
            candidates.write(line if rank is None else _renamed(line, rank, where))
            codes = compared_codes(["".join(document.sentences)], exact=work.settings.token_ids)
            runs.append(run_hashes(codes, work.settings.shared_run))
    write_bytes(work.part(number, RUNS), np.unique(np.concatenate(runs)).astype("<u8").tobytes(), sync=work.survives)
    return {"refusals": counted(refusals), "renamed": len(ranks), "training": training}


def _renamed(line: bytes, rank: int, where: str) -> bytes:
    document = sentence_document_from(line.decode(), where)
    return replace(document, id=f"{document.id}~{rank + 1}").to_line().encode() + b"\n"
