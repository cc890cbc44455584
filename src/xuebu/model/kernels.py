"""Parts of the encoder whose forward and backward passes are written out, for processors.

With AMX a matrix product costs as little as a few passes over its operands. So what autograd does by itself is too
much: sums across types, masks that are made, converted, multiplied by and scaled in a pass each, gradients put together
from slices. What is computed here equals the plain operations to rounding, and is rounded no more often.

Letters: b sequences, t positions, n heads, d numbers a head, h hidden size (n * d), s tokens laid end to end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from xuebu.model.draws import generator

_ONE = 0x3F80
"""The bits of 1.0 in bfloat16."""
_SIDE = 16
"""Side of the pictures in `_gradients_of_linear`: of 64 to 4,096 tokens in any shape, these were the fastest."""

Blocks = Sequence[tuple[int, int, Tensor | None]]
"""As `layers.Block`: b, t, and the bias of keys [b, 1, 1, t], of blocks that lie one after another."""


def is_plain(x: Tensor) -> bool:
    """Whether torch's own operations are to be used: on accelerators, and where a compiler fuses them."""
    return x.device.type != "cpu" or torch.compiler.is_compiling()


def drop(x: Tensor, rate: float) -> Tensor:
    """Return x with each element set to 0 with probability `rate`, the others scaled so that the mean stays.

    The draws come from `draws.generator`; on the CPU as `_draw_kept` says.
    """
    if rate == 0.0:
        return x
    if x.device.type != "cpu":
        return functional.dropout(x, rate)
    kept, scale = _draw_kept(x, rate)
    return x * kept * scale


def _draw_kept(x: Tensor, rate: float) -> tuple[Tensor, float]:
    """Return what to multiply x by so that elements are dropped with probability `rate`, and what keeps the mean then.

    Torch would draw one double an element on one thread; 16 bits an element are taken instead: three times as fast, and
    the rate is met to within 2**-17.

    Returns:
        kept: 0 or 1, like x.
        scale: no factor of `kept`, since rounded to bfloat16 it would shift the mean by up to 0.2 %.
    """
    num_dropped = round(rate * 2**16)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None, generator=generator())
    bits = words.view(torch.int16)  # uniform over -2**15 .. 2**15 - 1
    # In place and as integers: torch takes ten times as long to make booleans and to convert them.
    ones = bits.ge_(num_dropped - 2**15).mul_(_ONE).view(torch.bfloat16)
    return ones[: x.numel()].view(x.shape).to(x.dtype), 2**16 / (2**16 - num_dropped)


class _Linear(torch.autograd.Function):
    """A linear map in bfloat16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.type, ctx.has_bias = x.dtype, bias is not None
        with torch.autocast("cpu", enabled=False):
            x, weight = x.to(torch.bfloat16), weight.to(torch.bfloat16)
            ctx.save_for_backward(x, weight)
            return functional.linear(x, weight, None if bias is None else bias.to(torch.bfloat16))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            of_weight, of_bias = _gradients_of_linear(grad.contiguous(), x.contiguous(), weight, ctx.has_bias)
            return (grad @ weight).to(ctx.type), of_weight.float(), None if of_bias is None else of_bias.float()


def _gradients_of_linear(grad: Tensor, x: Tensor, weight: Tensor, has_bias: bool) -> tuple[Tensor, Tensor | None]:
    """Return grad' x [out, in], and the sum of grad over tokens [out] if asked for; grad [s, out], x [s, in].

    On AMX oneDNN's product with a transposed left factor runs at half the speed of others. For the same sums, with the
    tokens as the pixels of pictures and the product as a 1 x 1 convolution's, it has a kernel that does not, and that
    adds up the bias in passing: 14.7 against 37.6 ms at 3,584 tokens, 512 to 2,048 (one core of a busy machine).
    """
    if len(x) % _SIDE**2:
        return grad.t() @ x, grad.sum(0) if has_bias else None
    grad, x = (part.view(-1, _SIDE, _SIDE, part.shape[1]).permute(0, 3, 1, 2) for part in (grad, x))
    of_weight, of_bias = torch.ops.aten.convolution_backward(
        grad,
        x,
        weight[:, :, None, None],
        bias_sizes=[len(weight)],
        stride=[1, 1],
        padding=[0, 0],
        dilation=[1, 1],
        transposed=False,
        output_padding=[0, 0],
        groups=1,
        output_mask=[False, True, has_bias],
    )[1:]
    return of_weight.view(weight.shape), of_bias


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """Return what the layer gives for x [s, in]; under autocast in bfloat16."""
    if is_plain(x) or not torch.is_autocast_enabled("cpu") or torch.get_autocast_dtype("cpu") != torch.bfloat16:
        return cast(Tensor, layer(x))
    return cast(Tensor, _Linear.apply(x, layer.weight, layer.bias))  # type: ignore[no-untyped-call]


class _AddAndNormalize(torch.autograd.Function):
    """norm(x + dropout(y)) in the type of x, which is the norm's; y may be of another."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, settings: tuple[float, float]) -> Tensor:  # noqa: PLR0917
        eps, rate = settings
        kept, ctx.scale, ctx.type = None, 1.0, y.dtype
        if rate:
            kept, ctx.scale = _draw_kept(y, rate)
            y = y * kept
        # Converted first: in one operation with x it takes three times as long.
        total = x.add(y.to(x.dtype), alpha=ctx.scale)
        normalized, mean, reciprocal = torch.native_layer_norm(total, x.shape[-1:], weight, bias, eps)
        ctx.save_for_backward(total, mean, reciprocal, weight, bias, kept)
        return normalized

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        total, mean, reciprocal, weight, bias, kept = ctx.saved_tensors
        of_x, of_weight, of_bias = torch.ops.aten.native_layer_norm_backward(
            grad, total, total.shape[-1:], mean, reciprocal, weight, bias, [True, True, True]
        )
        of_y = (of_x if kept is None else of_x * ctx.scale).to(ctx.type)
        return of_x, of_y if kept is None else of_y * kept, of_weight, of_bias, None


