"""What a report is made from: the content of a run folder's files, as plain data, and its charts."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
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
        whole: True where the panels share an axis and stay one picture.
    """

    name: str
    title: Label
    description: Label
    pictures: tuple[str, ...]
    whole: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFacts:
    """Everything that a report shows; nothing else goes in, so equal facts give equal pages.

    Attributes:
        title: name of the run.
        history: what the run recorded.
        run: run.toml.
        analysis, baselines, corpus_card: analysis.json, baselines.json, corpus/card.json; None where not there.
        masks: masks.json: what masking did in the first batches; None where it is not there.
        fills: fills.json: {"text", "masks": [{"candidates": [{"token", "probability"}]}]} each.
        num_sessions: starts and resumes in sessions.jsonl; None where it is not there.
        session_seconds: wall-clock time of all sessions; None where it is not there or one ended without a trace.
        charts: in the order of the page.
        chart_font: family with Chinese characters that drew them; None: their labels are English.
        absent: names of files that were looked for and are not there.
        card_page: name of the corpus card's own page beside the report; None where there is none.
    """

    title: str
    history: History
    run: Mapping[str, Any] = field(default_factory=dict)
    analysis: Mapping[str, Any] | None = None
    baselines: Mapping[str, Any] | None = None
    corpus_card: Mapping[str, Any] | None = None
    masks: Mapping[str, Any] | None = None
    fills: tuple[Mapping[str, Any], ...] = ()
    num_sessions: int | None = None
    session_seconds: float | None = None
    charts: tuple[ReportChart, ...] = ()
    chart_font: str | None = None
    absent: tuple[str, ...] = ()
    card_page: str | None = None


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


def read_sessions(path: Path) -> tuple[int, float | None]:
    """Return how often a run was started or resumed, and the wall-clock seconds of all sessions together.

    The seconds are None where a session ended without a trace (killed, or still running) or times cannot be read.

    Raises:
        InputError: sessions.jsonl cannot be read.
    """
    count, seconds, began, whole = 0, 0.0, None, True
    for _, line in read_lines(path):
        try:
            record = json.loads(line)
            event, at = record["event"], datetime.fromisoformat(record["time"])
        except (ValueError, TypeError, KeyError):
            count += '"event": "start"' in line or '"event": "resume"' in line
            whole = False
            continue
        if event in ("start", "resume"):
            count, whole, began = count + 1, whole and began is None, at
        elif event in ("finished", "stopped") and began is not None:
            seconds += (at - began).total_seconds()
            began = None
    return count, seconds if whole and began is None and seconds > 0 else None
