import itertools
import math

import pytest

from xuebu.errors import ConfigError
from xuebu.train.schedule import learning_rate
from xuebu.train.settings import TrainSettings


def rates(**changes):
    settings = TrainSettings(**{"steps": 200, "warmup_steps": 20, "learning_rate": 3e-4, **changes})
    return [learning_rate(step, settings) for step in range(1, settings.steps + 1)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("final_share", [0.0, 0.1, 1.0])
def test_shape(schedule, final_share):
    values = rates(schedule=schedule, final_share=final_share)
    assert values[0] == pytest.approx(3e-4 / 20)
    assert values[19] == max(values) == 3e-4
    rises = [b - a for a, b in itertools.pairwise(values[:20])]
    assert min(rises) == pytest.approx(max(rises)) == pytest.approx(3e-4 / 20)
    end = 3e-4 if schedule == "constant" else 3e-4 * final_share
    assert values[-1] == pytest.approx(end, abs=1e-19)
    assert all(b <= a for a, b in itertools.pairwise(values[19:]))
    assert all(value >= 0 for value in values)


def test_values_between():
    for step in (20, 47, 110, 155, 200):
        done = (step - 20) / 180
        assert rates(schedule="linear", final_share=0.2)[step - 1] == pytest.approx(3e-4 * (0.2 + 0.8 * (1 - done)))
        cosine = 0.2 + 0.8 * math.cos(math.pi * done / 2) ** 2  # the half-angle form, another way round
        assert rates(schedule="cosine", final_share=0.2)[step - 1] == pytest.approx(3e-4 * cosine)


def test_edges_of_the_warm_up():
    assert rates(warmup_steps=0)[0] == pytest.approx(3e-4, rel=1e-3)
    assert rates(warmup_steps=1)[0] == 3e-4
    everything = rates(warmup_steps=200)  # steps == warmup: the peak is the last step
    assert everything[-1] == 3e-4 and everything == sorted(everything)
    assert rates(steps=1, warmup_steps=1) == [3e-4]
    assert rates(steps=1, warmup_steps=0) == [0.0]  # one step from the peak to the end: it is the end


def test_more_warm_up_than_steps_is_refused():
    with pytest.raises(ConfigError, match="`train.warmup_steps` = 201 is more than `train.steps` = 200"):
        rates(warmup_steps=201)
    with pytest.raises(ConfigError, match="`learning_rate` must be above 0"):
        rates(learning_rate=0.0)
