"""Checkpoints written beside training: the state is copied between two steps, a thread brings the copy to the disk."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

_NICENESS = 10  # a tenth of a busy core: less, and a save might not end within a cluster's grace period


class BackgroundWriter:
    """Runs one job at a time in a thread; a job's error is raised in the thread that asks next.

    A second job waits for the first: checkpoints are never more than one behind, and memory holds one copy.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def submit(self, job: Callable[[], object], *, gently: bool = False) -> None:
        """Wait for the job before, then start this one.

        Args:
            job: what to do.
            gently: it is not waited for: it takes what training leaves of the processors.

        Raises:
            BaseException: what the job before raised; this one is not started.
        """
        self.wait()

        def work() -> None:
            if gently:
                _give_way()
            try:
                job()
            except BaseException as error:  # handed to the thread that trains
                self._error = error

        self._thread = threading.Thread(target=work, name="xuebu-checkpoint", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise the error of a job that failed; costs nothing."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Return when nothing is being written; raises as `check`."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def __enter__(self) -> BackgroundWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait; after an error of the caller's, that error is the one that counts."""
        if error is None:
            self.wait()
        elif self._thread is not None:
            self._thread.join()


def _give_way() -> None:
    """Lower the priority of this thread; only Linux has one for each."""
    if sys.platform == "linux":
        with suppress(OSError):  # it is lower already
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
