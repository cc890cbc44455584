"""Embeddings of the tokens around a position, looked up by hash: counting, learned, beside the encoder.

A masked character is often settled by its nearest neighbors, and an encoder needs millions of tokens to find that out.
A table looks the neighbors up at once, and leaves the rest to the encoder.

Letters: s tokens laid end to end, m positions, c contexts of each position, h hidden size, r rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from xuebu.model.draws import generator

CONTEXTS: tuple[tuple[int, ...], ...] = ((-1, 1), (-2, -1), (1, 2), (-2, -1, 1), (-1, 1, 2))
"""The neighbors that make up each context, by distance: left and right, two left, two right, three of four."""

_SHIFTS = (-2, -1, 1, 2)
_MULTIPLIER = 0x9E3779B97F4A7C15 - 2**64  # the golden ratio's share of 2**64, as a signed integer
_ROUNDS = 2
_COUNT_MULTIPLE = 64


class Rows(NamedTuple):
    """Where the rows lie among the tokens: increasing int64 [r] first positions, and the positions after the last."""

    first: Tensor
    end: Tensor


def rows_of_blocks(blocks: Sequence[tuple[int, int]], lengths: Tensor | None, device: torch.device) -> Rows:
    """Return the rows of blocks of (rows, length) each, laid end to end; lengths [r] are the real ones, None: all."""
    strides = torch.tensor([length for count, length in blocks for _ in range(count)], dtype=torch.int64, device=device)
    first = torch.cumsum(strides, 0) - strides
    return Rows(first, first + (strides if lengths is None else lengths))


def context_buckets(input_ids: Tensor, positions: Tensor, rows: Rows, vocab_size: int, num_buckets: int) -> Tensor:
    """Return the bucket of each context of some positions, int64 [m, c], 0 to c * num_buckets - 1.

    The token at the position itself is not read. [MASK], [CLS] and [SEP] are tokens like any other: a context with a
    masked neighbor is the shorter context that can still be read. What lies outside of the row is one further token.

    Args:
        input_ids: int64 [s].
        positions: int64 [m].
        rows: where the rows lie.
        vocab_size: no id is as large.
        num_buckets: of each context, a power of two.

    Source: multiplicative hashing, Knuth, "The Art of Computer Programming", volume 3, section 6.4, in 64 bits.
    """
    row = torch.searchsorted(rows.first, positions, right=True) - 1
    first, end = rows.first.index_select(0, row), rows.end.index_select(0, row)
    token = {}
    for shift in _SHIFTS:
        place = positions + shift
        inside = (place >= first) & (place < end)
        found = input_ids.index_select(0, place.clamp(0, len(input_ids) - 1))
        token[shift] = torch.where(inside, found, vocab_size)
    bits = num_buckets.bit_length() - 1
    buckets = []
    for number, context in enumerate(CONTEXTS):
        key = torch.zeros_like(positions)
        for shift in context:
            key = key * (vocab_size + 1) + token[shift]
        for _ in range(_ROUNDS):
            key = key * _MULTIPLIER
            key = key ^ ((key >> 32) & 0xFFFFFFFF)
        buckets.append(((key >> (32 - bits)) & (num_buckets - 1)) + number * num_buckets)
    return torch.stack(buckets, 1)


def draw_visible(input_ids: Tensor, masked_positions: Tensor, rows: Rows, share: float) -> tuple[Tensor, Tensor]:
    """Draw positions that show their own token; return them and their tokens, both int64 [k], -1 where none was left.

    The draws come from where those of dropout do. k depends on s alone, so that shapes are few.

    Args:
        input_ids: int64 [s], after masking.
        masked_positions: int64 [m]; never drawn. Nor are the first and the last of a row, [CLS] and [SEP].
        rows: where the rows lie.
        share: of all s positions.
    """
    s = len(input_ids)
    at = torch.arange(s, device=input_ids.device)
    row = torch.searchsorted(rows.first, at, right=True) - 1
    visible = (at > rows.first.index_select(0, row)) & (at < rows.end.index_select(0, row) - 1)
    visible &= input_ids != 0  # where rows lie end to end, padding is a row of its own; [PAD] is id 0
    visible.index_fill_(0, masked_positions, False)
    scores = torch.rand(s, device=input_ids.device, generator=generator()).masked_fill_(~visible, -1.0)
    count = min(s, -(-int(s * share) // _COUNT_MULTIPLE) * _COUNT_MULTIPLE)
    top = scores.topk(count)
    return top.indices, torch.where(top.values >= 0.0, input_ids.index_select(0, top.indices), -1)


class NgramEmbeddings(nn.Module):
    """The sum of the embeddings of a position's contexts, which start at 0.

    On the CPU the gradient of the table is sparse: a step touches as many rows as it has contexts, not all of them.

    Attributes:
        scale: what the sum is multiplied by, 1 unless training fades it out; no part of the saved weights.
    """

    scale: Tensor

    def __init__(self, vocab_size: int, num_buckets: int, hidden_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.vocab_size, self.num_buckets, self.dropout = vocab_size, num_buckets, dropout
        self.register_buffer("scale", torch.empty(()), persistent=False)
        self.table = nn.Parameter(torch.empty(len(CONTEXTS) * num_buckets, hidden_size))

    def forward(self, input_ids: Tensor, positions: Tensor, rows: Rows) -> Tensor:
        """Return [m, h]; arguments as in `context_buckets`."""
        buckets = context_buckets(input_ids, positions, rows, self.vocab_size, self.num_buckets)
        weights = None
        if self.dropout and self.training:
            kept = torch.rand(buckets.shape, device=buckets.device, generator=generator()) >= self.dropout
            weights = kept.to(self.table.dtype) / (1.0 - self.dropout)
        sparse = self.table.device.type == "cpu"
        summed = functional.embedding_bag(buckets, self.table, mode="sum", sparse=sparse, per_sample_weights=weights)
        return summed * self.scale
