"""Lanes compute what one thread computes, the same each time, and give their faults to the caller."""

import dataclasses
import threading
import time

import numpy as np
import pytest
import torch

from xuebu.batches.loader import Loader
from xuebu.batches.packing import deal_micro_batches, split_micro_batches
from xuebu.model.draws import generator, seed_draws
from xuebu.model.encoder import PretrainingModel
from xuebu.train.evaluation import evaluate
from xuebu.train.lanes import Lanes, view_of
from xuebu.train.machine import resolve_machine
from xuebu.train.objective import compute_losses
from xuebu.train.stop import StopRequest


def lanes_of(recipe, count):
    machine = resolve_machine(dataclasses.replace(recipe.train, threads=count, lanes=count))
    assert machine.lanes == count
    return machine


@pytest.fixture
def recipe(recipe_of):
    return recipe_of()


@pytest.fixture
def model(recipe, tokens):
    return PretrainingModel(recipe.model, tokens.vocabulary.num_tokens, torch.Generator().manual_seed(1))


def gradients(model, machine, micro_batches):
    def learn(model, micro):
        losses = compute_losses(model, micro, "cpu", "fp32")
        (losses.mlm_nats + losses.nsp_nats).backward()
        return losses.mlm_nats.item(), threading.get_ident(), torch.get_num_threads()

    with Lanes(model, machine) as lanes:
        found = lanes.run(learn, micro_batches)
        lanes.add_up_gradients()
        assert all(parameter.grad is None for view in lanes.models[1:] for parameter in view.parameters())
    result = {name: parameter.grad for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = None
    return found, result


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_gradient_is_that_of_one_thread(recipe, tokens, model, count):
    batch = Loader(tokens.train, tokens.vocabulary, recipe.batches, 0).batch(3)
    (whole,) = split_micro_batches(batch, 2**20, None)
    plain, expected = gradients(model, lanes_of(recipe, 1), [whole])
    micro_batches = deal_micro_batches(batch, 2**20, count)
    assert len(micro_batches) == count
    before = torch.get_num_threads()
    found, computed = gradients(model, lanes_of(recipe, count), micro_batches)
    assert sum(nats for nats, *_ in found) == pytest.approx(plain[0][0], rel=1e-6)
    assert {number for *_, number in found} == {1}, "threads of an operation in a lane"
    assert torch.get_num_threads() == max(before, count), "and of one outside: the machine's"
    for name, gradient in expected.items():
        assert (computed[name] - gradient).abs().max() <= 1e-6 * max(1.0, gradient.abs().max()), name


def test_sparse_gradients_are_added_up_too(recipe, tokens):
    settings = dataclasses.replace(recipe.model, ngram_embeddings="head", ngram_buckets=512)
    model = PretrainingModel(settings, tokens.vocabulary.num_tokens, torch.Generator().manual_seed(1))
    batch = Loader(tokens.train, tokens.vocabulary, recipe.batches, 0).batch(2)
    (whole,) = split_micro_batches(batch, 2**20, None)
    _, expected = gradients(model, lanes_of(recipe, 1), [whole])
    _, computed = gradients(model, lanes_of(recipe, 2), deal_micro_batches(batch, 2**20, 2))
    table = expected["ngrams.table"].to_dense()
    assert computed["ngrams.table"].is_sparse and table.any()
    assert (computed["ngrams.table"].to_dense() - table).abs().max() <= 1e-6


def test_a_view_shares_weights_and_buffers_and_no_gradient(model):
    view = view_of(model)
    with torch.no_grad():
        model.embeddings.word.weight.add_(1.0)
    model.set_ngram_scale(0.25)
    own, other = model.embeddings.word.weight, view.embeddings.word.weight
    assert other is not own and other.data_ptr() == own.data_ptr() and other.is_leaf
    assert view.ngram_scale is model.ngram_scale
    assert view.embeddings is not model.embeddings
    view.train(False)
    assert model.training and not view.embeddings.training


def test_each_item_has_its_lane_however_long_others_take(recipe, model):
    def work(model, number):
        time.sleep(0.02 if number == 0 else 0.0)
        return number, models.index(model)

    with Lanes(model, lanes_of(recipe, 3)) as lanes:
        models = lanes.models
        assert lanes.run(work, range(8)) == [(number, number % 3) for number in range(8)]
        assert lanes.run(work, []) == []


def test_a_fault_in_a_lane_reaches_the_caller_when_all_are_done(recipe, model):
    done = []

    def work(model, number):
        if number == 1:
            raise MemoryError("no room")
        time.sleep(0.05)
        done.append(number)

    with Lanes(model, lanes_of(recipe, 2)) as lanes:
        with pytest.raises(MemoryError, match="no room"):
            lanes.run(work, range(3))
        assert done == [0, 2]


def test_draws_of_a_lane_depend_on_its_seed_alone(recipe, model):
    def draw(model, number):
        seed_draws(number, of_thread=True)
        time.sleep(0.001 * (number % 3))
        return torch.rand(3, generator=generator()).tolist()

    with Lanes(model, lanes_of(recipe, 3)) as lanes:
        found = lanes.run(draw, range(7))
    torch.manual_seed(5)
    assert found[5] == torch.rand(3).tolist(), "as from torch's own generator"
    assert generator() is None, "the caller's thread keeps to torch's own"
    with Lanes(model, lanes_of(recipe, 2)) as lanes:
        assert lanes.run(draw, range(7)) == found


def test_held_out_answers_do_not_depend_on_lanes(recipe, tokens, model):
    questions = [Loader(tokens.held_out, tokens.vocabulary, recipe.batches, 0).batch(step) for step in (1, 2, 3)]
    one, three = (evaluate(model, questions, lanes_of(recipe, count)) for count in (1, 3))
    assert model.training
    np.testing.assert_allclose(one.mlm_log_probability, three.mlm_log_probability, atol=1e-5)
    assert one.nsp_nats == pytest.approx(three.nsp_nats, rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "threads", "lanes"),
    [
        *[({}, 2, 2), ({}, 4, 4), ({}, 5, 1), ({"lanes": 2}, 6, 2), ({"lanes": 8}, 2, 2), ({"lanes": 1}, 2, 1)],
        *[({"recompute": True}, 2, 1), ({"sharding": "full"}, 2, 1), ({"compile": "on"}, 2, 1)],
    ],
)
def test_how_many_lanes(recipe, changes, threads, lanes):
    assert resolve_machine(dataclasses.replace(recipe.train, threads=threads, **changes)).lanes == lanes


def test_with_lanes_a_run_goes_on_where_it_was(recipe, start, resume):
    """Dropout, gradients added up over lanes, an odd number of sequences: byte for byte."""
    recipe = dataclasses.replace(
        recipe,
        model=dataclasses.replace(recipe.model, dropout=0.1, attention_dropout=0.1),
        batches=dataclasses.replace(recipe.batches, sequences_per_step=7),
        train=dataclasses.replace(recipe.train, steps=8, threads=2, lanes=2, checkpoint_every=3),
    )
    weights = []
    for name in ("whole", "again"):
        _, outcome = start(recipe, name)
        weights.append({key: value.clone() for key, value in outcome.model.state_dict().items()})
    stopped, outcome = start(recipe, "stopped", stop=StopRequest("SIGTERM"))
    assert outcome.step == 1
    weights.append(resume(stopped).model.state_dict())
    for other in weights[1:]:
        assert all(torch.equal(value, other[key]) for key, value in weights[0].items())
