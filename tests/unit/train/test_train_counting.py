"""What counting tells a model: as soft targets, as a prior of its logits; schedules, resume, and what stays behind."""

import dataclasses

import numpy as np
import pytest
import torch

from xuebu.batches.held_out import HELD_OUT_MASKING
from xuebu.batches.ngram_counts import ngram_counts
from xuebu.errors import ConfigError
from xuebu.model.encoder import PretrainingModel
from xuebu.model.heads import MaskedTokenHead, Prior, summed_cross_entropy
from xuebu.model.presets import count_parameters
from xuebu.model.pretrained import load_pretrained
from xuebu.model.settings import ModelSettings
from xuebu.train.schedule import teacher_weight
from xuebu.train.scoring import score_model
from xuebu.train.settings import TrainSettings
from xuebu.train.stop import StopRequest

TEACHER = {"train": {"ngram_teacher": 1.0, "ngram_teacher_end": 0.8, "ngram_rows": True}}
PRIOR = {"model": {"ngram_prior": True}}
LANES = {**TEACHER, "train": {**TEACHER["train"], "threads": 2, "micro_batch_tokens": 96}}
FADING = {**PRIOR, "train": {"ngram_fade_start": 0.3, "ngram_fade_end": 0.9}}


def weights_of(folder):
    return {path.name: path.read_bytes() for path in folder.model.glob("*.safetensors")}


@pytest.mark.parametrize("changes", [TEACHER, PRIOR, FADING, LANES], ids=["teacher", "prior", "fading", "lanes"])
def test_a_stopped_run_is_the_run_that_never_stopped(changes, start, resume, records, recipe_of, stop_at):
    recipe = recipe_of(**changes)
    whole, outcome = start(recipe, "whole")
    assert outcome.finished
    stop = StopRequest()
    folder, outcome = start(recipe, "cut", stop=stop, progress=stop_at(4, stop))
    assert not outcome.finished
    for step in (7, 10):
        stop = StopRequest()
        assert not resume(folder, stop=stop, progress=stop_at(step, stop)).finished
    assert resume(folder).finished
    assert weights_of(folder) == weights_of(whole) != {}
    assert records(folder) == records(whole)
    plain, _ = start(recipe_of(), "plain")
    assert [r["step"] for r in records(plain, "eval")] == [r["step"] for r in records(whole, "eval")]
    assert records(plain, "eval") != records(whole, "eval")


def test_a_prior_starts_at_counting(start, records, recipe_of, tokens):
    """With a learning rate of next to nothing, the held-out loss is that of counting."""
    quiet = {"learning_rate": 1e-9, "steps": 1, "warmup_steps": 0, "schedule": "constant"}
    folder, outcome = start(recipe_of(train=quiet, **PRIOR))
    from xuebu.batches.held_out import held_out_batches

    recipe = recipe_of()
    questions = held_out_batches(
        tokens.held_out, tokens.vocabulary, settings=recipe.evaluation, batches=recipe.batches, predictions=100
    )
    counts = ngram_counts(tokens.train, tokens.vocabulary)
    nats, hits = [], []
    for batch in questions:
        every = np.arange(batch.num_predictions)
        said = counts.guess(batch, every, HELD_OUT_MASKING, leave_out=False, longest=recipe.batches.sentence_tokens)
        nats.extend(-np.log(said[every, batch.labels]))
        hits.extend(said.argmax(1) == batch.labels)
    (record,) = records(folder, "eval")
    assert record["mlm_loss_nats"] == pytest.approx(np.mean(nats), rel=1e-4)
    assert record["mlm_accuracy"] == pytest.approx(np.mean(hits), abs=0.011)
    scores = score_model(
        outcome.model, recipe_of(**PRIOR), outcome_machine(folder), train_store=tokens.train,
        held_out_store=tokens.held_out, vocabulary=tokens.vocabulary,
    )  # fmt: skip
    assert scores["model_nats"] == pytest.approx(scores["ngram_nats"], rel=0.01)  # that one asks about fewer contexts


def outcome_machine(folder):
    from xuebu.train.folder import read_run_facts

    return read_run_facts(folder).machine


def test_a_model_with_a_prior_cannot_be_asked_without_counts(start, recipe_of):
    folder, outcome = start(recipe_of(**PRIOR))
    loaded = load_pretrained(folder.model)
    assert loaded.settings.ngram_prior and "ngram_prior" in loaded.settings.unknown_to_hugging_face
    ids = torch.full((1, 6), 7)
    with pytest.raises(ConfigError, match=r"`model.ngram_prior`.*cannot fill in or be exported"):
        loaded.model(ids, torch.zeros_like(ids), None, torch.tensor([2]))
    assert loaded.model.encode(ids, torch.zeros_like(ids)).shape == (1, 6, 16)
    assert outcome.model.prior_scale.weight.any()  # it was learned
    faded, _ = start(recipe_of(**FADING), "faded")
    loaded = load_pretrained(faded.model)
    assert loaded.settings == recipe_of().model and loaded.settings.is_hugging_face
    assert loaded.model(ids, torch.zeros_like(ids), None, torch.tensor([2])).mlm_logits.shape[0] == 1


