import dataclasses

import pytest
import torch
from torch.nn import functional

from xuebu.config import settings_from
from xuebu.errors import ConfigError
from xuebu.model.encoder import PretrainingModel
from xuebu.model.layers import Block, activate
from xuebu.model.modern import Convolution, ModernLayer, places_of, rotate
from xuebu.model.ngram_embeddings import rows_of_blocks
from xuebu.model.presets import count_parameters
from xuebu.model.pretrained import load_pretrained, save_pretrained
from xuebu.model.settings import ModelSettings

PLAIN = ModelSettings(num_layers=2, hidden_size=16, num_heads=2, intermediate_size=24, max_positions=40, layer="modern")
FULL = dataclasses.replace(
    PLAIN, positions="rotary", convolution=5, qk_norm=True, biases=False, activation="relu2", layer_norm_eps=1e-6
)
ROTARY = dataclasses.replace(PLAIN, positions="rotary", convolution=3, zero_init=True)
VOCAB = 60
LENGTHS = torch.tensor([24, 17, 9])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def build(settings):
    model = PretrainingModel(settings, VOCAB, generator()).eval()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.add_(torch.empty_like(parameter).normal_(0.0, 0.2, generator=generator(number)))
    return model


def test_a_rotation_is_a_product_of_complex_numbers_and_sees_distances_only():
    settings = dataclasses.replace(FULL, hidden_size=32)  # 2 heads of 16
    positions = torch.arange(40)
    places = places_of(settings, positions, rows_of_blocks([(1, 40)], None, positions.device), torch.float32)
    x = torch.randn(40, 2, 16, generator=generator())
    turned = rotate(x, places.cosines, places.sines)
    angles = positions[:, None] * 10_000.0 ** (-torch.arange(8) / 8)
    product = torch.complex(x[..., :8], x[..., 8:]) * torch.polar(torch.ones(40, 8), angles)[:, None]
    torch.testing.assert_close(turned, torch.cat([product.real, product.imag], -1), atol=1e-5, rtol=1e-5)
    same = rotate(x[:1].expand(40, 2, 16), places.cosines, places.sines)
    scores = torch.einsum("snd,tnd->nst", same, same)
    for distance in (1, 7):
        line = scores.diagonal(distance, 1, 2)
        torch.testing.assert_close(line, line[:, :1].expand_as(line), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("width", [1, 3, 5])
def test_the_convolution_is_that_of_torch_within_each_row(width):
    settings = dataclasses.replace(PLAIN, convolution=width)
    module = Convolution(settings)
    torch.nn.init.normal_(module.kernel, generator=generator())
    x = torch.randn(60, 16, generator=generator(1))  # three rows of 18, padded to 20
    lengths = torch.full((3,), 18)
    rows = rows_of_blocks([(3, 20)], lengths, x.device)
    found = module(x, places_of(settings, torch.arange(60) % 20, rows, torch.float32)).view(3, 20, 16)
    half = width // 2
    order = [half, *range(half), *range(half + 1, width)]  # ours begins with the token itself
    kernel = torch.empty(16, 1, width)
    kernel[:, 0, order] = module.kernel.detach().t()
    rows_x = x.view(3, 20, 16)[:, :18]
    expected = rows_x + functional.conv1d(rows_x.transpose(1, 2), kernel, padding=half, groups=16).transpose(1, 2)
    torch.testing.assert_close(found[:, :18], expected, atol=1e-5, rtol=1e-5)
    places = places_of(settings, torch.arange(60) % 20, rows, torch.float64)
    module.double()
    assert torch.autograd.gradcheck(
        lambda x, kernel: torch.func.functional_call(module, {"kernel": kernel}, (x, places)),
        (x.detach().double().requires_grad_(), module.kernel),
    )


def test_a_layer_is_written_out():
    layer = build(FULL).layers[0]
    x = torch.randn(12, 16, generator=generator(1))
    rows = rows_of_blocks([(1, 12)], None, x.device)
    places = places_of(FULL, torch.arange(12), rows, torch.float32)
    normed = functional.layer_norm(x, (16,), layer.attention_norm.weight, None, 1e-6)
    mixed = layer.convolution(normed, places)
    q, k, v = (part.view(12, 2, 8) for part in (mixed @ layer.attention.qkv.weight.t()).chunk(3, -1))
    q, k = (part / (part.square().mean(-1, keepdim=True) + 1e-6).sqrt() for part in (q, k))
    q, k = (rotate(part, places.cosines, places.sines) for part in (q, k))
    attended = functional.scaled_dot_product_attention(*(part.transpose(0, 1) for part in (q, k, v)))
    y = x + attended.transpose(0, 1).reshape(12, 16) @ layer.attention.output.weight.t()
    inner = functional.layer_norm(y, (16,), layer.inner_norm.weight, None, 1e-6) @ layer.inner.weight.t()
    expected = y + functional.relu(inner).square() @ layer.outer.weight.t()
    torch.testing.assert_close(layer(x, [Block(1, 12)], places), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("settings", [PLAIN, FULL, ROTARY])
def test_padding_and_layout_change_nothing(settings):
    model = build(settings)
    t = 24
    ids = torch.randint(5, VOCAB, (3, t), generator=generator(2))
    real = torch.arange(t) < LENGTHS[:, None]
    segments, columns = torch.zeros_like(ids), torch.arange(1, 8)
    at = (torch.arange(3)[:, None] * t + columns).flatten()
    labels = ids.flatten()[at]
    padded = model.loss(ids, segments, LENGTHS, at, labels=labels)
    other = model.loss(torch.where(real, ids, 7), segments, LENGTHS, at, labels=labels)
    assert torch.equal(padded.mlm_nats, other.mlm_nats)
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), LENGTHS.cumsum(0)])
    laid = model.loss_of_runs(
        ids[real],
        segments[real],
        torch.cat([torch.arange(length) for length in LENGTHS.tolist()]),
        row_starts=starts.int(),
        max_length=t,
        first_positions=starts[:-1],
        masked_positions=(starts[:3, None] + columns).flatten(),
        labels=labels,
        nsp_labels=torch.full((3,), -1),
    )
    torch.testing.assert_close(laid.mlm_log_probability, padded.mlm_log_probability, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("settings", [PLAIN, FULL, ROTARY])
def test_parameters_are_counted_and_read_back(settings, tmp_path):
    model = build(settings)
    assert count_parameters(settings, VOCAB).total == sum(parameter.numel() for parameter in model.parameters())
    save_pretrained(model, None, tmp_path)
    for name, weight in load_pretrained(tmp_path).model.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name])
    assert "it has modern layers" in (tmp_path / "config.json").read_text(encoding="utf-8")


