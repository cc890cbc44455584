"""The first steps of a build: documents are read and sieved, near-duplicates found, and each is put on its side."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from xuebu.corpus.dedup import UNITS, digests_of
from xuebu.corpus.document import CorpusFile, Document
from xuebu.corpus.equals import write_table
from xuebu.corpus.near import NUM_PERMUTATIONS, SignatureStore, fingerprint
from xuebu.corpus.parts import Part
from xuebu.corpus.sieve import sieve_document
from xuebu.corpus.sources import read_part
from xuebu.corpus.split import group_place
from xuebu.corpus.work import Result, Work, counted
from xuebu.files import DigestWriter, read_json, to_json, write_bytes
from xuebu.progress import SILENT
from xuebu.rng import key_of

Side = Literal["train", "held_out"]
SIDES: tuple[Side, Side] = ("train", "held_out")

DOCUMENTS, REGROUPED = "documents.jsonl", "regrouped.json"

Items = dict[str, npt.NDArray[np.uint64]]
"""Of the documents of a part: the digests of themselves ("document"), their "paragraph"s and "sentence"s; how many
"paragraphs" and "sentences" each has; where near-duplicates are sought, the key of its "group" and, for "near", the
digest of its letters and digits."""
_ITEMS = (*UNITS, "paragraphs", "sentences", "group", "near")


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
    """Write the sentences that are left of documents, and the digests by which equal ones are found."""
    keys = {name: array("Q") for name in _ITEMS}
    places = array("d")
    read = characters = cleaned = 0
    groups: list[str] = []
    find_near = work.settings.near_duplicates != "ignore"
    work.part(number, "").mkdir(parents=True, exist_ok=True)
    writer = DigestWriter(work.part(number, DOCUMENTS), sync=work.survives)
    signatures = work.part(number, "signatures").open("wb") if find_near else None
    try:
        with work.refusing("sieve", number) as refusals:
            for document in documents:
                sieved = sieve_document(document, work.settings, refusals)
                read += 1
                characters += len(document.text)
                cleaned += sieved.characters
                kept = sieved.document
                if not kept:
                    continue
                writer.write_line(kept.to_line(paragraphs=True))
                digests = digests_of(kept)
                for unit in UNITS:
                    keys[unit].frombytes(getattr(digests, unit))
                keys["paragraphs"].append(len(kept.paragraphs) + 1)
                keys["sentences"].append(len(kept.sentences))
                places.append(group_place(kept.group))
                if signatures:
                    signature, digest = fingerprint(kept.sentences)
                    signatures.write(signature.tobytes())
                    keys["near"].frombytes(digest)
                    keys["group"].append(key_of(kept.group))
                    groups.append(kept.group)
        writer.close()
    finally:
        writer.abandon()
        if signatures:
            signatures.close()
    items = {name: np.frombuffer(values, dtype=np.uint64) for name, values in keys.items()}
    result: Result = {
        "documents_read": read,
        "characters_read": characters,
        "characters_cleaned": cleaned,
        **{unit: len(items[unit]) for unit in UNITS},
        "refusals": counted(refusals),
    }
    place_of = np.array(places, dtype=np.float64)
    if find_near:
        np.savez(work.part(number, "items.npz"), allow_pickle=False, places=place_of, **items)
        write_bytes(work.part(number, "groups.json"), to_json(groups).encode(), sync=work.survives)
    else:
        result |= _write_tables(work, number, items, place_of, np.ones(len(place_of), dtype=bool))
    work.done("sieve", number, result, identity)


def _write_tables(
    work: Work, number: int, items: Items, places: npt.NDArray[np.float64], kept: npt.NDArray[np.bool_]
) -> Result:
    """Write the digests of each side, and return how many documents it has and the smallest place of any."""
    is_held_out = places < work.settings.held_out_fraction
    for side, chosen in zip(SIDES, (kept & ~is_held_out, kept & is_held_out), strict=True):
        for unit in UNITS:
            owned = chosen if unit == "document" else np.repeat(chosen, items[f"{unit}s"].astype(np.int64))
            wanted = np.flatnonzero(owned)
            write_table(
                work.part(number, f"{side}.{unit}"), items[unit][wanted], wanted.astype(np.uint32), sync=work.survives
            )
    return {
        "placed_sentences": int(items["sentences"][kept].sum()),
        "train": int((kept & ~is_held_out).sum()),
        "held_out": int((kept & is_held_out).sum()),
        "smallest_place": float(places[kept].min()) if kept.any() else 1.0,
    }


def find_near(work: Work, _: int) -> Result:
    """Find near-duplicates among all documents, and say of which parts documents go or change their group."""
    store = SignatureStore(work.folder, work.settings.near_duplicate_similarity)
    sizes = []
    for number in range(work.num_parts):
        with np.load(work.part(number, "items.npz")) as items:
            digests, group_keys = items["near"], items["group"]
        sizes.append(len(digests))
        signatures = np.fromfile(work.part(number, "signatures"), dtype=np.uint32).reshape(-1, NUM_PERMUTATIONS)
        for signature, digest, group_key in zip(signatures, digests, group_keys.tolist(), strict=True):
            store.add(signature, digest.tobytes(), group_key)
    store.close()
    with SILENT.task("") as task:
        found = store.find(task)
    store.remove()
    is_first = np.zeros(len(found.leaders), dtype=bool)
    is_first[found.leaders[found.leaders != np.arange(len(found.leaders))]] = True
    drop = work.settings.near_duplicates == "drop"
    groups: dict[int, str] = {}
    start = 0
    for number, size in enumerate(sizes):
        own: list[str] = read_json(work.part(number, "groups.json"))
        dropped, changed = {}, {}
        for place in range(size):
            document = start + place
            leader = int(found.leaders[document])
            if is_first[document]:
                groups[document] = own[place]
            if drop and found.repeats[document] >= 0:
                dropped[place] = "duplicate_document" if found.equal[document] else "near_duplicate_document"
            elif (group := groups.get(leader, own[place])) != own[place]:
                changed[place] = group
        start += size
        write_bytes(
            work.part(number, REGROUPED), to_json({"dropped": dropped, "groups": changed}).encode(), sync=work.survives
        )
    return {}


def place_part(work: Work, number: int) -> Result:
    """Put the documents of a part on their sides, once it is known which are near-duplicates."""
    with np.load(work.part(number, "items.npz")) as stored:
        items = dict(stored)
    places = items.pop("places").astype(np.float64)
    dropped, groups = regrouped(work, number)
    for place, group in groups.items():
        places[place] = group_place(group)
    kept = np.ones(len(places), dtype=bool)
    kept[list(dropped)] = False
    with work.refusing("place", number) as refusals:
        for place, document in enumerate(CorpusFile(work.part(number, DOCUMENTS)) if dropped else ()):
            if place in dropped:
                refusals.add(dropped[place], *document.sentences, source=document.source, id=document.id)
    return {"refusals": counted(refusals), **_write_tables(work, number, items, places, kept)}


def regrouped(work: Work, number: int) -> tuple[dict[int, str], dict[int, str]]:
    """Return which documents of a part go, and why, and which change their group, and to which."""
    path = work.part(number, REGROUPED)
    if not path.exists():
        return {}, {}
    table = read_json(path)
    dropped, groups = ({int(place): text for place, text in table[name].items()} for name in ("dropped", "groups"))
    return dropped, groups
