import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from xuebu.train import waiting
from xuebu.train.waiting import Watcher, busy_seconds, wait_politely

STAT = """cpu  900 0 0 0 0 0 0 0 0 0
cpu0 100 10 20 5000 300 1 2 40 7 0
cpu1 200 0 30 5000 300 0 0 40 0 0
cpu2 500 0 0 5000 300 0 0 0 0 0
intr 5
"""


def test_time_of_the_cores_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_CLK_TCK": 100}[name])
    assert busy_seconds(STAT) == pytest.approx((100 + 10 + 20 + 1 + 2 + 200 + 30) / 100)
    assert busy_seconds("cpu 1 2\nintr 5\n") is None


@pytest.fixture
def watched(monkeypatch):
    """A watcher of 4 cores whose readings the test gives: seconds, busy, own."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    now = {"clock": 0.0, "busy": 100.0, "own": 50.0}

    def make(threads):
        readings = {name: (lambda name=name: now[name]) for name in now}
        watcher = Watcher(threads, **readings)
        held = []

        def hold_teams():
            held.append(threading.Event())
            return held[-1]

        monkeypatch.setattr(watcher, "_hold_teams", hold_teams)

        def look(others, own):
            now["clock"] += 0.5
            now["busy"] += 0.5 * (others + own)
            now["own"] += 0.5 * own
            watcher.look()
            return watcher.polite, len(held), sum(event.is_set() for event in held)

        return look

    return make


def test_threads_wait_asleep_while_others_want_their_cores(watched):
    look = watched(4)
    assert look(others=0.05, own=4.0) == (False, 0, 0)
    assert look(others=1.0, own=3.0) == (True, 1, 0)
    assert look(others=2.0, own=2.0) == (True, 1, 0), "held once, not at every look"
    assert look(others=0.1, own=3.9) == (False, 1, 1)
    assert look(others=1.0, own=3.0) == (True, 2, 1)


def test_others_may_have_what_a_step_leaves_free(watched):
    look = watched(2)
    assert look(others=2.1, own=2.0) == (False, 0, 0)
    assert look(others=3.0, own=2.0) == (True, 1, 0)


def test_one_thread_waits_for_nobody(watched):
    assert watched(1)(others=4.0, own=1.0) == (False, 0, 0)


@pytest.mark.parametrize(("threads", "cores", "teams"), [(2, 2, 1), (4, 4, 1), (4, 8, 2), (2, 6, 5), (64, 64, 1)])
def test_teams_exceed_the_cores(threads, cores, teams, monkeypatch):
    started = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    monkeypatch.setattr(waiting, "_hold_team", lambda release, threads: started.append(threads))
    Watcher(threads)._hold_teams()
    assert started == [threads] * teams
    # The process's own thread, the others of its team, and those of each held team beside its first.
    assert threads + teams * (threads - 1) > cores
    assert threads + (teams - 1) * (threads - 1) <= cores


SLEEPERS = """
import threading, time, torch
from xuebu.train.waiting import Watcher
torch.set_num_threads(2)
watcher, x, m = Watcher(2), torch.zeros(100_000), 0.0

def work():
    # Operations of two threads, and pauses of the first in between, in which the second waits: awake or asleep.
    end, used = time.perf_counter() + 0.4, time.process_time()
    while time.perf_counter() < end:
        x.add_(1)
        time.sleep(0.001)
    return time.process_time() - used

work()
awake = work()
release = watcher._hold_teams()
time.sleep(0.1)
asleep = work()
release.set()
time.sleep(0.1)
print(awake, asleep, work())
"""


@pytest.mark.skipif(os.cpu_count() == 1 or not Path("/proc/self/maps").exists(), reason="needs two cores and Linux")
def test_gnus_threads_sleep_while_teams_are_held():
    """What libgomp does, seen from outside: time used while there is nothing to do."""
    if "libgomp" not in Path("/proc/self/maps").read_text(encoding="utf-8"):
        pytest.skip("torch without GNU's OpenMP")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    for _ in range(6):  # a busy machine takes the time away from a thread that spins
        done = subprocess.run(
            [sys.executable, "-c", SLEEPERS], env=environment, capture_output=True, text=True, check=True
        )
        awake, asleep, again = map(float, done.stdout.split())
        if asleep < 0.5 * min(awake, again):
            return
        time.sleep(1.0)
    pytest.fail(f"seconds used awake {awake:.3f}, asleep {asleep:.3f}, awake again {again:.3f}")


def test_a_process_has_one_watcher(monkeypatch):
    monkeypatch.setattr(waiting, "_watcher", None)
    monkeypatch.setattr(Watcher, "start", lambda self: None)
    wait_politely(1)
    assert waiting._watcher is None
    monkeypatch.setattr(waiting, "busy_seconds", lambda: None)
    wait_politely(2)
    assert waiting._watcher is None, "the system does not say"
    monkeypatch.undo()
    monkeypatch.setattr(waiting, "_watcher", None)
    monkeypatch.setattr(Watcher, "start", lambda self: None)
    wait_politely(2)
    first = waiting._watcher
    wait_politely(3)
    assert waiting._watcher is first
    assert first.threads == 3
