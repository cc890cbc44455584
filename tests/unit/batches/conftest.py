"""Batches read back as rows, and the documents they must have come from, worked out without the store's tables."""

import dataclasses
from collections import namedtuple

import numpy as np
import pytest

Row = namedtuple("Row", "first second label documents ids segments")


def restored(batch):
    """The batch's ids before masking."""
    ids = batch.input_ids.copy()
    ids[batch.masked_positions] = batch.labels
    return ids


def digest(batch):
    """Every byte of a batch, with dtypes and shapes."""
    fields = [getattr(batch, field.name) for field in dataclasses.fields(batch)]
    return [
        (value.dtype.str, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value for value in fields
    ]


def rows_of(batch):
    """The rows of a batch, unmasked; first and second are the sentences' ids without [CLS] and [SEP]."""
    ids = restored(batch)
    for row in range(batch.num_rows):
        part = slice(*batch.row_offsets[row : row + 2])
        segments = batch.segment_ids[part]
        row_ids = tuple(ids[part].tolist())
        first = row_ids[1 : list(segments).count(0) - 1]
        second = row_ids[len(first) + 2 : -1] if 1 in segments else ()
        documents = tuple(batch.row_documents[row].tolist())
        yield Row(first, second, int(batch.nsp_labels[row]), documents, row_ids, tuple(segments.tolist()))


@pytest.fixture(scope="session")
def read():
    """The functions above."""
    return namedtuple("Read", "rows restored digest")(rows_of, restored, digest)


@pytest.fixture(scope="session")
def cut():
    """Encode documents: for each, its sentences as tuples of at most `limit` ids."""

    def encode(vocabulary, documents, limit):
        return [[tuple(vocabulary.encode(s)[:limit].tolist()) for s in d.sentences] for d in documents]

    return encode
