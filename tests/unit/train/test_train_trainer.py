import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from xuebu.batches.loader import Loader
from xuebu.batches.packing import split_micro_batches
from xuebu.errors import CheckpointError, TrainingError
from xuebu.history.records import read_history
from xuebu.model.encoder import PretrainingModel
from xuebu.model.pretrained import load_pretrained
from xuebu.progress import SilentProgress
from xuebu.rng import seed_of
from xuebu.train import trainer as trainer_module
from xuebu.train.checkpoint import list_checkpoints, newest_checkpoint, read_checkpoint
from xuebu.train.objective import compute_losses
from xuebu.train.schedule import learning_rate
from xuebu.train.trainer import StopRequest


def weights(folder):
    return (folder.model / "model.safetensors").read_bytes()


class Meddler(SilentProgress):
    """Calls `act(step)` whenever the trainer shows its figures: after saving, before it looks whether to stop."""

    def __init__(self, act):
        self.act, self.step = act, 0

    def show(self, text):
        self.step += 1
        self.act(self.step)

    def advance(self, count=1):
        pass

    def task(self, name, total=None, unit=""):
        import contextlib

        return contextlib.nullcontext(self)


def test_history_of_a_run(start, records, recipe_of, tokens):
    recipe = recipe_of(train={"steps": 11})
    folder, outcome = start(recipe)
    assert (outcome.step, outcome.finished, outcome.reason) == (11, True, "")
    history = records(folder)
    kinds = [(record["kind"], record["step"]) for record in history]
    assert kinds == [
        ("event", 0), ("train", 3), ("eval", 5), ("train", 6), ("train", 9), ("eval", 10), ("train", 11), ("eval", 11),
    ]  # fmt: skip
    begun = history[0]
    assert begun["event"] == "start" and begun["total_steps"] == 11
    assert begun["num_parameters"] == sum(p.numel() for p in outcome.model.parameters())
    assert (begun["device"], begun["precision"], begun["threads"]) == (begun["device"], "fp32", 1)
    assert begun["flops_per_token"] > 0 and begun["samples"] == len(tokens.train.anchors)
    loader = Loader(tokens.train, tokens.vocabulary, recipe.batches, recipe.train.seed)
    batches = [loader.batch(step) for step in range(1, 12)]
    done = 0
    for record in history:
        upto = batches[: record["step"]]
        assert record["tokens"] == sum(batch.num_tokens for batch in upto)  # real tokens, no padding
        if record["kind"] == "train":
            window = batches[done : record["step"]]
            assert record["mlm_predictions"] == sum(batch.num_predictions for batch in window)
            assert record["nsp_predictions"] == sum(batch.num_judged_pairs for batch in window)
            assert record["learning_rate"] == learning_rate(record["step"], recipe.train)
            done = record["step"]
    raw = [json.loads(line) for line in folder.history.read_text().splitlines()]
    assert [line["seconds"] for line in raw] == sorted(line["seconds"] for line in raw)
    assert all(line["tokens_per_second"] > 0 and line["mfu"] >= 0 for line in raw if line["kind"] == "train")
    read_history(folder.history)
    assert [step for step, _ in list_checkpoints(folder.checkpoints)] == [11, 8]


def test_windows_are_sums_over_their_steps(start, records, recipe_of):
    """A record over three steps equals the sums of the three records of one step each."""
    coarse = records(start(recipe_of(train={"record_every": 3}), "coarse")[0], "train")
    fine = records(start(recipe_of(train={"record_every": 1}), "fine")[0], "train")
    assert len(fine) == 12 and len(coarse) == 4
    for number, window in enumerate(coarse):
        steps = fine[3 * number : 3 * number + 3]
        for head in ("mlm", "nsp"):
            counts = [step[f"{head}_predictions"] for step in steps]
            assert window[f"{head}_predictions"] == sum(counts)
            for metric in ("accuracy", "loss_nats"):
                total = sum(step[f"{head}_{metric}"] * n for step, n in zip(steps, counts, strict=True))
                assert window[f"{head}_{metric}"] * sum(counts) == pytest.approx(total, rel=1e-12)
        hits = window["mlm_accuracy"] * window["mlm_predictions"]
        assert hits == pytest.approx(round(hits), abs=1e-9)
        assert window["grad_norm"] == pytest.approx(np.mean([step["grad_norm"] for step in steps]))


