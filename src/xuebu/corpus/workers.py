"""Processes that work on items in order, a few ahead; they end when they are no longer needed, however that comes."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import TypeVar

from xuebu.errors import InputError

T = TypeVar("T")
U = TypeVar("U")


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """A number of processes, started when first needed; one worker is this process itself.

    As a context manager it ends them: at once after an error or Ctrl-C, so what they were at must be safe to lose.
    They start anew ("spawn"), so a script that asks for several must guard its top level by `__name__`.
    """

    def __init__(self, count: int) -> None:
        self.count = max(1, count)
        self._pool: ProcessPoolExecutor | None = None
        self._stop: Connection | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stop and kind is not None:
            self._stop.close()
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)
        if self._stop:
            self._stop.close()
        self._pool = self._stop = None

    def map(self, function: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
        """Yield `function(item)` for each item, in order; at most two items a worker are taken ahead.

        Raises:
            InputError: a worker was killed; besides, whatever `items` or the function raises.
        """
        if self.count == 1:
            yield from map(function, items)
            return
        pool = self._started()
        ahead: deque[Future[U]] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(function, item))
                if len(ahead) > 2 * self.count:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        except BrokenProcessPool:
            raise InputError(
                "a worker process was killed, by the system if memory was short; ask for fewer workers"
            ) from None
        finally:
            for future in ahead:
                future.cancel()

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = get_context("spawn")
            receiver, self._stop = context.Pipe(duplex=False)
            self._pool = ProcessPoolExecutor(
                self.count, mp_context=context, initializer=_begin_worker, initargs=(receiver,)
            )
        return self._pool


def _begin_worker(stop: Connection) -> None:
    """Leave Ctrl-C to the parent, and end when it says so or is gone (after kill -9 too)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is None:
        return

    def end_with_parent() -> None:
        wait([parent.sentinel, stop])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
