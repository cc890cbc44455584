"""Workers: order, few items ahead, and that none outlives its parent or an error."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from xuebu.corpus.workers import Workers
from xuebu.errors import InputError

PRINTS_CHILDREN = """
import itertools, os, signal, time
from xuebu.corpus.workers import Workers
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
def pid(_): time.sleep(0.05); return os.getpid()
if __name__ == "__main__":
    with Workers(2) as workers:
        for child in workers.map(pid, itertools.count()): print(child, flush=True)
"""


def alive(children: set[int], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < end:
        time.sleep(0.05)
    return any(Path(f"/proc/{child}").exists() for child in children)


def fails_at_three(item: int) -> int:
    if item == 3:
        raise InputError("a.jsonl:3: torn")
    return -item


def dies(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("count", [1, 2])
def test_results_come_in_order_and_few_items_are_taken_ahead(count: int) -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    with Workers(count) as workers:
        results = workers.map(abs, items())
        assert next(results) == 0
        assert len(taken) <= 2 * count + 2
        assert list(results) == list(range(1, 100))
        assert list(workers.map(abs, [-5])) == [5]  # the same processes again


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_in_a_worker_is_the_error(count: int) -> None:
    with pytest.raises(InputError, match="^a.jsonl:3: torn$"), Workers(count) as workers:
        list(workers.map(fails_at_three, range(100)))


def test_a_killed_worker_is_told_in_one_line() -> None:
    with pytest.raises(InputError, match="a worker process was killed"), Workers(2) as workers:
        list(workers.map(dies, range(4)))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(tmp_path: Path, number: int) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PRINTS_CHILDREN)
    command = [sys.executable, script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        children = {int(next(parent.stdout)) for _ in range(8)}
        parent.send_signal(number)
        parent.wait()
    assert children and os.getpid() not in children
    assert not alive(children)
