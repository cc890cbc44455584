"""`xuebu corpus card`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from xuebu.cli.flags import OptionalPath, parse
from xuebu.cli.screen import make_console, print_plain
from xuebu.corpus.card import load_card
from xuebu.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class CardArguments:
    """Show the card of a built corpus; with --out, write it as a page with charts."""

    corpus: Annotated[Path, tyro.conf.Positional]
    """Folder of a built corpus."""
    markdown: bool = False
    """Print the card as Markdown."""
    out: OptionalPath = None
    """HTML file for the page: everything is in it, and it asks no host for anything."""
    language: Literal["en", "zh"] = "en"
    """Language of the page."""


def card(arguments: Sequence[str]) -> int:
    """Run `xuebu corpus card`."""
    asked = parse(CardArguments, arguments, prog="xuebu corpus card")
    found = load_card(asked.corpus)
    console = make_console()
    if asked.out is None:
        print_plain(console, found.to_markdown() if asked.markdown else found.summary())
        return 0
    from xuebu.report.corpus import write_card_page

    if asked.markdown:
        raise ConfigError("--markdown prints the card and --out writes its page; give one of them")
    if asked.out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{asked.out}: --out is the page, a file that ends in .html")
    print_plain(console, f"page      {write_card_page(asked.corpus, asked.out, language=asked.language)}")
    return 0
