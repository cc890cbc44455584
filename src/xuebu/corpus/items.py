"""What is known of the documents of a part besides their lines: in arrays, which steps look at without reading text."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from xuebu.corpus.dedup import UNITS, digests_of, digests_of_runs
from xuebu.corpus.document import SentenceDocument
from xuebu.corpus.settings import Unit
from xuebu.corpus.split import group_place
from xuebu.corpus.work import Work, read_arrays
from xuebu.rng import key_of

UInt64 = npt.NDArray[np.uint64]
Int64 = npt.NDArray[np.int64]

ITEMS, DIGESTS = "items.npz", "digests.npz"


@dataclass(frozen=True, slots=True)
class Items:
    """The documents of a part, in order.

    Attributes:
        bytes: int64[documents], of the line.
        sentences, paragraphs: int64[documents], how many each has.
        paragraph_sentences: int64[all paragraphs], sentences of each paragraph.
        places: float64[documents], where the group stands; see `split.group_place`.
        id, title, group: uint64[documents], keys; that of a title is 0 where there is none.
    """

    bytes: Int64
    sentences: Int64
    paragraphs: Int64
    paragraph_sentences: Int64
    places: npt.NDArray[np.float64]
    id: UInt64
    title: UInt64
    group: UInt64

    def __len__(self) -> int:
        return len(self.sentences)

    def write(self, work: Work, number: int) -> None:
        """Write them as a file of a part."""
        work.write_arrays(work.part(number, ITEMS), **{each.name: getattr(self, each.name) for each in fields(self)})

    @staticmethod
    def read(work: Work, number: int) -> Items:
        """Return what `write` wrote; raises InputError where it is missing."""
        return Items(**read_arrays(work.part(number, ITEMS)))


class ItemWriter:
    """Gathers items and digests, document by document."""

    def __init__(self) -> None:
        self._bytes, self._sentences, self._paragraphs = array("q"), array("q"), array("q")
        self._paragraph_sentences, self._places = array("q"), array("d")
        self._ids, self._titles, self._groups = array("Q"), array("Q"), array("Q")
        self._digests: dict[Unit, list[UInt64]] = {unit: [np.empty(0, dtype=np.uint64)] for unit in UNITS}

    def extend(self, documents: Sequence[SentenceDocument], num_bytes: Sequence[int]) -> None:
        """Add documents with the bytes of their lines; many at once are done faster."""
        first_document, first_paragraph = len(self._sentences), len(self._paragraph_sentences)
        for document in documents:
            bounds = (0, *document.paragraphs, len(document.sentences))
            self._sentences.append(len(document.sentences))
            self._paragraphs.append(len(bounds) - 1)
            self._paragraph_sentences.extend(map(int.__sub__, bounds[1:], bounds))
            self._places.append(group_place(document.group))
            self._ids.append(key_of(document.source, document.id))
            self._groups.append(group := key_of(document.group))
            self._titles.append(
                group if document.title == document.group else key_of(document.title) if document.title else 0
            )
        self._bytes.extend(num_bytes)
        sentences = digests_of([sentence for document in documents for sentence in document.sentences])
        sizes = {
            "paragraph": np.array(self._paragraph_sentences[first_paragraph:], dtype=np.int64),
            "document": np.array(self._sentences[first_document:], dtype=np.int64),
        }
        self._digests["sentence"].append(sentences)
        self._digests["paragraph"].append(digests_of_runs(sentences, sizes["paragraph"]))
        self._digests["document"].append(digests_of_runs(sentences, sizes["document"]))

    def items(self) -> Items:
        """Return the items so far."""
        return Items(
            bytes=np.array(self._bytes, dtype=np.int64),
            sentences=np.array(self._sentences, dtype=np.int64),
            paragraphs=np.array(self._paragraphs, dtype=np.int64),
            paragraph_sentences=np.array(self._paragraph_sentences, dtype=np.int64),
            places=np.array(self._places, dtype=np.float64),
            id=np.array(self._ids, dtype=np.uint64),
            title=np.array(self._titles, dtype=np.uint64),
            group=np.array(self._groups, dtype=np.uint64),
        )

    def digests(self) -> dict[Unit, UInt64]:
        """Return the digests so far, of documents, of paragraphs and of sentences."""
        return {unit: np.concatenate(each) for unit, each in self._digests.items()}


def starts_of(sizes: Int64) -> Int64:
    """Return where runs of such sizes start, and at last where the last one ends: int64[runs + 1]."""
    return np.concatenate([[0], np.cumsum(sizes)])
