"""A step's rows as padded micro-batches of similar length: almost no padding, and the same gradient.

Rows are sorted by length *within* the step, so nothing about which rows train together changes: losses are sums over
the step's own counts, and the gradient is that of the unsorted step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xuebu.batches.batch import Batch
from xuebu.errors import ConfigError

LENGTH_MULTIPLE = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MicroBatch:
    """Rows of one forward pass, padded to one length.

    Attributes:
        rows: int64[b], their numbers in the batch.
        input_ids: int64[b, l]; padding is id 0, [PAD].
        segment_ids: int64[b, l].
        lengths: int64[b], real tokens of each row.
        masked_positions: int64[m], indices into the flattened b * l.
        predictions: int64[m], the numbers of these predictions in the batch.
        labels: int64[m].
        nsp_labels: int64[b].
    """

    rows: npt.NDArray[np.int64]
    input_ids: npt.NDArray[np.int64]
    segment_ids: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    masked_positions: npt.NDArray[np.int64]
    predictions: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    nsp_labels: npt.NDArray[np.int64]


def split_micro_batches(batch: Batch, token_budget: int) -> list[MicroBatch]:
    """Cut a batch into micro-batches of at most `token_budget` tokens, padding included.

    Longest rows first, ties in the order of the batch; lengths are rounded up to a multiple of 8.

    Raises:
        ConfigError: a single row is longer than the budget.
    """
    lengths = np.diff(batch.row_offsets)
    order = np.argsort(-lengths, kind="stable")
    padded = -(-lengths[order] // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
    if padded[0] > token_budget:
        raise ConfigError(
            f"`micro_batch_tokens` = {token_budget} is below one sequence of {padded[0]} tokens; raise it"
        )
    micro_batches = []
    start = 0
    while start < len(order):
        count = min(token_budget // int(padded[start]), len(order) - start)
        micro_batches.append(_pad(batch, order[start : start + count], int(padded[start])))
        start += count
    return micro_batches


def _pad(batch: Batch, rows: npt.NDArray[np.int64], length: int) -> MicroBatch:
    starts, lengths = batch.row_offsets[rows], np.diff(batch.row_offsets)[rows]
    columns = np.arange(length)
    real = columns < lengths[:, None]
    source = np.where(real, starts[:, None] + columns, 0)
    first = np.searchsorted(batch.masked_positions, starts)
    last = np.searchsorted(batch.masked_positions, starts + lengths)
    counts = last - first
    row_of = np.repeat(np.arange(len(rows)), counts)
    predictions = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    in_row = batch.masked_positions[predictions] - starts[row_of]
    return MicroBatch(
        rows=rows,
        input_ids=np.where(real, batch.input_ids[source], 0).astype(np.int64),
        segment_ids=np.where(real, batch.segment_ids[source], 0).astype(np.int64),
        lengths=lengths,
        masked_positions=row_of * length + in_row,
        predictions=predictions,
        labels=batch.labels[predictions].astype(np.int64),
        nsp_labels=batch.nsp_labels[rows].astype(np.int64),
    )
