"""Runs that begin from a trained model, and models that are given a vocabulary of other names."""

import dataclasses

import numpy as np
import pytest
import torch

from xuebu.corpus.symbols import symbols_of
from xuebu.errors import ConfigError, InputError, ResumeError
from xuebu.model.encoder import PretrainingModel
from xuebu.model.pretrained import load_pretrained, save_pretrained
from xuebu.model.resize import transfer_by_rank
from xuebu.rng import seed_of
from xuebu.tokens.settings import VocabularySettings
from xuebu.tokens.special import SPECIAL_TOKENS
from xuebu.tokens.vocab import Vocabulary, train_vocabulary
from xuebu.train.folder import RunFolder, read_run_facts
from xuebu.train.initial import adopt_initial, settings_of_initial
from xuebu.train.session import resume_run, start_run
from xuebu.train.stop import StopRequest


@pytest.fixture
def trained(tokens, recipe_of, tmp_path):
    """A model folder with the vocabulary of `tokens`, of other weights than a new run would draw."""
    recipe = recipe_of()
    model = PretrainingModel(recipe.model, tokens.vocabulary.num_tokens, torch.Generator().manual_seed(99))
    save_pretrained(model, tokens.vocabulary, tmp_path / "trained")
    return tmp_path / "trained", model, recipe


def places(tokens):
    folder = tokens.folder
    return {"train_store": folder / "train", "held_out_store": folder / "held_out", "vocabulary": folder / "vocab"}


def test_a_run_begins_at_the_weights_it_is_given_and_goes_on_from_them_exactly(trained, tokens, tmp_path):
    source, model, recipe = trained
    still = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, learning_rate=1e-30))
    for name, initial in (("given", source), ("drawn", None)):
        folder = RunFolder(tmp_path / name)
        if initial is not None:
            assert adopt_initial(initial, folder, None) == tokens.vocabulary
        assert start_run(folder, still, **places(tokens)).finished
    weights = {name: load_pretrained(tmp_path / name / "model").model.state_dict() for name in ("given", "drawn")}
    wanted = model.state_dict()
    assert all(torch.allclose(tensor, wanted[name], atol=1e-20) for name, tensor in weights["given"].items())
    assert not torch.equal(weights["drawn"]["embeddings.word.weight"], wanted["embeddings.word.weight"])
    assert "initial" in read_run_facts(RunFolder(tmp_path / "given")).digests


def test_a_run_stopped_before_its_first_checkpoint_begins_at_them_again(trained, tokens, tmp_path):
    source, _, recipe = trained
    histories = []
    for name in ("whole", "stopped"):
        folder = RunFolder(tmp_path / name)
        adopt_initial(source, folder, None)
        if name == "stopped":
            stop = StopRequest()
            stop.reason = "SIGTERM"
            start_run(folder, recipe, **places(tokens), stop=stop)
            for checkpoint in folder.checkpoints.iterdir():
                for file in checkpoint.iterdir():
                    file.unlink()
                checkpoint.rmdir()
            assert resume_run(folder).finished
        else:
            assert start_run(folder, recipe, **places(tokens)).finished
        histories.append((folder.model / "model.safetensors").read_bytes())
    assert histories[0] == histories[1]


def test_initial_weights_that_were_changed_or_removed_stop_a_resume(trained, tokens, tmp_path):
    source, _, recipe = trained
    folder = RunFolder(tmp_path / "run")
    adopt_initial(source, folder, None)
    start_run(folder, recipe, **places(tokens))
    weights = folder.initial / "model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    with pytest.raises(ResumeError, match="was made from another initial"):
        resume_run(folder)
    weights.unlink()
    with pytest.raises(ResumeError, match="was made from another initial"):
        resume_run(folder)


