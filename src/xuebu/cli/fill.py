"""`xuebu fill`: fill in [MASK] with a trained model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from xuebu.cli.flags import parse
from xuebu.cli.screen import make_console, make_progress, print_plain


@dataclass(frozen=True, kw_only=True)
class FillArguments:
    """Show what a model puts in the place of each [MASK]."""

    model: Annotated[Path, tyro.conf.Positional]
    """A run folder, or a model folder."""
    text: Annotated[str, tyro.conf.Positional]
    """Text with one [MASK] or more, e.g. "学而时习[MASK]，不亦说乎？"."""
    top_k: int = 5
    """How many candidates for each [MASK]."""
    as_json: bool = False
    """Print JSON."""


def fill(arguments: Sequence[str]) -> int:
    """Run the command."""
    asked = parse(FillArguments, arguments, prog="xuebu fill")
    from xuebu.infer.fill import fill_mask, load_for_inference

    # On standard error: what is printed on standard output may be JSON.
    notes = make_progress(Console(stderr=True, highlight=False))
    model, vocabulary = load_for_inference(asked.model, progress=notes)
    fills = fill_mask(model, vocabulary, asked.text, top_k=asked.top_k)
    if asked.as_json:
        print(json.dumps([fill.to_json() for fill in fills], ensure_ascii=False))
        return 0
    console = make_console()
    for fill in fills:
        print_plain(console, fill.summary())
    return 0
