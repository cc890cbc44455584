"""One forward pass over a micro-batch: losses and hits as sums, never means."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from xuebu.batches.batch import NO_PAIR
from xuebu.batches.packing import MicroBatch
from xuebu.model.encoder import PretrainingModel
from xuebu.model.heads import next_sentence_classes


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """Sums over one micro-batch.

    Attributes:
        mlm_nats: scalar, negative log-likelihood summed over the masked positions.
        mlm_log_probability: [m], of each true token.
        mlm_hits: bool [m], whether the most probable token is the true one.
        nsp_nats: scalar, summed over the judged pairs.
        nsp_hits: bool [b], False where the row is not judged.
    """

    mlm_nats: Tensor
    mlm_log_probability: Tensor
    mlm_hits: Tensor
    nsp_nats: Tensor
    nsp_hits: Tensor


def autocast(device: str, precision: str) -> AbstractContextManager[object]:
    """Return the context in which matrix products run in the run's precision."""
    return torch.autocast(device, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def compute_losses(model: PretrainingModel, micro: MicroBatch, device: str, precision: str) -> Losses:
    """Run the model on a micro-batch; cross-entropies are taken in fp32 whatever the precision."""
    inputs = [torch.from_numpy(array) for array in (micro.input_ids, micro.segment_ids, micro.masked_positions)]
    labels, nsp_labels = torch.from_numpy(micro.labels), torch.from_numpy(micro.nsp_labels)
    padded = bool((micro.lengths < micro.input_ids.shape[1]).any())
    lengths = torch.from_numpy(micro.lengths) if padded else None
    if device != "cpu":
        inputs = [tensor.to(device, non_blocking=True) for tensor in inputs]
        labels, nsp_labels = labels.to(device, non_blocking=True), nsp_labels.to(device, non_blocking=True)
        lengths = lengths.to(device, non_blocking=True) if lengths is not None else None
    input_ids, segment_ids, masked_positions = inputs
    with autocast(device, precision):
        output = model(input_ids, segment_ids, lengths, masked_positions)
    mlm_logits = output.mlm_logits.float()
    nats = functional.cross_entropy(mlm_logits, labels, reduction="none")
    judged = nsp_labels != NO_PAIR
    nsp_nats, nsp_hits = torch.zeros((), device=device), torch.zeros_like(judged)
    if output.nsp_logits is not None:
        nsp_logits = output.nsp_logits.float()
        classes = torch.where(judged, next_sentence_classes(nsp_labels), NO_PAIR)
        nsp_nats = functional.cross_entropy(nsp_logits, classes, reduction="sum", ignore_index=NO_PAIR)
        nsp_hits = (nsp_logits.detach().argmax(dim=-1) == classes) & judged
    return Losses(
        mlm_nats=nats.sum(),
        mlm_log_probability=-nats.detach(),
        mlm_hits=mlm_logits.detach().argmax(dim=-1) == labels,
        nsp_nats=nsp_nats,
        nsp_hits=nsp_hits,
    )
