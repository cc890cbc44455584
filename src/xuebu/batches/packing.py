"""A step's rows as micro-batches with almost no padding, in few different shapes, and the same gradient.

Rows are sorted by length *within* the step, so nothing about which rows train together changes: losses are sums over
the step's own counts, and the gradient is that of the unsorted step. Sorted rows are padded in small blocks, and the
blocks are laid end to end: only attention goes block by block, everything else is one product over all tokens.

Shapes matter as much as padding. oneDNN compiles a kernel for each shape of a matrix product it meets, which takes
about 1.2 ms in bfloat16, as long as 50 tokens of preset tiny; a new shape of a whole pass costs 30 kernels.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xuebu.batches.batch import Batch
from xuebu.errors import ConfigError

LENGTH_MULTIPLE = 8
"""Rows are padded to a multiple of this."""
ROWS_PER_BLOCK = 8
"""Rows that are padded to one length. Measured on a CPU: 4 pad less and 16 make fewer calls, and neither is faster."""
TOKEN_MULTIPLE = 256
"""The blocks of a micro-batch are filled up to a multiple of this, within the budget."""
_BLOCKS_PER_LANE = 4  # at least, so that lanes can be of about equal size
PREDICTION_MULTIPLE = 64
"""The masked-token head is computed at a multiple of so many positions; those beyond the labels are not counted."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MicroBatch:
    """Rows of one forward pass, padded in blocks of similar length, and the blocks laid end to end.

    Attributes:
        rows: int64[b], their numbers in the batch.
        blocks: rows and length of each block.
        input_ids: int64[s], the tokens of the blocks, then padding; padding is id 0, [PAD].
        segment_ids: int64[s].
        lengths: int64[b], real tokens of each row.
        masked_positions: int64[m], indices into s.
        predictions: int64[m], the numbers of these predictions in the batch.
        labels: int64[m].
        nsp_labels: int64[b].
    """

    rows: npt.NDArray[np.int64]
    blocks: tuple[tuple[int, int], ...]
    input_ids: npt.NDArray[np.int64]
    segment_ids: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    masked_positions: npt.NDArray[np.int64]
    predictions: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    nsp_labels: npt.NDArray[np.int64]


