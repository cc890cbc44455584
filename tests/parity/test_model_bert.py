"""The encoder against transformers' BertForPreTraining with the same weights."""

import dataclasses
import gc
import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForMaskedLM, BertForPreTraining, BertModel
from transformers.utils import logging

from xuebu.model.encoder import PretrainingModel
from xuebu.model.names import hugging_face_names
from xuebu.model.presets import PRESETS
from xuebu.model.pretrained import load_pretrained, save_pretrained
from xuebu.model.settings import ModelSettings
from xuebu.tokens.vocab import SPECIAL_TOKENS, Vocabulary

logging.disable_progress_bar()

LENGTHS = torch.tensor([20, 11, 17, 4])
SMALL = ModelSettings(num_layers=3, hidden_size=48, num_heads=4, intermediate_size=80, max_positions=32)
SMALLS = [SMALL, dataclasses.replace(SMALL, tie_embeddings=False, activation="relu")]
EXCHANGEABLE = [name for name, settings in PRESETS.items() if not settings.missing_for_hugging_face]


def build(settings, vocab_size):
    """A model whose biases and norms are not at their start, so that each of them shows in the logits."""
    model = PretrainingModel(settings, vocab_size, torch.Generator().manual_seed(1)).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.empty_like(parameter).normal_(0.0, 0.1, generator=generator))
    return model


def make_batch(vocab_size, rows=4):
    generator = torch.Generator().manual_seed(3)
    lengths = LENGTHS[:rows]
    t = int(lengths.max())
    ids = torch.randint(5, vocab_size, (rows, t), generator=generator)
    segments = (torch.arange(t) >= (lengths[:, None] + 1) // 2).long()
    real = torch.arange(t) < lengths[:, None]
    chosen = (torch.rand(rows, t, generator=generator) < 0.3) & real
    labels = torch.where(chosen, torch.randint(5, vocab_size, (rows, t), generator=generator), -100)
    return ids, segments, lengths, real, chosen.view(-1).nonzero().view(-1), labels


def logits_of_bert(bert, ids, segments, real):
    with torch.no_grad():
        return bert.eval()(input_ids=ids, token_type_ids=segments, attention_mask=real.long())


@pytest.mark.parametrize("preset", EXCHANGEABLE)
def test_every_exchangeable_preset_loads_in_transformers_with_equal_logits(preset, tmp_path):
    vocab_size = 301
    model = build(PRESETS[preset], vocab_size)
    save_pretrained(model, None, tmp_path)
    bert, report = BertForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    ids, segments, lengths, real, positions, _ = make_batch(vocab_size)
    with torch.no_grad():
        ours = model(ids, segments, lengths, positions)
        hidden = model.encode(ids, segments, lengths)
    theirs = logits_of_bert(bert, ids, segments, real)
    dense = theirs.prediction_logits.view(-1, vocab_size)
    assert float(dense.std()) > 0.1
    torch.testing.assert_close(ours.mlm_logits, dense[positions], atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.nsp_logits, theirs.seq_relationship_logits, atol=1e-5, rtol=0)
    with torch.no_grad():
        reference = bert.bert(input_ids=ids, token_type_ids=segments, attention_mask=real.long()).last_hidden_state
    torch.testing.assert_close(hidden[real], reference[real], atol=1e-5, rtol=0)
    del model, bert
    gc.collect()


@pytest.mark.parametrize("settings", SMALLS)
def test_loss_and_every_gradient_are_those_of_bert(settings, tmp_path):
    vocab_size = 90
    model = build(settings, vocab_size).train()
    save_pretrained(model, None, tmp_path)
    bert = BertForPreTraining.from_pretrained(tmp_path).train()
    ids, segments, lengths, real, positions, labels = make_batch(vocab_size)
    nsp_labels = torch.tensor([1, 0, 0, 1])  # ours: 1 = b follows a; BERT's: 0 = b follows a
    out = model.loss(
        ids, segments, lengths, positions, labels=labels.view(-1)[positions], nsp_labels=nsp_labels.to(torch.int8)
    )
    loss = out.mlm_nats / len(positions) + out.nsp_nats / len(nsp_labels)
    loss.backward()
    theirs = bert(
        input_ids=ids,
        token_type_ids=segments,
        attention_mask=real.long(),
        labels=labels,
        next_sentence_label=1 - nsp_labels,
    )
    theirs.loss.backward()
    torch.testing.assert_close(loss, theirs.loss, rtol=1e-6, atol=0)
    dense = theirs.prediction_logits.detach().view(-1, vocab_size)
    assert torch.equal(out.mlm_hits, dense[positions].argmax(-1) == labels.view(-1)[positions])
    assert torch.equal(out.nsp_hits, theirs.seq_relationship_logits.argmax(-1) == 1 - nsp_labels)
    gradients = dict(bert.named_parameters())
    checked = 0
    for ours, names in hugging_face_names(settings).items():
        mine = model.get_parameter(ours).grad
        reference = torch.cat([gradients.pop(name).grad for name in names])
        if ours.endswith("qkv.bias"):
            # The gradient of a key bias is 0 in exact arithmetic: it moves all scores of a query alike.
            width = settings.hidden_size
            assert float(mine[width : 2 * width].abs().max()) < 1e-6
            mine, reference = (torch.cat([x[:width], x[2 * width :]]) for x in (mine, reference))
        error = float((mine - reference).norm() / reference.norm())
        assert error < 1e-5, (ours, error)
        checked += 1
    assert checked == len(list(model.parameters()))
    assert set(gradients) <= {"cls.predictions.bias"}  # of an untied BERT, which adds the other bias


@pytest.mark.parametrize("tied", [True, False])
def test_folders_written_by_transformers_load_here(tied, tmp_path):
    torch.manual_seed(4)
    config = BertConfig(
        vocab_size=70,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=40,
        max_position_embeddings=24,
        initializer_range=0.2,
        tie_word_embeddings=tied,
    )
    bert = BertForPreTraining(config)
    torch.nn.init.normal_(bert.cls.predictions.decoder.bias)
    bert.save_pretrained(tmp_path / "theirs")
    loaded = load_pretrained(tmp_path / "theirs")
    assert loaded.settings.tie_embeddings == tied and loaded.settings.dropout == 0.1 and not loaded.initialized
    ids, segments, lengths, real, positions, _ = make_batch(70)
    theirs = logits_of_bert(bert, ids, segments, real)
    with torch.no_grad():
        ours = loaded.model(ids, segments, lengths, positions)
    torch.testing.assert_close(ours.mlm_logits, theirs.prediction_logits.view(-1, 70)[positions], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.nsp_logits, theirs.seq_relationship_logits, atol=1e-5, rtol=1e-5)
    save_pretrained(loaded.model, None, tmp_path / "ours")
    again = logits_of_bert(BertForPreTraining.from_pretrained(tmp_path / "ours"), ids, segments, real)
    assert torch.equal(again.prediction_logits, theirs.prediction_logits)
    theirs_file, ours_file = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "ours"))
    assert theirs_file.keys() == ours_file.keys()


