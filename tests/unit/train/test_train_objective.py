"""Losses are sums over counts: any way of cutting a step into micro-batches gives one loss and one gradient."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from xuebu.batches.batch import NO_PAIR
from xuebu.batches.loader import Loader
from xuebu.batches.packing import split_micro_batches
from xuebu.batches.runs import lay_end_to_end, shape_of
from xuebu.model.encoder import PretrainingModel
from xuebu.train.machine import resolve_machine
from xuebu.train.objective import compile_model, compute_losses, layout_of


def make_model(recipe, tokens):
    model = PretrainingModel(recipe.model, tokens.vocabulary.num_tokens, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parameter in model.parameters():  # away from the small initial weights, where every loss is ln V
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    return model


def make_batch(recipe, tokens, step=3, unjudged=()):
    batch = Loader(tokens.train, tokens.vocabulary, recipe.batches, 0).batch(step)
    labels = batch.nsp_labels.copy()
    labels[list(unjudged)] = NO_PAIR
    return dataclasses.replace(batch, nsp_labels=labels)


def reference(model, batch):
    """Loss of a step and its gradient in double precision, row by row without padding, from the definition."""
    model = make_double(model)
    mlm, nsp, hits, pair_hits = [], [], 0, 0
    for row in range(batch.num_rows):
        start, stop = batch.row_offsets[row : row + 2]
        ids = torch.from_numpy(batch.input_ids[start:stop].astype(np.int64))[None]
        segments = torch.from_numpy(batch.segment_ids[start:stop].astype(np.int64))[None]
        hidden = model.encode(ids, segments)
        for number in np.flatnonzero((batch.masked_positions >= start) & (batch.masked_positions < stop)):
            state = hidden[:, batch.masked_positions[number] - start]
            log_p = functional.log_softmax(model.mlm_head(state, model.embeddings.word.weight)[0], -1)
            mlm.append(-log_p[batch.labels[number]])
            hits += int(log_p.argmax() == batch.labels[number])
        if batch.nsp_labels[row] != NO_PAIR:
            log_p = functional.log_softmax(model.nsp_head(hidden[:, 0])[0], -1)
            follows = batch.nsp_labels[row] == 1
            nsp.append(-log_p[0 if follows else 1])  # column 0: b follows a
            pair_hits += int((log_p[0] > log_p[1]) == follows)
    loss = sum(mlm) / len(mlm) + (sum(nsp) / len(nsp) if nsp else 0)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return (sum(mlm).item(), hits, sum(nsp, torch.zeros(())).item(), pair_hits), gradients


def make_double(model):
    clone = PretrainingModel(model.settings, model.vocab_size)
    clone.load_state_dict(model.state_dict())
    return clone.double()


def in_micro_batches(model, batch, budget):
    return sum_up(model, batch, split_micro_batches(batch, budget))


def end_to_end(model, batch, budget, recipe):
    return sum_up(model, batch, lay_end_to_end(batch, shape_of([batch], budget, recipe.batches.sequence_length)))


def sum_up(model, batch, micro_batches):
    predictions, pairs = batch.num_predictions, max(batch.num_judged_pairs, 1)
    model.zero_grad(set_to_none=True)
    sums = np.zeros(4)
    for micro in micro_batches:
        losses = compute_losses(model, micro, "cpu", "fp32")
        (losses.mlm_nats / predictions + losses.nsp_nats / pairs).backward()
        values = (losses.mlm_nats, losses.mlm_hits.sum(), losses.nsp_nats, losses.nsp_hits.sum())
        sums += [float(value.detach()) for value in values]
        assert losses.mlm_log_probability.sum().item() == pytest.approx(-losses.mlm_nats.item(), rel=1e-5)
    gradients = {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    return sums, gradients, len(micro_batches)


@pytest.mark.parametrize("unjudged", [(), (0, 3, 4), tuple(range(24))])
def test_micro_batches_give_the_gradient_of_the_step(tokens, recipe_of, unjudged):
    recipe = recipe_of(batches={"sequences_per_step": 24})
    model, batch = make_model(recipe, tokens), make_batch(recipe, tokens, unjudged=unjudged)
    expected, gradients = reference(model, batch)
    one = in_micro_batches(model, batch, 10**6)
    many = in_micro_batches(model, batch, 100)  # one or two long rows, or many short ones: unequal counts
    laid, pieces = (end_to_end(model, batch, budget, recipe) for budget in (10**6, 150))  # the GPU's way, computed here
    assert one[2] == laid[2] == 1 and many[2] > 8 and pieces[2] > 4
    for sums, found, _ in (one, many, laid, pieces):
        assert sums == pytest.approx(expected, rel=2e-6, abs=1e-6)
        assert sums[[1, 3]].tolist() == [expected[1], expected[3]]
        for name, gradient in gradients.items():
            if gradient is None:
                assert name.startswith("nsp_head")
                assert not found[name].any()
            else:
                assert found[name] == pytest.approx(gradient.float(), abs=1e-6), name


def test_means_of_means_would_be_told_apart(tokens, recipe_of):
    """The check above can fail: here the mean of the micro-batches' means is another number."""
    recipe = recipe_of(batches={"sequences_per_step": 24})
    model, batch = make_model(recipe, tokens), make_batch(recipe, tokens)
    with torch.no_grad():
        losses = [(compute_losses(model, micro, "cpu", "fp32"), micro) for micro in split_micro_batches(batch, 100)]
    right = sum(float(part.mlm_nats) for part, _ in losses) / batch.num_predictions
    wrong = np.mean([float(part.mlm_nats) / len(micro.labels) for part, micro in losses if len(micro.labels)])
    assert abs(right - wrong) > 1e-3


