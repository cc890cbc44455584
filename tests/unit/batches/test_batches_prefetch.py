import threading
import time

import pytest

from xuebu.batches.loader import Loader, prefetch
from xuebu.batches.settings import BatchSettings


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "xuebu-batches"]


def test_the_same_batches_in_order(tokens, read):
    loader = Loader(tokens.train, tokens.vocabulary, BatchSettings(sequences_per_step=8), 0)
    ahead = [read.digest(batch) for batch in prefetch(loader.batch, 5, 40)]
    assert ahead == [read.digest(loader.batch(step)) for step in range(5, 41)]
    assert not threads()


@pytest.mark.parametrize("first", [1, 41])
def test_no_steps_left(first):
    assert list(prefetch(lambda step: step, first, first - 1)) == []
    assert not threads()


@pytest.mark.parametrize("error", [ValueError("no batch"), KeyboardInterrupt()])
def test_errors_come_at_their_place(error):
    def make(step):
        if step == 4:
            raise error
        return step

    batches = prefetch(make, 1, 9)
    assert [next(batches) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(type(error)) as caught:
        next(batches)
    assert caught.value is error
    assert not threads()


def test_closing_ends_the_thread_that_waits_for_room():
    made = []
    batches = prefetch(lambda step: made.append(step) or step, 1, 10**9, depth=3)
    assert next(batches) == 1
    deadline = time.monotonic() + 5
    while len(made) < 5 and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.02)
    assert made == [1, 2, 3, 4, 5]  # one in use, three ready, one in hand: memory is bounded
    assert len(threads()) == 1
    batches.close()
    assert not threads()
    with pytest.raises(StopIteration):
        next(batches)


def test_closing_before_the_first_batch_starts_nothing():
    prefetch(lambda step: step, 1, 10).close()
    assert not threads()
