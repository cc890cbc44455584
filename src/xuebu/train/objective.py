"""One forward pass over a micro-batch: losses and hits as sums, never means."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch

from xuebu.batches.packing import PREDICTION_MULTIPLE, MicroBatch
from xuebu.model.encoder import PretrainingModel
from xuebu.model.heads import PretrainingLoss


def autocast(device: str, precision: str) -> AbstractContextManager[object]:
    """Return the context in which matrix products run in the run's precision."""
    return torch.autocast(device, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def compute_losses(model: PretrainingModel, micro: MicroBatch, device: str, precision: str) -> PretrainingLoss:
    """Run the model on a micro-batch; cross-entropies are taken in fp32 whatever the precision."""
    # Positions beyond the labels, computed and not counted: few shapes, see `packing`.
    masked_positions = np.pad(micro.masked_positions, (0, -len(micro.masked_positions) % PREDICTION_MULTIPLE))
    arrays = (micro.input_ids, micro.segment_ids, masked_positions, micro.labels, micro.nsp_labels)
    input_ids, segment_ids, at, labels, nsp_labels = (
        torch.from_numpy(array).to(device, non_blocking=True) for array in arrays
    )
    padded = bool((micro.lengths < np.repeat(*np.transpose(micro.blocks)[::-1])).any())
    lengths = torch.from_numpy(micro.lengths).to(device, non_blocking=True) if padded else None
    with autocast(device, precision):
        return model.loss(
            input_ids, segment_ids, lengths, at, labels=labels, nsp_labels=nsp_labels, blocks=micro.blocks
        )
