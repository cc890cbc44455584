"""Which parameter is updated how: AdamW, and where the settings say so Muon for the matrices of the layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from xuebu.train.adagrad import RowAdagrad
from xuebu.train.muon import Muon
from xuebu.train.settings import TrainSettings

_TABLE = "ngrams.table"


class Optimizers:
    """Several optimizers, each for some of the parameters, that step as one.

    Args:
        parts: no parameter is in two of them.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all."""
        return [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        """Apply one update."""
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_of(self, parameter: nn.Parameter) -> dict[str, Any]:
        """Return the state of a parameter, to read or to write."""
        for part in self.parts:
            if any(parameter is one for group in part.param_groups for one in group["params"]):
                state: dict[str, Any] = part.state[parameter]
                return state
        raise KeyError(parameter)


def make_optimizer(model: nn.Module, settings: TrainSettings) -> Optimizers:
    """Return the optimizers of a model's parameters.

    AdamW has two groups: parameters of two or more dimensions decay, biases and norms do not. With `optimizer` "muon"
    the matrices of the encoder's layers go to Muon; embeddings and heads stay with AdamW. A table of n-gram embeddings
    is always Adagrad's: it is sparse, and AdamW would move all of its rows at every step.

    Source: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization"; the groups as in Google's BERT
    (optimization.py, `exclude_from_weight_decay`).
    """
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    tables = [parameter for name, parameter in named.items() if name == _TABLE]
    matrices = {
        name: parameter
        for name, parameter in named.items()
        if settings.optimizer == "muon" and name.startswith("layers.") and parameter.ndim == 2
    }
    rest = [parameter for name, parameter in named.items() if name not in matrices and name != _TABLE]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas, rate = (settings.beta1, settings.beta2), settings.learning_rate
    parts: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=rate, betas=betas, eps=settings.epsilon, fused=True)
    ]
    if matrices:
        joined = {parameter: 3 for name, parameter in matrices.items() if name.endswith("attention.qkv.weight")}
        muon_rate, momentum = settings.muon_learning_rate, settings.muon_momentum
        parts.append(Muon(matrices.values(), muon_rate, momentum, settings.weight_decay, joined))
    if tables:
        parts.append(RowAdagrad(tables, settings.ngram_learning_rate))
    for part in parts:
        for group in part.param_groups:
            group["share"] = group["lr"] / rate  # all follow one schedule
    return Optimizers(parts)


def set_learning_rate(optimizer: Optimizers, rate: float) -> None:
    """Set the rate of AdamW as given, and that of the others in the ratio of their peaks."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]


def clipped_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters whose gradients are clipped: all but a table of n-gram embeddings.

    Its gradient is sparse, and Adagrad makes any size of it the same.
    """
    return [parameter for name, parameter in model.named_parameters() if name != _TABLE]


def optimizer_tensors(model: nn.Module, optimizer: Optimizers) -> dict[str, Tensor]:
    """Return the optimizers' state as flat named tensors, "parameter/entry"; empty before the first update."""
    return {
        f"{name}/{entry}": value
        for name, parameter in model.named_parameters()
        for entry, value in optimizer.state_of(parameter).items()
    }


def load_optimizer_tensors(model: nn.Module, optimizer: Optimizers, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave.

    Raises:
        KeyError: a tensor belongs to no parameter of the model.
    """
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        name, _, entry = key.rpartition("/")
        parameter = parameters[name]
        # The step counter of fused AdamW lives beside the parameter, as a float32 scalar.
        optimizer.state_of(parameter)[entry] = value.to(parameter.device)
