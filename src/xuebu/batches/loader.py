"""`Loader.batch(step)`: a batch is a function of (store, recipe, seed, step), and there is no state to save."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Generator, Sequence

import numpy as np
import numpy.typing as npt

from xuebu.batches.batch import Batch
from xuebu.batches.masking import MaskedTokens, make_replacements, mask_tokens
from xuebu.batches.rows import Rows, assemble_rows
from xuebu.batches.samples import LABEL, Drawn, draw_rows, find_samples
from xuebu.batches.settings import WORD_UNITS, BatchSettings
from xuebu.errors import StoreError
from xuebu.rng import draw_bits, key_of, permute
from xuebu.tokens.store import Store
from xuebu.tokens.vocab import Vocabulary

_COUNT_PIECE = 1 << 22  # tokens counted at once


class Loader:
    """Batches of a store by number.

    An epoch visits every sample once (see `samples`), in an order that a keyed permutation gives; the batch of a step
    takes the next `sequences_per_step` samples and may reach across the edge of an epoch.

    Args:
        store: the training tokens.
        vocabulary: the one that the store was built with.
        settings: how rows are formed and masked.
        seed: the run's seed.

    Raises:
        StoreError: the vocabulary is another than the store's, there is nothing to train on, a source has neighbors but
            no strangers, or the store is not cut as the settings need it.
    """

    def __init__(self, store: Store, vocabulary: Vocabulary, settings: BatchSettings, seed: int) -> None:
        if store.vocabulary_digest != vocabulary.digest:
            raise StoreError(f"{store.folder}: built with another vocabulary; build the store again")
        if settings.mask_unit == "pmi" and not store.segmenter.startswith("statistics"):
            raise StoreError(
                f'{store.folder}: `batches.mask_unit` = "pmi" needs a store cut by collocations, and this one is cut '
                f'by {store.segmenter}; build it with `store.segmenter` = "statistics", or mask by "word"'
            )
        self.store, self.vocabulary, self.settings, self.seed = store, vocabulary, settings, seed
        self.samples = find_samples(store, settings)
        counts = None
        if settings.mask_replacement == "matched":
            counts = count_tokens(store, vocabulary.num_tokens)
        self.replacements = make_replacements(vocabulary.special, vocabulary.num_tokens, counts)

    @property
    def num_samples(self) -> int:
        """Samples of an epoch."""
        return self.samples.count

    @property
    def num_fresh_steps(self) -> float:
        """From how many steps on masks repeat earlier ones: those of fixed copies do; infinite where each is drawn."""
        if not self.settings.static_copies:
            return math.inf
        return self.settings.static_copies * self.num_samples // self.settings.sequences_per_step

    def count_cut_tokens(self) -> int:
        """Return how many tokens of the store no row of an epoch has room for.

        Those beyond the longest part of a sentence that a row takes; of segments, those beyond the length of their
        sequence, other ones in each epoch.
        """
        if self.settings.sequences == "segments":
            assert self.samples.first is not None and self.samples.end is not None
            offsets, limit = self.store.sentence_offsets, self.settings.text_tokens
            lengths = offsets[self.samples.end] - offsets[self.samples.first]
        else:
            lengths, limit = np.diff(self.store.sentence_offsets), self.settings.sentence_tokens
        return int(np.maximum(lengths - limit, 0).sum())

    def epoch_of(self, step: int) -> float:
        """Return how many epochs lie behind the end of a step (1-based)."""
        return step * self.settings.sequences_per_step / self.num_samples

    def batch(self, step: int, skips: Sequence[int] = ()) -> Batch:
        """Return the batch of a step, numbered from 1.

        Args:
            step: number of the update.
            skips: numbers of batches that were left out; the step takes the next one that was not.
        """
        return self.compose(step, skips)[0]

    def compose(self, step: int, skips: Sequence[int] = (), *, with_words: bool = False) -> tuple[Batch, Rows]:
        """Return the batch of a step, and its rows before masking.

        Args:
            step, skips: as in `batch`.
            with_words: read word starts even where masking does not need them; the batch is the same.
        """
        if step < 1:
            raise ValueError(f"steps are numbered from 1, not {step}")
        settings, number = self.settings, batch_of_step(step, skips)
        count = settings.sequences_per_step
        samples = np.arange((number - 1) * count, number * count, dtype=np.int64)
        epochs, places = np.divmod(samples, self.num_samples)
        index = np.empty(count, dtype=np.int64)
        keys = np.empty(count, dtype=np.uint64)
        for epoch in np.unique(epochs):
            rows = epochs == epoch
            index[rows] = permute(places[rows], self.num_samples, key_of(self.seed, "order", int(epoch)))
            copy = int(epoch % settings.static_copies if settings.static_copies else epoch)
            keys[rows] = draw_bits(key_of(self.seed, "sample", copy), self.samples.names(index[rows]))
        if settings.static_copies:  # fixed with the copy, so only half of them on average
            follows = draw_bits(keys, LABEL) % np.uint64(2) == 0
        else:
            follows = samples % 2 == 0  # exactly half of every even-sized batch
        drawn = draw_rows(self.store, settings, self.samples, index, keys=keys, follows=follows)
        words = with_words or settings.mask_unit in WORD_UNITS
        rows = assemble_rows(self.store, self.vocabulary, drawn.spans, with_words=words)
        masked = mask_tokens(
            rows,
            draw_bits(keys, 0)[rows.rows],
            np.arange(len(rows.tokens)) - rows.row_offsets[rows.rows],
            settings,
            self.replacements,
            rate=settings.rate_at(number),
        )
        return make_batch(step, rows, drawn, masked), rows


def batch_of_step(step: int, skips: Sequence[int]) -> int:
    """Return the number of the batch that a step trains on: the step's own, and one more for each skip up to it."""
    number = step
    for skip in sorted(skips):
        number += skip <= number
    return number


def make_batch(step: int, rows: Rows, drawn: Drawn, masked: MaskedTokens) -> Batch:
    """Return masked rows as a batch."""
    return Batch(
        step=step,
        input_ids=masked.input_ids,
        segment_ids=rows.segment_ids,
        row_offsets=rows.row_offsets,
        masked_positions=masked.positions,
        labels=masked.labels,
        mask_kinds=masked.kinds,
        nsp_labels=drawn.labels,
        row_documents=drawn.documents,
        masking=masked.counts,
    )


def count_tokens(store: Store, num_tokens: int) -> npt.NDArray[np.int64]:
    """Return int64[num_tokens], how often each token stands in a store, read in pieces of bounded size."""
    counts = np.zeros(num_tokens, dtype=np.int64)
    for start in range(0, store.num_tokens, _COUNT_PIECE):
        piece = store.read_tokens(start, min(start + _COUNT_PIECE, store.num_tokens))
        counts += np.bincount(piece, minlength=num_tokens)
    return counts


def prefetch(make: Callable[[int], Batch], first: int, last: int, depth: int = 4) -> Generator[Batch, None, None]:
    """Yield make(first), ..., make(last), made ahead of their use in one background thread.

    Which thread makes a batch changes nothing about it. Errors of `make` are raised at the place of their batch; the
    thread ends when the iterator is closed.
    """
    ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(item: Batch | BaseException) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        for step in range(first, last + 1):
            try:
                item: Batch | BaseException = make(step)
            except BaseException as error:  # handed to the consumer, who raises it
                item = error
            if not put(item) or isinstance(item, BaseException):
                return

    thread = threading.Thread(target=work, name="xuebu-batches", daemon=True)
    thread.start()
    try:
        for _ in range(first, last + 1):
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
