"""What is saved is the state of its step, whatever training does meanwhile, and comes back as it was."""

import time

import pytest
import torch

from xuebu.errors import ResumeError
from xuebu.train import snapshots as snapshots_module
from xuebu.train.checkpoint import checkpoint_path, prove_checkpoint, read_checkpoint
from xuebu.train.optim import make_optimizer, optimizer_tensors
from xuebu.train.parallel import ALONE, World
from xuebu.train.settings import TrainSettings
from xuebu.train.snapshots import Snapshots


@pytest.fixture
def trained():
    """A layer and its optimizer, with a function that does an update."""
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 3)
    optimizer = make_optimizer(model, TrainSettings(steps=10, warmup_steps=0))

    def update():
        model(torch.randn(4, 5)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return model, optimizer, update


def state_of(model, optimizer):
    tensors = {**model.state_dict(), **optimizer_tensors(model, optimizer)}
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def check_equal(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_training_goes_on_while_a_copy_is_written(trained, tmp_path, monkeypatch):
    model, optimizer, update = trained
    write = snapshots_module.save_checkpoint

    def slowly(*given):
        time.sleep(0.2)
        return write(*given)

    monkeypatch.setattr(snapshots_module, "save_checkpoint", slowly)
    expected, done, places = [], [], set()
    with Snapshots(tmp_path, model, optimizer, ALONE) as snapshots:
        for step in (1, 2, 3):
            update()
            expected.append(state_of(model, optimizer))
            snapshots.save(step, {"tokens": step}, lambda step=step: done.append(step), wait=step == 3)
            places.add(snapshots._files["model"]["weight"].data_ptr())
        assert done == [1, 2, 3]
    assert len(places) == 1  # the same memory
    for step in (1, 2, 3):
        found = read_checkpoint(checkpoint_path(tmp_path, step))
        assert found.state == {"tokens": step}
        check_equal({**found.model, **found.optimizer}, expected[step - 1])


def test_back_to_a_checkpoint(trained, tmp_path):
    model, optimizer, update = trained
    snapshots = Snapshots(tmp_path, model, optimizer, ALONE)
    assert snapshots.load(None) is None
    update()
    before = state_of(model, optimizer)
    snapshots.save(7, {"字": "词"}, lambda: None, wait=True)
    for _ in range(2):
        update()
    assert snapshots.load(prove_checkpoint(checkpoint_path(tmp_path, 7))) == (7, {"字": "词"})
    check_equal(state_of(model, optimizer), before)
    check_equal(snapshots.whole_weights(), model.state_dict())
    other = torch.nn.Linear(5, 4)
    wrong = Snapshots(tmp_path, other, make_optimizer(other, TrainSettings()), ALONE)
    with pytest.raises(ResumeError, match="the checkpoint is of another model"):
        wrong.load(prove_checkpoint(checkpoint_path(tmp_path, 7)))


def test_a_process_without_a_part_of_its_own_writes_nothing(trained, tmp_path):
    model, optimizer, _ = trained
    Snapshots(tmp_path, model, optimizer, World(1, 2)).save(1, {}, lambda: pytest.fail("pruned"), wait=True)
    assert not list(tmp_path.iterdir())
