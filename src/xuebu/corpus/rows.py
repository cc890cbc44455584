"""Readers of rows: one or two sentences a line in columns, as corpora of sentence pairs and of anonymised ids are.

Each row is a document of its own, and what stands in its two columns are neighbors. A column after those is a label;
pretraining does not look at it. Lines of ids without columns are read here too.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from xuebu.corpus.document import Document
from xuebu.corpus.symbols import read_ids
from xuebu.errors import InputError
from xuebu.files import Span, plain_suffix, read_lines

ROW_SUFFIXES = (".tsv", ".csv", ".jsonl", ".txt")
"""What a file of rows is called, but for a compression."""

_NAMES = (("sentence1", "sentence2"), ("text_a", "text_b"), ("premise", "hypothesis"), ("question1", "question2"),
          ("query1", "query2"), ("sentence", ""), ("text", ""))  # fmt: skip
_LABEL_NAMES = ("label", "score", "id", "")


def read_rows(
    path: Path, name: str, source: str, span: Span | None = None, *, columns: int, ids: bool
) -> Iterator[Document]:
    """Yield a document for each row of a file: its columns, one below the other, "name:line" as id and group.

    A .jsonl file has one object a line, with keys such as `sentence1` and `sentence2`; a .csv file commas and quotes;
    every other file tabs. A first line of such names is passed over, blank lines too. An empty column is left out: the
    row is then no pair.

    Args:
        path: the file; compressed as `read_lines` takes it.
        name: its name within the input.
        source: the input's name.
        span: lines of the file; None for all.
        columns: 1 or 2, how many columns are sentences; one more may follow, the label.
        ids: whether they hold token ids, which become symbols, see `xuebu.corpus.symbols`.

    Raises:
        InputError: a row has too few or too many columns, or holds no ids where it should; names file and line.
    """
    for number, line in read_lines(path, span):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        cells = _cells(line, plain_suffix(path), columns, where)
        if number == 1 and _is_header(cells, columns):
            continue
        if not columns <= len(cells) <= columns + 1:
            raise InputError(
                f"{where}: {len(cells)} columns; {columns} of them are to be sentences and one more may be a label "
                "(see row_columns)"
            )
        sentences = [read_ids(cell, where) if ids else " ".join(cell.split()) for cell in cells[:columns]]
        text = "\n".join(sentence for sentence in sentences if sentence)
        yield Document(id=f"{name}:{number}", title="", group=f"{name}:{number}", text=text, source=source)


def read_id_lines(path: Path, name: str, source: str, *, whole: bool) -> Iterator[Document]:
    """Yield runs of lines of token ids up to the next blank one, or the file as a whole, as documents of symbols.

    Raises:
        InputError: a line holds something else, or the file nothing; names file and line.
    """
    lines: list[str] = []
    start = 0
    for number, line in read_lines(path):
        if line.strip():
            start = start if lines else number
            lines.append(read_ids(line, f"{path}:{number}"))
        elif lines and not whole:
            yield _run_of_lines(f"{name}:{start}", lines, source)
            lines = []
    if lines:
        yield _run_of_lines(name if whole else f"{name}:{start}", lines, source)


def _run_of_lines(id: str, lines: list[str], source: str) -> Document:
    return Document(id=id, title="", group=id, text="\n".join(lines), source=source)


def _cells(line: str, suffix: str, columns: int, where: str) -> list[str]:
    if suffix == ".csv":
        try:
            return next(csv.reader([line], strict=True))
        except csv.Error as error:
            raise InputError(f"{where}: not a row of CSV: {error}; a cell must not run over several lines") from None
    if suffix != ".jsonl":
        return line.split("\t")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {error}") from None
    names = next((pair[:columns] for pair in _NAMES if isinstance(record, dict) and pair[0] in record), None)
    found = [record.get(key) for key in names] if names else []
    if not found or not all(isinstance(value, str) for value in found):
        wanted = " and ".join(f"`{key}`" for key in _NAMES[0][:columns])
        raise InputError(f"{where}: each line needs {wanted}, of strings")
    return [str(value) for value in found]


def _is_header(cells: list[str], columns: int) -> bool:
    """Return whether a row holds names of columns and no sentences."""
    lowered = [cell.strip().lower() for cell in cells]
    known = [pair[:columns] for pair in _NAMES]
    return tuple(lowered[:columns]) in known and all(cell in _LABEL_NAMES for cell in lowered[columns:])
