import dataclasses

import pytest
import torch

from xuebu.errors import ConfigError
from xuebu.model.encoder import PretrainingModel
from xuebu.model.pretrained import load_pretrained
from xuebu.train.optim import (
    clipped_parameters,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    set_learning_rate,
)
from xuebu.train.parallel import World
from xuebu.train.schedule import ngram_scale
from xuebu.train.stop import StopRequest


def make_model(recipe, seed=0):
    return PretrainingModel(recipe.model, 50, torch.Generator().manual_seed(seed))


def fill_gradients(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_groups(recipe_of):
    recipe = recipe_of(train={"weight_decay": 0.3, "beta1": 0.7, "beta2": 0.8, "epsilon": 1e-5})
    model = make_model(recipe)
    optimizer = make_optimizer(model, recipe.train)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    names = {name: decay[id(parameter)] for name, parameter in model.named_parameters()}
    assert len(names) == len(decay)  # each parameter once
    for name, value in names.items():
        assert value == (0.0 if name.endswith("bias") or "norm" in name else 0.3), name
    assert {group["betas"] for group in optimizer.param_groups} == {(0.7, 0.8)}
    assert {group["eps"] for group in optimizer.param_groups} == {1e-5}


def test_update_is_adamw(recipe_of):
    """Against the paper's algorithm 2, written out for two steps."""
    recipe = recipe_of(train={"weight_decay": 0.1, "learning_rate": 0.01})
    model = make_model(recipe)
    optimizer = make_optimizer(model, recipe.train)
    before = {name: parameter.detach().double() for name, parameter in model.named_parameters()}
    moments = {name: (torch.zeros_like(value), torch.zeros_like(value)) for name, value in before.items()}
    for step in (1, 2):
        fill_gradients(model, step)
        optimizer.step()
        for name, parameter in model.named_parameters():
            grad, (m, v) = parameter.grad.double(), moments[name]
            m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
            moments[name] = m, v
            update = m / (1 - 0.9**step) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
            decay = 0.1 if parameter.ndim > 1 else 0.0
            before[name] = before[name] * (1 - 0.01 * decay) - 0.01 * update
            assert parameter.detach().double() == pytest.approx(before[name], abs=1e-6)


def test_state_goes_out_and_in(recipe_of):
    recipe = recipe_of()
    one, other = make_model(recipe), make_model(recipe)
    optimizers = [make_optimizer(model, recipe.train) for model in (one, other)]
    assert optimizer_tensors(one, optimizers[0]) == {}
    for step in range(3):
        fill_gradients(one, step)
        optimizers[0].step()
    other.load_state_dict(one.state_dict())
    tensors = {key: value.clone() for key, value in optimizer_tensors(one, optimizers[0]).items()}
    assert len(tensors) == 3 * len(list(one.parameters()))
    load_optimizer_tensors(other, optimizers[1], tensors)
    for model, optimizer in ((one, optimizers[0]), (other, optimizers[1])):
        fill_gradients(model, 9)
        optimizer.step()
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert all(float(value) == 4 for key, value in optimizer_tensors(other, optimizers[1]).items() if "/step" in key)
    with pytest.raises(KeyError):
        load_optimizer_tensors(other, optimizers[1], {"nobody/exp_avg": torch.zeros(1)})


def test_muon_has_the_matrices_of_the_layers_and_adagrad_the_table(recipe_of):
    recipe = recipe_of(model={"ngram_embeddings": "head", "ngram_buckets": 16}, train={"optimizer": "muon"})
    model = make_model(recipe)
    optimizer = make_optimizer(model, recipe.train)
    owner = {id(p): type(part).__name__ for part in optimizer.parts for g in part.param_groups for p in g["params"]}
    for name, parameter in model.named_parameters():
        matrix = name.startswith("layers.") and parameter.ndim == 2
        expected = "RowAdagrad" if name == "ngrams.table" else "Muon" if matrix else "AdamW"
        assert owner[id(parameter)] == expected, name
    assert "ngrams.table" not in {name for name, p in model.named_parameters() if p in set(clipped_parameters(model))}
    set_learning_rate(optimizer, recipe.train.learning_rate / 4)
    rates = {type(part).__name__: part.param_groups[0]["lr"] for part in optimizer.parts}
    assert rates == pytest.approx({"AdamW": 0.0025, "Muon": 0.005, "RowAdagrad": 0.075})


@pytest.mark.parametrize("place", ["input", "head", "decoder"])
def test_a_run_with_everything_resumes_exactly(place, start, resume, records, recipe_of):
    """Sparse updates, Muon, modern layers, drawn positions: stopped after a step and gone on with, all is equal."""
    model = {
        "ngram_embeddings": place,
        "ngram_buckets": 64,
        "ngram_dropout": 0.2,
        "ngram_extra": 0.0 if place == "input" else 0.5,
        "layer": "modern",
        "positions": "rotary",
        "convolution": 3,
        "dropout": 0.1,
    }
    recipe = recipe_of(model=model, train={"optimizer": "muon", "steps": 6})
    whole, outcome = start(recipe, "whole")
    assert outcome.finished
    parts, outcome = start(recipe, "parts", stop=StopRequest("SIGTERM"))
    assert outcome.step == 1
    assert resume(parts).finished
    assert records(parts) == records(whole)
    for name in ("model.safetensors", "optimizer.safetensors"):
        ends = [(folder.checkpoints / "step-00000006" / name).read_bytes() for folder in (whole, parts)]
        assert ends[0] == ends[1]
    table = outcome.model.ngrams.table
    assert bool(table.any()) and "it has ngram_embeddings" in (whole.model / "config.json").read_text(encoding="utf-8")


def test_what_needs_whole_matrices_is_refused_with_sharded_ones(recipe_of):
    with pytest.raises(ConfigError, match='`train.optimizer` = "muon" needs whole matrices'):
        recipe_of(train={"optimizer": "muon", "sharding": "full"})
    with pytest.raises(ConfigError, match="`model.ngram_embeddings` needs whole matrices"):
        recipe_of(model={"ngram_embeddings": "head"}, train={"sharding": "full"})


def test_embeddings_that_fade_out_are_gone_and_resume_exactly(start, resume, records, recipe_of):
    recipe = recipe_of(
        model={"ngram_embeddings": "head", "ngram_buckets": 64},
        train={"steps": 6, "ngram_fade_start": 0.2, "ngram_fade_end": 0.8, "evaluate_every": 1},
    )
    assert [ngram_scale(step, recipe.train) for step in range(1, 7)] == pytest.approx([1, 7 / 9, 0.5, 2 / 9, 0, 0])
    assert ngram_scale(6, recipe_of().train) == 1.0
    longer = dataclasses.replace(recipe.train, steps=12, legs=(6,))
    assert [ngram_scale(step, longer) for step in (3, 6, 7, 12)] == pytest.approx([0.5, 0, 0, 0])
    whole, outcome = start(recipe, "whole")
    parts, _ = start(recipe, "parts", stop=StopRequest("SIGTERM"))
    assert resume(parts).finished
    assert records(parts) == records(whole)
    assert outcome.model.ngrams is None and load_pretrained(whole.model).settings.ngram_embeddings == "none"
    with pytest.raises(ConfigError, match="must be above"):
        recipe_of(train={"ngram_fade_start": 0.5, "ngram_fade_end": 0.5})


def test_sparse_gradients_are_added_up_over_processes(recipe_of, monkeypatch):
    recipe = recipe_of(model={"ngram_embeddings": "decoder", "ngram_buckets": 16})
    model = make_model(recipe).train()
    ids = torch.randint(5, 50, (2, 20), generator=torch.Generator().manual_seed(0))
    at = torch.tensor([4, 30])
    model.loss(ids, torch.zeros_like(ids), None, at, labels=ids.flatten()[at]).mlm_nats.backward()
    alone = {name: p.grad.to_dense().clone() for name, p in model.named_parameters() if p.grad is not None}
    assert model.ngrams.table.grad.is_sparse and bool(alone["ngrams.table"].any())

    def twice(world, tensors):
        for tensor in tensors:
            tensor.mul_(2.0)  # as if the other process had the same

    monkeypatch.setattr(World, "sum_in_place", twice)
    World(rank=0, size=2).sum_gradients(model)
    for name, gradient in alone.items():
        assert torch.equal(dict(model.named_parameters())[name].grad, 2.0 * gradient)
    make_optimizer(model, recipe.train).step()
    assert bool(model.ngrams.table.detach().any())