def test_layers_that_start_at_zero_are_the_identity():
    model = PretrainingModel(ROTARY, VOCAB, generator())
    x = torch.randn(10, 16, generator=generator(1))
    places = places_of(ROTARY, torch.arange(10), rows_of_blocks([(1, 10)], None, x.device), torch.float32)
    for layer in model.layers:
        assert isinstance(layer, ModernLayer)
        assert torch.equal(layer(x, [Block(1, 10)], places), x)
    plain = PretrainingModel(PLAIN, VOCAB, generator())
    assert plain.layers[0].outer.weight.any()


def test_recomputed_layers_give_the_same_gradients():
    ids = torch.randint(5, VOCAB, (2, 20), generator=generator(1))
    at = torch.tensor([4, 30])
    found = []
    for recompute in (False, True):
        model = build(FULL).train()
        model.recompute = recompute
        model.loss(ids, torch.zeros_like(ids), None, at, labels=ids.flatten()[at]).mlm_nats.backward()
        found.append([parameter.grad for parameter in model.layers.parameters()])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_the_square_of_relu():
    x = torch.tensor([-2.0, 0.0, 3.0])
    assert activate(x, "relu2").tolist() == [0.0, 0.0, 9.0]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"positions": "rotary"}, "`positions` = 'rotary' needs modern layers: set `layer = \"modern\"`"),
        ({"biases": False}, "`biases` = False needs modern layers"),
        ({"layer": "modern", "convolution": 4}, "must be odd"),
        ({"layer": "modern", "positions": "rotary", "hidden_size": 6, "num_heads": 2}, "even number"),
    ],
)
def test_wrong_settings_are_refused(table, words):
    with pytest.raises(ConfigError) as caught:
        settings_from(ModelSettings, table, where="r.toml")
    assert words in str(caught.value)
