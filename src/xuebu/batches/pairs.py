"""The second sentence of a pair: the true next one, or one of another document."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xuebu.errors import StoreError
from xuebu.rng import draw_below
from xuebu.tokens.store import Store

MAX_DRAWS = 64


def draw_strangers(
    store: Store, sentences: npt.NDArray[np.int64], keys: npt.NDArray[np.uint64]
) -> npt.NDArray[np.int64]:
    """Draw for each sentence one of another document, never of its group, of the same source and script.

    The last rule keeps a model from telling pairs apart by their source; the group rule keeps two versions of one
    text from passing for strangers.

    Args:
        store: where the sentences are.
        sentences: int64[B], sentence a of each pair.
        keys: uint64[B], the key of each draw.

    Returns:
        int64[B], sentence b. Drawn uniformly by rejection; after 64 misses, the next fitting one in the pool's order.

    Raises:
        StoreError: a pool (source and script) holds one group only, so no stranger exists.
    """
    documents = store.document_of(sentences)
    groups = store.document_group[documents]
    pools = store.document_pool[documents]
    starts, ends = store.pool_offsets[pools], store.pool_offsets[pools + 1]
    chosen = np.full(len(sentences), -1, dtype=np.int64)
    pending = np.arange(len(sentences))
    for draw in range(MAX_DRAWS):
        places = starts[pending] + draw_below(keys[pending], draw, ends[pending] - starts[pending])
        candidates = np.asarray(store.pool_sentences[places])
        fits = store.document_group[store.document_of(candidates)] != groups[pending]
        chosen[pending[fits]] = candidates[fits]
        pending = pending[~fits]
        if not pending.size:
            return chosen
    for row in pending:
        chosen[row] = _next_stranger(store, int(starts[row]), int(ends[row]), int(groups[row]), int(keys[row]))
    return chosen


def _next_stranger(store: Store, start: int, end: int, group: int, key: int) -> int:
    """Return the first sentence of another group from a drawn place on, around the pool."""
    first = start + int(draw_below(key, MAX_DRAWS, end - start))
    pool = np.asarray(store.pool_sentences[start:end])
    in_order = np.roll(pool, start - first)
    fits = np.flatnonzero(store.document_group[store.document_of(in_order)] != group)
    if not fits.size:
        raise StoreError(
            f"{store.folder}: next-sentence pairs need at least two groups (titles) of one source and script, and one "
            'pool has a single group; add documents, or train with objective = "mlm"'
        )
    return int(in_order[fits[0]])
