"""One forward pass over a micro-batch: losses and hits as sums, never means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from xuebu.batches.batch import Batch
from xuebu.batches.packing import PREDICTION_MULTIPLE, MicroBatch, deal_micro_batches, split_micro_batches
from xuebu.batches.runs import NOT_COUNTED, RunBatch, lay_end_to_end, shape_of
from xuebu.model.encoder import PretrainingModel
from xuebu.model.flops import flops_per_token
from xuebu.model.heads import PretrainingLoss
from xuebu.model.layers import EncoderLayer
from xuebu.model.modern import ModernLayer
from xuebu.train.counting import Counting
from xuebu.train.machine import Machine
from xuebu.train.settings import Recipe

_SHAPE_STEPS = 8  # batches that decide the one shape of all


def autocast(device: str, precision: str, *, keep_casts: bool | None = None) -> AbstractContextManager[object]:
    """Return the context in which matrix products run in the run's precision.

    Args:
        device: cpu or cuda.
        precision: bf16 or fp32.
        keep_casts: whether a weight that is used twice is cast once; None: as around it. Torch has one such memory for
            all threads, which each empties when it leaves: with several, what is cast once would be a matter of chance,
            and so would be whether its gradients are added up in bf16 or in fp32.
    """
    if precision != "bf16":
        return nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16, cache_enabled=keep_casts)


def compile_model(model: PretrainingModel, machine: Machine, backend: str = "inductor") -> None:
    """Have torch.compile make what the machine says: all of it at one shape, or each layer's feed-forward block."""
    if not machine.compile:
        return
    if machine.attention == "runs":
        from torch.nn.attention import varlen  # noqa: F401 - not while it is traced: it registers operations

        model.loss_of_runs = torch.compile(model.loss_of_runs, dynamic=False, backend=backend)  # type: ignore[method-assign]
        return
    for layer in model.layers:
        assert isinstance(layer, EncoderLayer | ModernLayer)
        layer.feed_forward = torch.compile(layer.feed_forward, dynamic=True, backend=backend)  # type: ignore[method-assign]


def layout_of(
    recipe: Recipe, machine: Machine, make_batch: Callable[[int], Batch]
) -> Callable[[Batch], Sequence[MicroBatch | RunBatch]]:
    """Return the function that cuts a batch into micro-batches; `make_batch` makes those that decide a fixed shape."""
    budget = machine.micro_batch_tokens
    if machine.attention == "blocks":
        if machine.lanes > 1:
            return lambda batch: deal_micro_batches(batch, budget, machine.lanes)
        return lambda batch: split_micro_batches(batch, budget, machine.rows_per_block)
    examples = [make_batch(step) for step in range(1, _SHAPE_STEPS + 1)]
    shape = shape_of(examples, budget, recipe.batches.sequence_length)
    return lambda batch: lay_end_to_end(batch, shape)


def compute_losses(
    model: PretrainingModel,
    micro: MicroBatch | RunBatch,
    device: str,
    precision: str,
    counting: Counting | None = None,
) -> PretrainingLoss:
    """Run the model on a micro-batch; cross-entropies are taken in fp32 whatever the precision.

    Values of single predictions come in the order of `micro.predictions`; padding may follow. What `counting` says goes
    to the model.
    """
    counted = None
    if counting is not None:
        said = counting(micro.predictions)
        counted = torch.zeros((_num_computed(micro), said.shape[1]))
        counted[: len(said)] = torch.from_numpy(said)
        counted = counted.to(device)
    if isinstance(micro, RunBatch):
        return _losses_of_runs(model, micro, device, precision, counted)
    # Positions that are computed and not counted: few shapes, see `packing`.
    padding = (0, _num_computed(micro) - len(micro.masked_positions))
    masked_positions = np.pad(micro.masked_positions, padding)
    padded_labels = np.pad(micro.labels, padding, constant_values=NOT_COUNTED)
    input_ids, segment_ids, at, labels, nsp_labels = _to(
        device, micro.input_ids, micro.segment_ids, masked_positions, padded_labels, micro.nsp_labels
    )
    padded = bool((micro.lengths < np.repeat(*np.transpose(micro.blocks)[::-1])).any())
    lengths = _to(device, micro.lengths)[0] if padded else None
    with autocast(device, precision):
        return model.loss(
            input_ids,
            segment_ids,
            lengths,
            at,
            labels=labels,
            nsp_labels=nsp_labels,
            blocks=micro.blocks,
            counted=counted,
        )


def count_flops(model: PretrainingModel, batch: Batch) -> float:
    """Return training FLOP a real token, from the lengths in a batch."""
    lengths = np.diff(batch.row_offsets).astype(float)
    return flops_per_token(
        model.settings,
        model.vocab_size,
        mean_attended_length=float((lengths**2).sum() / lengths.sum()),
        head_share=batch.num_predictions / batch.num_tokens,
    )


def _num_computed(micro: MicroBatch | RunBatch) -> int:
    count = len(micro.masked_positions)
    return count if isinstance(micro, RunBatch) else count + -count % PREDICTION_MULTIPLE


def _losses_of_runs(
    model: PretrainingModel, micro: RunBatch, device: str, precision: str, counted: torch.Tensor | None
) -> PretrainingLoss:
    names = ("input_ids", "segment_ids", "positions", "first_positions", "masked_positions", "labels", "nsp_labels")
    tensors = dict(zip(names, _to(device, *(getattr(micro, name) for name in names)), strict=True))
    (row_starts,) = _to(device, micro.row_starts)
    with autocast(device, precision):
        return model.loss_of_runs(**tensors, row_starts=row_starts, max_length=micro.max_length, counted=counted)


def _to(device: str, *arrays: npt.NDArray[Any]) -> Sequence[torch.Tensor]:
    """Return arrays of one type on a device; to a GPU they go at once, from pinned memory, and nobody waits."""
    if device == "cpu":
        return [torch.from_numpy(array) for array in arrays]
    together = torch.from_numpy(np.concatenate(arrays)).pin_memory().to(device, non_blocking=True)
    return torch.split(together, [len(array) for array in arrays])
