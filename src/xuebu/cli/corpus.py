"""`xuebu corpus build | verify`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from xuebu.cli.flags import CorpusFlags, OptionalName, load_recipe, parse
from xuebu.cli.screen import make_console, make_progress, print_plain
from xuebu.config import Range
from xuebu.corpus.build import build_corpus
from xuebu.corpus.card import load_card
from xuebu.corpus.sample import sample_documents
from xuebu.corpus.settings import CorpusSettings
from xuebu.corpus.sources import read_documents
from xuebu.corpus.verify import verify_corpus
from xuebu.corpus.workers import num_cores
from xuebu.errors import ConfigError
from xuebu.train.settings import Recipe


@dataclass(frozen=True, kw_only=True)
class BuildArguments:
    """Clean documents, split them into sentences, remove duplicates, hold groups out, and write a corpus card."""

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Files and folders of text: .txt, .md, .jsonl, .parquet, a wiki's dump (.xml), wikiextractor's output, the
    published study's .json; .gz .bz2 .xz .zst. None, and no --hub: the built-in sample."""
    hub: tuple[str, ...] = ()
    """Data sets of the Hugging Face hub, streamed: owner/name, owner/name:config or owner/name:config:split (train)."""
    workers: Annotated[int, Range(0, 1024)] = 0
    """Processes; 0: one a core. The corpus does not depend on it."""
    out: Path
    """Folder of the corpus."""
    recipe: OptionalName = None
    """Shipped recipe by name, or the path of a TOML file; its settings are the defaults of the flags below."""
    coverage: tuple[Path, ...] = ()
    """Files of characters, one a line, whose coverage the card tells."""
    settings: CorpusFlags = field(default_factory=CorpusSettings)
    """Settings of the recipe's [corpus]."""


def build(arguments: Sequence[str]) -> int:
    """Run `xuebu corpus build`."""
    asked = parse(BuildArguments, arguments, prog="xuebu corpus build", section="corpus")
    if (asked.out / "card.json").exists():
        raise ConfigError(f"{asked.out}: holds a finished corpus; remove it or choose another folder by --out")
    console = make_console()
    progress = make_progress(console)
    documents = (
        read_documents(asked.inputs, asked.settings, hub=asked.hub, progress=progress)
        if asked.inputs or asked.hub
        else sample_documents()
    )
    card = build_corpus(
        documents,
        asked.out,
        asked.settings,
        coverage_lists=asked.coverage,
        workers=asked.workers or num_cores(),
        progress=progress,
    )
    print_plain(console, card.summary())
    print_plain(console, f"corpus    {asked.out}\ncard      {asked.out / 'card.md'}")
    return 0


@dataclass(frozen=True, kw_only=True)
class VerifyArguments:
    """Check a corpus against the conditions in its recipe's [verify]; exit code 1 if one fails."""

    corpus: Annotated[Path, tyro.conf.Positional]
    """Folder of a built corpus."""
    recipe: OptionalName = None
    """Shipped recipe by name, or the path of a TOML file, for its [verify]; without, the published study's."""


def verify(arguments: Sequence[str]) -> int:
    """Run `xuebu corpus verify`."""
    asked = parse(VerifyArguments, arguments, prog="xuebu corpus verify")
    settings = load_recipe(asked.recipe).verify if asked.recipe else Recipe().verify
    verification = verify_corpus(load_card(asked.corpus), settings)
    print_plain(make_console(), verification.summary())
    return 0 if verification.passed else 1
