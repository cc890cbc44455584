"""Building a token store: documents in a stream, memory bounded by some hundred thousand characters or a document."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xuebu.corpus.document import SentenceDocument
from xuebu.errors import InputError, StoreError
from xuebu.files import sync_folder, to_json, write_atomic, write_json
from xuebu.progress import SILENT, Progress
from xuebu.rng import key_of
from xuebu.tokens.columns import BitWriter, ColumnWriter, file_facts, map_column
from xuebu.tokens.segmenters import Segmenter, make_segmenter
from xuebu.tokens.settings import StoreSettings
from xuebu.tokens.store import COLUMNS, FORMAT, METADATA, POOLS, Store, content_digest, shard_files, token_dtype
from xuebu.tokens.vocab import Located, Vocabulary
from xuebu.tokens.words import token_word_starts

_OWN_FILE = re.compile(rf"(tokens|words)-\d{{5,}}\.bin|({'|'.join(COLUMNS)})\.bin|{POOLS}|\..*\.partial")
_DOCUMENTS_AT_ONCE = 65_536  # when sorting sentences by pool
_CHARACTERS_AT_ONCE = 1 << 18  # when encoding and writing
_REPORT_EVERY = 256  # documents

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]


def build_store(
    documents: Iterable[SentenceDocument],
    vocabulary: Vocabulary,
    out: Path,
    settings: StoreSettings,
    *,
    corpus_digest: str,
    words: Path | None = None,
    progress: Progress = SILENT,
) -> Store:
    """Write the documents as a token store, and open it.

    A finished store of the same corpus, vocabulary and settings is opened as it is; what an interrupted build left
    behind is removed and built anew.

    Args:
        documents: in their order, read once.
        vocabulary: gives the ids.
        out: the store's folder.
        settings: segmenter and shard size.
        corpus_digest: names the documents; recorded.
        words: file of the words that the segmenter "statistics" has learned.
        progress: where the build reports to.

    Raises:
        InputError: a document has no sentence, a sentence without a token, or impossible gaps; or there is none at all.
        StoreError: `out` holds a store of something else, or files that are no store's.
    """
    dictionary = Path(settings.dictionary) if settings.dictionary else words
    segmenter = make_segmenter(settings.segmenter, dictionary)
    identity = {
        "vocabulary_digest": vocabulary.digest,
        "corpus_digest": corpus_digest,
        "segmenter": segmenter.name,
        "shard_tokens": settings.shard_tokens,
    }
    if (out / METADATA).exists():
        store = Store.open(out)
        different = [name for name, value in identity.items() if store.metadata.get(name) != value]
        if different:
            raise StoreError(
                f"{out}: holds a store with another {', '.join(different)}; remove it, or choose another folder"
            )
        return store
    _clear(out)
    writer = _Writer(out, vocabulary, segmenter, settings.shard_tokens)
    try:
        with progress.task("token store", unit="documents") as task:
            for number, document in enumerate(documents, start=1):
                writer.add(document)
                if number % _REPORT_EVERY == 0:
                    task.advance(_REPORT_EVERY)
                    task.show(f"{writer.num_tokens:,} tokens")
            task.advance(writer.num_documents % _REPORT_EVERY)
            task.show(f"{writer.num_tokens:,} tokens")
        if not writer.num_documents:
            raise InputError(f"{out}: the split has no documents to store; set held_out_fraction above 0")
        metadata = {**FORMAT, "digest": "", **identity, **writer.finish()}
    finally:
        writer.abandon()
    metadata["digest"] = content_digest(metadata)
    sync_folder(out)
    write_json(out / METADATA, metadata)
    return Store.open(out)


def _clear(out: Path) -> None:
    """Make the folder, and remove what an unfinished build left in it."""
    if out.exists() and not out.is_dir():
        raise StoreError(f"{out}: is a file; choose another folder for the token store")
    out.mkdir(parents=True, exist_ok=True)
    leftovers = sorted(out.iterdir())
    for path in leftovers:
        if not _OWN_FILE.fullmatch(path.name):
            raise StoreError(f"{path}: is no part of a token store; choose an empty folder for the store")
    for path in leftovers:
        path.unlink()


class _Writer:
    """The open files of a store in the making."""

    def __init__(self, out: Path, vocabulary: Vocabulary, segmenter: Segmenter, shard_tokens: int) -> None:
        self.num_tokens = self.num_documents = 0
        self._num_sentences = self._num_words = self._num_unknown = 0
        self._out, self._vocabulary, self._segmenter, self._shard_tokens = out, vocabulary, segmenter, shard_tokens
        self._continues_word = vocabulary.continues_word()
        self._dtype = token_dtype(vocabulary.num_tokens)
        self._pools: dict[tuple[str, str], int] = {}
        self._shards: list[int] = []
        self._files: dict[str, dict[str, Any]] = {}
        streamed = [name for name in COLUMNS if not name.startswith("pool_")]
        self._columns = {name: ColumnWriter(out / f"{name}.bin", COLUMNS[name]) for name in streamed}
        self._columns["sentence_offsets"].append([0])
        self._columns["document_offsets"].append([0])
        self._waiting: list[SentenceDocument] = []
        self._num_waiting = 0
        self._tokens: ColumnWriter | None = None
        self._words: BitWriter | None = None

    def add(self, document: SentenceDocument) -> None:
        """Append one document; it is written together with others."""
        _check(document)
        self._waiting.append(document)
        self._num_waiting += sum(map(len, document.sentences))
        self.num_documents += 1
        if self._num_waiting >= _CHARACTERS_AT_ONCE:
            self._write_waiting()

    def _write_waiting(self) -> None:
        documents, self._waiting, self._num_waiting = self._waiting, [], 0
        if not documents:
            return
        located = self._vocabulary.locate([sentence for document in documents for sentence in document.sentences])
        bounds = np.cumsum([0, *(len(document.sentences) for document in documents)])
        empty = np.flatnonzero(np.diff(located.offsets) == 0)
        if empty.size:
            number = int(np.searchsorted(bounds, empty[0], side="right")) - 1
            raise InputError(
                f"{_where(documents[number])}: sentence {empty[0] - bounds[number]} is nothing but white space or "
                "control characters; build the corpus again"
            )
        starts = self._word_starts(documents, located, bounds)
        self._write_tokens(located.ids, starts, located.offsets[bounds])
        gap_before = np.zeros(int(bounds[-1]), dtype=np.bool_)
        gap_before[bounds[:-1]] = True
        for first, document in zip(bounds.tolist(), documents, strict=False):
            gap_before[[first + gap for gap in document.gaps]] = True
        groups = [key_of("group", document.group) for document in documents]
        keys = [key_of("document", document.source, document.id) for document in documents]
        pools = self._pools
        columns = self._columns
        columns["sentence_offsets"].append(self.num_tokens + located.offsets[1:])
        columns["gap_before"].append(gap_before)
        columns["anchors"].append(self._num_sentences + np.flatnonzero(~gap_before[1:]))
        columns["document_offsets"].append(self._num_sentences + bounds[1:])
        columns["document_group"].append(np.array(groups, dtype=np.uint64).view(np.int64))
        columns["document_key"].append(np.array(keys, dtype=np.uint64))
        columns["document_pool"].append([pools.setdefault((one.source, one.script), len(pools)) for one in documents])
        self.num_tokens += len(located.ids)
        self._num_sentences += int(bounds[-1])
        self._num_words += int(starts.sum())
        self._num_unknown += int((located.ids == self._vocabulary.unk_id).sum())

    def _word_starts(self, documents: list[SentenceDocument], located: Located, bounds: Int64) -> Bool:
        """Return the word starts of some documents; a segmenter sees one at a time."""
        text, ids, places, offsets, ends = located
        if self._segmenter.cut is None:
            return token_word_starts(text, ids, places, self._continues_word, self._segmenter)
        parts: list[Bool] = []
        for first, last, document in zip(bounds[:-1].tolist(), bounds[1:].tolist(), documents, strict=True):
            begin = int(ends[first - 1]) + 1 if first else 0
            tokens = slice(int(offsets[first]), int(offsets[last]))
            own = text[begin : int(ends[last - 1])]
            try:
                parts.append(
                    token_word_starts(own, ids[tokens], places[tokens] - begin, self._continues_word, self._segmenter)
                )
            except (InputError, StoreError) as error:
                raise type(error)(f"{_where(document)}: {error}") from None
        return np.concatenate(parts)

    def _write_tokens(self, ids: npt.NDArray[np.int32], starts: Bool, bounds: Int64) -> None:
        """Write the tokens of documents, as many at once as fit into a shard."""
        first = 0
        while first < len(bounds) - 1:
            room = self._shard_tokens - (0 if self._tokens is None else self._tokens.length)
            last = int(np.searchsorted(bounds, bounds[first] + room, side="right")) - 1
            if last <= first and self._tokens is not None:
                self._close_shard()
                continue
            last = max(last, first + 1)  # a longer document gets a shard of its own
            if self._tokens is None or self._words is None:
                token_files, word_files = shard_files(len(self._shards) + 1)
                self._tokens = ColumnWriter(self._out / token_files[-1], self._dtype)
                self._words = BitWriter(self._out / word_files[-1])
            tokens = slice(int(bounds[first]), int(bounds[last]))
            self._tokens.append(ids[tokens])
            self._words.append(starts[tokens])
            first = last

    def _close_shard(self) -> None:
        if self._tokens is not None and self._words is not None:
            self._shards.append(self._tokens.length)
            self._files[self._tokens.path.name] = self._tokens.close()
            self._files[self._words.path.name] = self._words.close()
            self._tokens = self._words = None

    def finish(self) -> dict[str, Any]:
        """Close all files, write the tables of pools, and return the metadata."""
        self._write_waiting()
        self._close_shard()
        num_anchors = self._columns["anchors"].length
        for name, column in self._columns.items():
            self._files[f"{name}.bin"] = column.close()
        self._write_pools()
        return {
            "token_dtype": self._dtype,
            "num_tokens": self.num_tokens,
            "num_sentences": self._num_sentences,
            "num_documents": self.num_documents,
            "num_pools": len(self._pools),
            "num_anchors": num_anchors,
            "num_words": self._num_words,
            "unknown_tokens": self._num_unknown,
            "unknown_share": self._num_unknown / self.num_tokens,
            "shards": self._shards,
            "files": dict(sorted(self._files.items())),
        }

    def _write_pools(self) -> None:
        """Sort all sentences by pool, stably, a bounded number of documents at a time."""
        document_offsets = map_column(self._out / "document_offsets.bin", "<i8")
        document_pool = map_column(self._out / "document_pool.bin", "<i4")
        chunks = [
            slice(first, min(first + _DOCUMENTS_AT_ONCE, self.num_documents))
            for first in range(0, self.num_documents, _DOCUMENTS_AT_ONCE)
        ]
        sizes = np.zeros(len(self._pools), dtype=np.int64)
        for chunk in chunks:
            lengths = np.diff(document_offsets[chunk.start : chunk.stop + 1])
            np.add.at(sizes, document_pool[chunk], lengths)
        pool_offsets = np.concatenate([[0], np.cumsum(sizes)])
        path = self._out / "pool_sentences.bin"
        with path.open("wb") as stream:
            _reserve(stream.fileno(), 8 * self._num_sentences)
        sentences = np.memmap(path, dtype="<i8", mode="r+", shape=(self._num_sentences,))
        cursors = pool_offsets[:-1].copy()
        for chunk in chunks:
            bounds = document_offsets[chunk.start : chunk.stop + 1]
            pools = np.repeat(document_pool[chunk], np.diff(bounds))
            order = np.argsort(pools, kind="stable")
            present, first, counts = np.unique(pools[order], return_index=True, return_counts=True)
            places = np.arange(len(order)) - np.repeat(first, counts) + np.repeat(cursors[present], counts)
            sentences[places] = bounds[0] + order
            cursors[present] += counts
        sentences.flush()
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        self._files[path.name] = file_facts(path)
        offsets = ColumnWriter(self._out / "pool_offsets.bin", COLUMNS["pool_offsets"])
        offsets.append(pool_offsets)
        self._files["pool_offsets.bin"] = offsets.close()
        pools_json = to_json([{"source": source, "script": script} for source, script in self._pools])
        write_atomic(self._out / POOLS, pools_json)
        self._files[POOLS] = file_facts(self._out / POOLS)

    def abandon(self) -> None:
        """Close whatever is still open."""
        for writer in (self._tokens, self._words, *self._columns.values()):
            if writer is not None:
                writer.abandon()


def _reserve(descriptor: int, size: int) -> None:
    """Make a file `size` bytes long. Its blocks are taken now: a full disk would else end the process by SIGBUS."""
    if hasattr(os, "posix_fallocate"):  # not on macOS
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.truncate(descriptor, size)


def _where(document: SentenceDocument) -> str:
    return f"document {document.id!r} of {document.source!r}"


def _check(document: SentenceDocument) -> None:
    """Raise InputError unless the document has sentences and possible gaps."""
    where = _where(document)
    if not document.sentences:
        raise InputError(f"{where}: has no sentence; build the corpus again")
    gaps = list(document.gaps)
    if gaps != sorted(set(gaps)) or (gaps and not (gaps[0] >= 1 and gaps[-1] < len(document.sentences))):
        raise InputError(f"{where}: gaps {gaps[:5]} must increase from 1 to below {len(document.sentences)}")
