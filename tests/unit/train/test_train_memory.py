import dataclasses

import numpy as np
import pytest
import torch

from xuebu.batches.loader import Loader
from xuebu.batches.packing import split_micro_batches
from xuebu.errors import TrainingError
from xuebu.model.encoder import PretrainingModel
from xuebu.train import memory
from xuebu.train.machine import resolve_machine
from xuebu.train.memory import is_out_of_memory, largest_micro_batch, out_of_memory, try_largest


@pytest.fixture
def machine(recipe_of):
    recipe = recipe_of()
    return resolve_machine(recipe.train)


@pytest.mark.parametrize("objective", ["nsp", "mlm"])
def test_no_micro_batch_of_a_run_is_larger(tokens, recipe_of, objective):
    recipe = recipe_of(batches={"objective": objective, "sequences_per_step": 40})
    loader = Loader(tokens.train, tokens.vocabulary, recipe.batches, 0)
    for budget, rows in ((240, 8), (2_000, 8), (2_000, None)):
        largest = largest_micro_batch(recipe, tokens.vocabulary.num_tokens, budget, rows)
        met = [micro for step in range(1, 40) for micro in split_micro_batches(loader.batch(step), budget, rows)]
        assert len(largest.input_ids) >= max(len(micro.input_ids) for micro in met)
        assert len(largest.labels) >= max(len(micro.labels) for micro in met)
        assert len(largest.input_ids) <= max(budget, 48)


def test_it_changes_nothing(recipe_of, machine):
    recipe = recipe_of()
    model = PretrainingModel(recipe.model, 50)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try_largest(model, recipe, machine)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def scarce(monkeypatch, tokens):
    """Memory for micro-batches of so many tokens."""
    losses = memory.compute_losses

    def limited(model, micro, device, precision):
        if len(micro.input_ids) > tokens:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error 12")
        return losses(model, micro, device, precision)

    monkeypatch.setattr(memory, "compute_losses", limited)


def test_the_setting_and_its_value_are_named(recipe_of, machine, monkeypatch):
    recipe = recipe_of(batches={"sequences_per_step": 64})
    model = PretrainingModel(recipe.model, 50)
    machine = dataclasses.replace(machine, micro_batch_tokens=2_048)
    scarce(monkeypatch, 600)
    with pytest.raises(TrainingError, match=r"lower `train.micro_batch_tokens` from 2048 to 512, which fits") as caught:
        try_largest(model, recipe, machine)
    assert "you tried to allocate 9 bytes" in str(caught.value) and "\n" not in str(caught.value)
    scarce(monkeypatch, 10)
    with pytest.raises(TrainingError, match="at a single sequence .* `train.micro_batch_tokens` cannot help"):
        try_largest(model, recipe, machine)


def test_other_errors_are_our_own(recipe_of, machine, monkeypatch):
    def broken(*_):
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(memory, "compute_losses", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        try_largest(PretrainingModel(recipe_of().model, 50), recipe_of(), machine)


def test_what_out_of_memory_looks_like(machine):
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(2**60)
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(2**60, dtype=np.uint8)
    for error in (
        of_torch.value,
        of_numpy.value,
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    ):
        assert is_out_of_memory(error)
        line = str(out_of_memory(7, machine, error))
        assert line.startswith("step 7: out of memory (") and "\n" not in line
        assert f"--train.micro-batch-tokens {machine.micro_batch_tokens // 2}" in line
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
