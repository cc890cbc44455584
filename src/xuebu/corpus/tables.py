"""Documents from tables: parquet files, and data sets of the Hugging Face hub, read as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from xuebu.corpus.document import Document
from xuebu.corpus.formats import FIELDS, document_of
from xuebu.errors import InputError, MissingExtraError

BATCH_ROWS = 256


class RowGroups(NamedTuple):
    """Some row groups of a parquet file.

    Attributes:
        first, end: [first, end) of them.
        rows_before: rows before them.
    """

    first: int
    end: int
    rows_before: int


def row_groups(path: Path) -> list[tuple[int, int]]:
    """Return rows and bytes on the disk of each row group of a parquet file; of the columns that are read.

    Raises:
        InputError, MissingExtraError: as `read_parquet`.
    """
    with _opened(path) as table:
        wanted = {number for number, name in enumerate(table.schema.names) if name in FIELDS}
        found = (table.metadata.row_group(number) for number in range(table.num_row_groups))
        return [
            (group.num_rows, sum(group.column(column).total_compressed_size for column in wanted)) for group in found
        ]


def read_parquet(path: Path, name: str, source: str, groups: RowGroups | None = None) -> Iterator[Document]:
    """Yield one document a row of a parquet file; its columns are the keys of JSON lines (see `read_json_lines`).

    Some hundred rows are in memory at a time, and the pages that they lie on; other columns are not read.

    Args:
        path: the file.
        name: its name within the input.
        source: the input's name.
        groups: the row groups to read; None for all.

    Raises:
        InputError: the file is damaged, or has no column `text` of strings.
        MissingExtraError: pyarrow is not installed.
    """
    row = groups.rows_before if groups else 0
    with _opened(path) as table:
        columns = [column for column in table.schema_arrow.names if column in FIELDS]
        if "text" not in columns:
            known = ", ".join(table.schema_arrow.names[:8])
            raise InputError(f"{path}: no column `text`; its columns are {known}")
        wanted = range(groups.first, groups.end) if groups else None
        for batch in table.iter_batches(BATCH_ROWS, wanted, columns):
            for record in batch.to_pylist():
                row += 1
                yield document_of(record, f"{path}: row {row}", f"{name}:{row}", source)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise MissingExtraError.of("hub", f"{path}: reading parquet") from None
    try:
        with pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20) as table:  # else a whole row group is read at once
            yield table
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as parquet ({_first_line(error)})") from None


def read_hub(name: str) -> Iterator[Document]:
    """Yield the rows of a data set of the Hugging Face hub as documents, streamed: nothing is downloaded beforehand.

    The columns are those of `read_parquet`. The data set's name is the source.

    Args:
        name: "owner/name", "owner/name:config" or "owner/name:config:split"; the split is "train" by default.

    Raises:
        InputError: there is no such data set, configuration or split, it cannot be reached, or a row has no text.
        MissingExtraError: datasets is not installed.
    """
    parts = name.split(":")
    if len(parts) > 3 or not all(parts[:1]):
        raise InputError(f"{name!r}: not a data set; write owner/name, owner/name:config or owner/name:config:split")
    config, split = (parts[1] if len(parts) > 1 else "") or None, (parts[2] if len(parts) > 2 else "") or "train"
    try:
        import datasets
    except ModuleNotFoundError:
        raise MissingExtraError.of("hub", f"the data set {name}") from None
    try:
        rows = iter(datasets.load_dataset(parts[0], config, split=split, streaming=True))
    except Exception as error:  # the libraries below raise errors of many kinds
        raise InputError(f"{name}: cannot be opened on the hub ({_first_line(error)})") from None
    yield from _hub_documents(rows, parts[0], name)


def _hub_documents(rows: Iterator[dict[str, Any]], source: str, name: str) -> Iterator[Document]:
    number = 0
    while True:
        try:
            record = next(rows, None)
        except Exception as error:
            raise InputError(f"{name}: broke off after row {number:,} ({_first_line(error)})") from None
        if record is None:
            return
        number += 1
        yield document_of(record, f"{name}: row {number}", str(number), source)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().split("\n", maxsplit=1)[0][:200]
