"""What a report is made from: the content of a run folder's files, as plain data, and its charts."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xuebu.charts.marks import Label
from xuebu.errors import InputError
from xuebu.files import read_json, read_lines
from xuebu.history.records import History


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportChart:
    """One chart of the page.

    Attributes:
        name: stem of its files.
        title, description: as in the Figure.
        pictures: SVG documents side by side, one for each panel where panels may wrap on a narrow screen.
    """

    name: str
    title: Label
    description: Label
    pictures: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFacts:
    """Everything that a report shows; nothing else goes in, so equal facts give equal pages.

    Attributes:
        title: name of the run.
        history: what the run recorded.
        run: run.toml.
        analysis, baselines, corpus_card: analysis.json, baselines.json, corpus/card.json; None where not there.
        fills: fills.json: {"text", "masks": [{"candidates": [{"token", "probability"}]}]} each.
        num_sessions: lines of sessions.jsonl, starts and resumes; None where not there.
        charts: in the order of the page.
        chart_font: family with Chinese characters that drew them; None: their labels are English.
        absent: names of files that were looked for and are not there.
    """

    title: str
    history: History
    run: Mapping[str, Any] = field(default_factory=dict)
    analysis: Mapping[str, Any] | None = None
    baselines: Mapping[str, Any] | None = None
    corpus_card: Mapping[str, Any] | None = None
    fills: tuple[Mapping[str, Any], ...] = ()
    num_sessions: int | None = None
    charts: tuple[ReportChart, ...] = ()
    chart_font: str | None = None
    absent: tuple[str, ...] = ()


def read_toml(path: Path) -> dict[str, Any]:
    """Return a TOML file as a plain table.

    Raises:
        InputError: it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: not TOML: {error}") from None


def read_table(path: Path) -> dict[str, Any]:
    """Return a JSON file whose top level is an object.

    Raises:
        InputError: it cannot be read, is not JSON, or its top level is something else.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path}: the top level must be an object, not {type(value).__name__}; write it again")
    return value


def read_fills(path: Path) -> tuple[Mapping[str, Any], ...]:
    """Return the filled-in examples of a fills.json.

    Raises:
        InputError: it cannot be read, or an example is not of the shape that ReportFacts states (names which).
    """
    value = read_json(path)
    examples = value if isinstance(value, list) else [value]
    for number, example in enumerate(examples, start=1):
        try:
            text, masks = example["text"], example["masks"]
            right = isinstance(text, str) and all(
                isinstance(one["token"], str) and isinstance(one["probability"], int | float)
                for mask in masks
                for one in mask["candidates"]
            )
        except (TypeError, KeyError):
            right = False
        if not right:
            raise InputError(f'{path}: example {number} lacks "text" or "masks" with "candidates"; write it again')
    return tuple(examples)


def count_sessions(path: Path) -> int:
    """Return how often a run was started or resumed, from its sessions.jsonl."""
    return sum(1 for _, line in read_lines(path) if '"event": "start"' in line or '"event": "resume"' in line)