def test_a_new_prior_leaves_the_other_weights_as_they_were(recipe_of):
    plain = ModelSettings(num_layers=1, hidden_size=16, num_heads=2, intermediate_size=24, max_positions=48)
    with_prior = dataclasses.replace(plain, ngram_prior=True)
    models = [PretrainingModel(settings, 50, torch.Generator().manual_seed(3)) for settings in (plain, with_prior)]
    for name, weight in models[0].state_dict().items():
        assert torch.equal(models[1].state_dict()[name], weight) == (name != "mlm_head.norm.weight"), name
    assert not models[1].mlm_head.norm.weight.any()
    count = count_parameters(with_prior, 50)
    assert count.total == sum(parameter.numel() for parameter in models[1].parameters())
    assert count.ngram_prior == 17 and "ngram prior" in count.summary()


def test_cross_entropy_with_a_prior_is_torchs():
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias, scale = (
        torch.randn(*shape, generator=generator).requires_grad_() for shape in ((500, 8), (11, 8), (11,), (500,))
    )
    prior, labels = torch.randn(500, 11, generator=generator), torch.randint(-1, 11, (500,), generator=generator)
    nats, log_probability, hits, _ = summed_cross_entropy(hidden, weight, bias, labels, Prior(prior, scale))
    logits = hidden @ weight.t() + bias + prior * scale[:, None]
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="sum", ignore_index=-1)
    torch.testing.assert_close(nats, expected)
    rows = torch.arange(500)[labels >= 0]
    torch.testing.assert_close(log_probability[rows], logits.log_softmax(-1)[rows, labels[rows]].detach())
    assert hits.tolist() == ((logits.argmax(1) == labels) & (labels >= 0)).tolist()
    parts = hidden, weight, bias, scale
    for found, reference in zip(
        torch.autograd.grad(3 * nats, parts), torch.autograd.grad(3 * expected, parts), strict=True
    ):
        torch.testing.assert_close(found, reference, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("changes", [{}, {"mlm_bias": False, "mlm_transform": False}])
def test_soft_targets_are_torchs(changes):
    generator = torch.Generator().manual_seed(1)
    settings = ModelSettings(num_layers=1, hidden_size=16, num_heads=2, intermediate_size=24, **changes)
    head = MaskedTokenHead(settings, 11)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    hidden, words = (torch.randn(n, 16, generator=generator).requires_grad_() for n in (6, 11))
    targets, labels = torch.rand(6, 11, generator=generator).softmax(-1), torch.tensor([1, 4, -1, 0, 10, -1])
    counted = labels >= 0
    logits = head(hidden, words).log_softmax(-1)
    expected = (-(targets * logits).sum(1) + logits[torch.arange(6), labels.clamp(min=0)])[counted].sum()
    found = head.loss_of_targets(hidden, words, targets, labels)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for one, other in zip(
        torch.autograd.grad(found, (hidden, words)), torch.autograd.grad(expected, (hidden, words)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_teachers_share_falls_along_a_line():
    settings = TrainSettings(steps=100, warmup_steps=1, ngram_teacher=0.8, ngram_teacher_end=0.5)
    assert [teacher_weight(step, settings) for step in (1, 26, 51, 100)] == pytest.approx([0.8, 0.4, 0.0, 0.0])
    longer = dataclasses.replace(settings, steps=200, legs=(100,))
    assert [teacher_weight(step, longer) for step in (26, 51, 150)] == pytest.approx([0.4, 0.0, 0.0])
    assert teacher_weight(1, TrainSettings()) == 0.0


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({**PRIOR, "batches": {"sequences": "full", "objective": "mlm"}}, "crosses documents"),
        ({**TEACHER, "batches": {"mask_replacement": "matched"}}, "hides what was replaced"),
        ({**PRIOR, "train": {"ngram_teacher": 0.5}}, "teach the same twice"),
    ],
)
def test_wrong_recipes_are_refused(recipe_of, sections, message):
    with pytest.raises(ConfigError, match=message):
        recipe_of(**sections)


def test_wrong_schedules_are_refused():
    with pytest.raises(ConfigError, match="leaves no step"):
        TrainSettings(ngram_teacher=0.5, ngram_teacher_end=0.0)
    with pytest.raises(ConfigError, match="`train.ngram_teacher` goes by steps"):
        TrainSettings(ngram_teacher=0.5, schedule_hours=1.0)
