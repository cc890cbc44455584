"""Held-out evaluation: the same fixed questions at every step, answers kept one by one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from xuebu.batches.batch import KEPT, MASKED, NO_PAIR, RANDOM, Batch
from xuebu.batches.ngram_counts import NgramCounts
from xuebu.batches.packing import LENGTH_MULTIPLE, split_micro_batches
from xuebu.batches.settings import BatchSettings
from xuebu.model.encoder import PretrainingModel
from xuebu.train.counting import Counting, held_out_counting
from xuebu.train.lanes import Lanes
from xuebu.train.machine import Machine
from xuebu.train.objective import compute_losses

_Answers = tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64], npt.NDArray[np.float32], npt.NDArray[np.bool_], float]
_KIND_NAMES = {MASKED: "mask", RANDOM: "random", KEPT: "kept"}


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Answers to held-out questions, in the order of the batches.

    Attributes:
        mlm_hits: bool[M], whether the most probable token was the true one.
        mlm_log_probability: float64[M], natural logarithm of the true token's probability.
        mlm_top_probability: float32[M], probability of the most probable token.
        mask_kinds: int8[M], MASKED, RANDOM or KEPT.
        documents: int64[M], the held-out document of each masked token: what intervals are clustered by.
        nsp_hits: bool[P], one for each judged pair.
        nsp_documents: int64[P], the document of each pair's first sentence.
        nsp_nats: sum over the judged pairs.
    """

    mlm_hits: npt.NDArray[np.bool_]
    mlm_log_probability: npt.NDArray[np.float64]
    mlm_top_probability: npt.NDArray[np.float32]
    mask_kinds: npt.NDArray[np.int8]
    documents: npt.NDArray[np.int64]
    nsp_hits: npt.NDArray[np.bool_]
    nsp_documents: npt.NDArray[np.int64]
    nsp_nats: float

    def metrics(self, pair_task: str = "nsp") -> dict[str, float | int]:
        """Return the history's metrics: each loss and accuracy with the number of predictions behind it.

        Args:
            pair_task: what was asked of pairs, "nsp" or "sop"; their metrics are named by it.
        """
        count = len(self.mlm_hits)
        metrics: dict[str, float | int] = {
            "mlm_loss_nats": float(-self.mlm_log_probability.sum() / count),
            "mlm_accuracy": float(self.mlm_hits.mean()),
            "mlm_predictions": count,
        }
        for kind, name in _KIND_NAMES.items():
            hits = self.mlm_hits[self.mask_kinds == kind]
            if len(hits):
                metrics[f"mlm_accuracy_{name}"] = float(hits.mean())
                metrics[f"mlm_predictions_{name}"] = len(hits)
        if len(self.nsp_hits):
            metrics[f"{pair_task}_loss_nats"] = self.nsp_nats / len(self.nsp_hits)
            metrics[f"{pair_task}_accuracy"] = float(self.nsp_hits.mean())
            metrics[f"{pair_task}_predictions"] = len(self.nsp_hits)
        return metrics


def evaluate(
    model: PretrainingModel,
    batches: Sequence[Batch],
    machine: Machine,
    counts: NgramCounts | None = None,
    settings: BatchSettings | None = None,
    *,
    lanes: Lanes | None = None,
) -> Evaluation:
    """Answer every question of the batches, without dropout. The model's training mode is put back.

    Args:
        model: what is asked.
        batches: held-out questions.
        machine: how to compute.
        counts: of the training text, for a model with an n-gram prior.
        settings: of the batches that it trains on; they say from what length on a sentence was cut.
        lanes: of the model; None: made for this.
    """
    was_training = model.training

    def ask(model: PretrainingModel, batch: Batch) -> _Answers:
        return _evaluate_batch(model, batch, machine, held_out_counting(counts, batch, settings or BatchSettings()))

    with ExitStack() as held:
        lanes = lanes or held.enter_context(Lanes(model, machine))
        lanes.train(False)
        parts = lanes.run(ask, batches)
        lanes.train(was_training)
    judged = [batch.nsp_labels != NO_PAIR for batch in batches]
    return Evaluation(
        mlm_hits=np.concatenate([part[0] for part in parts]),
        mlm_log_probability=np.concatenate([part[1] for part in parts]),
        mlm_top_probability=np.concatenate([part[2] for part in parts]),
        mask_kinds=np.concatenate([batch.mask_kinds for batch in batches]),
        documents=np.concatenate([batch.prediction_documents for batch in batches]),
        nsp_hits=np.concatenate([part[3][mask] for part, mask in zip(parts, judged, strict=True)]),
        nsp_documents=np.concatenate(
            [batch.row_documents[mask, 0] for batch, mask in zip(batches, judged, strict=True)]
        ),
        nsp_nats=sum(part[4] for part in parts),
    )


def _evaluate_batch(model: PretrainingModel, batch: Batch, machine: Machine, counting: Counting | None) -> _Answers:
    hits = np.zeros(batch.num_predictions, dtype=np.bool_)
    log_probability = np.zeros(batch.num_predictions, dtype=np.float64)
    top_probability = np.zeros(batch.num_predictions, dtype=np.float32)
    nsp_hits = np.zeros(batch.num_rows, dtype=np.bool_)
    nsp_nats, budget = 0.0, machine.micro_batch_tokens
    if machine.lanes > 1:
        longest = -(-int(np.diff(batch.row_offsets).max()) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
        budget = max(budget // machine.lanes, longest)
    with torch.no_grad():
        for micro in split_micro_batches(batch, budget, machine.rows_per_block):
            losses = compute_losses(model, micro, machine.device, machine.precision, counting)
            hits[micro.predictions] = losses.mlm_hits[: len(micro.predictions)].cpu().numpy()
            log_probability[micro.predictions] = losses.mlm_log_probability[: len(micro.predictions)].cpu().numpy()
            top_probability[micro.predictions] = losses.mlm_top_probability[: len(micro.predictions)].cpu().numpy()
            nsp_hits[micro.rows] = losses.nsp_hits.cpu().numpy()
            nsp_nats += float(losses.nsp_nats)
    return hits, log_probability, top_probability, nsp_hits, nsp_nats
