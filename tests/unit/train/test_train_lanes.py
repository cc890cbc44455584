"""Lanes compute what one thread computes, the same each time, and give their faults to the caller."""

import dataclasses
import platform
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from xuebu.batches.loader import Loader
from xuebu.batches.packing import deal_micro_batches, split_micro_batches
from xuebu.model.draws import generator, seed_draws
from xuebu.model.encoder import PretrainingModel
from xuebu.train import machine as machine_module
from xuebu.train.checkpoint import checkpoint_path
from xuebu.train.evaluation import evaluate
from xuebu.train.folder import read_run_facts
from xuebu.train.lanes import Lanes, view_of
from xuebu.train.machine import resolve_machine
from xuebu.train.objective import autocast, compute_losses
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
    assert (threading.get_ident() in {thread for _, thread, _ in found}) == (count == 1)
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
    found = resolve_machine(dataclasses.replace(recipe.train, threads=threads, **changes))
    assert found.lanes == lanes
    assert any("`train.lanes`" in note for note in found.notes) == (changes.get("lanes", 0) > lanes)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_with_lanes_a_run_goes_on_where_it_was(precision, recipe_of, start, resume, records, monkeypatch):
    """Dropout, an odd number of sequences, and in bf16 a weight that is used twice: equal to the byte."""
    monkeypatch.setattr(machine_module, "_cpu_flags", lambda: "flags : amx_bf16")  # else emulated
    recipe = recipe_of(
        model={"dropout": 0.1, "attention_dropout": 0.1},
        batches={"sequences_per_step": 7},
        train={"steps": 8, "threads": 2, "lanes": 2, "precision": precision, "ngram_teacher": 0.5},
    )
    folders, weights = [], []
    for name in ("whole", "again", "stopped"):
        folder, outcome = start(recipe, name, stop=StopRequest("SIGTERM" if name == "stopped" else ""))
        if name == "stopped":
            assert outcome.step == 1
            outcome = resume(folder)
        folders.append(folder)
        weights.append({key: value.clone() for key, value in outcome.model.state_dict().items()})
    for folder, other in zip(folders[1:], weights[1:], strict=True):
        assert all(torch.equal(value, other[key]) for key, value in weights[0].items())
        assert records(folder, "train") == records(folders[0], "train")
        assert records(folder, "eval") == records(folders[0], "eval")
        for name in sorted(path.name for path in checkpoint_path(folder.checkpoints, 8).glob("*.safetensors")):
            mine, first = (checkpoint_path(one.checkpoints, 8) / name for one in (folder, folders[0]))
            assert mine.read_bytes() == first.read_bytes(), name


def test_a_weight_is_cast_as_often_whatever_other_lanes_do(recipe_of, tokens):
    """Torch empties its one memory of casts when any thread leaves autocast."""
    settings = recipe_of().model
    model = PretrainingModel(settings, tokens.vocabulary.num_tokens, torch.Generator().manual_seed(1))
    x, layer = (
        torch.randn(6, settings.hidden_size, generator=torch.Generator().manual_seed(2)),
        model.mlm_head.transform,
    )

    def leave():
        with autocast("cpu", "bf16"):
            pass

    found = []
    for disturbed in (False, True):
        layer.zero_grad(set_to_none=True)
        with autocast("cpu", "bf16", keep_casts=False), autocast("cpu", "bf16"):
            total = layer(x).float().sum()
            if disturbed:
                other = threading.Thread(target=leave)
                other.start()
                other.join()
            total = total + layer(x * 1.37).float().square().sum()
        total.backward()
        found.append(layer.weight.grad.clone())
    assert torch.equal(*found)


def test_going_on_with_other_threads_and_lanes(recipe, start, resume):
    """What is chosen follows from both, as at the start: never more lanes than threads, none where one must do."""
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, threads=2, lanes=0))

    def going_on(name, recipe=recipe, **changes):
        folder, _ = start(recipe, name, stop=StopRequest("SIGTERM"))
        asked = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, **changes))
        resume(folder, recipe=asked, inexact=True)
        found = read_run_facts(folder).machine
        return found.threads, found.lanes

    assert going_on("fewer", threads=1) == (1, 1)
    assert going_on("more", lanes=4) == (2, 2)
    assert going_on("one", lanes=1) == (2, 1)
    recomputed = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, recompute=True, lanes=1))
    assert going_on("recomputed", recomputed, lanes=2) == (2, 1)


def test_gradients_of_a_step_that_was_given_up_are_gone(recipe, tokens, model):
    batch = Loader(tokens.train, tokens.vocabulary, recipe.batches, 0).batch(1)
    with Lanes(model, lanes_of(recipe, 2)) as lanes:
        lanes.run(lambda view, micro: compute_losses(view, micro, "cpu", "fp32").mlm_nats.backward(),
                  deal_micro_batches(batch, 2**20, 2))  # fmt: skip
        assert all(view.embeddings.word.weight.grad is not None for view in lanes.models)
        lanes.drop_gradients()
        assert all(parameter.grad is None for view in lanes.models for parameter in view.parameters())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc only")
def test_lanes_share_one_memory():
    """Threads have no arenas of their own, if the command's first act came before numpy started threads."""
    code = (
        "from xuebu.runtime import prepare_environment\n"
        "prepare_environment()\n"
        "import torch\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from xuebu.train.settings import TrainSettings\n"
        "from xuebu.train.machine import prepare, resolve_machine\n"
        "machine = resolve_machine(TrainSettings(device='cpu', threads=2))\n"
        "prepare(machine)\n"
        "heap = [l.split()[0].split('-') for l in open('/proc/self/maps') if '[heap]' in l]\n"
        "low, high = int(heap[0][0], 16), int(heap[-1][1], 16)\n"
        "with ThreadPoolExecutor(3) as pool:\n"
        "    made = list(pool.map(lambda n: torch.empty(100_000 + n).data_ptr(), range(12)))\n"
        "print(machine.lanes, all(low <= x < high for x in made))\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "True"], done.stderr
