"""Cutting the input into parts: whole documents, of any number of files, that one process reads and cleans by itself.

No result depends on how the input is cut.
"""

from __future__ import annotations

import lzma
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from xuebu.corpus import formats
from xuebu.corpus.document import Document
from xuebu.corpus.dump import Chunk, chunks_of, index_of
from xuebu.corpus.settings import CorpusSettings
from xuebu.corpus.tables import RowGroups, row_groups
from xuebu.errors import InputError
from xuebu.files import COMPRESSIONS, MAX_LINE_BYTES, Span, open_binary, sha256_bytes

MIN_PART_BYTES, MAX_PART_BYTES = 4 << 20, 64 << 20
MAX_FILES = 1_000
PARTS = 512

MAX_DOCUMENT_BYTES = 5 * formats.MAX_DOCUMENT_CHARACTERS
_BYTES_A_CHARACTER = 3


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file to read.

    Attributes:
        path: where it lies.
        name: its name within the input, "/" between folders.
        source: the name of the input; for a single .txt file that is one document, of the folder it lies in.
        kind: how it is read.
        number: its place among the files of the input.
    """

    path: Path
    name: str
    source: str
    kind: formats.Kind
    number: int = 0


@dataclass(frozen=True, slots=True)
class Stretch:
    """A file, or a stretch of it.

    Attributes:
        file: the file.
        span: lines of it; None for all.
        chunks: pages of it, if it is a dump; () for all.
        groups: row groups of it, if it is parquet; None for all.
    """

    file: InputFile
    span: Span | None = None
    chunks: tuple[Chunk, ...] = ()
    groups: RowGroups | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of the input.

    Attributes:
        size: bytes as they lie on the disk; where that is not known, about as many as the text has.
        stretches: what is to be read, in order.
        documents: or the documents themselves, where they do not come from files.
    """

    size: int
    stretches: tuple[Stretch, ...] = ()
    documents: tuple[Document, ...] = ()

    def identity(self) -> str:
        """Return a digest that changes with the files, their sizes and times, and what is read of them."""
        facts: list[object] = []
        for stretch in self.stretches:
            found = stretch.file.path.stat()
            facts.append((stretch.file, found.st_size, found.st_mtime_ns, (stretch.span or ())[:3]))
            facts += [(chunk.start, chunk.length) for chunk in stretch.chunks]
            facts += [stretch.groups] if stretch.groups else []
        return sha256_bytes(repr(facts).encode("utf-8", "surrogatepass"))


