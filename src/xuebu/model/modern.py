"""A layer of today's encoders: norms before, positions by rotation, neighbors mixed in by a short convolution.

Letters: b sequences, t positions, n heads, d numbers a head, h hidden size (n * d), s tokens laid end to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from xuebu.model.layers import Block, Dropout, Runs, activate, attend, attend_runs
from xuebu.model.ngram_embeddings import Rows
from xuebu.model.settings import ModelSettings

_BASE = 10_000.0


class Places(NamedTuple):
    """Where each token stands, in the forms that a layer needs; made once a forward pass.

    Attributes:
        cosines, sines: [s, 1, d / 2] of the angle of each token's position; None without rotary positions.
        inside: for each shift of the convolution but 0, float [s, 1]: 1 where that neighbor is in the token's row.
    """

    cosines: Tensor | None
    sines: Tensor | None
    inside: tuple[Tensor, ...]


def places_of(settings: ModelSettings, positions: Tensor, rows: Rows, dtype: torch.dtype) -> Places:
    """Return the places of tokens at int64 positions [s] of the rows.

    Source of the angles: Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding", section 3.2.
    """
    cosines = sines = None
    if settings.positions == "rotary":
        half = settings.hidden_size // settings.num_heads // 2
        speeds = _BASE ** (-torch.arange(half, device=positions.device, dtype=torch.float32) / half)
        angles = (positions[:, None].float() * speeds)[:, None, :]
        cosines, sines = angles.cos().to(dtype), angles.sin().to(dtype)
    at = torch.arange(len(positions), device=positions.device)
    row = torch.searchsorted(rows.first, at, right=True) - 1
    first, end = rows.first.index_select(0, row), rows.end.index_select(0, row)
    inside = tuple(
        ((at + shift >= first) & (at + shift < end) & (at < end)).to(dtype)[:, None]
        for shift in _shifts(settings.convolution)
    )
    return Places(cosines, sines, inside)


def _shifts(width: int) -> tuple[int, ...]:
    half = width // 2
    return tuple(shift for shift in range(-half, half + 1) if shift) if width else ()


class Convolution(nn.Module):
    """Adds to each token a weighted sum of itself and its neighbors in the row, each number with its own weights.

    The weights start at 0.

    Source: So et al. 2021, "Primer", section 4.2 (there on queries, keys and values); Allen-Zhu 2025, "Physics of
    Language Models: Part 4.1", section 4 (there on the residual stream, as here).
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.shifts = _shifts(settings.convolution)
        self.kernel = nn.Parameter(torch.empty(1 + len(self.shifts), settings.hidden_size))

    def forward(self, x: Tensor, places: Places) -> Tensor:
        """Return [s, h] for x [s, h]."""
        device = x.device.type
        if torch.is_autocast_enabled(device):  # what follows is a product in that type
            x = x.to(torch.get_autocast_dtype(device))
        mixed: Tensor = _Convolution.apply(x, self.kernel, self.shifts, *places.inside)  # type: ignore[no-untyped-call]
        return mixed


class _Convolution(torch.autograd.Function):
    """x * (1 + kernel[0]) + shifted x * kernel[1] + ..., in a third of the passes that autograd would make of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, shifts: tuple[int, ...], *inside: Tensor) -> Tensor:
        ctx.save_for_backward(x, kernel, *inside)
        ctx.shifts = shifts
        weights = kernel.to(x.dtype)
        mixed = x * (1.0 + weights[0])
        for shift, weight, mask in zip(shifts, weights[1:], inside, strict=True):
            here, there = _overlap(shift)
            mixed[here].addcmul_(x[there] * mask[here], weight)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, kernel, *inside = ctx.saved_tensors
        weights = kernel.to(x.dtype)
        of_x = gradient * (1.0 + weights[0])
        of_kernel = [(gradient * x).sum(0, dtype=torch.float32)]
        for shift, weight, mask in zip(ctx.shifts, weights[1:], inside, strict=True):
            here, there = _overlap(shift)
            masked = gradient[here] * mask[here]
            of_x[there].addcmul_(masked, weight)
            of_kernel.append((masked * x[there]).sum(0, dtype=torch.float32))
        return of_x, torch.stack(of_kernel), None, *(None for _ in inside)


def _overlap(shift: int) -> tuple[slice, slice]:
    """Return the tokens that have a neighbor at a distance, and these neighbors."""
    return (slice(-shift, None), slice(None, shift)) if shift < 0 else (slice(None, -shift), slice(shift, None))


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Return x [s, n, d] with each pair (i, i + d / 2) turned by its angle."""
    first, second = x.chunk(2, -1)
    return torch.cat([first * cosines - second * sines, first * sines + second * cosines], -1)


