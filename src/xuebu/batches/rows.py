"""Rows of tokens from runs of a store's text: `[CLS] a [SEP]`, `[CLS] a [SEP] b [SEP]`, or of more runs.

Letters: P spans, B rows, N tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xuebu.batches.packing import spans
from xuebu.tokens.store import Store
from xuebu.tokens.vocab import Vocabulary

NO_PLACE = -1
"""In `Rows.places`: the token is [CLS] or [SEP] and comes from no text."""


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Which tokens of a store make up which row, in order.

    Attributes:
        rows: int64[P], the row of each span, not decreasing, each of 0 .. B - 1 at least once.
        starts: int64[P], its first token in the store.
        lengths: int64[P], its tokens, at least 1.
        segments: int8[P], 0 or 1.
    """

    rows: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    segments: npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Assembled rows before masking.

    Attributes:
        tokens: int32[N].
        segment_ids: int8[N].
        word_starts: bool[N], or None where they were not read; special tokens count as words.
        row_offsets: int64[B + 1].
        rows: int64[N], the row of each token.
        places: int64[N], the token's place in the store, NO_PLACE for [CLS] and [SEP].
    """

    tokens: npt.NDArray[np.int32]
    segment_ids: npt.NDArray[np.int8]
    word_starts: npt.NDArray[np.bool_] | None
    row_offsets: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]

    @property
    def is_text(self) -> npt.NDArray[np.bool_]:
        """bool[N]: False for [CLS] and [SEP]."""
        found: npt.NDArray[np.bool_] = self.places != NO_PLACE
        return found


def assemble_rows(store: Store, vocabulary: Vocabulary, parts: Spans, *, with_words: bool) -> Rows:
    """Lay spans out as rows: [CLS], and each span with [SEP] after it.

    Args:
        store: where the tokens are.
        vocabulary: for the ids of [CLS] and [SEP].
        parts: the spans; a word starts with each, even where one was cut.
        with_words: whether word starts are read.
    """
    opens = np.diff(parts.rows, prepend=-1) > 0
    widths = parts.lengths + 1 + opens
    ends = np.cumsum(widths)
    total = int(ends[-1])
    text_starts = ends - 1 - parts.lengths
    at = spans(text_starts, parts.lengths)
    places = np.full(total, NO_PLACE, dtype=np.int64)
    places[at] = spans(parts.starts, parts.lengths)
    tokens = np.empty(total, dtype=np.int32)
    tokens[at] = store.take_tokens(places[at])
    tokens[ends - 1] = vocabulary.special.sep
    row_starts = (text_starts - 1)[opens]
    tokens[row_starts] = vocabulary.special.cls
    word_starts = None
    if with_words:
        word_starts = np.ones(total, dtype=np.bool_)
        word_starts[at] = store.take_word_starts(places[at])
        word_starts[text_starts] = True
    return Rows(
        tokens=tokens,
        segment_ids=np.repeat(parts.segments, widths),
        word_starts=word_starts,
        row_offsets=np.append(row_starts, total).astype(np.int64),
        rows=np.repeat(parts.rows, widths),
        places=places,
    )
