"""Losses of the first 20 steps, pinned: a change of code that changes numbers is seen, and must be meant.

Two presets, mini with dropout, on the synthetic stores; fp32, one thread. After a change that is meant, the failure
prints the new figures.
"""

import dataclasses

import pytest
import torch

from xuebu.batches.loader import Loader
from xuebu.batches.packing import split_micro_batches
from xuebu.model.encoder import PretrainingModel
from xuebu.model.presets import PRESETS
from xuebu.train.objective import autocast, compute_losses

MODELS = {
    "tiny": PRESETS["tiny"],
    "mini": dataclasses.replace(PRESETS["mini"], dropout=0.1, attention_dropout=0.1),
}
MLM = {
    "tiny": [
        5.221916, 5.199430, 5.183893, 5.162568, 5.144208, 5.137873, 5.133529, 5.125929, 5.113965, 5.071128,
        5.161025, 5.052390, 5.116786, 5.092551, 5.050075, 5.064753, 5.036146, 5.132725, 4.948040, 5.089202,
    ],
    "mini": [
        5.230441, 5.182296, 5.175951, 5.180263, 5.111612, 5.141967, 5.125909, 5.183107, 5.078953, 5.095116,
        5.183782, 5.016969, 5.088746, 5.073234, 5.036345, 5.074541, 5.015052, 5.155963, 4.931567, 5.134341,
    ],
}  # fmt: skip
NSP = {
    "tiny": [
        0.693492, 0.693146, 0.693503, 0.693167, 0.693752, 0.693450, 0.693307, 0.693738, 0.692813, 0.692954,
        0.693569, 0.692900, 0.692892, 0.693027, 0.693002, 0.693465, 0.692912, 0.693322, 0.693825, 0.693267,
    ],
    "mini": [
        0.703104, 0.700557, 0.704887, 0.685550, 0.705873, 0.698066, 0.699346, 0.695933, 0.693952, 0.687191,
        0.697939, 0.685872, 0.694678, 0.688551, 0.700853, 0.704280, 0.694293, 0.697331, 0.704888, 0.691124,
    ],
}  # fmt: skip


@pytest.mark.parametrize("preset", MODELS)
def test_first_losses(start, records, recipe_of, preset):
    train = {
        "steps": 20, "warmup_steps": 5, "record_every": 1, "evaluate_every": 20, "checkpoint_every": 20,
        "learning_rate": 1e-3, "micro_batch_tokens": 512,
    }  # fmt: skip
    recipe = dataclasses.replace(recipe_of(train=train, batches={"sequences_per_step": 24}), model=MODELS[preset])
    history = records(start(recipe)[0], "train")
    for name, golden in (("mlm_loss_nats", MLM), ("nsp_loss_nats", NSP)):
        found = [round(record[name], 6) for record in history]
        assert found == pytest.approx(golden[preset], rel=1e-4), f"{name} of {preset}: {found}"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_cast_a_step_gives_the_same_gradient(tokens, recipe_of, precision):
    """The trainer casts weights once for all micro-batches: bit for bit what casting them for each gives."""
    recipe = recipe_of(batches={"sequences_per_step": 24}, model={"dropout": 0.1})
    model = PretrainingModel(recipe.model, tokens.vocabulary.num_tokens, torch.Generator().manual_seed(1))
    micro_batches = split_micro_batches(Loader(tokens.train, tokens.vocabulary, recipe.batches, 0).batch(1), 200)
    assert len(micro_batches) > 3

    def gradients():
        model.zero_grad()
        torch.manual_seed(3)
        for micro in micro_batches:
            losses = compute_losses(model, micro, "cpu", precision)
            (losses.mlm_nats / 100 + losses.nsp_nats / 24).backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    apart = gradients()
    with autocast("cpu", precision):
        together = gradients()
    assert all(torch.equal(a, b) for a, b in zip(apart, together, strict=True))
