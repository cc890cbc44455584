import dataclasses
import json
import re
import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from xuebu.errors import ConfigError, InputError
from xuebu.model.encoder import PretrainingModel
from xuebu.model.pretrained import load_pretrained, save_pretrained
from xuebu.model.settings import ModelSettings
from xuebu.tokens.vocab import SPECIAL_TOKENS, Vocabulary, load_vocabulary

VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *"学而时习之不亦说乎有朋自远方来"))
SIZE = VOCABULARY.num_tokens
BERT = ModelSettings(num_layers=2, hidden_size=16, num_heads=2, intermediate_size=24, max_positions=32, dropout=0.1)
UNTIED = dataclasses.replace(BERT, tie_embeddings=False)
PLAIN = dataclasses.replace(UNTIED, embedding_norm=False, mlm_transform=False, pooler=False)
HEADLESS = dataclasses.replace(BERT, pooler=False, nsp_head=False, mlm_bias=False)


def build(settings, size=SIZE):
    model = PretrainingModel(settings, size, torch.Generator().manual_seed(5))
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.add_(torch.empty_like(parameter).normal_(generator=torch.Generator().manual_seed(number)))
    return model


@pytest.fixture
def folder(tmp_path):
    save_pretrained(build(BERT), VOCABULARY, tmp_path / "model")
    return tmp_path / "model"


def as_plain(folder, **changes):
    """Turn our folder into a plain Hugging Face one, with changes to its config."""
    (folder / "xuebu.json").unlink(missing_ok=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in {**config, **changes}.items() if v != "gone"}))
    return folder


def change_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors) or tensors, folder / "model.safetensors")


@pytest.mark.parametrize("settings", [BERT, UNTIED, PLAIN, HEADLESS])
def test_a_folder_gives_back_what_was_saved_to_the_byte(settings, tmp_path):
    model = build(settings)
    save_pretrained(model, VOCABULARY, tmp_path / "one")
    loaded = load_pretrained(tmp_path / "one")
    assert loaded.settings == settings and loaded.vocabulary == VOCABULARY and loaded.initialized == ()
    assert not loaded.model.training
    state = loaded.model.state_dict()
    assert list(state) == list(model.state_dict())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    save_pretrained(loaded.model, tmp_path / "one", tmp_path / "two")
    names = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert names == sorted(file.name for file in (tmp_path / "two").iterdir())
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_a_plain_hugging_face_folder_round_trips_too(folder, tmp_path):
    original = load_file(folder / "model.safetensors")
    loaded = load_pretrained(as_plain(folder))
    assert loaded.settings == BERT and loaded.vocabulary == VOCABULARY
    save_pretrained(loaded.model, folder, tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert sorted(again) == sorted(original)
    assert all(torch.equal(again[name], tensor) for name, tensor in original.items())
    assert load_vocabulary(tmp_path / "again") == VOCABULARY


def test_names_of_the_first_years_are_understood(folder):
    expected = load_pretrained(folder).model.state_dict()
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    change_weights(
        folder,
        lambda tensors: (
            {
                re.sub(r"LayerNorm\.(weight|bias)", lambda match: old[match[0]], name): tensor
                for name, tensor in tensors.items()
            }
            | {
                "bert.embeddings.position_ids": torch.arange(32)[None],
                "cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"].clone(),
            }
        ),
    )
    loaded = load_pretrained(as_plain(folder))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.model.state_dict().items())


def test_missing_heads_are_drawn_and_said_so(folder):
    expected = load_pretrained(folder).model.state_dict()
    change_weights(
        folder, lambda tensors: {n.removeprefix("bert."): t for n, t in tensors.items() if n.startswith("bert.")}
    )
    with pytest.warns(UserWarning, match=r"has no mlm_head.transform.weight, .*drawn at random"):
        loaded = load_pretrained(as_plain(folder))
    heads = {"mlm_head.transform", "mlm_head.norm", "mlm_head", "nsp_head.classifier"}
    assert {name.rpartition(".")[0] for name in loaded.initialized} == heads
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, expected[name]) == (name not in loaded.initialized), name


def test_weights_of_other_heads_are_left_out_with_a_warning(folder):
    change_weights(
        as_plain(folder), lambda tensors: tensors | {"classifier.weight": torch.zeros(3), "bad\x1b": torch.zeros(1)}
    )
    with pytest.warns(UserWarning, match=r"left out 'bad\\x1b', 'classifier.weight'"):
        assert load_pretrained(folder).initialized == ()


def test_a_vocabulary_of_another_kind_is_left_out_with_a_warning(folder, tmp_path):
    tokens = VOCABULARY.to_text().replace("学", "学步")
    (folder / "vocab.txt").write_text(tokens, encoding="utf-8")
    with pytest.warns(UserWarning, match=r"vocab.txt:6.*2 characters"):
        loaded = load_pretrained(as_plain(folder))
    assert loaded.vocabulary is None
    save_pretrained(loaded.model, folder, tmp_path / "again")  # its tokenizer goes along all the same
    assert (tmp_path / "again" / "vocab.txt").read_text(encoding="utf-8") == tokens
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_pretrained(tmp_path / "again").vocabulary is None


