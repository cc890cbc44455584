"""The parts of the encoder.

Letters in comments and docstrings: b sequences, t positions, n heads, d numbers a head, h hidden size (n * d), s tokens
laid end to end. Only attention knows about sequences; everything else works on tokens [s, h].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from xuebu.model.kernels import add_and_normalize, attend_blocks, attention_weights, drop, is_plain, linear
from xuebu.model.settings import ModelSettings


def activate(x: Tensor, kind: str) -> Tensor:
    """Return the activation `kind` of each element: "gelu" (exact), "relu" or "relu2", its square.

    Source of the square: So et al. 2021, "Primer: Searching for Efficient Transformers for Language Modeling".
    """
    if kind == "gelu":
        return functional.gelu(x)
    positive = functional.relu(x)
    return positive if kind == "relu" else positive * positive


class Block(NamedTuple):
    """Sequences of one length, padding included, that lie one after another among the tokens.

    Attributes:
        num_rows: b.
        length: t.
        bias: float [b, 1, 1, t] as of `padding_bias`; None where no row of the block is padded.
    """

    num_rows: int
    length: int
    bias: Tensor | None = None


class Runs(NamedTuple):
    """Sequences of any lengths, end to end without a gap.

    Attributes:
        starts: int32 [b + 1], where each begins and ends; the last is s.
        max_length: no sequence is longer.
    """

    starts: Tensor
    max_length: int


class Dropout(nn.Module):
    """`drop` while training, nothing otherwise."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor like x."""
        return drop(x, self.rate) if self.training else x


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float) -> Tensor:
    """Return softmax(q k' / sqrt(d) + bias) v, [b, n, t, d].

    Torch's fused attention is used on accelerators only, see `kernels.attend_blocks`.

    Args:
        q: queries [b, n, t, d].
        k: keys, likewise.
        v: values, likewise.
        bias: float [b, 1, 1, t], 0 where a key is real and -inf where it is padding; None: all are real.
        dropout: rate at which attention weights are dropped, now.

    Source: Vaswani et al. 2017, equation 1.
    """
    b, n, t, d = q.shape
    if q.device.type != "cpu":
        bias = None if bias is None else bias.to(q.dtype)
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
    q, k, v = (x.reshape(b * n, t, d) for x in (q, k, v))
    return torch.bmm(drop(attention_weights(q, k, bias), dropout), v).view(b, n, t, d)


def attend_runs(q: Tensor, k: Tensor, v: Tensor, runs: Runs) -> Tensor:
    """Return softmax(q k' / sqrt(d)) v within each sequence, [s, n, d]; arguments likewise.

    Torch has a kernel for it on GPUs, without dropout and for 16-bit types. Elsewhere it is done one after another.
    """
    if q.device.type == "cuda":
        # Not at the top: it brings torch's compiler, which takes longer to import than torch itself.
        from torch.nn.attention.varlen import varlen_attn

        # The arguments that torch 2.11 to 2.13 agree about.
        mixed = varlen_attn(q, k, v, runs.starts, runs.starts, runs.max_length, runs.max_length)
        return cast(Tensor, mixed)
    parts = []
    for start, end in pairwise(runs.starts.tolist()):
        one_q, one_k, one_v = (x[start:end].transpose(0, 1).unsqueeze(0) for x in (q, k, v))
        parts.append(attend(one_q, one_k, one_v, None, 0.0).squeeze(0).transpose(0, 1))
    return torch.cat(parts)


class Embeddings(nn.Module):
    """Sum of word, position and segment embeddings, normalized where the settings say so.

    Source: Devlin et al. 2019, section 3, figure 2.
    """

    def __init__(self, settings: ModelSettings, vocab_size: int) -> None:
        super().__init__()
        self.word = nn.Embedding(vocab_size, settings.hidden_size)
        learned = settings.positions == "learned"
        self.position = nn.Embedding(settings.max_positions, settings.hidden_size) if learned else None
        self.segment = nn.Embedding(settings.type_vocab_size, settings.hidden_size)
        self.norm = nn.LayerNorm(settings.hidden_size, settings.layer_norm_eps) if settings.embedding_norm else None
        self.dropout = Dropout(settings.dropout)

    def forward(self, input_ids: Tensor, segment_ids: Tensor, positions: Tensor, added: Tensor | None = None) -> Tensor:
        """Return [s, h] for int64 ids, segments and positions in their sequence, each [s]; added [s, h] goes on top."""
        x = self.word(input_ids) + self.segment(segment_ids)
        if self.position is not None:
            x = x + self.position(positions)
        if added is not None:
            x = x + added
        if self.norm is not None:
            x = self.norm(x)
        dropped: Tensor = self.dropout(x)
        return dropped


