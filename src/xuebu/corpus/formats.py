"""Readers of one file each: plain text, Markdown, JSON lines, wikiextractor's output, the published study's JSON.

Each yields documents in the file's order, one in memory at a time (the study's JSON excepted), and names file and line
of whatever is wrong. `name` is the file's name within the input that the user gave, so that ids do not depend on where
a folder lies; `source` is that input's name. `span` holds whole documents of a file; without one all are read.
"""

from __future__ import annotations

import html
import json
import lzma
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from xuebu.corpus.clean import clean_line
from xuebu.corpus.document import Document
from xuebu.corpus.dump import is_dump_name, is_index_name
from xuebu.corpus.markdown import markdown_title
from xuebu.errors import InputError
from xuebu.files import MAX_LINE_BYTES, Span, open_binary, plain_suffix, read_lines

Kind = Literal["text", "json-lines", "wikiextractor", "json", "markdown", "parquet", "dump", "rows", "id-lines"]

FIELDS = (
    "id",
    "title",
    "text",
    "source",
    "script",
    "revision",
    "revid",
    "date",
    "licence",
    "license",
    "fetched_at",
    "domain",
)
"""Keys of a line of JSON, or columns of a table, that are read."""

MAX_DOCUMENT_CHARACTERS = 32 * 1024 * 1024

# Attributes are written unescaped: a title may hold quotes, so it runs to the last one.
_DOC_OPEN = re.compile(r'<doc id="(?P<id>[^"]*)"(?P<others>.*?) title="(?P<title>.*)">')
_REVISION = re.compile(r' revid="([^"]*)"')
_DOC_CLOSE = "</doc>"


def kind_of(path: Path) -> Kind | None:
    """Return how a file is to be read, by its name and, where that leaves it open, its first line; None: not known.

    Raises:
        InputError: the first line is needed and cannot be read.
    """
    if is_index_name(path):
        return None
    if is_dump_name(path):
        return "dump"
    match plain_suffix(path):
        case ".md" | ".markdown":
            return "markdown"
        case ".parquet":
            return "parquet"
        case ".txt":
            return "wikiextractor" if _DOC_OPEN.fullmatch(_first_line(path)) else "text"
        case ".jsonl":
            return "json-lines"
        case ".json":
            return "json"
        case "":
            first = _first_line(path)
            if _DOC_OPEN.fullmatch(first):
                return "wikiextractor"
            return "json-lines" if first.startswith("{") else None
        case _:
            return None


def _first_line(path: Path) -> str:
    """Return the first line that is not blank, trimmed; "" where there is none."""
    return next((stripped for _, line in read_lines(path) if (stripped := line.strip())), "")


def read_text_file(path: Path, name: str, source: str) -> Iterator[Document]:
    """Yield a text file as one document, its name as id and group; nothing if it is blank."""
    lines: list[str] = []
    size = 0
    for number, line in read_lines(path):
        lines.append(line)
        size = _checked_size(size + len(line), path, number)
    if any(line.strip() for line in lines):
        yield _document(name, "", "\n".join(lines), source)


def read_markdown(path: Path, name: str, source: str) -> Iterator[Document]:
    """Yield a Markdown file as one document, still as Markdown; its title is the front matter's or the first heading.

    Its id is its name; its group its title, or its name where it has none. Nothing if it is blank.
    """
    for document in read_text_file(path, name, source):
        title = clean_line(markdown_title(document.text))
        yield _document(name, title, document.text, source)


def read_text_blocks(path: Path, name: str, source: str, span: Span | None = None) -> Iterator[Document]:
    """Yield each run of lines up to the next blank one as a document, with "name:first line" as id and group."""
    lines: list[str] = []
    size = start = 0
    for number, line in read_lines(path, span):
        if line.strip():
            start = start if lines else number
            lines.append(line)
            size = _checked_size(size + len(line), path, number)
        elif lines:
            yield _document(f"{name}:{start}", "", "\n".join(lines), source)
            lines, size = [], 0
    if lines:
        yield _document(f"{name}:{start}", "", "\n".join(lines), source)


def _checked_size(size: int, path: Path, number: int) -> int:
    if size > MAX_DOCUMENT_CHARACTERS:
        raise InputError(
            f"{path}:{number}: one document of over {MAX_DOCUMENT_CHARACTERS // 2**20} Mi characters; part the "
            'documents with blank lines and set txt_documents = "blank-line"'
        )
    return size


def read_json_lines(path: Path, name: str, source: str, span: Span | None = None) -> Iterator[Document]:
    """Yield one document a line of JSON: `text`, and where present `id`, `title`, `source`, `script` and more.

    Known optional keys: `id` (else "name:line"), `title`, `source`, `script` ("hans" or "hant"), `revision` (or
    `revid`, or `date`: a dated version), `licence` (or `license`), `fetched_at`, `domain`. Other keys are ignored,
    blank lines too. The group is the title, or the id where there is none.

    Raises:
        InputError: a line is not a JSON object, has no `text`, or a key's value is of the wrong type.
    """
    for number, line in read_lines(path, span):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        yield document_of(_object_of(line, where), where, f"{name}:{number}", source)


