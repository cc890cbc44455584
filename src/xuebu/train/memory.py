"""Memory: a first step at the largest shape, so that what is missing is missed at once, and what to lower then."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch

from xuebu.batches.batch import Batch
from xuebu.batches.packing import LENGTH_MULTIPLE, MicroBatch, split_micro_batches
from xuebu.errors import TrainingError
from xuebu.model.encoder import PretrainingModel
from xuebu.train.lanes import Lanes
from xuebu.train.machine import Machine
from xuebu.train.objective import compute_losses
from xuebu.train.settings import Recipe


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had, of a GPU, of torch on a CPU, or of Python and numpy."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def largest_micro_batch(recipe: Recipe, num_tokens: int, budget: int, rows_per_block: int | None) -> MicroBatch:
    """Return a micro-batch as large as any that a run can meet: full rows, and more predictions than chance gives.

    Args:
        recipe: length, number and masking of sequences.
        num_tokens: size of the vocabulary.
        budget: most tokens of a micro-batch.
        rows_per_block: as in `split_micro_batches`.
    """
    length, batches = recipe.batches.sequence_length, recipe.batches
    padded = -(-length // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
    rows = max(1, min(batches.sequences_per_step, budget // padded))
    size = rows * length
    expected = size * batches.mask_rate
    predictions = min(size, math.ceil(expected + 5 * math.sqrt(expected)))
    positions = np.linspace(0, size - 1, predictions).astype(np.int64)
    batch = Batch(
        step=0,
        input_ids=np.arange(size, dtype=np.int32) % num_tokens,
        segment_ids=np.zeros(size, dtype=np.int8),
        row_offsets=np.arange(rows + 1, dtype=np.int64) * length,
        masked_positions=positions,
        labels=(positions % num_tokens).astype(np.int32),
        mask_kinds=np.zeros(predictions, dtype=np.int8),
        nsp_labels=np.zeros(rows, dtype=np.int8),
        row_documents=np.zeros((rows, 2), dtype=np.int64),
    )
    return split_micro_batches(batch, max(budget, padded), rows_per_block)[0]


def try_largest(model: PretrainingModel, recipe: Recipe, machine: Machine) -> None:
    """Run one forward and backward pass at the largest shape, with room for AdamW's two moments; change nothing.

    Raises:
        TrainingError: it does not fit; says which setting to lower, and to what.
    """
    budget = machine.micro_batch_tokens
    if (missing := _try(model, recipe, machine, budget)) is None:
        return
    lowest = (-(-recipe.batches.sequence_length // LENGTH_MULTIPLE) * LENGTH_MULTIPLE) * machine.lanes
    fits = budget
    while fits > lowest:
        fits = max(lowest, fits // 2)
        if _try(model, recipe, machine, fits) is None:
            raise TrainingError(
                f"out of memory at the largest micro-batch of {budget:,} tokens ({missing}): lower "
                f"`train.micro_batch_tokens` from {budget} to {fits}, which fits here; results change by rounding only"
            )
    if machine.lanes > 1 and _try(model, recipe, dataclasses.replace(machine, lanes=1), lowest) is None:
        raise TrainingError(
            f"out of memory with {machine.lanes} micro-batches side by side ({missing}): set `train.lanes` to 1 and "
            f"`train.micro_batch_tokens` to {lowest}, which fits here; results change by rounding only"
        )
    raise TrainingError(
        f"out of memory at a single sequence ({missing}): `train.micro_batch_tokens` cannot help; take a smaller "
        "`model` or a shorter `batches.sequence_length`, or train with `train.sharding` on several devices"
    )


def out_of_memory(step: int, machine: Machine, error: BaseException) -> TrainingError:
    """Return the one line for a step that found no memory after the largest shape had passed."""
    return TrainingError(
        f"step {step}: out of memory ({_line(error)}); something else took it since the run began. Free it and resume, "
        f"or go on with --inexact --train.micro-batch-tokens {machine.micro_batch_tokens // 2}, which needs about half"
        f"{', or --train.lanes 1' if machine.lanes > 1 else ''}"
    )


def _try(model: PretrainingModel, recipe: Recipe, machine: Machine, budget: int) -> str | None:
    """Return None if a budget fits, else what was missing."""
    micro = largest_micro_batch(recipe, model.vocab_size, budget // machine.lanes, machine.rows_per_block)

    def learn(model: PretrainingModel, micro: MicroBatch) -> None:
        losses = compute_losses(model, micro, machine.device, machine.precision)
        (losses.mlm_nats + losses.nsp_nats).backward()  # type: ignore[no-untyped-call]

    try:
        moments = [torch.empty_like(parameter) for parameter in model.parameters() for _ in range(2)]
        with Lanes(model, machine) as lanes:
            lanes.run(learn, [micro] * machine.lanes)
        del moments
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return _line(error)
    finally:
        for parameter in model.parameters():
            parameter.grad = None
        if machine.device == "cuda":
            torch.cuda.empty_cache()
    return None


def _line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    at = max(text.find("you tried"), text.find("Tried to allocate"), 0)
    return text[at:].split("\n", maxsplit=1)[0].split(". ", maxsplit=1)[0][:100].rstrip(".")
