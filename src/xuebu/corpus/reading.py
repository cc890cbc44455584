"""The first steps of a build: documents are read and sieved, near-duplicates found, and each is put on its side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from xuebu.corpus.dedup import UNITS
from xuebu.corpus.document import CorpusFile, Document, SentenceDocument
from xuebu.corpus.equals import write_table
from xuebu.corpus.items import DIGESTS, Items, ItemWriter, UInt64, starts_of
from xuebu.corpus.near import Fingerprints, FingerprintTable, SignatureStore
from xuebu.corpus.parts import Part
from xuebu.corpus.settings import Unit
from xuebu.corpus.sieve import sieve_document
from xuebu.corpus.sources import read_part
from xuebu.corpus.split import group_place
from xuebu.corpus.tally import Tally
from xuebu.corpus.work import Result, Work, counted, read_arrays, read_values
from xuebu.files import to_json, write_bytes
from xuebu.progress import SILENT

Side = Literal["train", "held_out"]
SIDES: tuple[Side, Side] = ("train", "held_out")

DOCUMENTS, REGROUPED, GROUP_NAMES, TALLY = "documents.jsonl", "regrouped.json", "groups.json", "tally.json"
FINGERPRINTS = "fingerprints.npz"

_BATCH_BYTES = 1 << 18


def sieve_part(work: Work, number: int, part: Part, identity: str) -> None:
    """Read, clean and sieve a part of the input, unless that is done."""
    if not work.is_done("sieve", number, identity):
        sieve_documents(work, number, read_documents_of(work, number, part, identity), identity)


def read_documents_of(work: Work, number: int, part: Part, identity: str) -> Iterator[Document]:
    """Yield the documents of a part; what was refused before there was a document is marked at the end."""
    found: Counter[int] = Counter()
    with work.refusing("read", number) as refusals:
        yield from read_part(part, work.settings, refusals, found)
    work.done("read", number, {"found": found, "refusals": counted(refusals)}, identity)


def sieve_documents(work: Work, number: int, documents: Iterable[Document], identity: str) -> None:
    """Write the sentences that are left of documents, what is known of them, and what equal ones are found by."""
    read = characters = cleaned = num_waiting = 0
    tally, writer = Tally(), ItemWriter()
    groups: list[str] = []
    fingerprints = None
    if work.settings.near_duplicates != "ignore":
        fingerprints = Fingerprints(work.settings.near_duplicate_similarity, exact=work.settings.token_ids)
    waiting: list[SentenceDocument] = []
    sizes: list[int] = []
    with work.writing(work.part(number, DOCUMENTS)) as stream, work.refusing("sieve", number) as refusals:
        for document in documents:
            sieved = sieve_document(document, work.settings, refusals)
            read += 1
            characters += len(document.text)
            cleaned += sieved.characters
            if kept := sieved.document:
                waiting.append(kept)
                sizes.append(stream.write(kept.to_line().encode() + b"\n"))
                tally.add(kept)
                if fingerprints is not None:
                    fingerprints.append(kept.sentences)
                    groups.append(kept.group)
                num_waiting += sizes[-1]
                if num_waiting > _BATCH_BYTES:
                    writer.extend(waiting, sizes)
                    waiting, sizes, num_waiting = [], [], 0
        writer.extend(waiting, sizes)
    items, digests = writer.items(), writer.digests()
    items.write(work, number)
    write_bytes(work.part(number, TALLY), to_json(tally.to_json(), indent=None).encode(), sync=work.survives)
    result: Result = {
        "documents_read": read,
        "characters_read": characters,
        "characters_cleaned": cleaned,
        **{unit: len(digests[unit]) for unit in UNITS},
        "refusals": counted(refusals),
    }
    if fingerprints is not None:
        found = fingerprints.table()
        work.write_arrays(
            work.part(number, FINGERPRINTS), **{each.name: getattr(found, each.name) for each in fields(found)}
        )
        work.write_arrays(work.part(number, DIGESTS), **digests)
        write_bytes(work.part(number, GROUP_NAMES), to_json(groups, indent=None).encode(), sync=work.survives)
    else:
        result |= _write_tables(work, number, items, digests, Sides.of(work, number, items))
    work.done("sieve", number, result, identity)


@dataclass(frozen=True, slots=True)
class Sides:
    """What becomes of the documents of a part.

    Attributes:
        train, held_out: bool[documents], whether a document is on this side; one that goes is on none.
        places: float64[documents], where the group stands that each is in now.
        dropped: near-duplicates that go -> why.
        groups: near-duplicates that stay -> the group that they are in now, where it is another.
    """

    train: npt.NDArray[np.bool_]
    held_out: npt.NDArray[np.bool_]
    places: npt.NDArray[np.float64]
    dropped: dict[int, str]
    groups: dict[int, str]

    @staticmethod
    def of(work: Work, number: int, items: Items) -> Sides:
        """Return those of a part, once it is known which documents are near-duplicates."""
        dropped, groups = _regrouped(work, number)
        places, kept = items.places.copy(), np.ones(len(items), dtype=bool)
        for place, group in groups.items():
            places[place] = group_place(group)
        kept[list(dropped)] = False
        is_held_out = places < work.settings.held_out_fraction
        return Sides(kept & ~is_held_out, kept & is_held_out, places, dropped, groups)


def _write_tables(work: Work, number: int, items: Items, digests: Mapping[Unit, UInt64], sides: Sides) -> Result:
    """Write the digests of each side, and return how many documents it has and the smallest place of any."""
    sizes = {"paragraph": items.paragraphs, "sentence": items.sentences}
    for side, chosen in zip(SIDES, (sides.train, sides.held_out), strict=True):
        for unit in UNITS:
            wanted = np.flatnonzero(chosen if unit == "document" else np.repeat(chosen, sizes[unit]))
            path = work.part(number, f"{side}.{unit}")
            write_table(path, digests[unit][wanted], wanted.astype(np.uint32), sync=work.survives)
    kept = sides.train | sides.held_out
    return {
        "placed_sentences": int(items.sentences[kept].sum()),
        "train": int(sides.train.sum()),
        "held_out": int(sides.held_out.sum()),
        "smallest_place": float(sides.places[kept].min()) if kept.any() else 1.0,
    }


def find_near(work: Work, _: int) -> Result:
    """Find near-duplicates among all documents, and say of which parts documents go or change their group.

    The one task of a build that no other process shares in: it only joins the fingerprints that the parts made.
    """
    store = SignatureStore(work.folder, work.settings.near_duplicate_similarity)
    sizes = []
    for number in range(work.num_parts):
        table = FingerprintTable(**read_arrays(work.part(number, FINGERPRINTS)))
        store.extend(table, Items.read(work, number).group)
        sizes.append(len(table.digests))
    store.close()
    with SILENT.task("") as task:
        found = store.find(task)
    store.remove()
    is_member = found.leaders != np.arange(len(found.leaders))
    is_first = np.zeros(len(found.leaders), dtype=bool)
    is_first[found.leaders[is_member]] = True
    is_dropped = (found.repeats >= 0) & (work.settings.near_duplicates == "drop")
    groups: dict[int, str] = {}  # of the first of each cluster
    for number, start in enumerate(starts_of(np.array(sizes, dtype=np.int64))[:-1].tolist()):
        here = slice(start, start + sizes[number])
        own: list[str] = []
        if (is_first | is_member)[here].any():
            own = read_values(work.part(number, GROUP_NAMES))
        groups.update((start + place, own[place]) for place in np.flatnonzero(is_first[here]).tolist())
        dropped = {
            place: "duplicate_document" if found.equal[start + place] else "near_duplicate_document"
            for place in np.flatnonzero(is_dropped[here]).tolist()
        }
        changed = {
            place: group
            for place in np.flatnonzero((is_member & ~is_dropped)[here]).tolist()
            if (group := groups[int(found.leaders[start + place])]) != own[place]
        }
        text = to_json({"dropped": dropped, "groups": changed}, indent=None)
        write_bytes(work.part(number, REGROUPED), text.encode(), sync=work.survives)
    return {}


def place_part(work: Work, number: int) -> Result:
    """Put the documents of a part on their sides, once it is known which are near-duplicates."""
    items = Items.read(work, number)
    sides = Sides.of(work, number, items)
    with work.refusing("place", number) as refusals:
        for place, document in enumerate(CorpusFile(work.part(number, DOCUMENTS)) if sides.dropped else ()):
            if place in sides.dropped:
                refusals.add(sides.dropped[place], *document.sentences, source=document.source, id=document.id)
    digests = cast(dict[Unit, UInt64], read_arrays(work.part(number, DIGESTS)))
    return {"refusals": counted(refusals), **_write_tables(work, number, items, digests, sides)}


def _regrouped(work: Work, number: int) -> tuple[dict[int, str], dict[int, str]]:
    """Return which documents of a part go, and why, and which change their group, and to which."""
    if work.settings.near_duplicates == "ignore":
        return {}, {}
    table = read_values(work.part(number, REGROUPED))
    dropped, groups = ({int(place): text for place, text in table[name].items()} for name in ("dropped", "groups"))
    return dropped, groups