class ModernAttention(nn.Module):
    """Attention of every token to every real token of its sequence, with rotated and normalized queries and keys.

    Source: Vaswani et al. 2017, section 3.2; Dehghani et al. 2023, "Scaling Vision Transformers to 22 Billion
    Parameters", section 2 (norm of queries and keys; here without learned weights).
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        h = settings.hidden_size
        self.num_heads, self.qk_norm = settings.num_heads, settings.qk_norm
        self.qkv = nn.Linear(h, 3 * h, bias=settings.biases)
        self.output = nn.Linear(h, h, bias=settings.biases)
        self.dropout = settings.attention_dropout

    def forward(self, x: Tensor, blocks: Sequence[Block] | Runs, places: Places) -> Tensor:
        """Return [s, h] for x [s, h]; tokens after the last block belong to no sequence and get no attention."""
        q, k, v = self.qkv(x).view(len(x), 3, self.num_heads, -1).unbind(1)
        if self.qk_norm:
            q, k = (functional.rms_norm(part, part.shape[-1:], eps=1e-6) for part in (q, k))
        if places.cosines is not None and places.sines is not None:
            q, k = (rotate(part, places.cosines, places.sines) for part in (q, k))
        if isinstance(blocks, Runs):
            q, k = q.to(v.dtype), k.to(v.dtype)  # under autocast the norm gives float32
            mixed = attend_runs(q, k, v, blocks).reshape(x.shape)
        else:
            mixed = torch.cat(self._mix(q, k, v, blocks))
        attended: Tensor = self.output(mixed)
        return attended

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, blocks: Sequence[Block]) -> list[Tensor]:
        mixed, start = [], 0
        for b, t, bias in blocks:
            one_q, one_k, one_v = (
                x[start : start + b * t].view(b, t, self.num_heads, -1).transpose(1, 2) for x in (q, k, v)
            )
            found = attend(one_q, one_k, one_v, bias, self.dropout if self.training else 0.0)
            mixed.append(found.transpose(1, 2).reshape(b * t, -1))
            start += b * t
        mixed.append(q.new_zeros(len(q) - start, q.shape[1] * q.shape[2]))
        return mixed


class ModernLayer(nn.Module):
    """Convolution, attention, then a feed-forward block, each on the normalized stream and added to it (pre-norm).

    Source: Xiong et al. 2020, "On Layer Normalization in the Transformer Architecture".
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        h, inner, eps, biases = (
            settings.hidden_size,
            settings.intermediate_size,
            settings.layer_norm_eps,
            settings.biases,
        )
        self.attention_norm = nn.LayerNorm(h, eps, bias=biases)
        self.convolution = Convolution(settings) if settings.convolution else None
        self.attention = ModernAttention(settings)
        self.inner_norm = nn.LayerNorm(h, eps, bias=biases)
        self.inner = nn.Linear(h, inner, bias=biases)
        self.outer = nn.Linear(inner, h, bias=biases)
        self.activation = settings.activation
        self.dropout = Dropout(settings.dropout)

    def forward(self, x: Tensor, blocks: Sequence[Block] | Runs, places: Places) -> Tensor:
        """Return [s, h]; arguments as in `ModernAttention.forward`."""
        normed = self.attention_norm(x)
        if self.convolution is not None:
            normed = self.convolution(normed, places)
        x = x + self.dropout(self.attention(normed, blocks, places))
        return self.feed_forward(x)

    def feed_forward(self, x: Tensor) -> Tensor:
        """Return [s, h] for x [s, h]: what each token does by itself."""
        inner = activate(self.inner(self.inner_norm(x)), self.activation)
        output: Tensor = x + self.dropout(self.outer(inner))
        return output
