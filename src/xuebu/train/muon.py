"""Muon: momentum whose matrices are made orthogonal before they are applied."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Momentum of matrices, each replaced by its nearest orthogonal matrix, with decoupled weight decay.

    A matrix of n * h rows and h columns that is n of one size, as that of queries, keys and values, may be named in
    `parts`: each part is made orthogonal by itself.

    Args:
        parameters: matrices.
        lr: learning rate: how large the update's singular values are, before the factor for tall matrices.
        momentum: decay of the mean gradient; the update looks one step ahead (Nesterov).
        weight_decay: decoupled.
        parts: into how many parts, one below the other, a matrix falls; 1 where it is not named.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; iteration, coefficients and
    the factor sqrt(max(1, rows / columns)) are those of its code.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float,
        weight_decay: float = 0.0,
        parts: dict[nn.Parameter, int] | None = None,
    ) -> None:
        super().__init__(list(parameters), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._parts = parts or {}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Apply one update from the gradients; `closure` is not asked."""
        for group in self.param_groups:
            # Matrices of one shape are made orthogonal in one go: they are small, and calls cost more than numbers.
            stacks: dict[tuple[int, int], list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                mean = state["momentum_buffer"].lerp_(parameter.grad, 1.0 - group["momentum"])
                ahead = parameter.grad.lerp(mean, group["momentum"])
                for part, weight in zip(self._split(parameter, ahead), self._split(parameter, parameter), strict=True):
                    stacks[weight.shape[0], weight.shape[1]].append((weight, part))
            for (rows, columns), members in stacks.items():
                updates = orthogonalize(torch.stack([part for _, part in members]))
                rate = group["lr"] * max(1.0, rows / columns) ** 0.5
                for (weight, _), update in zip(members, updates, strict=True):
                    weight.mul_(1.0 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)

    def _split(self, parameter: nn.Parameter, tensor: Tensor) -> Any:
        return tensor.chunk(self._parts.get(parameter, 1))


def orthogonalize(matrices: Tensor) -> Tensor:
    """Return for each matrix [k, n, m] about the nearest with all singular values 1; float32.

    Five rounds of a quintic Newton-Schulz iteration in bfloat16: the singular values end between about 0.7 and 1.2.

    Source: as `Muon`; the iteration goes back to Kovarik 1970 and Björck and Bowie 1971.
    """
    a, b, c = _COEFFICIENTS
    x = matrices.transpose(1, 2) if matrices.shape[1] > matrices.shape[2] else matrices
    x = (x / x.norm(dim=(1, 2), keepdim=True).clamp_(min=1e-7)).bfloat16()
    for _ in range(_ITERATIONS):
        square = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    x = x.transpose(1, 2) if matrices.shape[1] > matrices.shape[2] else x
    return x.float()
