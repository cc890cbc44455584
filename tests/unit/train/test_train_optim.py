import pytest
import torch

from xuebu.model.encoder import PretrainingModel
from xuebu.train.optim import load_optimizer_tensors, make_optimizer, optimizer_tensors


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
