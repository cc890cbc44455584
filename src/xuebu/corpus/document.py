"""What a document is, before and after cleaning; every later step relies on these two shapes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xuebu.errors import InputError
from xuebu.files import read_lines

_ENCODE = json.JSONEncoder(ensure_ascii=False).encode
_SENTENCES = '"sentences": ["'


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    r"""One text as its source gives it.

    Attributes:
        id: unique within its source.
        title: may be empty.
        group: what must stay on one side of the held-out split: the title by default, the id where there is none.
        text: paragraphs parted by a line feed.
        source: where it came from, e.g. "sample" or the name of the input file or folder.
        script: "hans", "hant" or "" (not known).
        revision: revision or digest of the source, "" if not known.
        licence: e.g. "CC BY-SA 4.0", "" if not known.
        fetched_at: ISO 8601 time of fetching, "" if not known.
        domain: what it is about, e.g. the keyword that found it; "" if not known.
    """

    id: str
    title: str
    group: str
    text: str
    source: str
    script: str = ""
    revision: str = ""
    licence: str = ""
    fetched_at: str = ""
    domain: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceDocument:
    """One cleaned document: its sentences in order, and where neighbours were lost.

    Attributes:
        id, title, group, source, script, revision, licence, fetched_at, domain: as in Document.
        sentences: cleaned sentences, at least one, in the order of the text.
        gaps: increasing indices i in [1, len(sentences)) such that something was dropped between sentence i-1 and
            sentence i: they are not neighbours.
        paragraphs: increasing indices i in [1, len(sentences)) such that sentence i begins a paragraph; known while a
            corpus is built, and not kept in it.
    """

    id: str
    title: str
    group: str
    source: str
    sentences: tuple[str, ...]
    gaps: tuple[int, ...] = ()
    script: str = ""
    revision: str = ""
    licence: str = ""
    fetched_at: str = ""
    domain: str = ""
    paragraphs: tuple[int, ...] = ()

    def to_line(self) -> str:
        """Return the document as one line of JSON (no line feed), keys in a fixed order, without `paragraphs`."""
        record: dict[str, Any] = {"id": self.id, "title": self.title, "group": self.group, "source": self.source}
        for name in ("script", "revision", "licence", "fetched_at", "domain"):
            if value := getattr(self, name):
                record[name] = value
        record["sentences"] = self.sentences
        if self.gaps:
            record["gaps"] = self.gaps
        return _ENCODE(record)


def sentence_document_from(line: str, where: str) -> SentenceDocument:
    """Return the document that `SentenceDocument.to_line` wrote.

    Raises:
        InputError: the line is not such a document; begins with `where`.
    """
    try:
        record = json.loads(line)
        record["sentences"] = tuple(record["sentences"])
        record["gaps"] = tuple(record.get("gaps", ()))
        return SentenceDocument(**record)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{where}: not a corpus line ({error}); build the corpus again") from None


def raw_sentences(line: str, where: str) -> str:
    """Return the sentences of a line as they stand in it, with JSON's quotes, commas and backslashes among them.

    For who looks at letters and digits alone, in less time than parsing takes: cleaned text holds nothing that JSON
    would write by letters.

    Raises:
        InputError: the line is not such a document; begins with `where`.
    """
    start, end = line.find(_SENTENCES), line.rfind('"]')  # neither occurs inside of a value, whose quotes are escaped
    if not 0 <= start < end:
        raise InputError(f"{where}: not a corpus line; build the corpus again")
    return line[start + len(_SENTENCES) : end]


class CorpusFile:
    """The documents of one split of a built corpus, streamed in their order; can be iterated again and again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Any:
        for number, line in read_lines(self.path):
            yield sentence_document_from(line, f"{self.path}:{number}")
