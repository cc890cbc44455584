"""Dumps of wikis: pages-articles XML, whole or in its multistream form, to documents.

A dump is cut into chunks of whole pages. With the index of a multistream dump beside it, a chunk says where its pages
lie, and whoever converts it reads and decompresses them; without, it holds the pages, read from front to end.
"""

from __future__ import annotations

import bz2
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple
from xml.etree import ElementTree

from xuebu.corpus.clean import clean_line
from xuebu.corpus.document import Document
from xuebu.corpus.refusals import Refusals
from xuebu.corpus.settings import CorpusSettings
from xuebu.corpus.wikitext import wikitext_to_text
from xuebu.errors import InputError
from xuebu.files import open_binary, read_lines

CHUNK_BYTES = 2 * 1024 * 1024
MAX_PAGE_BYTES = 256 * 1024 * 1024

_DUMP_NAME = re.compile(r"(?P<before>.*-multistream)(?P<part>\d*)\.xml(?P<pages>-p\d+p\d+)?\.bz2")
_INDEX_NAME = re.compile(r".*-multistream-index\d*\.txt(?:-p\d+p\d+)?(?:\.bz2)?")
_REDIRECT = re.compile(r"\s*#(?:redirect|重定向)", re.IGNORECASE)
_PAGE_END = b"</page>"


class Chunk(NamedTuple):
    """Whole pages of a dump: XML, or where it lies in the file.

    Attributes:
        path: of the dump.
        start, length: of the compressed streams, in bytes; (0, 0) where `xml` holds the pages.
        xml: the pages, decompressed; b"" where they are still to be read.
    """

    path: Path
    start: int
    length: int
    xml: bytes = b""


@dataclass(slots=True)
class Converted:
    """What came of a chunk.

    Attributes:
        pages: (page id, title, revision, text, "") of each page that is kept, and ("id", "", "", "", reason) of each
            that is refused, in the order of the dump.
        removed: what was removed from the pages that are kept.
    """

    pages: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    removed: Counter[str] = field(default_factory=Counter)


def is_dump_name(path: Path) -> bool:
    """Return whether a file is named like a dump: .xml, or .xml-p1p187712, below its compression."""
    name = path.with_suffix("").name if path.suffix.lower() in (".bz2", ".gz", ".xz", ".zst") else path.name
    return re.fullmatch(r".*\.xml(?:-p\d+p\d+)?", name, re.IGNORECASE) is not None


def begins_as_dump(path: Path) -> bool:
    """Return whether a file begins like the dump of a wiki, or cannot be read at all."""
    try:
        with open_binary(path) as stream:
            return b"<mediawiki" in stream.read(4096)
    except (EOFError, OSError):
        return True  # to be told when it is read


def is_index_name(path: Path) -> bool:
    """Return whether a file is named like the index of a multistream dump."""
    return _INDEX_NAME.fullmatch(path.name) is not None


def index_of(path: Path) -> Path | None:
    """Return the index that lies beside a multistream dump, None if there is none."""
    name = _DUMP_NAME.fullmatch(path.name)
    if name is None:
        return None
    stem = f"{name['before']}-index{name['part']}.txt{name['pages'] or ''}"
    return next((beside for end in (".bz2", "") if (beside := path.with_name(stem + end)).exists()), None)


def read_dump(
    path: Path, source: str, *, settings: CorpusSettings, refusals: Refusals, chunks: Iterable[Chunk] | None = None
) -> Iterator[Document]:
    """Yield the pages of a dump as documents, in its order.

    Id is the page's id, group its title, revision its revision's id. Refused, and counted: pages outside of
    `dump_namespaces`, redirects, pages that are not wikitext, hidden texts, and all but the last revision of a page.
    What `wikitext_to_text` removes is counted too.

    Args:
        path: .xml, also as .bz2, .gz, .xz or .zst. A multistream dump is read by its index if it lies beside it under
            the name that it was published under.
        source: name of the input.
        settings: `dump_namespaces` and `wiki_variant` are used.
        refusals: receives the counts.
        chunks: the pages to read; None reads all.

    Raises:
        InputError: the file is damaged, no dump, or not the one of its index; names the place.
    """
    variant = settings.wiki_variant or None
    namespaces = frozenset(settings.dump_namespaces)
    for chunk in chunks_of(path) if chunks is None else chunks:
        converted = convert_chunk(chunk, namespaces=namespaces, variant=variant)
        for reason, count in sorted(converted.removed.items()):
            refusals.add_count(reason, count)
        for id, title, revision, text, reason in converted.pages:
            if reason:
                refusals.add(reason, source=source, id=id)
            else:
                yield Document(id=id, title=title, group=title or id, text=text, source=source, revision=revision)