def test_another_vocabulary_is_refused_with_what_to_do(trained, tmp_path):
    source = trained[0]
    other = train_vocabulary(["春天来了"] * 9, VocabularySettings(min_count=1))
    other.save(tmp_path / "other")
    with pytest.raises(ConfigError, match="is not the vocabulary of the model .* xuebu vocab transfer"):
        adopt_initial(source, RunFolder(tmp_path / "run"), tmp_path / "other")
    with pytest.raises(InputError, match="no such folder"):
        adopt_initial(tmp_path / "none", RunFolder(tmp_path / "run"), None)


def test_the_architecture_is_the_models_and_the_dropout_is_the_recipes(trained):
    source, model, recipe = trained
    asked = dataclasses.replace(recipe.model, num_layers=3, dropout=0.1, attention_dropout=0.2)
    assert settings_of_initial(source, asked) == dataclasses.replace(model.settings, dropout=0.1, attention_dropout=0.2)


def test_rows_go_by_rank_of_frequency(recipe_of):
    old = Vocabulary((*SPECIAL_TOKENS, *"甲乙丙丁"))
    new = train_vocabulary([symbols_of([7] * 5 + [44] * 4 + [9] * 3 + [1] * 2)], VocabularySettings(kind="ids"))
    model = PretrainingModel(recipe_of().model, old.num_tokens, torch.Generator().manual_seed(1))
    counts = np.array([0, 50, 0, 0, 0, 2, 30, 0, 30])  # 乙 and 丁 are as frequent, 丙 does not occur
    moved = transfer_by_rank(model, old, new, counts)
    words, moved_words = model.embeddings.word.weight, moved.embeddings.word.weight
    assert new.tokens[5:] == ("7", "44", "9", "1")
    assert torch.equal(moved_words[:8], words[[0, 1, 2, 3, 4, 6, 8, 5]])
    assert torch.equal(moved.mlm_head.bias[:8], model.mlm_head.bias[[0, 1, 2, 3, 4, 6, 8, 5]])
    assert torch.allclose(moved_words[8], words[5:].mean(0), atol=0.02)
    with pytest.raises(InputError, match="none of the model's tokens occurs"):
        transfer_by_rank(model, old, new, np.zeros(9, dtype=np.int64))


def test_a_counted_start(start, resume, recipe_of, tokens, tmp_path):
    """Word embeddings and bias are counted, all else is drawn as ever; begun anew or resumed, the run is the same."""
    recipe = recipe_of(train={"counted_start": 5.0, "steps": 4})
    folder, outcome = start(recipe)
    plain, _ = start(recipe_of(train={"steps": 4}), "plain")
    begun = load_pretrained(folder.initial).model
    drawn = PretrainingModel(
        recipe.model, tokens.vocabulary.num_tokens, torch.Generator().manual_seed(seed_of(recipe.train.seed, "weights"))
    )
    different = [
        name for name, weight in begun.state_dict().items() if not torch.equal(drawn.state_dict()[name], weight)
    ]
    assert different == ["embeddings.word.weight", "mlm_head.bias"]
    words = begun.embeddings.word.weight
    assert words.square().mean().sqrt().item() == pytest.approx(5.0 * recipe.model.initializer_range, rel=1e-4)
    assert begun.mlm_head.bias.exp().sum().item() == pytest.approx(1.0, abs=0.02)
    assert not plain.initial.exists()
    digest = read_run_facts(folder).digests["initial"]
    stop = StopRequest()
    stop.reason = "SIGTERM"
    other, outcome = start(recipe, "other", stop=stop)  # leaves after the first step
    assert not outcome.finished and read_run_facts(other).digests["initial"] == digest
    assert resume(other).finished
    weights = [(one.model / "model.safetensors").read_bytes() for one in (folder, other, plain)]
    assert weights[0] == weights[1] != weights[2]


def test_a_run_that_begins_from_a_model_counts_no_start(start, recipe_of, tokens, tmp_path):
    given, _ = start(recipe_of(), "given")
    folder = RunFolder(tmp_path / "further")
    adopt_initial(given.model, folder, None)
    with pytest.raises(ConfigError, match="this run begins from a model; leave one of them out"):
        start(recipe_of(train={"counted_start": 1.0}), "further")