def test_a_step_is_the_gradient_of_the_whole_batch(start, records, recipe_of, tokens):
    """Loss, accuracy and gradient norm of step 1 from one padded micro-batch; micro-batches of 48 tokens in the run."""
    recipe = recipe_of(train={"steps": 1, "warmup_steps": 0, "record_every": 1, "micro_batch_tokens": 48})
    folder, _ = start(recipe)
    (record,) = records(folder, "train")
    model = PretrainingModel(
        recipe.model, tokens.vocabulary.num_tokens, torch.Generator().manual_seed(seed_of(recipe.train.seed, "weights"))
    )
    batch = Loader(tokens.train, tokens.vocabulary, recipe.batches, recipe.train.seed).batch(1)
    (micro,) = split_micro_batches(batch, 10**6)
    losses = compute_losses(model, micro, "cpu", "fp32")
    (losses.mlm_nats / batch.num_predictions + losses.nsp_nats / batch.num_judged_pairs).backward()
    norm = math.sqrt(sum(float((parameter.grad.double() ** 2).sum()) for parameter in model.parameters()))
    assert record["grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert record["mlm_loss_nats"] == pytest.approx(losses.mlm_nats.item() / batch.num_predictions, rel=1e-6)
    assert record["mlm_accuracy"] == pytest.approx(losses.mlm_hits.double().mean().item())
    assert record["nsp_loss_nats"] == pytest.approx(losses.nsp_nats.item() / batch.num_judged_pairs, rel=1e-6)
    assert record["nsp_accuracy"] == pytest.approx(losses.nsp_hits.double().mean().item())


def test_a_run_is_the_plain_loop(start, recipe_of, tokens):
    """Five steps written out: whole batches, clipping, the rate of each step, one update each."""
    recipe = recipe_of(train={"steps": 5, "max_grad_norm": 0.5, "weight_decay": 0.1, "micro_batch_tokens": 48})
    _, outcome = start(recipe)
    settings = recipe.train
    model = PretrainingModel(
        recipe.model, tokens.vocabulary.num_tokens, torch.Generator().manual_seed(seed_of(settings.seed, "weights"))
    )
    loader = Loader(tokens.train, tokens.vocabulary, recipe.batches, settings.seed)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}])
    rates = [0.01 / 3, 0.02 / 3, 0.01, 0.005, 0.0]  # three steps up, then half a cosine over two
    for step, rate in enumerate(rates, start=1):
        batch = loader.batch(step)
        (micro,) = split_micro_batches(batch, 10**6)
        losses = compute_losses(model, micro, "cpu", "fp32")
        optimizer.zero_grad()
        (losses.mlm_nats / batch.num_predictions + losses.nsp_nats / batch.num_judged_pairs).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    trained = dict(outcome.model.named_parameters())
    for name, parameter in model.named_parameters():
        gap = (parameter - trained[name]).detach().abs()
        assert float(gap.mean()) < 2e-6 and float(gap.max()) < 1e-3, name  # Adam amplifies rounding of tiny gradients


def test_clipping_bounds_the_step_not_the_record(start, records, recipe_of):
    plain = records(start(recipe_of(train={"max_grad_norm": 0.0, "record_every": 1}), "plain")[0], "train")
    loose = records(start(recipe_of(train={"max_grad_norm": 1e6, "record_every": 1}), "loose")[0], "train")
    tight = records(start(recipe_of(train={"max_grad_norm": 1e-3, "record_every": 1}), "tight")[0], "train")
    assert plain == loose
    assert tight[0]["grad_norm"] == plain[0]["grad_norm"] > 0.1  # before clipping
    assert tight[-1]["mlm_loss_nats"] != plain[-1]["mlm_loss_nats"]


