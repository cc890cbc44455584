import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from xuebu.errors import CheckpointError, ConfigError, InputError
from xuebu.infer.fill import fill_mask, load_for_inference
from xuebu.model.encoder import PretrainingModel
from xuebu.model.pretrained import save_pretrained
from xuebu.model.settings import ModelSettings
from xuebu.tokens.vocab import SPECIAL_TOKENS, Vocabulary
from xuebu.train.checkpoint import Checkpoint, save_checkpoint
from xuebu.train.folder import RunFacts, RunFolder, write_run_facts
from xuebu.train.machine import Machine
from xuebu.train.settings import Recipe

VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *"学而时习之不亦说乎，[]MASK"))
SETTINGS = ModelSettings(
    num_layers=1,
    hidden_size=16,
    num_heads=2,
    intermediate_size=24,
    max_positions=20,
    dropout=0.5,
    initializer_range=0.5,
)


@pytest.fixture
def model():
    return PretrainingModel(SETTINGS, VOCABULARY.num_tokens, torch.Generator().manual_seed(3))


def test_each_mask_is_filled_with_the_most_probable_tokens(model):
    text = "[MASK]而时 习之，不亦[MASK]乎"
    ids = torch.tensor([[2, 4, 6, 7, 8, 9, 14, 10, 11, 4, 13, 3]])
    with torch.no_grad():
        logits = model.eval()(ids, torch.zeros_like(ids), None, torch.arange(12)).mlm_logits
    model.train()
    fills = fill_mask(model, VOCABULARY, text, top_k=3)
    assert model.training  # put back, and yet no dropout was at work
    assert [fill.position for fill in fills] == [1, 9]
    for fill in fills:
        expected = np.exp(logits[fill.position].double().numpy())
        expected /= expected.sum()
        best = np.argsort(-expected)[:3]
        assert [one.token for one in fill.candidates] == [VOCABULARY.tokens[i] for i in best]
        np.testing.assert_allclose([one.probability for one in fill.candidates], expected[best], rtol=1e-5)
        assert fill.unknown_characters == ()


def test_all_candidates_add_up_to_one(model):
    (fill,) = fill_mask(model, VOCABULARY, "学[MASK]", top_k=VOCABULARY.num_tokens)
    assert sum(one.probability for one in fill.candidates) == pytest.approx(1.0, abs=1e-6)
    assert {one.token for one in fill.candidates} == set(VOCABULARY.tokens)


def test_unknown_characters_are_noted_once_each(model):
    # The brackets of [MASK] and [UNK] are no text; é is one character in NFC, written here as two.
    assert VOCABULARY.unknown_texts("学鸟[MASK]兽[UNK]鸟\u3000e\u0301 学") == ("鸟", "兽", "é")
    (fill,) = fill_mask(model, VOCABULARY, "学鸟[MASK]兽鸟", top_k=2)
    assert fill.unknown_characters == ("鸟", "兽")
    assert fill.summary().endswith("read as [UNK]: 鸟 兽")
    assert f"{fill.candidates[0].token} {fill.candidates[0].probability:.1%}" in fill.summary()
    record = json.loads(json.dumps(fill.to_json()))
    assert record["position"] == 3 and record["unknown_characters"] == ["鸟", "兽"]
    assert record["candidates"][1] == {"token": fill.candidates[1].token, "probability": fill.candidates[1].probability}


def test_what_cannot_be_filled_is_said_clearly(model):
    assert len(fill_mask(model, VOCABULARY, "学" * 17 + "[MASK]")) == 1  # 18 and two specials are just enough
    with pytest.raises(InputError, match="19 tokens; this model reads at most 18"):
        fill_mask(model, VOCABULARY, "学" * 18 + "[MASK]")
    for text in ("学而时习之", "", "学[mask]"):
        with pytest.raises(InputError, match=r"no \[MASK\]"):
            fill_mask(model, VOCABULARY, text)
    for top_k in (0, VOCABULARY.num_tokens + 1):
        with pytest.raises(ConfigError, match="`top_k`"):
            fill_mask(model, VOCABULARY, "[MASK]", top_k=top_k)
    with pytest.raises(InputError, match="do not belong together"):
        fill_mask(model, Vocabulary(VOCABULARY.tokens[:-1]), "[MASK]")