def chunks_of(path: Path, raw: IO[bytes] | None = None) -> Iterator[Chunk]:
    """Yield the chunks of a dump: streams to be read by the index, or pages read here.

    Args:
        path: of the dump.
        raw: the same file, open already, so that one can ask how far it is read.

    Raises:
        InputError: the file is damaged, no dump, or not the one of its index.
    """
    index = index_of(path)
    if index is None:
        yield from _sequential_chunks(path, raw)
        return
    offsets = sorted({_offset(line, index, number) for number, line in read_lines(index) if line})
    if not offsets:
        raise InputError(f"{index}: is empty; download it again, or remove it to read the dump from front to end")
    size = path.stat().st_size
    head = _decompressed(Chunk(path, 0, offsets[0]))
    if b"<mediawiki" not in head[:4096]:
        raise InputError(f"{path}: not a dump of a wiki (it does not begin with <mediawiki>)")
    for start, end in zip(offsets, [*offsets[1:], size], strict=True):
        if start >= size:
            raise InputError(
                f"{path}: ends at byte {size:,}, before byte {start:,} of {index.name}; download both again"
            )
        yield Chunk(path, start, end - start)


def _offset(line: str, index: Path, number: int) -> int:
    offset = line.partition(":")[0]
    if not offset.isdecimal():
        raise InputError(f"{index}:{number}: each line must be offset:id:title, not {line[:60]!r}")
    return int(offset)


def _sequential_chunks(path: Path, raw: IO[bytes] | None) -> Iterator[Chunk]:
    """Yield the pages of a dump from front to end."""
    pending = b""
    read = 0
    try:
        with open_binary(path, raw) as stream:
            while block := stream.read(CHUNK_BYTES):
                if not read and b"<mediawiki" not in block[:4096]:
                    raise InputError(f"{path}: not a dump of a wiki (it does not begin with <mediawiki>)")
                read += len(block)
                before = max(len(pending) - len(_PAGE_END), 0)  # an end may lie across two blocks
                pending += block
                whole = pending.rfind(_PAGE_END, before)
                if whole < 0:
                    if len(pending) > MAX_PAGE_BYTES:
                        raise InputError(f"{path}: one page of over {MAX_PAGE_BYTES // 2**20} MiB; no dump of a wiki")
                    continue
                whole += len(_PAGE_END)
                xml, pending = pending[:whole], pending[whole:]
                yield Chunk(path, 0, 0, xml[max(xml.find(b"<page>"), 0) :])
    except (EOFError, OSError) as error:
        raise InputError(f"{path}: cannot be read to its end, cut short or damaged ({error})") from None
    if b"</mediawiki>" not in pending:
        raise InputError(f"{path}: cut short: </mediawiki> is missing at its end; download it again")


def _decompressed(chunk: Chunk) -> bytes:
    """Return the streams of a chunk, decompressed."""
    with chunk.path.open("rb") as stream:
        stream.seek(chunk.start)
        data = stream.read(chunk.length)
    parts: list[bytes] = []
    try:
        while data:
            decompressor = bz2.BZ2Decompressor()
            parts.append(decompressor.decompress(data))
            if not decompressor.eof:
                raise InputError(
                    f"{chunk.path}: the stream at byte {chunk.start:,} does not end where it should: the file is cut "
                    "short, or the index belongs to another dump; download both again"
                )
            data = decompressor.unused_data
    except OSError:
        raise InputError(
            f"{chunk.path}: no stream at byte {chunk.start:,}; the index belongs to another dump, or one is damaged"
        ) from None
    return b"".join(parts)


def convert_chunk(chunk: Chunk, *, namespaces: frozenset[int], variant: str | None) -> Converted:
    """Return the pages of a chunk as text.

    Raises:
        InputError: it is damaged or no XML of a dump.
    """
    xml = chunk.xml or _decompressed(chunk)
    pages = xml.rfind(_PAGE_END) + len(_PAGE_END)
    if xml[pages:].strip() not in (b"", b"</mediawiki>"):
        raise InputError(f"{chunk.path}: a page is cut short in the stream at byte {chunk.start:,}")
    xml = xml[:pages]
    try:
        root = ElementTree.fromstring(b"<pages>" + xml + b"</pages>")
    except ElementTree.ParseError as error:
        raise InputError(f"{chunk.path}: damaged XML near byte {chunk.start:,}: {error}") from None
    converted = Converted()
    for page in root:
        _convert_page(page, converted, namespaces, variant, chunk)
    return converted


def _convert_page(
    page: ElementTree.Element, converted: Converted, namespaces: frozenset[int], variant: str | None, chunk: Chunk
) -> None:
    id, title = clean_line(page.findtext("id") or ""), clean_line(page.findtext("title") or "")
    namespace, revisions = page.findtext("ns"), page.findall("revision")
    if namespace is None or not id:
        raise InputError(f"{chunk.path}: page {title!r} has no <{'ns' if id else 'id'}>; xuebu reads dumps since 2012")
    for _ in revisions[:-1]:
        converted.pages.append((id, "", "", "", "older_revision"))
    reason, text = "", ""
    if int(namespace) not in namespaces:
        reason = "other_namespace"
    elif not revisions or (body := revisions[-1].find("text")) is None or "deleted" in body.attrib:
        reason = "hidden_text"
    elif (revisions[-1].findtext("model") or "wikitext") != "wikitext":
        reason = "not_wikitext"
    elif page.find("redirect") is not None or _REDIRECT.match(body.text or ""):
        reason = "redirect"
    else:
        text, removed = wikitext_to_text(body.text or "", variant=variant)
        converted.removed += removed
    revision = "" if reason else clean_line(revisions[-1].findtext("id") or "")
    converted.pages.append((id, "" if reason else title, revision, text, reason))
