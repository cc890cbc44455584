import dataclasses

import pytest
import torch

from xuebu.config import settings_from
from xuebu.errors import ConfigError
from xuebu.model.encoder import PretrainingModel
from xuebu.model.ngram_embeddings import (
    CONTEXTS,
    NgramEmbeddings,
    Rows,
    context_buckets,
    draw_visible,
    rows_of_blocks,
)
from xuebu.model.presets import count_parameters
from xuebu.model.pretrained import load_pretrained, save_pretrained
from xuebu.model.settings import NUM_CONTEXTS, ModelSettings

SMALL = ModelSettings(
    num_layers=1, hidden_size=16, num_heads=2, intermediate_size=24, max_positions=40, ngram_buckets=64
)
VOCAB, BUCKETS = 60, 256
LENGTHS = torch.tensor([24, 17, 9])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows_of(tokens):
    return Rows(torch.tensor([0]), torch.tensor([len(tokens)]))


def by_hand(row, place, vocab_size, num_buckets):
    """The buckets of one position of a row, in Python's whole numbers."""
    found = []
    for number, context in enumerate(CONTEXTS):
        key = 0
        for shift in context:
            near = place + shift
            key = key * (vocab_size + 1) + (row[near] if 0 <= near < len(row) else vocab_size)
        for _ in range(2):
            key = key * 0x9E3779B97F4A7C15 % 2**64
            key ^= key >> 32
        found.append(number * num_buckets + (key >> (32 - num_buckets.bit_length() + 1)) % num_buckets)
    return found


@pytest.mark.parametrize("vocab_size", [60, 65_000])
def test_buckets_are_those_of_whole_numbers(vocab_size):
    lengths = [7, 3, 12, 1]
    rows = [torch.randint(0, vocab_size, (length,), generator=generator(length)) for length in lengths]
    ids = torch.cat(rows)
    ends = torch.tensor(lengths).cumsum(0)
    places = torch.arange(len(ids))
    found = context_buckets(ids, places, Rows(ends - torch.tensor(lengths), ends), vocab_size, BUCKETS)
    expected = [by_hand(row.tolist(), place, vocab_size, BUCKETS) for row in rows for place in range(len(row))]
    assert found.tolist() == expected
    assert len(CONTEXTS) == NUM_CONTEXTS


def test_a_token_never_sees_itself():
    ids = torch.randint(0, VOCAB, (30,), generator=generator())
    place = torch.tensor([14])
    before = context_buckets(ids, place, rows_of(ids), VOCAB, 2**16)
    ids[14] = (ids[14] + 1) % VOCAB
    assert torch.equal(context_buckets(ids, place, rows_of(ids), VOCAB, 2**16), before)
    for shift, seen in ((-3, 0), (-2, 2), (-1, 4), (1, 4), (2, 2), (3, 0)):
        other = ids.clone()
        other[14 + shift] = (other[14 + shift] + 1) % VOCAB
        assert int((context_buckets(other, place, rows_of(ids), VOCAB, 2**16) != before).sum()) == seen, shift


def test_buckets_are_used_evenly():
    ids = torch.randint(0, 5_000, (300_000,), generator=generator())
    found = context_buckets(ids, torch.arange(len(ids)), rows_of(ids), 5_000, 4096)
    for number in range(NUM_CONTEXTS):
        counts = torch.bincount(found[:, number] - number * 4096, minlength=4096).double()
        mean = len(ids) / 4096
        chi_square = float(((counts - mean) ** 2 / mean).sum())
        assert abs(chi_square - 4095) < 5 * (2 * 4095) ** 0.5


def test_the_sum_and_its_gradient():
    ids = torch.randint(0, VOCAB, (30,), generator=generator())
    places = torch.tensor([3, 4, 4, 20])
    module = NgramEmbeddings(VOCAB, 64, 8)
    torch.nn.init.normal_(module.table, generator=generator(1))
    module.scale.fill_(1.0)
    buckets = context_buckets(ids, places, rows_of(ids), VOCAB, 64)
    summed = module(ids, places, rows_of(ids))
    torch.testing.assert_close(summed, module.table[buckets].sum(1))
    weight = torch.randn(4, 8, generator=generator(2))
    (summed * weight).sum().backward()
    assert module.table.grad.is_sparse
    expected = torch.zeros(5 * 64, 8)
    for row, one in zip(buckets, weight, strict=True):
        for bucket in row:
            expected[bucket] += one
    torch.testing.assert_close(module.table.grad.to_dense(), expected)
    module.scale.fill_(0.5)
    torch.testing.assert_close(module(ids, places, rows_of(ids)), 0.5 * summed)


