"""What n-gram counts of the training text tell a model while it trains and while it is asked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from xuebu.batches.batch import Batch
from xuebu.batches.held_out import HELD_OUT_MASKING
from xuebu.batches.ngram_counts import NgramCounts, ngram_counts
from xuebu.batches.settings import BatchSettings
from xuebu.progress import Progress
from xuebu.tokens.store import Store
from xuebu.tokens.vocab import Vocabulary
from xuebu.train.parallel import World
from xuebu.train.schedule import ngram_scale, teacher_weight
from xuebu.train.settings import Recipe

Counting = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]
"""What n-gram counts say, float32 [n, V], about some predictions of a batch, by their numbers."""


def open_counts(
    recipe: Recipe, store: Store, vocabulary: Vocabulary, world: World, progress: Progress
) -> NgramCounts | None:
    """Return the counts of a training store where the recipe asks for them; the main process makes them."""
    if not recipe.asks_counts:
        return None
    made: list[NgramCounts] = []
    rows = recipe.train.ngram_rows
    world.agree(lambda: made.append(ngram_counts(store, vocabulary, with_rows=rows, progress=progress)))
    return made[0] if made else ngram_counts(store, vocabulary, with_rows=rows)


def counting_at(counts: NgramCounts | None, batch: Batch, recipe: Recipe, step: int) -> Counting | None:
    """Return what tells what counting says about a training batch, own groups left out; None: it weighs nothing."""
    weight = ngram_scale if recipe.model.ngram_prior else teacher_weight
    if counts is None or not weight(step, recipe.train):
        return None
    return _ask(counts, batch, recipe.batches, recipe.batches, leave_out=True)


def held_out_counting(counts: NgramCounts | None, batch: Batch, batches: BatchSettings) -> Counting | None:
    """Return what tells what counting says about held-out questions; None without counts."""
    return None if counts is None else _ask(counts, batch, HELD_OUT_MASKING, batches, leave_out=False)


def _ask(
    counts: NgramCounts, batch: Batch, masking: BatchSettings, batches: BatchSettings, *, leave_out: bool
) -> Counting:
    longest = batches.sentence_tokens
    return lambda numbers: counts.guess(batch, numbers, masking, leave_out=leave_out, longest=longest)
