"""Rows of tokens from sentences of a store: `[CLS] a [SEP] b [SEP]`, or `[CLS] a [SEP]`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xuebu.tokens.store import Store
from xuebu.tokens.vocab import Vocabulary

NUM_SPECIAL = 5
"""[PAD] [UNK] [CLS] [SEP] [MASK] are ids 0 to 4 of every vocabulary."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Assembled rows before masking.

    Attributes:
        tokens: int32[N].
        segment_ids: int8[N].
        word_starts: bool[N]; special tokens count as words.
        row_offsets: int64[B + 1].
        rows: int64[N], the row of each token.
        sentences: int64[N], the sentence that each token comes from, -1 for special tokens.
        offsets: int64[N], the token's place within its sentence, 0 for special tokens.
    """

    tokens: npt.NDArray[np.int32]
    segment_ids: npt.NDArray[np.int8]
    word_starts: npt.NDArray[np.bool_]
    row_offsets: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    sentences: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]


def assemble_rows(
    store: Store,
    vocabulary: Vocabulary,
    first: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64] | None,
    *,
    max_tokens: int,
    with_words: bool,
) -> Rows:
    """Lay sentences out as rows, each sentence cut to its first `max_tokens` tokens.

    Args:
        store: where the sentences are.
        vocabulary: for the ids of [CLS] and [SEP].
        first: int64[B], sentence a of each row.
        second: int64[B], sentence b, or None for rows of one sentence.
        max_tokens: longest part of a sentence that is taken.
        with_words: whether word starts are read; without, every token starts a word.
    """
    parts = [first] if second is None else [first, second]
    sentences = np.stack(parts, axis=1)  # [B, 1 or 2]
    num_rows, num_parts = sentences.shape
    lengths = np.minimum(store.sentence_offsets[sentences + 1] - store.sentence_offsets[sentences], max_tokens)
    row_lengths = lengths.sum(axis=1) + 1 + num_parts
    row_offsets = np.concatenate([[0], np.cumsum(row_lengths)]).astype(np.int64)
    total = int(row_offsets[-1])
    tokens = np.empty(total, dtype=np.int32)
    segment_ids = np.zeros(total, dtype=np.int8)
    word_starts = np.ones(total, dtype=np.bool_)
    sentence_of = np.full(total, -1, dtype=np.int64)
    offsets = np.zeros(total, dtype=np.int64)
    tokens[row_offsets[:-1]] = vocabulary.cls_id
    for row in range(num_rows):
        cursor = int(row_offsets[row]) + 1
        for part in range(num_parts):
            sentence, length = int(sentences[row, part]), int(lengths[row, part])
            end = cursor + length
            tokens[cursor:end] = store.sentence_tokens(sentence)[:length]
            tokens[end] = vocabulary.sep_id
            if with_words:
                word_starts[cursor:end] = store.word_starts(sentence)[:length]
                word_starts[cursor] = True
            segment_ids[cursor : end + 1] = part
            sentence_of[cursor:end] = sentence
            offsets[cursor:end] = np.arange(length)
            cursor = end + 1
    return Rows(
        tokens=tokens,
        segment_ids=segment_ids,
        word_starts=word_starts,
        row_offsets=row_offsets,
        rows=np.repeat(np.arange(num_rows), row_lengths),
        sentences=sentence_of,
        offsets=offsets,
    )
