"""Progress of long work: the work reports to a `Progress`, which draws bars, prints lines, or stays silent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress


def show_text(text: str) -> str:
    """Return a text from data with its control characters made visible, so that none reaches the terminal."""
    return "".join(
        character if character.isprintable() or character == "\n" else repr(character)[1:-1] for character in text
    )


class Task(Protocol):
    """One piece of long work."""

    def advance(self, count: int = 1) -> None:
        """Say that `count` more units are done."""

    def show(self, text: str) -> None:
        """Show the latest figures, e.g. "loss 3.21 · 9,350 tokens/s"."""


class Progress(Protocol):
    """Where long work reports to."""

    def task(self, name: str, total: int | None = None, unit: str = "") -> AbstractContextManager[Task]:
        """Open a task of `total` units (None: not known); a context manager that gives the Task."""

    def note(self, text: str) -> None:
        """Print one line that stays."""


class _SilentTask:
    def advance(self, count: int = 1) -> None:
        """Ignore."""

    def show(self, text: str) -> None:
        """Ignore."""


class SilentProgress:
    """Reports nothing: for libraries and tests."""

    @contextmanager
    def task(self, name: str, total: int | None = None, unit: str = "") -> Iterator[Task]:
        """Give a task that reports nothing."""
        yield _SilentTask()

    def note(self, text: str) -> None:
        """Ignore."""


class _BarTask:
    def __init__(self, bars: RichProgress, identity: TaskID) -> None:
        self._bars, self._identity = bars, identity

    def advance(self, count: int = 1) -> None:
        self._bars.advance(self._identity, count)

    def show(self, text: str) -> None:
        self._bars.update(self._identity, figures=text)


class _LineTask:
    """Where there is no terminal: a line at the start, then at most one each `interval` seconds, and at the end."""

    def __init__(self, console: Console, name: str, total: int | None, unit: str, interval: float = 15.0) -> None:
        self._console, self._name, self._total, self._unit = console, name, total, unit
        self._done, self._figures, self._interval = 0, "", interval
        self._start = self._last = time.monotonic()

    def advance(self, count: int = 1) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._last >= self._interval:
            self._last = now
            self.print()

    def show(self, text: str) -> None:
        self._figures = text

    def print(self) -> None:
        of_total = f"/{self._total:,}" if self._total else ""
        seconds = time.monotonic() - self._start
        left = ""
        if self._total and 0 < self._done < self._total:
            left = f" · {_clock(seconds / self._done * (self._total - self._done))} left"
        self._console.print(
            f"{self._name}: {self._done:,}{of_total} {self._unit} · {_clock(seconds)}{left}"
            + (f" · {self._figures}" if self._figures else ""),
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class TerminalProgress:
    """Bars with figures and time left on a terminal, plain lines where the output is piped."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def task(self, name: str, total: int | None = None, unit: str = "") -> Iterator[Task]:
        """Give a task that draws a bar, or prints lines."""
        if not self.console.is_terminal:
            lines = _LineTask(self.console, name, total, unit)
            try:
                yield lines
            finally:
                lines.print()
            return
        columns = (
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn(unit, markup=False),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[figures]}", markup=False),
        )
        with RichProgress(*columns, console=self.console, refresh_per_second=4) as bars:
            identity = bars.add_task(name, total=total, figures="")
            yield _BarTask(bars, identity)
            if total is None:
                bars.update(identity, total=bars.tasks[0].completed)

    def note(self, text: str) -> None:
        """Print one line that stays."""
        self.console.print(show_text(text), markup=False, highlight=False, soft_wrap=True)


SILENT = SilentProgress()
