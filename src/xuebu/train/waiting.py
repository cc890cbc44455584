"""Threads that wait awake for each other while nobody else wants the cores, and asleep otherwise.

Torch cuts an operation into parts, one for each OpenMP thread. A thread that is done early spins for some milliseconds
before it sleeps (GNU's library): awake it goes on at once, while waking it takes tens of microseconds, thousands of
times a step. But where another process wants the core, it spins away the very time that the thread it waits for needs,
and a step can take fifteen times as long.

GNU's library spins only for an instant as soon as a process holds more of its threads than it has cores. So a watcher
looks twice a second at what others do on these cores, and while they do something it holds further teams of threads,
asleep. The threads that compute stay the same, and so does every number.

Source: GCC, libgomp: `gomp_managed_threads` and `gomp_throttled_spin_count_var` (config/linux/wait.h, env.c).
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

_SECONDS = 0.5  # between two looks
_MUCH = 0.4  # cores that others use: about here waiting asleep begins to cost less than it saves (docs/journal.md)
_PARALLEL = 65_536  # elements a thread from which torch surely cuts an operation

_watcher: Watcher | None = None


def wait_politely(threads: int) -> None:
    """Watch what others do on these cores for as long as the process lives; a second call only counts threads anew.

    Nothing is done where a step has one thread, or where Linux does not say how busy a core is.

    Args:
        threads: OpenMP threads of a step.
    """
    global _watcher  # noqa: PLW0603 - the threads of a process are one thing
    if _watcher is not None:
        _watcher.threads = threads
    elif threads > 1 and busy_seconds() is not None:
        _watcher = Watcher(threads)
        _watcher.start()


def busy_seconds(text: str | None = None) -> float | None:
    """Return the seconds that the cores of this process have been busy, by any process, since the machine started.

    Args:
        text: of Linux's /proc/stat; read if None.

    Returns:
        None where the system does not say.

    Source: proc_stat(5).
    """
    if text is None:
        try:
            text = Path("/proc/stat").read_text(encoding="ascii")
        except OSError:
            return None
    cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    rows = [line.split() for line in text.split("\n") if line.partition(" ")[0] in cores]
    # user, nice, system, (idle, waiting for disks,) interrupts twice; guests are in user.
    ticks = sum(int(row[column]) for row in rows for column in (1, 2, 3, 6, 7))
    return ticks / os.sysconf("SC_CLK_TCK") if rows else None


class Watcher(threading.Thread):
    """Compares what the cores do with what this process does.

    Args:
        threads: OpenMP threads of a step.
        busy: seconds that the cores have been busy.
        own: seconds that this process has used of them.
        clock: seconds.
    """

    def __init__(
        self,
        threads: int,
        *,
        busy: Callable[[], float | None] = busy_seconds,
        own: Callable[[], float] = time.process_time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name="xuebu-waiting", daemon=True)
        self.threads, self.cores = threads, len(os.sched_getaffinity(0))
        self._readings = (clock, busy, own)
        self._before = self._read()
        self._release: threading.Event | None = None

    def _read(self) -> tuple[float, float]:
        """Return the time, and the seconds that others have used of the cores."""
        clock, busy, own = self._readings
        return clock(), (busy() or 0.0) - own()

    @property
    def polite(self) -> bool:
        """Whether threads sleep now while they wait."""
        return self._release is not None

    def run(self) -> None:
        """Look, as long as the process lives."""
        while True:
            time.sleep(_SECONDS)
            self.look()

    def look(self) -> None:
        """Have threads wait asleep if others have wanted these cores since the last look, awake if not."""
        before, self._before = self._before, self._read()
        others = (self._before[1] - before[1]) / max(self._before[0] - before[0], 1e-3)
        wanted = self.threads > 1 and others - max(self.cores - self.threads, 0) > _MUCH
        if wanted and self._release is None:
            self._release = self._hold_teams()
        elif not wanted and self._release is not None:
            self._release.set()
            self._release = None

    def _hold_teams(self) -> threading.Event:
        """Start as many teams of threads as exceed the cores, and return the event that ends them."""
        release = threading.Event()
        teams = max(1, math.ceil((self.cores - self.threads + 1) / (self.threads - 1)))
        try:
            for _ in range(teams):
                threading.Thread(target=_hold_team, args=(release, self.threads), daemon=True).start()
        except RuntimeError:  # a limit on threads: those that there are may do
            pass
        return release


def _hold_team(release: threading.Event, threads: int) -> None:
    """Have torch start a team of threads for this thread, which lasts as long as it does."""
    torch.zeros(threads * _PARALLEL, dtype=torch.uint8).add_(1)
    release.wait()
