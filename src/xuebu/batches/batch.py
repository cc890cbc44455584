"""The shape of a batch: ragged, flat arrays, so that every way of laying it out (padded, end to end) reads the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xuebu.batches.counts import MaskCounts

MASKED, RANDOM, KEPT, MATCHED = 0, 1, 2, 3
"""Values of `mask_kinds`: the token was replaced by [MASK], by a random token, kept, or replaced by a token of similar
frequency."""

NO_PAIR = -1
"""In `nsp_labels`: the row is not to be judged; in `row_documents`: it has no second part."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """All sequences of one optimizer update (or of one evaluation), one after another.

    Each row is `[CLS] a [SEP] b [SEP]`, or `[CLS] a [SEP]` where there are no pairs; full rows hold further runs of
    text, each with [SEP] after it. a and b are sentences, or segments of several.

    Attributes:
        step: the update it belongs to, from 1; 0 for an evaluation.
        input_ids: int32[N], token ids after masking.
        segment_ids: int8[N], 0 for `[CLS] a [SEP]`, 1 for `b [SEP]`.
        row_offsets: int64[B + 1], where each row begins and ends.
        masked_positions: int64[M], the positions to predict, increasing indices into N.
        labels: int32[M], their original ids.
        mask_kinds: int8[M], MASKED, RANDOM, KEPT or MATCHED.
        nsp_labels: int8[B], 1 if b truly follows a, 0 if not (by the objective, b is of another document, or a follows
            b), NO_PAIR if the row is not to be judged. Each is read at the [CLS] of its row.
        row_documents: int64[B, 2], the store's document index of a and b; of full rows, that of the first run.
        masking: what masking did, in sums; None where that is not known.
    """

    step: int
    input_ids: npt.NDArray[np.int32]
    segment_ids: npt.NDArray[np.int8]
    row_offsets: npt.NDArray[np.int64]
    masked_positions: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int32]
    mask_kinds: npt.NDArray[np.int8]
    nsp_labels: npt.NDArray[np.int8]
    row_documents: npt.NDArray[np.int64]
    masking: MaskCounts | None = None

    @property
    def num_rows(self) -> int:
        """Number of sequences."""
        return len(self.row_offsets) - 1

    @property
    def num_tokens(self) -> int:
        """Number of real tokens; a batch holds no padding."""
        return len(self.input_ids)

    @property
    def num_predictions(self) -> int:
        """Number of masked positions."""
        return len(self.masked_positions)

    @property
    def num_judged_pairs(self) -> int:
        """Number of rows with a label of their pair."""
        return int((self.nsp_labels != NO_PAIR).sum())

    @property
    def prediction_documents(self) -> npt.NDArray[np.int64]:
        """int64[M]: the document that each masked token stands in (not for full rows across documents)."""
        rows = np.searchsorted(self.row_offsets, self.masked_positions, side="right") - 1
        segments = self.segment_ids[self.masked_positions].astype(np.int64)
        return self.row_documents[rows, segments]


def concatenate(batches: list[Batch]) -> Batch:
    """Return one evaluation batch of the rows of several, in order; `batches` must not be empty."""
    counts = [batch.masking for batch in batches if batch.masking is not None]
    token_starts = np.cumsum([0, *(batch.num_tokens for batch in batches)])
    return Batch(
        step=0,
        input_ids=np.concatenate([batch.input_ids for batch in batches]),
        segment_ids=np.concatenate([batch.segment_ids for batch in batches]),
        row_offsets=np.concatenate(
            [[0], *(batch.row_offsets[1:] + start for batch, start in zip(batches, token_starts, strict=False))]
        ).astype(np.int64),
        masked_positions=np.concatenate(
            [batch.masked_positions + start for batch, start in zip(batches, token_starts, strict=False)]
        ),
        labels=np.concatenate([batch.labels for batch in batches]),
        mask_kinds=np.concatenate([batch.mask_kinds for batch in batches]),
        nsp_labels=np.concatenate([batch.nsp_labels for batch in batches]),
        row_documents=np.concatenate([batch.row_documents for batch in batches]),
        masking=sum(counts[1:], start=counts[0]) if len(counts) == len(batches) else None,
    )
