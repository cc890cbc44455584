"""Reading a history that is recognized by its content: our own, or another trainer's.

A further format is one more branch of `read_any` and one function that returns a `History`.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from xuebu.errors import InputError
from xuebu.files import read_json
from xuebu.history.records import FILE_NAME, KINDS, History, read_history, table_of, to_float

Format = Literal["xuebu run", "xuebu history", "published study", "unknown"]

# The keys of the published study (100,000 steps, a reading of one training batch every 100) and our names for them.
# Its loss is the sum of the MLM and NSP losses, so it has a name of its own.
STUDY_NAMES = {"mlm_acc": "mlm_accuracy", "nsp_acc": "nsp_accuracy", "loss": "loss_nats", "lr": "learning_rate"}
_HEAD_BYTES = 1 << 16


def read_any(path: Path) -> History:
    """Read a run folder, a history file, or the published study's JSON; the content decides, not the name.

    Raises:
        InputError: there is nothing there, the format is not known, or the content is damaged (one line, with the
            place).
    """
    match recognize(path):
        case "xuebu run":
            return replace(read_history(path / FILE_NAME), path=str(path), format="xuebu run")
        case "xuebu history":
            return read_history(path)
        case "published study":
            return _read_study(path)
        case "unknown":
            raise InputError(
                f"{path}: not a history that xuebu knows; give a run folder, its {FILE_NAME}, or a JSON object "
                'with the lists "steps" and "mlm_acc"'
            )


def recognize(path: Path) -> Format:
    """Say what a path holds, from its first 64 KiB.

    Raises:
        InputError: the path cannot be read, is an empty file, or a folder without a history.
    """
    if path.is_dir():
        if (path / FILE_NAME).is_file():
            return "xuebu run"
        raise InputError(f"{path}: no {FILE_NAME} in this folder; give a run folder, or a history file")
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        raise InputError(f"{path}: the file is empty; a history has at least one record")
    first_line = text.split(b"\n", 1)[0]
    try:
        record = json.loads(first_line)
    except (ValueError, RecursionError):
        record = None
    if isinstance(record, dict) and record.get("kind") in KINDS:
        return "xuebu history"
    return "published study" if text.startswith(b"{") and b'"steps"' in text else "unknown"


def _read_study(path: Path) -> History:
    try:
        content = read_json(path)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON that can be read: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: the top level must be an object of lists, not {type(content).__name__}")
    for key in ("steps", "mlm_acc"):
        if key not in content:
            raise InputError(
                f'{path}: the key "{key}" is missing; the study\'s history has steps, mlm_acc, nsp_acc, loss, lr'
            )
    columns = {key: _numbers_of(path, content, key) for key in ("steps", *STUDY_NAMES) if key in content}
    steps = columns.pop("steps")
    for index, step in enumerate(steps):
        if step != int(step) or not 0 <= step < 2**63:
            raise InputError(f"{path}: steps[{index}] is {step}; a step is a whole number from 0")
    for key, values in columns.items():
        if len(values) != len(steps):
            raise InputError(f"{path}: {key} has {len(values)} values but steps has {len(steps)}; the file may be cut")
    rows = (
        {"step": int(step), **{STUDY_NAMES[key]: values[index] for key, values in columns.items()}}
        for index, step in enumerate(steps)
    )
    train, notes = table_of(rows, "train")
    empty, _ = table_of([], "eval")
    notes.append(
        "nothing was held out: every reading is of one training batch, and the number of predictions is not given"
    )
    notes += [f'the key "{key}" is missing' for key in STUDY_NAMES if key not in content]
    if others := [str(key) for key in content if key != "steps" and key not in STUDY_NAMES]:
        notes.append(f"keys that are not read: {', '.join(map(repr, others))}")
    return History(str(path), "published study", train, empty, (), tuple(notes))


def _numbers_of(path: Path, content: Mapping[str, Any], key: str) -> list[float]:
    values = content[key]
    if not isinstance(values, list):
        raise InputError(f"{path}: {key} must be a list of numbers, not {type(values).__name__}")
    for index, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(to_float(value)):
            raise InputError(f"{path}: {key}[{index}] is {reprlib.repr(value)}; it must be a finite number")
    if not values:
        raise InputError(f"{path}: {key} is empty; there is nothing to analyze")
    return values