def test_dropout_leaves_out_whole_contexts_and_keeps_the_mean():
    ids = torch.randint(0, VOCAB, (3000,), generator=generator())
    places = torch.arange(10, 2990)
    module = NgramEmbeddings(VOCAB, 64, 8, dropout=0.4)
    torch.nn.init.ones_(module.table)
    module.scale.fill_(1.0)
    torch.manual_seed(1)
    found = module(ids, places, rows_of(ids)).detach()
    assert torch.equal(found, found[:, :1].expand_as(found))  # a context is there for all numbers or for none
    counts = found[:, 0] * 0.6
    torch.testing.assert_close(counts, counts.round(), atol=1e-4, rtol=0)
    share = float(counts.sum()) / (5 * len(places))
    assert abs(share - 0.6) < 5 * (0.24 / (5 * len(places))) ** 0.5
    torch.manual_seed(1)
    assert torch.equal(module(ids, places, rows_of(ids)), found)
    assert (module.eval()(ids, places, rows_of(ids)) == 5.0).all()


@pytest.mark.parametrize("place", ["input", "head", "decoder"])
def test_padding_and_layout_change_nothing(place):
    model = PretrainingModel(dataclasses.replace(SMALL, ngram_embeddings=place), VOCAB, generator()).eval()
    torch.nn.init.normal_(model.ngrams.table, generator=generator(1))
    t = 24
    ids = torch.randint(5, VOCAB, (3, t), generator=generator(2))
    segments = torch.zeros_like(ids)
    real = torch.arange(t) < LENGTHS[:, None]
    columns = torch.arange(1, 8)
    at = (torch.arange(3)[:, None] * t + columns).flatten()
    labels = ids.flatten()[at]
    padded = model.loss(ids, segments, LENGTHS, at, labels=labels)
    other = model.loss(torch.where(real, ids, 7), segments, LENGTHS, at, labels=labels)
    assert torch.equal(padded.mlm_nats, other.mlm_nats)
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), LENGTHS.cumsum(0)])
    flat = ids[real]
    laid = model.loss_of_runs(
        flat,
        torch.zeros_like(flat),
        torch.cat([torch.arange(length) for length in LENGTHS.tolist()]),
        row_starts=starts.int(),
        max_length=t,
        first_positions=starts[:-1],
        masked_positions=(starts[:3, None] + columns).flatten(),
        labels=labels,
        nsp_labels=torch.full((3,), -1),
    )
    torch.testing.assert_close(laid.mlm_log_probability, padded.mlm_log_probability, atol=1e-5, rtol=1e-5)
    logits = model(ids, segments, LENGTHS, at).mlm_logits.log_softmax(-1)
    torch.testing.assert_close(logits[torch.arange(21), labels], padded.mlm_log_probability, atol=1e-5, rtol=1e-5)
    plain = PretrainingModel(SMALL, VOCAB, generator()).eval()
    assert not torch.allclose(plain(ids, segments, LENGTHS, at).mlm_logits.log_softmax(-1), logits, atol=1e-2)
    model.set_ngram_scale(0.0)
    torch.testing.assert_close(
        plain(ids, segments, LENGTHS, at).mlm_logits.log_softmax(-1),
        model(ids, segments, LENGTHS, at).mlm_logits.log_softmax(-1),
    )


def test_new_embeddings_leave_the_model_as_it_was():
    for place in ("input", "head", "decoder"):
        settings = dataclasses.replace(SMALL, ngram_embeddings=place)
        with_ngrams, plain = PretrainingModel(settings, VOCAB), PretrainingModel(SMALL, VOCAB)
        assert not with_ngrams.ngrams.table.any()
        for name, weight in plain.state_dict().items():
            assert torch.equal(with_ngrams.state_dict()[name], weight), name
        count = count_parameters(settings, VOCAB)
        assert count.total == sum(parameter.numel() for parameter in with_ngrams.parameters())
        assert "ngram embeddings" in count.summary()
    assert "ngram" not in count_parameters(SMALL, VOCAB).summary()


