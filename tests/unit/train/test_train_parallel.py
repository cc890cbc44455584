"""One process alone; what several do to each other is tested in tests/resume with real ones."""

import pytest
import torch

from xuebu.errors import ConfigError
from xuebu.train import parallel
from xuebu.train.parallel import ALONE, World, is_restart, join_world, leave_world


def test_alone_nothing_is_sent(monkeypatch):
    monkeypatch.setattr(parallel, "dist", None)  # any message would fail
    tensor = torch.arange(3.0)
    ALONE.sum_in_place([tensor])
    assert tensor.tolist() == [0, 1, 2]
    model = torch.nn.Linear(2, 2)
    ALONE.sum_gradients(model)
    assert model.weight.grad is None
    assert ALONE.agree(lambda: {"a": 1}) == {"a": 1} and ALONE.most(7) == 7
    assert ALONE.send_tensors({"t": tensor})["t"] is tensor
    assert ALONE.whole(tensor) is ALONE.own(tensor) is tensor and ALONE.rows_of(tensor) is None
    assert ALONE.exchange([1]) == [[1]]
    ALONE.wait()
    leave_world(ALONE)
    with pytest.raises(ValueError, match="mine"):
        ALONE.agree(lambda: (_ for _ in ()).throw(ValueError("mine")))


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "two"}, "must be whole numbers"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK = 2 is not one of WORLD_SIZE = 2"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_ADDR.*start several processes by torchrun or by --processes"),
    ],
)
def test_a_launcher_that_does_not_tell_enough(monkeypatch, variables, message):
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message) as caught:
        join_world()
    assert "\n" not in str(caught.value)


def test_without_a_launcher(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join_world() is ALONE
    assert ALONE.is_main and not World(1, 2).is_main


def test_a_restart_is_known(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    assert not is_restart()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert not is_restart()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    assert is_restart()
