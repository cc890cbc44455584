import os
import sys
import threading

import pytest

from xuebu.train.writer import BackgroundWriter


def test_jobs_run_beside_and_one_at_a_time():
    done, gate = [], threading.Event()
    with BackgroundWriter() as writer:
        writer.submit(lambda: (gate.wait(5), done.append(1)))
        assert done == []  # it did not wait
        gate.set()
        writer.submit(lambda: done.append(2))
        writer.wait()
        assert done == [1, 2]
        writer.wait()
    assert threading.active_count() < 10


def test_an_error_is_raised_where_it_is_asked_for_once():
    def full():
        raise OSError(28, "No space left on device", "step-00000004/model.safetensors")

    writer = BackgroundWriter()
    writer.submit(full)
    with pytest.raises(OSError, match="No space left"):
        writer.wait()
    writer.check()
    writer.submit(full)
    with pytest.raises(OSError, match="No space left"):
        writer.submit(lambda: pytest.fail("started after a failure"))


def test_leaving_waits_and_an_error_of_the_caller_goes_first():
    done = []
    with pytest.raises(OSError, match="disk"), BackgroundWriter() as writer:
        writer.submit(lambda: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(ValueError, match="mine"), BackgroundWriter() as writer:
        writer.submit(lambda: done.append(1))
        raise ValueError("mine")
    assert done == [1]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a priority for each thread")
def test_what_nobody_waits_for_gives_way():
    found = []

    def look():
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    with BackgroundWriter() as writer:
        writer.submit(look)
        writer.submit(look, gently=True)
    assert found == [own, max(own, 10)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own
