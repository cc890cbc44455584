"""What commands print: one console, escaped texts, tables that fit."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from xuebu.progress import Progress, TerminalProgress, show_text


def make_console() -> Console:
    """Return the console of standard output; colors and bars are off when it is piped."""
    return Console(highlight=False)


def make_progress(console: Console) -> Progress:
    """Return progress on that console."""
    return TerminalProgress(console)


def print_plain(console: Console, text: str = "", style: str | None = None) -> None:
    """Print text as it is: no markup is read from it, control characters are shown."""
    console.print(Text(show_text(text), style=style or ""), soft_wrap=True)


def print_table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print a table; columns whose head begins with ">" are set flush right."""
    table = Table(title=Text(title) if title else None, title_justify="left", show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(Text(column.removeprefix(">")), justify="right" if column.startswith(">") else "left")
    for row in rows:
        table.add_row(*(Text(show_text(cell)) for cell in row))
    console.print(table)