def split_micro_batches(
    batch: Batch, token_budget: int, rows_per_block: int | None = ROWS_PER_BLOCK
) -> list[MicroBatch]:
    """Cut a batch into micro-batches of at most `token_budget` tokens, padding included.

    Longest rows first, ties in the order of the batch; lengths are rounded up to a multiple of 8.

    Args:
        batch: rows of any lengths.
        token_budget: tokens of one forward pass.
        rows_per_block: rows that are padded to one length; None: all of a micro-batch.

    Raises:
        ConfigError: a single row is longer than the budget.
    """
    order, padded = _by_length(batch, token_budget)
    micro_batches = []
    blocks: list[tuple[int, int]] = []
    first = start = used = 0
    while start < len(order):
        length = int(padded[start])
        count = min(rows_per_block or len(order), len(order) - start, token_budget // length)
        if used + count * length > token_budget:
            micro_batches.append(_pad(batch, order[first:start], blocks, token_budget))
            blocks, first, used = [], start, 0
        blocks.append((count, length))
        start, used = start + count, used + count * length
    micro_batches.append(_pad(batch, order[first:], blocks, token_budget))
    return micro_batches


def deal_micro_batches(batch: Batch, token_budget: int, lanes: int) -> list[MicroBatch]:
    """Cut a batch into micro-batches of about equal size, a multiple of `lanes` of them unless there are fewer rows.

    Blocks of similar length are dealt out, the largest first, each to the micro-batch that has the fewest tokens.

    Args:
        batch: rows of any lengths.
        token_budget: tokens computed at once in all lanes, padding included; more where each lane has one long row.
        lanes: micro-batches that are computed side by side.

    Raises:
        ConfigError: a single row is longer than the budget.

    Source: Graham 1969, "Bounds on Multiprocessing Timing Anomalies" (longest processing time first).
    """
    order, padded = _by_length(batch, token_budget)
    limit = max(int(padded[0]), token_budget // lanes)
    rows = max(1, min(ROWS_PER_BLOCK, len(order) // (_BLOCKS_PER_LANE * lanes)))
    pieces, start = list[tuple[int, int, int]](), 0  # first row, rows, length
    while start < len(order):
        length = int(padded[start])
        pieces.append((start, min(rows, len(order) - start, limit // length), length))
        start += pieces[-1][1]
    return [
        _pad(
            batch,
            np.concatenate([order[first : first + size] for first, size, _ in hand]),
            [(size, length) for _, size, length in hand],
            limit,
        )
        for hand in _deal(pieces, lanes, limit)
        if hand
    ]


def _deal(pieces: Sequence[tuple[int, int, int]], lanes: int, limit: int) -> list[list[tuple[int, int, int]]]:
    """Return hands of at most `limit` tokens, as many as it takes, by rounds of `lanes`."""
    total = sum(rows * length for _, rows, length in pieces)
    count = -(-total // (limit * lanes)) * lanes
    hands: list[list[tuple[int, int, int]]] = [[] for _ in range(count)]
    used = [(0, number) for number in range(count)]  # a heap: tokens, and whose
    for piece in sorted(pieces, key=lambda piece: -piece[1] * piece[2]):
        tokens = piece[1] * piece[2]
        if used[0][0] + tokens > limit:  # the emptiest has no room: nor have the others
            for number in range(len(hands), len(hands) + lanes):
                hands.append([])
                heapq.heappush(used, (0, number))
        least, number = used[0]
        heapq.heapreplace(used, (least + tokens, number))
        hands[number].append(piece)
    return hands


def _by_length(batch: Batch, token_budget: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the rows, longest first, ties in the order of the batch, and their lengths rounded up to a multiple."""
    lengths = np.diff(batch.row_offsets)
    order = np.argsort(-lengths, kind="stable")
    padded = -(-lengths[order] // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
    if padded[0] > token_budget:
        raise ConfigError(
            f"`micro_batch_tokens` = {token_budget} is below one sequence of {padded[0]} tokens; raise it"
        )
    return order, padded


def _pad(batch: Batch, rows: npt.NDArray[np.int64], blocks: list[tuple[int, int]], token_budget: int) -> MicroBatch:
    starts, lengths = batch.row_offsets[rows], np.diff(batch.row_offsets)[rows]
    strides = np.repeat([length for _, length in blocks], [count for count, _ in blocks])
    places = np.cumsum(strides) - strides  # where each row begins
    used = int(strides.sum())
    size = max(used, min(-(-used // TOKEN_MULTIPLE) * TOKEN_MULTIPLE, token_budget))
    source, target = spans(starts, lengths), spans(places, lengths)
    input_ids, segment_ids = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    input_ids[target], segment_ids[target] = batch.input_ids[source], batch.segment_ids[source]
    first = np.searchsorted(batch.masked_positions, starts)
    counts = np.searchsorted(batch.masked_positions, starts + lengths) - first
    predictions = spans(first, counts)
    return MicroBatch(
        rows=rows,
        blocks=tuple(blocks),
        input_ids=input_ids,
        segment_ids=segment_ids,
        lengths=lengths,
        masked_positions=batch.masked_positions[predictions] + np.repeat(places - starts, counts),
        predictions=predictions,
        labels=batch.labels[predictions].astype(np.int64),
        nsp_labels=batch.nsp_labels[rows].astype(np.int64),
    )


def spans(starts: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return starts[0], starts[0] + 1, ..., counts[0] of them, then those of the next; int64[sum of counts]."""
    shifts: npt.NDArray[np.int64] = np.repeat(starts - (np.cumsum(counts) - counts), counts)
    return shifts + np.arange(len(shifts))