def test_a_model_folder_and_a_finished_run_are_loaded(model, tmp_path):
    for folder, asked in ((tmp_path / "model", tmp_path / "model"), (tmp_path / "run" / "model", tmp_path / "run")):
        save_pretrained(model, VOCABULARY, folder)
        if asked != folder:
            (asked / "run.toml").write_text("")
        loaded, vocabulary = load_for_inference(asked)
        assert vocabulary == VOCABULARY and not loaded.training
        assert fill_mask(loaded, vocabulary, "学[MASK]") == fill_mask(model, VOCABULARY, "学[MASK]")


def test_models_that_cannot_fill_are_refused(model, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        load_for_inference(tmp_path / "nowhere")
    save_pretrained(model, None, tmp_path / "no_vocabulary")
    with pytest.raises(InputError, match="no vocabulary"):
        load_for_inference(tmp_path / "no_vocabulary")
    headless = tmp_path / "headless"
    save_pretrained(model, VOCABULARY, headless)
    (headless / "xuebu.json").unlink()
    tensors = load_file(headless / "model.safetensors")
    save_file({name: x for name, x in tensors.items() if not name.startswith("cls")}, headless / "model.safetensors")
    with pytest.warns(UserWarning, match="drawn at random"), pytest.raises(InputError, match="no masked-token head"):
        load_for_inference(headless)


class Notes:
    """A progress that keeps what it is told."""

    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)


def test_an_unfinished_run_answers_from_its_newest_whole_checkpoint(model, tmp_path):
    run = RunFolder(tmp_path / "run")
    machine = Machine(
        device="cpu", device_name="test", torch_version="", precision="fp32", threads=1, micro_batch_tokens=64,
        tune_allocator=False, peak_flops=0.0,
    )  # fmt: skip
    recipe = dataclasses.replace(
        Recipe(), batches=dataclasses.replace(Recipe().batches, sequence_length=20), model=SETTINGS
    )
    facts = RunFacts(
        recipe=recipe, machine=machine, train_store="", held_out_store="", vocabulary="../vocabulary", digests={}
    )
    write_run_facts(run, facts)
    VOCABULARY.save(tmp_path / "vocabulary")
    with pytest.raises(InputError, match="neither a model nor a checkpoint"):
        load_for_inference(run.path)

    weights = model.state_dict()
    for step, scale in ((1, 1.0), (2, 2.0)):
        scaled = {name: tensor * scale for name, tensor in weights.items()}
        save_checkpoint(run.checkpoints, Checkpoint(step, scaled, {}, {}))
    notes = Notes()
    loaded, vocabulary = load_for_inference(run.path, progress=notes)
    assert vocabulary == VOCABULARY and not loaded.training
    assert all(torch.equal(tensor, 2 * weights[name]) for name, tensor in loaded.state_dict().items())
    assert len(notes.lines) == 1 and "step 2 answers" in notes.lines[0]

    damaged = sorted(run.checkpoints.iterdir())[1] / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    notes = Notes()
    loaded, _ = load_for_inference(run.path, progress=notes)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.state_dict().items())
    assert "damaged" in notes.lines[0] and "step 1 answers" in notes.lines[1]

    (tmp_path / "vocabulary" / "vocab.txt").write_text("\n".join(VOCABULARY.tokens[:-1]))
    with pytest.raises(InputError, match="not of the model"):
        load_for_inference(run.path)
    for folder in run.checkpoints.iterdir():
        (folder / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="no checkpoint is whole"):
        load_for_inference(run.path)


def test_a_model_of_pieces_fills_and_names_the_words_it_cannot_read(tmp_path):
    special = ("[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    vocabulary = Vocabulary((*special, *"学习，", "a", "##b"), "wordpiece", True)
    model = PretrainingModel(SETTINGS, vocabulary.num_tokens, torch.Generator().manual_seed(1))
    save_pretrained(model, vocabulary, tmp_path / "model")
    loaded, reread = load_for_inference(tmp_path / "model")
    assert reread == vocabulary
    (fill,) = fill_mask(loaded, reread, "学[MASK]，AB xyz 鸟xyz", top_k=vocabulary.num_tokens)
    assert fill.position == 2
    assert fill.unknown_characters == ("xyz", "鸟")
    assert sum(candidate.probability for candidate in fill.candidates) == pytest.approx(1, abs=1e-5)
