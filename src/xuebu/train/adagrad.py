"""Adagrad with one number a row, for tables of which a step touches few rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

_EPSILON = 1e-20  # beside a mean square: rows are divided by its root, however small gradients are


class RowAdagrad(torch.optim.Optimizer):
    """Adagrad whose sum of squares is kept for each row, as the mean over its columns.

    Gradients may be sparse or not; a row without one is neither read nor written. The step of a row is as large as the
    learning rate at first, and falls with the root of how often it was seen.

    Args:
        parameters: tables.
        lr: learning rate.

    Source: Duchi, Hazan and Singer 2011, "Adaptive subgradient methods", with the squares averaged over a row as in
    Mudigere et al. 2022, "Software-hardware co-design for fast and scalable training of deep learning recommendation
    models", section 4.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(list(parameters), {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Apply one update from the gradients; `closure` is not asked."""
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                state = self.state[parameter]
                if "sum" not in state:
                    state["sum"] = torch.zeros(len(parameter), device=parameter.device)
                if not gradient.is_sparse:
                    state["sum"] += gradient.square().mean(1)
                    scale = (state["sum"] + _EPSILON).rsqrt_().mul_(-group["lr"])
                    parameter.addcmul_(gradient, scale[:, None])
                    continue
                gradient = gradient.coalesce()
                (rows,), values = gradient.indices(), gradient.values()
                sums = state["sum"].index_select(0, rows) + values.square().mean(1)
                state["sum"].index_copy_(0, rows, sums)
                scale = (sums + _EPSILON).rsqrt_().mul_(-group["lr"])
                parameter.index_add_(0, rows, values * scale[:, None])
