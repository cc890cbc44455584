"""The written-out passes against the plain operations, in values and gradients."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from xuebu.model.kernels import add_and_normalize, attend_blocks, drop, linear
from xuebu.model.layers import Block, padding_bias

LENGTHS = torch.tensor([12, 9, 11, 12, 3, 8])
BLOCKS = (Block(4, 12, padding_bias(LENGTHS[:4], 12)), Block(2, 8, padding_bias(LENGTHS[4:], 8)))
TOKENS = 4 * 12 + 2 * 8 + 5  # five belong to no row


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(found, right, bound):
    assert found.dtype == right.dtype and found.shape == right.shape
    found, right = found.detach(), right.detach()
    assert float((found - right).double().norm() / right.double().norm()) < bound


@pytest.mark.parametrize("rate", [0.0, 0.25])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_add_and_normalize_is_what_it_says(rate, dtype):
    norm = nn.LayerNorm(48, 1e-12)
    with torch.no_grad():
        norm.weight.copy_(draw(48, seed=1))
        norm.bias.copy_(draw(48, seed=2))
    inputs = [draw(70, 48, seed=3).requires_grad_(), draw(70, 48, seed=4).to(dtype).requires_grad_()]
    found, right = [], []
    for results, function in ((found, add_and_normalize), (right, None)):
        torch.manual_seed(7)
        x, y = inputs
        out = function(x, y, norm, rate) if function else norm(x + drop(y.float(), rate))
        gradients = torch.autograd.grad(out, [*inputs, *norm.parameters()], draw(70, 48, seed=5))
        results += [out, *gradients]
    assert found[0].dtype == torch.float32 and found[2].dtype == dtype
    for mine, plain in zip(found, right, strict=True):
        close(mine, plain, 1e-6 if dtype == torch.float32 or plain.dtype == torch.float32 else 4e-3)


def plain_attention(qkv, num_heads, rate):
    mixed, start = [], 0
    for b, t, bias in BLOCKS:
        q, k, v = qkv[start : start + b * t].view(b, t, 3, num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias).softmax(-1)
        mixed.append((drop(weights, rate) @ v).transpose(1, 2).reshape(b * t, -1))
        start += b * t
    return torch.cat([*mixed, qkv.new_zeros(len(qkv) - start, mixed[0].shape[1])])


@pytest.mark.parametrize("rate", [0.0, 0.25])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_over_blocks_is_that_of_each_row(rate, dtype):
    qkv = draw(TOKENS, 3 * 32).to(dtype)
    mine, plain = qkv.clone().requires_grad_(), qkv.float().requires_grad_()
    weight = draw(TOKENS, 32, seed=1).to(dtype)
    torch.manual_seed(3)
    found = attend_blocks(mine, BLOCKS, 2, rate)
    torch.manual_seed(3)
    right = plain_attention(plain, 2, rate)
    found.backward(weight)
    right.backward(weight.float())
    assert not found[-5:].any() and not mine.grad[-5:].any()
    close(found.float(), right, 1e-6 if dtype == torch.float32 else 6e-3)
    close(mine.grad.float(), plain.grad, 1e-6 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("tokens", [512, 300])
@pytest.mark.parametrize("bias", [True, False])
def test_the_linear_map_has_the_gradients_of_a_linear_map(tokens, bias):
    layer = nn.Linear(40, 96, bias=bias)
    x = draw(tokens, 40, seed=1).requires_grad_()
    weight = draw(tokens, 96, seed=2).bfloat16()
    wanted = [x, *layer.parameters()]
    with torch.autocast("cpu", torch.bfloat16):
        found = linear(x, layer)
    mine = torch.autograd.grad(found, wanted, weight)
    rounded = [value.detach().bfloat16().double().requires_grad_() for value in wanted]
    right = functional.linear(*rounded)
    exact = torch.autograd.grad(right, rounded, weight.double())
    assert found.dtype == torch.bfloat16
    close(found.double(), right, 3e-3)
    for one, other in zip(mine, exact, strict=True):
        assert one.dtype == torch.float32
        close(one.double(), other, 3e-3)  # each rounded once to bfloat16: 2**-9 at most
    assert torch.equal(linear(x, layer), layer(x))  # without autocast it is the layer itself


def test_two_threads_give_the_same_bits_every_time():
    """On one number of threads: a run keeps to it."""
    layer = nn.Linear(64, 192)
    x, weight = draw(2048, 64), draw(2048, 192, seed=1).bfloat16()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        found = []
        for _ in range(6):
            with torch.autocast("cpu", torch.bfloat16):
                found.append(torch.autograd.grad(linear(x, layer), list(layer.parameters()), weight))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for pair in found[1:] for a, b in zip(pair, found[0], strict=True))