def test_what_is_drawn_shows_itself():
    ids = torch.randint(0, VOCAB, (512,), generator=generator())
    masked = torch.randperm(500, generator=generator(1))[:75]
    rows = rows_of_blocks([(8, 64)], torch.full((8,), 60), ids.device)
    torch.manual_seed(3)
    places, labels = draw_visible(ids, masked, rows, 0.5)
    assert len(places) == 256 == len(places.unique())
    drawn = places[labels >= 0]
    assert torch.equal(labels[labels >= 0], ids[drawn])
    assert not torch.isin(drawn, masked).any()
    assert (drawn % 64 > 0).all() and (drawn % 64 < 59).all()
    torch.manual_seed(3)
    assert torch.equal(draw_visible(ids, masked, rows, 0.5)[0], places)
    assert not torch.equal(draw_visible(ids, masked, rows, 0.5)[0], places)
    everything = draw_visible(ids, masked, rows, 1.0)[1] >= 0
    allowed = (torch.arange(512) % 64 > 0) & (torch.arange(512) % 64 < 59)
    allowed[masked] = False
    allowed &= ids != 0
    assert int(everything.sum()) == int(allowed.sum())


@pytest.mark.parametrize("place", ["head", "decoder"])
def test_extra_predictions_are_those_of_the_embeddings_alone(place):
    settings = dataclasses.replace(SMALL, ngram_embeddings=place, ngram_extra=0.5)
    model = PretrainingModel(settings, VOCAB, generator()).train()
    torch.nn.init.normal_(model.ngrams.table, std=0.3, generator=generator(1))
    ids = torch.randint(5, VOCAB, (2, 32), generator=generator(2))
    at = torch.tensor([3, 40])
    torch.manual_seed(4)
    found = model.loss(ids, torch.zeros_like(ids), None, at, labels=ids.flatten()[at]).extra_nats
    torch.manual_seed(4)
    rows = rows_of_blocks([(2, 32)], None, ids.device)
    places, labels = draw_visible(ids.flatten(), at, rows, 0.5)
    x = model.ngrams(ids.flatten(), places, rows)
    if place == "head":
        x = model.mlm_head.norm(torch.nn.functional.gelu(model.mlm_head.transform(x)))
    logits = x @ model.embeddings.word.weight.t() + model.mlm_head.bias
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="sum", ignore_index=-1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not model.eval().loss(ids, torch.zeros_like(ids), None, at, labels=ids.flatten()[at]).extra_nats


def test_a_saved_model_reads_back_and_says_that_it_is_no_bert(tmp_path):
    model = PretrainingModel(dataclasses.replace(SMALL, ngram_embeddings="head"), VOCAB)
    torch.nn.init.normal_(model.ngrams.table, generator=generator(1))
    save_pretrained(model, None, tmp_path)
    again = load_pretrained(tmp_path).model
    assert torch.equal(again.ngrams.table, model.ngrams.table)
    assert "not a BERT: it has ngram_embeddings, so" in (tmp_path / "config.json").read_text(encoding="utf-8")


def test_a_model_without_them_is_the_model_that_never_had_them(tmp_path):
    model = PretrainingModel(dataclasses.replace(SMALL, ngram_embeddings="head", ngram_extra=0.5), VOCAB, generator())
    torch.nn.init.normal_(model.ngrams.table, generator=generator(1))
    model.drop_ngrams()
    save_pretrained(model, None, tmp_path)
    again = load_pretrained(tmp_path)
    assert again.settings == SMALL
    for name, weight in PretrainingModel(SMALL, VOCAB, generator()).state_dict().items():
        assert torch.equal(again.model.state_dict()[name], weight)
    assert "BertForPreTraining" in (tmp_path / "config.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"ngram_buckets": 1000}, "no power of two"),
        ({"ngram_extra": 0.5}, "needs `ngram_embeddings`"),
        ({"ngram_extra": 0.5, "ngram_embeddings": "input"}, "needs `ngram_embeddings`"),
    ],
)
def test_wrong_settings_are_refused(table, words):
    with pytest.raises(ConfigError, match=words):
        settings_from(ModelSettings, table, where="r.toml")