def test_half_precision_weights_are_widened(folder):
    change_weights(as_plain(folder), lambda tensors: {name: tensor.bfloat16() for name, tensor in tensors.items()})
    state = load_pretrained(folder).model.state_dict()
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    expected = build(BERT).embeddings.word.weight.detach().bfloat16().float()
    assert torch.equal(state["embeddings.word.weight"], expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "roberta"}, "`model_type` is 'roberta'; only BERT"),
        ({"position_embedding_type": "relative_key"}, "`position_embedding_type`"),
        ({"hidden_act": "silu"}, "`activation` must be one of 'gelu', 'relu', 'relu2', not 'silu'"),
        ({"num_hidden_layers": "gone"}, "`num_hidden_layers` is missing"),
        ({"vocab_size": "20"}, "`vocab_size` must be a whole number"),
        ({"num_attention_heads": 3}, "not a multiple"),
        ({"num_hidden_layers": 1}, "the settings have no place for 'bert.encoder.layer.1."),
        ({"num_hidden_layers": 3}, "`bert.encoder.layer.2.attention.self.query.weight` is missing"),
        ({"intermediate_size": 20}, ".intermediate.dense.weight` has shape [24, 16], the settings ask for [20, 16]"),
        ({"vocab_size": 9}, f"has shape [{SIZE}, 16], the settings ask for [9, 16]"),
    ],
)  # fmt: skip
def test_a_config_that_does_not_fit_is_one_clear_line(folder, change, words):
    with pytest.raises((InputError, ConfigError)) as caught:
        load_pretrained(as_plain(folder, **change))
    assert words in str(caught.value) and str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_a_decoder_that_should_be_tied_and_is_not_is_refused(folder):
    change_weights(
        as_plain(folder), lambda tensors: tensors | {"cls.predictions.decoder.weight": torch.zeros(SIZE, 16)}
    )
    with pytest.raises(InputError, match="set `tie_word_embeddings` to false"):
        load_pretrained(folder)


@pytest.mark.parametrize("settings", [BERT, PLAIN])
def test_our_own_folder_must_be_whole(settings, tmp_path):
    folder = tmp_path / "model"
    save_pretrained(build(settings), VOCABULARY, folder)

    def broken(name, content, words):
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        (copy / name).unlink()
        if content is not None:
            (copy / name).write_bytes(content)
        with pytest.raises((InputError, ConfigError)) as caught:
            load_pretrained(copy)
        assert words in str(caught.value) and str(copy) in str(caught.value) and "\n" not in str(caught.value)

    own = json.loads((folder / "xuebu.json").read_text())
    weights = (folder / "model.safetensors").read_bytes()
    broken("model.safetensors", None, "no such file")
    broken("model.safetensors", weights[:-100], "not a safetensors file, or damaged")
    broken("model.safetensors", b"", "not a safetensors file, or damaged")
    broken("vocab.txt", None, "No such file")
    broken("vocab.txt", (VOCABULARY.to_text() + "曰\n").encode(), "changed since the model was saved")
    broken("xuebu.json", b"[1]", "must be a JSON object")
    broken("xuebu.json", b"{", "not JSON")
    broken("xuebu.json", json.dumps({**own, "format": 99}).encode(), "newer xuebu")
    broken("xuebu.json", json.dumps({**own, "vocab_size": None}).encode(), "`vocab_size` is missing")
    broken("xuebu.json", json.dumps({**own, "settings": {"num_layer": 2}}).encode(), "did you mean `num_layers`")
    tensors = load_file(folder / "model.safetensors")
    norm = next(name for name in tensors if "norm" in name.lower())
    for change, words in (
        ({name: t for name, t in tensors.items() if name != norm}, f"`{norm}` is missing"),
        (tensors | {"classifier.weight": torch.zeros(2)}, "no place for 'classifier.weight'"),
        (tensors | {norm: torch.zeros(3)}, f"`{norm}` has shape [3]"),
    ):
        save_file(change, tmp_path / "changed.safetensors")
        broken("model.safetensors", (tmp_path / "changed.safetensors").read_bytes(), words)


def test_folders_that_are_no_model(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        load_pretrained(tmp_path / "nowhere")
    with pytest.raises(InputError, match="not a model folder"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(InputError, match="`vocab_size` is missing"):
        load_pretrained(tmp_path)
    save_pretrained(build(BERT), None, tmp_path)
    assert load_pretrained(tmp_path).vocabulary is None
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"found pytorch_model.bin, which is not read: load it with transformers"):
        load_pretrained(tmp_path)


def test_a_vocabulary_that_does_not_belong_is_refused(tmp_path):
    with pytest.raises(InputError, match=f"has {SIZE} entries, the model 30"):
        save_pretrained(build(BERT, 30), VOCABULARY, tmp_path)
    with pytest.raises(InputError, match=r"neither vocab.txt nor tokenizer.json"):
        save_pretrained(build(BERT), tmp_path, tmp_path / "model")
    assert not (tmp_path / "model" / "config.json").exists()
