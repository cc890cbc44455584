"""What a build keeps on disk between its steps: sieved documents and the digests of their sentences."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xuebu.corpus.dedup import UNITS, digests_of
from xuebu.corpus.document import CorpusFile, SentenceDocument
from xuebu.corpus.near import SignatureStore
from xuebu.corpus.refusals import Refusals
from xuebu.corpus.settings import Unit
from xuebu.files import DigestWriter
from xuebu.progress import Progress
from xuebu.rng import key_of

UInt64 = npt.NDArray[np.uint64]


class SievedSide:
    """The sieved documents of one side of the split, in order; eight bytes a document stay in memory."""

    def __init__(self, folder: Path, name: str) -> None:
        self.num_documents = 0
        self.document_keys = array("Q")
        self._documents = DigestWriter(folder / f"{name}.sieved")
        self._digest_files = {unit: (folder / f"{name}.{unit}.digests").open("wb") for unit in UNITS}

    def append(self, document: SentenceDocument) -> None:
        """Add one document."""
        self.num_documents += 1
        self.document_keys.append(document_key(document))
        self._documents.write_line(document.to_line(paragraphs=True))
        digests = digests_of(document)
        for unit, file in self._digest_files.items():
            file.write(getattr(digests, unit))

    def finish(self) -> None:
        """Close both files; from now on they can be read."""
        self._documents.close()
        for file in self._digest_files.values():
            file.close()

    def abandon(self) -> None:
        """Close whatever is still open."""
        self._documents.abandon()
        for file in self._digest_files.values():
            file.close()

    def digests(self, unit: Unit) -> UInt64:
        """Return the digests of all units of a kind in order, read from the disk as needed."""
        path = Path(self._digest_files[unit].name)
        return np.memmap(path, dtype="<u8", mode="r") if path.stat().st_size else np.empty(0, dtype=np.uint64)

    def __iter__(self) -> Iterator[SentenceDocument]:
        return iter(CorpusFile(self._documents.path))


class NearStage:
    """The sieved documents of both sides together, until it is known which are near-duplicates of which."""

    def __init__(self, folder: Path, similarity: float) -> None:
        self._documents = DigestWriter(folder / "all.sieved")
        self._signatures = SignatureStore(folder, similarity)

    def append(self, document: SentenceDocument) -> None:
        """Add one document."""
        self._documents.write_line(document.to_line(paragraphs=True))
        self._signatures.append(document.sentences, document.group)

    def finish(self, drop: bool, refusals: Refusals, progress: Progress) -> Iterator[SentenceDocument]:
        """Yield the documents in order, each in the group of its cluster's first; its files are gone at the end.

        Args:
            drop: do not yield those near to an earlier document that is kept, but count them.
            refusals: where they are counted.
            progress: where progress is shown.
        """
        self._documents.close()
        self._signatures.close()
        with progress.task("find near-duplicates", self._signatures.num_bands, "bands") as task:
            found = self._signatures.find(task)
        self._signatures.remove()
        is_first = np.zeros(len(found.leaders), dtype=bool)
        is_first[found.leaders[found.leaders != np.arange(len(found.leaders))]] = True
        groups: dict[int, str] = {}
        with progress.task("split", len(found.leaders), "documents") as task:
            for number, document in enumerate(CorpusFile(self._documents.path)):
                task.advance()
                if is_first[number]:
                    groups[number] = document.group
                if drop and found.repeats[number] >= 0:
                    reason = "duplicate_document" if found.equal[number] else "near_duplicate_document"
                    refusals.add(reason, *document.sentences, source=document.source, id=document.id)
                    continue
                group = groups.get(int(found.leaders[number]), document.group)
                yield document if group == document.group else replace(document, group=group)
        self._documents.path.unlink()

    def abandon(self) -> None:
        """Close whatever is still open."""
        self._documents.abandon()
        self._signatures.close()


def document_key(document: SentenceDocument) -> int:
    """Return 64 bits that stand for a document's source and id."""
    return key_of(document.source, document.id)


class UniqueIds:
    """Gives the second and later documents of one source and id an id of their own: "17~2", "17~3".

    Files of one folder often count their lines from 1 each; the ids must be unique within the source.
    """

    def __init__(self, *keys: array[int]) -> None:
        values, counts = np.unique(
            np.concatenate([np.frombuffer(k, dtype=np.uint64) for k in keys]), return_counts=True
        )
        self._seen = dict.fromkeys(values[counts > 1].tolist(), 0)
        self.num_renamed = 0

    def mend(self, document: SentenceDocument) -> SentenceDocument:
        """Return the document, renamed if its source and id were met before."""
        if not self._seen or (key := document_key(document)) not in self._seen:
            return document
        self._seen[key] += 1
        if self._seen[key] == 1:
            return document
        self.num_renamed += 1
        return replace(document, id=f"{document.id}~{self._seen[key]}")