def test_without_a_head_or_without_masks(tokens, recipe_of):
    recipe = recipe_of(batches={"objective": "mlm"}, model={"nsp_head": False, "pooler": False})
    model, batch = make_model(recipe, tokens), make_batch(recipe, tokens)
    bare = dataclasses.replace(
        batch,
        masked_positions=batch.masked_positions[:0],
        labels=batch.labels[:0],
        mask_kinds=batch.mask_kinds[:0],
    )
    for part in (batch, bare):
        (micro,) = split_micro_batches(part, 10**6)
        losses = compute_losses(model, micro, "cpu", "fp32")
        assert float(losses.nsp_nats) == 0.0 and not losses.nsp_hits.any()
        assert (float(losses.mlm_nats.detach()) > 0) == (part is batch)
        losses.mlm_nats.backward()


def test_bf16_is_close_and_cross_entropy_is_not_in_bf16(tokens, recipe_of):
    recipe = recipe_of(batches={"sequences_per_step": 24})
    model, batch = make_model(recipe, tokens), make_batch(recipe, tokens)
    (micro,) = split_micro_batches(batch, 10**6)
    exact, rough = (compute_losses(model, micro, "cpu", precision) for precision in ("fp32", "bf16"))
    assert rough.mlm_nats.dtype == rough.mlm_log_probability.dtype == torch.float32
    assert float(rough.mlm_nats.detach()) == pytest.approx(float(exact.mlm_nats.detach()), rel=0.02)
    assert float(rough.mlm_nats.detach()) != float(exact.mlm_nats.detach())


def kept_bytes(model, batch):
    """Loss and gradients of a step, and the bytes of activations that the forward pass keeps."""
    (micro,) = split_micro_batches(batch, 10**6)
    model.zero_grad(set_to_none=True)
    torch.manual_seed(5)
    sizes = []
    keep = torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.nbytes) or x, lambda x: x)
    with keep:
        losses = compute_losses(model, micro, "cpu", "bf16")
    (losses.mlm_nats + losses.nsp_nats).backward()
    return losses, [parameter.grad.clone() for parameter in model.parameters()], sum(sizes)


def test_recomputing_layers_keeps_less_and_changes_no_bit(tokens, recipe_of):
    recipe = recipe_of(model={"num_layers": 3, "dropout": 0.2, "attention_dropout": 0.1})
    model, batch = make_model(recipe, tokens).train(), make_batch(recipe, tokens)
    losses, gradients, size = kept_bytes(model, batch)
    model.recompute = True
    again, same, less = kept_bytes(model, batch)
    assert torch.equal(losses.mlm_nats, again.mlm_nats)
    assert all(torch.equal(a, b) for a, b in zip(gradients, same, strict=True))
    assert less < size / 2


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # dynamo looks at it
@pytest.mark.parametrize("attention", ["blocks", "runs"])
def test_the_compiler_changes_nothing(tokens, recipe_of, attention):
    recipe = recipe_of()
    machine = dataclasses.replace(
        resolve_machine(dataclasses.replace(recipe.train, compile="on")), attention=attention, micro_batch_tokens=400
    )
    model, batch = make_model(recipe, tokens), make_batch(recipe, tokens)
    lay_out = layout_of(recipe, machine, lambda step: make_batch(recipe, tokens, step))
    plain = sum_up(model, batch, lay_out(batch))
    compile_model(model, machine, backend="aot_eager")
    compiled = sum_up(model, batch, lay_out(batch))
    assert plain[2] == compiled[2] > 0
    assert compiled[0] == pytest.approx(plain[0], rel=1e-6)
    for name, gradient in plain[1].items():
        assert compiled[1][name] == pytest.approx(gradient, abs=1e-6), name