def document_of(record: dict[str, Any], where: str, id: str, source: str) -> Document:
    """Return the document of one record; `id` and `source` serve where it states none.

    Raises:
        InputError: it has no `text`, or a key's value is of the wrong type; begins with `where`.
    """
    if not isinstance(record.get("text"), str):
        problem = "no `text`" if "text" not in record else f"`text` must be a string, not {_shown(record['text'])}"
        raise InputError(f"{where}: {problem}; each line needs id, title and text")
    script = _field(record, where, "script").lower()
    if script not in ("", "hans", "hant"):
        raise InputError(f'{where}: `script` must be "hans" or "hant", not {_shown(script)}')
    return _document(
        _field(record, where, "id") or id,
        _field(record, where, "title"),
        record["text"],
        _field(record, where, "source") or source,
        script=script,
        revision=_field(record, where, "revision", "revid", "date"),
        licence=_field(record, where, "licence", "license"),
        fetched_at=_field(record, where, "fetched_at"),
        domain=_field(record, where, "domain"),
    )


def _object_of(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        problem = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise InputError(f"{where}: not JSON: {problem}") from None
    if not isinstance(record, dict):
        raise InputError(f"{where}: each line must be a JSON object, not {_shown(record)}")
    return record


def _field(record: dict[str, Any], where: str, *keys: str) -> str:
    """Return the first key's value that is present and not null, as cleaned text; "" if there is none."""
    for key in keys:
        value = record.get(key)
        if isinstance(value, bool) or not isinstance(value, str | int | float | None):
            raise InputError(f"{where}: `{key}` must be a string, not {_shown(value)}")
        if value is not None:
            return clean_line(str(value))
    return ""


def read_wikiextractor(path: Path, name: str, source: str, span: Span | None = None) -> Iterator[Document]:
    """Yield the articles between `<doc id= url= title=>` and `</doc>`; entities (&lt; and kin) are resolved.

    Raises:
        InputError: text outside an article, an article inside another, or one that is not closed.
    """
    header: re.Match[str] | None = None
    opened = size = 0
    lines: list[str] = []
    for number, line in read_lines(path, span):
        stripped = line.strip()
        opening = _DOC_OPEN.fullmatch(stripped)
        if opening and header:
            raise InputError(f"{path}:{number}: <doc> inside the <doc> of line {opened}; a </doc> is missing")
        if opening:
            header, opened, size, lines = opening, number, 0, []
        elif header and stripped == _DOC_CLOSE:
            yield _wiki_document(header, f"{name}:{opened}", "\n".join(lines), source)
            header = None
        elif header:
            lines.append(line)
            size = _checked_size(size + len(line), path, number)
        elif stripped:
            raise InputError(f"{path}:{number}: text outside <doc> ... </doc>: {_shown(stripped)}")
    if header:
        raise InputError(f"{path}:{opened}: <doc> is never closed; the file is cut short")


def _wiki_document(header: re.Match[str], where: str, text: str, source: str) -> Document:
    revision = _REVISION.search(header["others"])
    return _document(
        clean_line(header["id"]) or where,
        clean_line(html.unescape(header["title"])),
        html.unescape(text) if "&" in text else text,
        source,
        revision=revision[1] if revision else "",
    )


def read_json(path: Path, name: str, source: str) -> Iterator[Document]:
    """Yield the sentences of the published study's JSON, {"sentences": [...], "vocab": [...]}, or JSON lines.

    That file has no documents, and its sentences went through an unordered set: which sentence follows which is not
    known. So each is a document and a group of its own, without neighbours: it serves masked language modelling and
    cannot serve next-sentence prediction. The whole file is held in memory, about ten times its size at worst. Other
    keys are ignored. A .json file of one JSON object a line, as CLUE's are, is read as JSON lines.

    Raises:
        InputError: the file is neither.
    """
    if _begins_with_record(path):
        yield from read_json_lines(path, name, source)
        return
    content = _parsed(path)
    if content is None:
        return
    if not isinstance(content, dict) or not isinstance(content.get("sentences"), list):
        raise InputError(
            f'{path}:1: needs {{"sentences": [...]}} or one {{"id", "title", "text"}} a line, not {_shown(content)}'
        )
    for index, sentence in enumerate(content["sentences"]):
        if not isinstance(sentence, str):
            raise InputError(f"{path}: `sentences[{index}]` must be a string, not {_shown(sentence)}")
        yield _document(f"{name}:{index}", "", sentence, source)


def _begins_with_record(path: Path) -> bool:
    """Return whether the first line is a whole JSON object with `text`."""
    with _reading(path) as stream:
        raw = b"\n"
        while raw and not raw.strip():
            raw = stream.readline(MAX_LINE_BYTES + 1)
    try:
        record = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and "text" in record and "sentences" not in record


def _parsed(path: Path) -> Any:
    """Return the value of a JSON file of any size; None if the file is blank."""
    with _reading(path) as stream:
        raw = stream.read()
    if not raw.strip():
        return None
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: not UTF-8; convert it first, e.g. iconv -f GB18030 -t UTF-8") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON that can be read: {error}") from None


@contextmanager
def _reading(path: Path) -> Iterator[IO[bytes]]:
    try:
        with open_binary(path) as stream:
            yield stream
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read to its end, cut short or damaged ({error})") from None


def _document(id: str, title: str, text: str, source: str, **known: str) -> Document:
    return Document(id=id, title=title, group=title or id, text=text, source=source, **known)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
