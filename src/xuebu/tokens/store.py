"""The token store: a corpus split as memory-mapped files, opened at once whatever its size.

A folder holds token shards (`tokens-00000.bin`), one word-start bit a token (`words-00000.bin`), and tables of
sentences, documents and pools. Numbers are little-endian. `metadata.json` is written last, so a folder without it is
unfinished. A document never crosses a shard.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from xuebu.errors import InputError, StoreError
from xuebu.files import read_json, sha256_bytes, sha256_file, to_json
from xuebu.tokens.columns import bits_at, map_column, read_bits

METADATA = "metadata.json"
FORMAT = {"format": "xuebu token store", "version": 1}

COLUMNS: dict[str, str] = {
    "sentence_offsets": "<i8",
    "gap_before": "|b1",
    "anchors": "<i8",
    "document_offsets": "<i8",
    "document_group": "<i8",
    "document_key": "<u8",
    "document_pool": "<i4",
    "pool_sentences": "<i8",
    "pool_offsets": "<i8",
}
"""dtype of each table; its file is NAME.bin."""

POOLS = "pools.json"


def token_dtype(num_tokens: int) -> str:
    """Return the dtype that holds every id of a vocabulary of `num_tokens` entries."""
    return "<u2" if num_tokens <= 65_536 else "<u4"


def shard_files(num_shards: int) -> tuple[list[str], list[str]]:
    """Return the names of the token files and of the word-start files."""
    return (
        [f"tokens-{shard:05d}.bin" for shard in range(num_shards)],
        [f"words-{shard:05d}.bin" for shard in range(num_shards)],
    )


def content_digest(metadata: dict[str, Any]) -> str:
    """Return the digest of a store: of its vocabulary, its dtype and the digests of all its files."""
    files = {name: facts["sha256"] for name, facts in sorted(metadata["files"].items())}
    identity = [metadata["vocabulary_digest"], metadata["token_dtype"], files]
    return sha256_bytes(to_json(identity).encode("utf-8"))


class Store:
    """A corpus split as tokens. Make one with `build_store`, open one with `Store.open`.

    Attributes:
        folder: where it lies.
        metadata: what metadata.json says: counts, the share of [UNK], the digest of each file.
        digest: names the content; from the digests of the files and of the vocabulary.
        vocabulary_digest, corpus_digest, segmenter: what it was built with.
        num_tokens, num_sentences, num_documents, num_pools: counts.
        sentence_offsets: int64[S + 1], token where each sentence begins and ends.
        document_offsets: int64[D + 1], sentence where each document begins and ends.
        gap_before: bool[S], True where a sentence has no true predecessor (first of its document, or after a gap).
        anchors: int64[A], every sentence whose successor truly follows it.
        document_group: int64[D], hash of the name of the document's group.
        document_key: uint64[D], hash of source and id.
        document_pool: int32[D], index of the document's (source, script).
        pool_sentences: int64[S], all sentences sorted by pool, within a pool in their order.
        pool_offsets: int64[P + 1], where each pool begins and ends in `pool_sentences`.
    """

    sentence_offsets: npt.NDArray[np.int64]
    document_offsets: npt.NDArray[np.int64]
    gap_before: npt.NDArray[np.bool_]
    anchors: npt.NDArray[np.int64]
    document_group: npt.NDArray[np.int64]
    document_key: npt.NDArray[np.uint64]
    document_pool: npt.NDArray[np.int32]
    pool_sentences: npt.NDArray[np.int64]
    pool_offsets: npt.NDArray[np.int64]

    def __init__(self, folder: Path, metadata: dict[str, Any]) -> None:
        self.folder = folder
        self.metadata = metadata
        self.digest: str = metadata["digest"]
        self.vocabulary_digest: str = metadata["vocabulary_digest"]
        self.corpus_digest: str = metadata["corpus_digest"]
        self.segmenter: str = metadata["segmenter"]
        self.num_tokens: int = metadata["num_tokens"]
        self.num_sentences: int = metadata["num_sentences"]
        self.num_documents: int = metadata["num_documents"]
        self.num_pools: int = metadata["num_pools"]
        for name, dtype in COLUMNS.items():
            setattr(self, name, map_column(folder / f"{name}.bin", dtype))
        shards: list[int] = metadata["shards"]
        self._shard_starts = [0]
        for size in shards:
            self._shard_starts.append(self._shard_starts[-1] + size)
        token_files, word_files = shard_files(len(shards))
        self._tokens = [map_column(folder / name, metadata["token_dtype"]) for name in token_files]
        self._words = [map_column(folder / name, np.uint8) for name in word_files]

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Open a finished store. Sizes of files are checked, their content is not (see `verify`).

        Raises:
            StoreError: there is no finished store, it is of another format, or a file is missing or of the wrong size.
        """
        metadata = _read_metadata(folder)
        for name, facts in metadata["files"].items():
            path = folder / name
            size = path.stat().st_size if path.is_file() else None
            if size != facts["bytes"]:
                found = "is missing" if size is None else f"has {size:,} bytes, not {facts['bytes']:,}"
                raise StoreError(f"{path}: {found}; remove the folder and build the store again")
        return cls(folder, metadata)

    def __reduce__(self) -> tuple[Any, ...]:
        return Store.open, (self.folder,)

    def __repr__(self) -> str:
        return f"Store({str(self.folder)!r}: {self.num_tokens:,} tokens, {self.num_documents:,} documents)"

    def verify(self) -> None:
        """Read every file and compare it with its digest.

        Raises:
            StoreError: a file was changed since the store was built; names the first one.
        """
        for name, facts in self.metadata["files"].items():
            path = self.folder / name
            if not path.is_file() or sha256_file(path) != facts["sha256"]:
                raise StoreError(f"{path}: damaged (its digest has changed); remove the folder and build it again")

    def document_of(self, sentence_ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return the document of each sentence, int64 of the same shape."""
        found = np.searchsorted(self.document_offsets, np.asarray(sentence_ids), side="right") - 1
        return np.asarray(found, dtype=np.int64)

    def sentence_tokens(self, sentence: int) -> npt.NDArray[Any]:
        """Return the ids of a sentence: a read-only view into its shard, uint16 or uint32."""
        return self._within_shard(int(self.sentence_offsets[sentence]), int(self.sentence_offsets[sentence + 1]))

    def word_starts(self, sentence: int) -> npt.NDArray[np.bool_]:
        """Return for each token of a sentence whether a word starts there."""
        start, stop = int(self.sentence_offsets[sentence]), int(self.sentence_offsets[sentence + 1])
        shard = bisect_right(self._shard_starts, start) - 1
        first = self._shard_starts[shard]
        return read_bits(self._words[shard], start - first, stop - first)

    def read_tokens(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return tokens start to stop of the whole store; a view where they lie in one shard, else a copy.

        Raises:
            ValueError: not 0 <= start <= stop <= num_tokens.
        """
        if not 0 <= start <= stop <= self.num_tokens:
            raise ValueError(f"tokens {start} to {stop} of {self.num_tokens}")
        parts = []
        while start < stop:
            shard = bisect_right(self._shard_starts, start) - 1
            end = min(stop, self._shard_starts[shard + 1])
            parts.append(self._within_shard(start, end))
            start = end
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=self.metadata["token_dtype"])

    def take_tokens(self, places: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return the ids at some places of the whole store, in their order; uint16 or uint32[len(places)].

        Args:
            places: int64[N], 0 to num_tokens - 1.
        """
        return self._take(places, lambda shard, within: self._tokens[shard][within], self.metadata["token_dtype"])

    def take_word_starts(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return for each of some places, as in `take_tokens`, whether a word starts there."""
        return self._take(places, lambda shard, within: bits_at(self._words[shard], within), np.bool_)

    def _take(
        self,
        places: npt.NDArray[np.int64],
        read: Callable[[int, npt.NDArray[np.int64]], npt.NDArray[Any]],
        dtype: npt.DTypeLike,
    ) -> npt.NDArray[Any]:
        if len(self._tokens) == 1:
            return read(0, places)
        shards = np.searchsorted(self._shard_starts, places, side="right") - 1
        found = np.empty(len(places), dtype=dtype)
        for shard in np.unique(shards).tolist():
            chosen = shards == shard
            found[chosen] = read(shard, places[chosen] - self._shard_starts[shard])
        return found

    def _within_shard(self, start: int, stop: int) -> npt.NDArray[Any]:
        shard = bisect_right(self._shard_starts, start) - 1
        first = self._shard_starts[shard]
        return self._tokens[shard][start - first : stop - first]

    def pools(self) -> list[dict[str, str]]:
        """Return source and script of each pool, in the order of `document_pool`; read from the disk."""
        pools: list[dict[str, str]] = read_json(self.folder / POOLS)
        return pools

    def summary(self) -> str:
        """Return the counts in plain words."""
        unknown: int = self.metadata["unknown_tokens"]
        return (
            f"{self.num_tokens:,} tokens in {self.num_sentences:,} sentences of {self.num_documents:,} documents\n"
            f"{unknown:,} [UNK] ({100 * unknown / self.num_tokens:.2f} %), "
            f"{self.num_tokens / self.metadata['num_words']:.2f} tokens a word ({self.segmenter}), "
            f"{len(self.metadata['shards'])} shards, digest {self.digest[:12]}"
        )


def _read_metadata(folder: Path) -> dict[str, Any]:
    """Return a store's metadata after checking that it is whole; its files are not looked at."""
    path = folder / METADATA
    if not path.is_file():
        raise StoreError(f"{folder}: no finished token store here ({METADATA} is missing); build it again")

    def refuse(reason: str) -> NoReturn:
        raise StoreError(f"{path}: {reason}; remove the folder and build the store again") from None

    try:
        metadata = read_json(path)
    except InputError as error:
        raise StoreError(f"{error}; remove the folder and build the store again") from None
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT["format"]:
        refuse("not the metadata of a token store")
    if metadata.get("version") != FORMAT["version"]:
        refuse(f"format version {metadata.get('version')!r}, this program reads {FORMAT['version']}")
    try:
        shards = metadata["shards"]
        token_files, word_files = shard_files(len(shards))
        expected = [*(f"{name}.bin" for name in COLUMNS), *token_files, *word_files, POOLS]
        whole = (
            sorted(metadata["files"]) == sorted(expected)
            and sum(shards) == metadata["num_tokens"]
            and metadata["digest"] == content_digest(metadata)
            and all(isinstance(metadata[name], int) for name in _COUNTS)
            and all(isinstance(metadata[name], str) for name in ("corpus_digest", "segmenter"))
        )
    except (KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        refuse("damaged (its parts contradict each other)")
    metadata_checked: dict[str, Any] = metadata
    return metadata_checked


_COUNTS = ("num_tokens", "num_sentences", "num_documents", "num_pools", "num_anchors", "num_words", "unknown_tokens")