@pytest.mark.parametrize("kind", [BertForMaskedLM, BertModel])
def test_berts_with_fewer_heads_load_here(kind, tmp_path):
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=70, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40
    )  # fmt: skip
    bert = kind(config)
    bert.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="drawn at random"):
        loaded = load_pretrained(tmp_path)
    assert any(name.startswith("nsp_head") for name in loaded.initialized)
    ids, segments, lengths, real, positions, _ = make_batch(70)
    theirs = logits_of_bert(bert, ids, segments, real)
    with torch.no_grad():
        if kind is BertForMaskedLM:
            assert not any(name.startswith("mlm_head") for name in loaded.initialized)
            ours, reference = loaded.model(ids, segments, lengths, positions).mlm_logits, theirs.logits.view(-1, 70)
            torch.testing.assert_close(ours, reference[positions], atol=1e-5, rtol=1e-5)
        else:
            ours = loaded.model.encode(ids, segments, lengths)
            torch.testing.assert_close(ours[real], theirs.last_hidden_state[real], atol=1e-5, rtol=1e-5)


VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *"温故而知新可以为师矣"))


@pytest.mark.parametrize("exchangeable", [True, False])
def test_the_tokenizer_of_a_model_folder_loads_in_transformers(exchangeable, tmp_path):
    settings = dataclasses.replace(SMALL, embedding_norm=exchangeable)
    save_pretrained(PretrainingModel(settings, VOCABULARY.num_tokens), VOCABULARY, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = "温故而知新，可以[MASK]师矣"
    assert tokenizer(text)["input_ids"] == [2, *VOCABULARY.encode_with_specials(text).tolist(), 3]
    assert tokenizer.model_max_length == settings.max_positions


def test_transformers_refuses_what_its_bert_cannot_hold(tmp_path):
    settings = dataclasses.replace(SMALL, embedding_norm=False, mlm_transform=False, pooler=False)
    save_pretrained(build(settings, 90), None, tmp_path)
    for kind in (BertForPreTraining, BertModel):
        with pytest.raises(KeyError, match=r"no embedding_norm, mlm_transform, pooler.*xuebu\.model\.pretrained"):
            kind.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="model type `xuebu`"):
        AutoModel.from_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["XuebuPretrainingModel"]
    assert load_pretrained(tmp_path).settings == settings