def part_bytes(total: int) -> int:
    """Return how large parts should be: some hundred of them, and none so large that to redo it costs much."""
    return min(max(total // PARTS, MIN_PART_BYTES), MAX_PART_BYTES)


def num_workers(files: Sequence[InputFile], asked: int) -> int:
    """Return how many of the processes that are asked for such files can keep busy."""
    return min(asked, 1 + sum(file.path.stat().st_size for file in files) // MIN_PART_BYTES)


def cut_documents(documents: Iterable[Document]) -> Iterator[Part]:
    """Yield parts of documents that come one by one."""
    waiting: list[Document] = []
    size = 0
    for document in documents:
        waiting.append(document)
        size += _BYTES_A_CHARACTER * len(document.text)
        if size >= MIN_PART_BYTES:
            yield Part(size, documents=tuple(waiting))
            waiting, size = [], 0
    if waiting:
        yield Part(size, documents=tuple(waiting))


def cut_files(files: Sequence[InputFile], settings: CorpusSettings, *, whole: bool = False) -> Iterator[Part]:
    """Yield parts of files, in order: some small ones together, a stretch of a large one.

    Lines of JSON, documents parted by blank lines, wikiextractor's output, dumps and parquet's row groups can be cut. A
    compressed one is
    decompressed here, one after the other, and its lines go to whoever cleans them; only a multistream dump with its
    index is decompressed there.

    Args:
        files: the files.
        settings: `txt_documents` is used.
        whole: cut only what can be cut without decompressing it here: so that parts are small facts.

    Raises:
        InputError: a file cannot be read, or is damaged.
    """
    wanted = part_bytes(sum(file.path.stat().st_size for file in files))
    together: list[Stretch] = []
    size = 0
    for file in files:
        found = file.path.stat()
        cut = _cutter(file, settings, wanted, whole)
        if cut and stat.S_ISREG(found.st_mode) and found.st_size > wanted:
            if together:
                yield Part(size, tuple(together))
                together, size = [], 0
            yield from cut()
            continue
        together.append(Stretch(file))
        size += found.st_size
        if size >= wanted or len(together) == MAX_FILES:
            yield Part(size, tuple(together))
            together, size = [], 0
    if together:
        yield Part(size, tuple(together))


def _cutter(file: InputFile, settings: CorpusSettings, wanted: int, whole: bool) -> Callable[[], Iterator[Part]] | None:
    """Return what cuts a large file, None where it must be read as a whole."""
    compressed = file.path.suffix.lower() in COMPRESSIONS
    if file.kind == "dump":
        return None if whole and not index_of(file.path) else partial(_cut_dump, file, wanted)
    if whole and compressed:
        return None
    if file.kind == "parquet":
        return partial(_cut_parquet, file, wanted)
    end: str | None
    if file.kind in ("json-lines", "rows"):
        end = None
    elif file.kind == "wikiextractor":
        end = "</doc>"
    elif file.kind == "text" and settings.txt_documents == "blank-line":
        end = ""
    else:
        return None
    return partial(_cut_lines, file, MIN_PART_BYTES if compressed else wanted, end)


def _cut_lines(file: InputFile, wanted: int, end: str | None) -> Iterator[Part]:
    """Yield stretches of lines; `end` is the line, trimmed, that ends a document, None if every line does."""
    start = lines = done = 0
    compressed = file.path.suffix.lower() in COMPRESSIONS
    try:
        with file.path.open("rb") as raw, open_binary(file.path, raw) as stream:
            while data := _whole_documents(stream, wanted, end):
                span = Span(start, len(data), lines, data if compressed else None)
                start, lines, before, done = start + len(data), lines + data.count(b"\n"), done, raw.tell()
                yield Part(done - before if compressed else len(data), (Stretch(file, span),))
    except (EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise InputError(f"{file.path}: {error.strerror}") from None
        raise InputError(f"{file.path}: compressed data is cut short or damaged after line {lines:,}") from None


def _whole_documents(stream: IO[bytes], wanted: int, end: str | None) -> bytes:
    """Return the next bytes, about as many as wanted, up to the end of a document; at the end of the file, the rest.

    Less than a whole document only where it is larger than any may be, which its reader will say.
    """
    pieces = [stream.read(wanted)]
    last = pieces[0][pieces[0].rfind(b"\n", 0, -1) + 1 :]
    size = 0
    while not _ends(last, end) and size < MAX_DOCUMENT_BYTES and (more := stream.readline(MAX_LINE_BYTES + 1)):
        pieces.append(more)
        last = more if last.endswith(b"\n") else last + more
        size += len(more)
    return b"".join(pieces)


def _ends(line: bytes, end: str | None) -> bool:
    return line.endswith(b"\n") and (end is None or line.decode("utf-8", "replace").strip() == end)


def _cut_dump(file: InputFile, wanted: int) -> Iterator[Part]:
    """Yield stretches of pages: where they lie, of a multistream dump with its index, or decompressed here."""
    indexed = index_of(file.path) is not None
    waiting: list[Chunk] = []
    size = done = 0
    with file.path.open("rb") as raw:
        for chunk in chunks_of(file.path, raw):
            waiting.append(chunk)
            size += chunk.length or len(chunk.xml)
            if size >= (max(wanted // 4, 1) if indexed else MIN_PART_BYTES):
                before, done = done, raw.tell()
                yield Part(size if indexed else done - before, (Stretch(file, chunks=tuple(waiting)),))
                waiting, size = [], 0
    if waiting:
        yield Part(size if indexed else file.path.stat().st_size - done, (Stretch(file, chunks=tuple(waiting)),))


def _cut_parquet(file: InputFile, wanted: int) -> Iterator[Part]:
    """Yield row groups, as many together as have about the wanted bytes."""
    groups = row_groups(file.path)
    share = file.path.stat().st_size / max(1, sum(num_bytes for _, num_bytes in groups))  # other columns are not read
    first = before = rows = size = 0
    for number, (num_rows, num_bytes) in enumerate(groups):
        rows += num_rows
        size += round(share * num_bytes)
        if size >= wanted or number == len(groups) - 1:
            yield Part(size, (Stretch(file, groups=RowGroups(first, number + 1, before)),))
            first, before, rows, size = number + 1, before + rows, 0, 0