def test_it_learns_and_the_model_written_is_the_model_trained(start, records, recipe_of, store_of, documents_of):
    """Text of six characters in a vocabulary of 173: at least that is learned in sixty steps."""
    documents = documents_of(40, seed=3, words=["春天", "河水", "老人"], rare="犇", pools=[("s", "")])
    circle = [
        dataclasses.replace(d, sentences=tuple(("春天河水老人" * 9)[len(s) % 6 :][:20] for s in d.sentences))
        for d in documents
    ]
    train = {"steps": 60, "record_every": 10, "learning_rate": 0.03, "warmup_steps": 10, "evaluate_every": 60}
    folder, outcome = start(
        recipe_of(
            train={**train, "checkpoint_every": 60, "micro_batch_tokens": 960}, batches={"sequences_per_step": 16}
        ),
        train_store=store_of(circle).folder,
    )
    losses = [record["mlm_loss_nats"] for record in records(folder, "train")]
    assert losses[0] > 3.0 and losses[-1] < math.log(6) + 0.1
    written = load_pretrained(folder.model).model
    state = written.state_dict()
    for name, tensor in outcome.model.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    checkpoint, _ = newest_checkpoint(folder.checkpoints)
    assert checkpoint.step == 60
    assert all(torch.equal(tensor, state[name]) for name, tensor in checkpoint.model.items())


def test_runs_of_one_recipe_are_equal_and_of_another_seed_are_not(start, records, recipe_of):
    dropout = {"dropout": 0.2, "attention_dropout": 0.2}
    one, _ = start(recipe_of(model=dropout), "one")
    torch.manual_seed(12345)  # torch's own state plays no part
    same, _ = start(recipe_of(model=dropout), "same")
    other, _ = start(recipe_of(model=dropout, train={"seed": 6}), "other")
    assert weights(one) == weights(same) and records(one) == records(same)
    assert weights(one) != weights(other)
    # The questions are the same for every seed.
    counts = [[r["mlm_predictions"] for r in records(folder, "eval")] for folder in (one, other)]
    assert counts[0] == counts[1]


def test_each_micro_batch_of_each_step_has_dropout_of_its_own(start, recipe_of, monkeypatch):
    original, seeds, forwards = torch.manual_seed, [], []
    losses = trainer_module.compute_losses
    monkeypatch.setattr(torch, "manual_seed", lambda seed: (seeds.append(seed), original(seed))[1])
    monkeypatch.setattr(trainer_module, "compute_losses", lambda *given: (forwards.append(None), losses(*given))[1])
    start(recipe_of())
    assert len(set(seeds)) == len(seeds) == len(forwards) > 12
    start(recipe_of(train={"seed": 6}), "other")
    assert len(set(seeds)) == len(seeds)


def test_masked_tokens_alone(start, records, recipe_of):
    folder, _ = start(recipe_of(batches={"objective": "mlm"}))
    assert not [key for record in records(folder) for key in record if key.startswith("nsp")]


def poisoned(monkeypatch, at_call, how):
    """Make the losses of one call of `compute_losses` not finite."""
    calls = []

    def wrapped(model, micro, device, precision, counting=None):
        losses = compute_losses(model, micro, device, precision)
        if not model.training:
            return losses
        calls.append(None)
        if len(calls) != at_call:
            return losses
        if how == "gradient":  # a finite loss with an infinite slope
            losses.mlm_nats.register_hook(lambda gradient: gradient * math.inf)
            return losses
        return losses._replace(mlm_nats=losses.mlm_nats * (math.nan if how == "nan" else math.inf))

    monkeypatch.setattr(trainer_module, "compute_losses", wrapped)