def add_and_normalize(x: Tensor, y: Tensor, norm: nn.LayerNorm, dropout: float) -> Tensor:
    """Return norm(x + dropout(y)).

    Args:
        x: float32 [s, h].
        y: float32 or bfloat16 [s, h].
        norm: with weight and bias.
        dropout: rate at which elements of y are dropped, now.

    Source: Vaswani et al. 2017, section 3.1.
    """
    if is_plain(x) or x.dtype != norm.weight.dtype:
        return cast(Tensor, norm(x + drop(y, dropout)))
    found = _AddAndNormalize.apply(x, y, norm.weight, norm.bias, (norm.eps, dropout))  # type: ignore[no-untyped-call]
    return cast(Tensor, found)


class _Attention(torch.autograd.Function):
    """From the joint projection to the mixed values, block by block, without a tensor of all slices' gradients."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, blocks: Blocks, num_heads: int, rate: float) -> Tensor:
        mixed = qkv.new_empty(len(qkv), qkv.shape[1] // 3)
        saved: list[Tensor | None] = []
        ctx.blocks, ctx.num_heads, ctx.scale, start = blocks, num_heads, 1.0, 0
        with torch.autocast("cpu", enabled=False):
            for b, t, bias in blocks:
                end = start + b * t
                parts = qkv[start:end].view(b, t, 3, num_heads, -1).permute(2, 0, 3, 1, 4).contiguous()
                q, k, v = parts.view(3, b * num_heads, t, -1).unbind(0)
                taken = weights = attention_weights(q, k, bias)
                kept = None
                if rate:
                    kept, ctx.scale = _draw_kept(weights, rate)
                    taken = weights * kept
                values = torch.baddbmm(v, taken, v, beta=0.0, alpha=ctx.scale).view(b, num_heads, t, -1)
                mixed[start:end].view(b, t, num_heads, -1).copy_(values.transpose(1, 2))
                saved += [parts, weights, kept]
                start = end
        mixed[start:] = 0.0
        ctx.save_for_backward(*saved)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        of_qkv = grad.new_empty(len(grad), 3 * grad.shape[1])
        saved, n, start = ctx.saved_tensors, ctx.num_heads, 0
        with torch.autocast("cpu", enabled=False):
            for number, (b, t, _) in enumerate(ctx.blocks):
                parts, weights, kept = saved[3 * number : 3 * number + 3]
                end = start + b * t
                q, k, v = parts.view(3, b * n, t, -1).unbind(0)
                of_values = grad[start:end].view(b, t, n, -1).transpose(1, 2).reshape(b * n, t, -1)
                of_taken = torch.baddbmm(weights, of_values, v.transpose(1, 2), beta=0.0, alpha=ctx.scale)
                taken = weights
                if kept is not None:
                    taken = weights * kept
                    of_taken.mul_(kept)
                of_scores = torch.ops.aten._softmax_backward_data(of_taken, weights, -1, weights.dtype)
                found, alpha = torch.empty_like(parts).view(3, b * n, t, -1), 1 / math.sqrt(q.shape[-1])
                torch.baddbmm(found[0], of_scores, k, beta=0.0, alpha=alpha, out=found[0])
                torch.baddbmm(found[1], of_scores.transpose(1, 2), q, beta=0.0, alpha=alpha, out=found[1])
                torch.baddbmm(found[2], taken.transpose(1, 2), of_values, beta=0.0, alpha=ctx.scale, out=found[2])
                of_qkv[start:end].view(b, t, 3, n, -1).copy_(found.view(3, b, n, t, -1).permute(1, 3, 0, 2, 4))
                start = end
        of_qkv[start:] = 0.0
        return of_qkv, None, None, None


def attention_weights(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    """Return softmax(q k' / sqrt(d) + bias), [b * n, t, t], for q and k [b * n, t, d] and a bias [b, 1, 1, t].

    In bfloat16 torch's softmax takes twice as long as in float32 with the conversions around it.
    """
    added = q.new_zeros(1, 1, 1)
    if bias is not None:
        added = bias.to(q.dtype).expand(-1, len(q) // len(bias), -1, -1).flatten(0, 1)
    scores = torch.baddbmm(added, q, k.transpose(1, 2), alpha=1 / math.sqrt(q.shape[-1]))
    return scores.float().softmax(-1).to(q.dtype)


def attend_blocks(qkv: Tensor, blocks: Blocks, num_heads: int, dropout: float) -> Tensor:
    """Return the values mixed by attention on a CPU, [s, h]; zeros for tokens after the last block.

    Torch's fused attention is no choice: its backward pass takes four times as long as the matrix products here in
    bfloat16 (measured at 64 to 512 positions, masked or not), and longer in float32.

    Args:
        qkv: queries, keys and values of each token, [s, 3h].
        blocks: where the rows lie.
        num_heads: n.
        dropout: rate at which attention weights are dropped, now.

    Source: Vaswani et al. 2017, equation 1.
    """
    return cast(Tensor, _Attention.apply(qkv, tuple(blocks), num_heads, dropout))  # type: ignore[no-untyped-call]
