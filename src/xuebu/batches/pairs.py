"""The second sentence of a pair: the true next one, or one of another document."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xuebu.errors import StoreError
from xuebu.rng import draw_below
from xuebu.tokens.store import Store

MAX_DRAWS = 64


def check_strangers(store: Store) -> None:
    """Refuse a store in which some sentence has a neighbor but no stranger: training would meet it sooner or later.

    Raises:
        StoreError: a pool (source and script) that has neighbors holds one group only; names its source.
    """
    has_anchor = np.diff(np.searchsorted(store.anchors, store.document_offsets)) > 0
    pools, groups = np.asarray(store.document_pool), np.asarray(store.document_group)
    in_order = np.lexsort((groups, pools))
    first = np.searchsorted(pools[in_order], np.arange(store.num_pools))
    last = np.append(first[1:], len(pools)) - 1
    is_single = groups[in_order][first] == groups[in_order][last]
    for pool in np.unique(pools[has_anchor]):
        if is_single[pool]:
            raise _single_group(store, int(pool))


def _single_group(store: Store, pool: int) -> StoreError:
    facts = store.pools()[pool]
    script = f", script {facts['script']!r}," if facts["script"] else ""
    return StoreError(
        f"{store.folder}: next-sentence pairs need at least two groups (titles) of each source and script, and source "
        f'{facts["source"]!r}{script} has a single one; add documents, or train with objective = "mlm"'
    )


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
        StoreError: a pool (source and script) holds one group only, so no stranger exists (see `check_strangers`).
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
        chosen[row] = _next_stranger(store, int(pools[row]), int(groups[row]), int(keys[row]))
    return chosen


def _next_stranger(store: Store, pool: int, group: int, key: int) -> int:
    """Return the first sentence of another group from a drawn place on, around the pool."""
    sentences = np.asarray(store.pool_sentences[store.pool_offsets[pool] : store.pool_offsets[pool + 1]])
    in_order = np.roll(sentences, -int(draw_below(key, MAX_DRAWS, len(sentences))))
    fits = np.flatnonzero(store.document_group[store.document_of(in_order)] != group)
    if not fits.size:
        raise _single_group(store, pool)
    return int(in_order[fits[0]])