@pytest.mark.parametrize(("how", "what"), [("nan", "loss"), ("inf", "loss"), ("gradient", "gradient")])
def test_a_step_that_is_not_finite_is_not_applied(start, resume, records, recipe_of, monkeypatch, how, what):
    train = {"micro_batch_tokens": 10**6, "non_finite_limit": 1}  # one micro-batch a step
    recipe = recipe_of(train=train)
    whole, _ = start(recipe, "whole")
    before, _ = start(recipe_of(train={**train, "checkpoint_every": 6}), "before")
    poisoned(monkeypatch, 7, how)
    with pytest.raises(TrainingError, match=rf"step 7: the {what} is not finite; the step was not applied") as caught:
        start(recipe)
    monkeypatch.undo()
    monkeypatch.setattr("xuebu.train.machine.measure_peak", lambda device, precision: 1e11)
    folder = type(whole)(whole.path.parent / "run")
    assert "\n" not in str(caught.value)
    assert f"the state before it is saved in {folder.checkpoints}" in str(caught.value)
    saved, problems = newest_checkpoint(folder.checkpoints)
    assert saved.step == 6 and problems == []
    expected = read_checkpoint(before.checkpoints / "step-00000006")
    assert all(torch.equal(tensor, saved.model[name]) for name, tensor in expected.model.items())
    assert all(torch.equal(tensor, saved.optimizer[name]) for name, tensor in expected.optimizer.items())
    assert [r["step"] for r in records(folder, "train")] == [3, 6]
    assert '"failed"' in folder.sessions.read_text()
    resume(folder)  # the trouble was not the data's: it goes on as if nothing had been
    assert weights(folder) == weights(whole) and records(folder) == records(whole)


def test_trouble_in_the_first_step_claims_no_checkpoint(start, resume, records, recipe_of, monkeypatch):
    poisoned(monkeypatch, 1, "nan")
    recipe = recipe_of(train={"non_finite_limit": 1})
    with pytest.raises(TrainingError, match="step 1: the loss is not finite") as caught:
        start(recipe)
    assert "saved" not in str(caught.value)
    monkeypatch.setattr(trainer_module, "compute_losses", compute_losses)
    whole, _ = start(recipe, "whole")
    folder = type(whole)(whole.path.parent / "run")
    assert not folder.checkpoints.exists()
    resume(folder)
    assert weights(folder) == weights(whole) and records(folder) == records(whole)


@pytest.mark.parametrize("at", [1, 6, 8, 11])
def test_a_stop_that_comes_between_saving_and_leaving(start, resume, records, recipe_of, at):
    """It is seen a step later; what is said to be saved is saved."""
    stop = StopRequest()

    def act(step):
        if step == at:
            stop.reason = "SIGTERM"

    folder, outcome = start(recipe_of(), progress=Meddler(act), stop=stop)
    assert outcome.step == newest_checkpoint(folder.checkpoints)[0].step
    assert outcome.step == min(at + 1, 12) and outcome.finished == (at == 11)
    if not outcome.finished:
        assert not folder.model.exists()
        resume(folder)
    whole, _ = start(recipe_of(), "whole")
    assert weights(folder) == weights(whole) and records(folder) == records(whole)


def test_a_stop_asked_before_the_first_step_saves_after_it(start, recipe_of):
    folder, outcome = start(recipe_of(), stop=StopRequest("SIGINT"))
    assert (outcome.step, outcome.finished, outcome.reason) == (1, False, "SIGINT")
    assert [step for step, _ in list_checkpoints(folder.checkpoints)] == [1]


def test_checkpoints_kept(start, recipe_of):
    train = {"steps": 12, "checkpoint_every": 2, "keep_checkpoints": 1, "keep_every": 4}
    folder, _ = start(recipe_of(train=train))
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == [
        "step-00000004", "step-00000008", "step-00000012",
    ]  # fmt: skip


def test_all_checkpoints_damaged(start, resume, recipe_of):
    folder, _ = start(recipe_of(), stop=StopRequest("SIGTERM"))
    (folder.checkpoints / "step-00000001" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="no checkpoint is whole"):
        resume(folder)
