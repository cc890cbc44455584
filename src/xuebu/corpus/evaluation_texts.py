"""Texts of evaluation sets, from whatever file they come in: what a corpus is compared with for leaks."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xuebu.corpus.script import convert_script
from xuebu.corpus.settings import Conversion
from xuebu.errors import ConfigError, InputError
from xuebu.files import COMPRESSIONS, read_json, read_lines


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """The texts of one file.

    Attributes:
        name: the file as it was given.
        texts: in the order of the file, repeats included.
    """

    name: str
    texts: tuple[str, ...]


def read_evaluation_set(path: Path, fields: Sequence[str] = (), *, convert: Conversion = "none") -> EvaluationSet:
    """Return the texts of a .jsonl, .json, .tsv, .csv or .txt file, which may be compressed.

    Args:
        path: in a .txt file each line is a text; in .jsonl and .json each string, however deep; in .tsv and .csv each
            cell. Labels and ids are strings too: the comparison passes over what is too short to compare.
        fields: take only the strings under these keys, or, of a table, the columns that its first line names so.
        convert: conversion of the script, where the corpus was converted.

    Raises:
        InputError: the file cannot be read, is none of these, or holds no text (under these fields).
        ConfigError: fields are named for a .txt file.
        MissingExtraError: a conversion needs OpenCC.
    """
    kind = next((each for each in reversed(path.suffixes) if each not in COMPRESSIONS), "")
    match kind:
        case ".jsonl":
            found = _of_jsonl(path, fields)
        case ".json":
            found = _strings(read_json(path), fields)
        case ".tsv":
            found = _of_table((line.split("\t") for _, line in read_lines(path)), path, fields)
        case ".csv":
            found = _of_table(csv.reader(f"{line}\n" for _, line in read_lines(path)), path, fields)
        case ".txt":
            if fields:
                raise ConfigError(
                    f"{path}: a .txt file has no fields; leave out --fields, or give .jsonl, .tsv or .csv"
                )
            found = (line for _, line in read_lines(path))
        case _:
            raise InputError(f"{path}: not a kind of evaluation set that is read: .jsonl, .json, .tsv, .csv, .txt")
    texts = tuple(convert_script(text, convert) for text in found if text.strip())
    if not texts:
        under = f" under {', '.join(fields)}; name the fields that hold some" if fields else "; give a file with texts"
        raise InputError(f"{path}: holds no text{under}")
    return EvaluationSet(str(path), texts)


def _of_jsonl(path: Path, fields: Sequence[str]) -> Iterator[str]:
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}:{number}: not JSON: {error.msg}") from None
        yield from _strings(record, fields)


def _strings(value: Any, fields: Sequence[str], wanted: bool = False) -> Iterator[str]:
    """Yield the strings in a JSON value: all of them, or those below one of the fields."""
    if isinstance(value, str):
        if wanted or not fields:
            yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _strings(each, fields, wanted or key in fields)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each, fields, wanted)


def _of_table(rows: Iterable[list[str]], path: Path, fields: Sequence[str]) -> Iterator[str]:
    columns: list[int] | None = None
    try:
        for number, cells in enumerate(rows, start=1):
            if fields and columns is None:
                if missing := [field for field in fields if field not in cells]:
                    raise InputError(f"{path}:{number}: the first line names no column {missing[0]!r}; it has {cells}")
                columns = [cells.index(field) for field in fields]
                continue
            yield from cells if columns is None else (cells[column] for column in columns if column < len(cells))
    except csv.Error as error:
        raise InputError(f"{path}: not a table with commas: {error}") from None