class SelfAttention(nn.Module):
    """Attention of every token to every real token of its sequence.

    Queries, keys and values come from one matrix product: their weights lie one below the other in `qkv` [3h, h].

    Source: Vaswani et al. 2017, section 3.2.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.num_heads = settings.num_heads
        self.qkv = nn.Linear(settings.hidden_size, 3 * settings.hidden_size)
        self.output = nn.Linear(settings.hidden_size, settings.hidden_size)
        self.dropout = settings.attention_dropout

    def forward(self, x: Tensor, blocks: Sequence[Block] | Runs) -> Tensor:
        """Return [s, h] for x [s, h]; tokens after the last block belong to no sequence and get zeros."""
        qkv, dropout = linear(x, self.qkv), self.dropout if self.training else 0.0
        if isinstance(blocks, Runs):
            q, k, v = qkv.view(len(x), 3, self.num_heads, -1).unbind(1)
            attended: Tensor = self.output(attend_runs(q, k, v, blocks).reshape(x.shape))
            return attended
        if not is_plain(qkv):
            return linear(attend_blocks(qkv, blocks, self.num_heads, dropout), self.output)
        sizes = [block.num_rows * block.length for block in blocks]
        parts = torch.split(qkv[: sum(sizes)], sizes)
        mixed = [self._mix(part, block, dropout) for part, block in zip(parts, blocks, strict=True)]
        mixed.append(qkv.new_zeros(len(x) - sum(sizes), x.shape[1]))
        output: Tensor = self.output(torch.cat(mixed))
        return output

    def _mix(self, qkv: Tensor, block: Block, dropout: float) -> Tensor:
        """Return [b * t, h] for the block's queries, keys and values [b * t, 3h]."""
        b, t, n = block.num_rows, block.length, self.num_heads
        q, k, v = qkv.view(b, t, 3, n, -1).permute(2, 0, 3, 1, 4).contiguous().unbind(0)
        mixed = attend(q, k, v, block.bias, dropout)
        return mixed.transpose(1, 2).reshape(b * t, -1)


class EncoderLayer(nn.Module):
    """Attention, then a feed-forward block, each added to its input and normalized after (post-norm).

    Source: Vaswani et al. 2017, section 3.1; the norms stand where BERT has them.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        h, eps = settings.hidden_size, settings.layer_norm_eps
        self.attention = SelfAttention(settings)
        self.attention_norm = nn.LayerNorm(h, eps)
        self.inner = nn.Linear(h, settings.intermediate_size)
        self.outer = nn.Linear(settings.intermediate_size, h)
        self.outer_norm = nn.LayerNorm(h, eps)
        self.activation, self.dropout = settings.activation, settings.dropout

    def forward(self, x: Tensor, blocks: Sequence[Block] | Runs) -> Tensor:
        """Return [s, h]; arguments as in `SelfAttention.forward`."""
        return self.feed_forward(self._add(x, self.attention(x, blocks), self.attention_norm))

    def feed_forward(self, x: Tensor) -> Tensor:
        """Return [s, h] for x [s, h]: what each token does by itself."""
        inner = activate(linear(x, self.inner), self.activation)
        return self._add(x, linear(inner, self.outer), self.outer_norm)

    def _add(self, x: Tensor, y: Tensor, norm: nn.LayerNorm) -> Tensor:
        return add_and_normalize(x, y, norm, self.dropout if self.training else 0.0)


def padding_bias(lengths: Tensor, num_positions: int) -> Tensor:
    """Return float32 [b, 1, 1, t]: 0 where a position is real, -inf where it is padding.

    Args:
        lengths: integers [b], the real positions of each sequence, 1 to t.
        num_positions: t.
    """
    is_padding = torch.arange(num_positions, device=lengths.device) >= lengths[:, None]
    bias = torch.zeros(is_padding.shape, device=lengths.device).masked_fill_(is_padding, -math.inf)
    return bias[:, None, None, :]
