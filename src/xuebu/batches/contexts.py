"""What stands around a token, and how often each token stood in such a place in the training text.

Counting is driven by the questions: only contexts that some question asks about are counted, so memory grows with the
number of questions and of their continuations, not with the corpus.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xuebu.batches.batch import Batch
from xuebu.tokens.store import Store
from xuebu.tokens.vocab import Vocabulary

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

UNUSABLE = -1
"""A neighbor that cannot be read: it is [MASK], or the sentence was cut off before it."""

FAR_LEFT, LEFT, RIGHT, FAR_RIGHT = range(4)
"""Columns of a neighbors array, int64[M, 4]: token ids, the boundary (id = size of the vocabulary), or UNUSABLE."""

KINDS: dict[str, tuple[str | None, int]] = {
    "left": (None, LEFT),
    "right": (None, RIGHT),
    "far_left": (None, FAR_LEFT),
    "far_right": (None, FAR_RIGHT),
    "two_left": ("left", FAR_LEFT),
    "two_right": ("right", FAR_RIGHT),
    "both": ("left", RIGHT),
    "two_left_right": ("both", FAR_LEFT),
    "left_two_right": ("both", FAR_RIGHT),
    "two_both": ("two_left_right", FAR_RIGHT),
}
"""Each kind of context: the shorter one that it extends, and the column that it adds."""

_CHUNK_TOKENS = 1 << 20


def read_neighbors(batch: Batch, vocabulary: Vocabulary, longest: int | None = None) -> Int64:
    """Return the neighbors of each masked position as the corrupted input shows them, int64[M, 4].

    Nothing is read across [CLS] or [SEP]: they are the boundary, and beyond the boundary lies boundary. Where a
    sentence is as long as the longest of the batch, it is taken to have been cut to length, and its right boundary
    for UNUSABLE. Labels are not read at all.

    Args:
        batch: rows after masking.
        vocabulary: for its size and special ids.
        longest: tokens of the longest sentence that is not cut; None: of the longest of the batch.
    """
    boundary = vocabulary.num_tokens
    ids = batch.input_ids.astype(np.int64)
    is_end = ids == vocabulary.special.sep
    opens = is_end | (ids == vocabulary.special.cls)
    opens[batch.row_offsets[1:] - 1] = False  # the last [SEP] of a row opens nothing
    ends = np.flatnonzero(is_end)
    lengths = ends - np.flatnonzero(opens) - 1
    codes = np.where(ids == vocabulary.special.mask, UNUSABLE, ids)
    codes[ids == vocabulary.special.cls] = boundary
    codes[ends] = boundary
    to_the_right = codes.copy()
    to_the_right[ends[lengths >= (lengths.max(initial=0) if longest is None else longest)]] = UNUSABLE
    places = batch.masked_positions
    left, right = codes[places - 1], to_the_right[places + 1]
    far_left = np.where(left == boundary, boundary, codes[np.maximum(places - 2, 0)])
    far_right = to_the_right[np.minimum(places + 2, len(ids) - 1)]
    far_right = np.where(is_end[places + 1], right, far_right)
    return np.stack([far_left, left, right, far_right], axis=1)


def sentence_neighbors(tokens: Int64, lengths: Int64, boundary: int) -> Int64:
    """Return the neighbors of every token of some sentences laid end to end, int64[N, 4]."""
    places = np.arange(len(tokens)) + 2 * np.repeat(np.arange(1, len(lengths) + 1), lengths)
    padded = np.full(len(tokens) + 2 * len(lengths) + 2, boundary, dtype=np.int64)
    padded[places] = tokens
    return np.stack([padded[places + shift] for shift in (-2, -1, 1, 2)], axis=1)


def read_documents(store: Store, documents: Int64) -> Iterator[tuple[Int64, Int64]]:
    """Yield (tokens int64[N], sentence lengths int64[S]) of some documents, about a million tokens at a time."""
    tokens: list[npt.NDArray[Any]] = []
    lengths: list[Int64] = []
    waiting = 0
    for document in documents.tolist():
        first, last = store.document_offsets[document], store.document_offsets[document + 1]
        bounds = store.sentence_offsets[first : last + 1]
        tokens.append(store.read_tokens(int(bounds[0]), int(bounds[-1])))
        lengths.append(np.diff(bounds))
        waiting += len(tokens[-1])
        if waiting >= _CHUNK_TOKENS:
            yield np.concatenate(tokens).astype(np.int64), np.concatenate(lengths)
            tokens, lengths, waiting = [], [], 0
    if tokens:
        yield np.concatenate(tokens).astype(np.int64), np.concatenate(lengths)


class ContextIndex:
    """The distinct contexts of some questions, numbered by kind.

    Args:
        neighbors: int64[M, 4], around each question.
        num_tokens: size of the vocabulary.
    """

    def __init__(self, neighbors: Int64, num_tokens: int) -> None:
        self.base = num_tokens + 1  # token ids and the boundary
        self._keys: dict[str, Int64] = {}
        located: dict[str, Int64] = {}
        for kind in KINDS:
            rows, keys = self._keys_of(kind, neighbors, located)
            self._keys[kind], numbers = np.unique(keys, return_inverse=True)
            located[kind] = np.full(len(neighbors), -1, dtype=np.int64)
            located[kind][rows] = numbers
        self.questions = located
        """For each kind the context of each question, int64[M]; -1 where a neighbor is unusable."""

    def _keys_of(self, kind: str, neighbors: Int64, located: dict[str, Int64]) -> tuple[Int64, Int64]:
        """Return the rows whose context of this kind may be known, and a key for each; 2**63 is never reached."""
        shorter, column = KINDS[kind]
        added = neighbors[:, column]
        if shorter is None:
            rows = np.flatnonzero(added != UNUSABLE)
            return rows, added[rows]
        rows = np.flatnonzero((located[shorter] >= 0) & (added != UNUSABLE))
        return rows, located[shorter][rows] * self.base + added[rows]

    def locate(self, neighbors: Int64) -> dict[str, Int64]:
        """Return for each kind the number of each row's context, -1 where no question asks about it."""
        located: dict[str, Int64] = {}
        for kind, known in self._keys.items():
            rows, keys = self._keys_of(kind, neighbors, located)
            located[kind] = np.full(len(neighbors), -1, dtype=np.int64)
            if KINDS[kind][0] is None:  # few keys: a table is quicker than a search
                table = np.full(self.base, -1, dtype=np.int64)
                table[known] = np.arange(len(known))
                located[kind][rows] = table[keys]
            elif len(known):
                numbers = np.minimum(np.searchsorted(known, keys), len(known) - 1)
                located[kind][rows] = np.where(known[numbers] == keys, numbers, -1)
        return located

    def keys(self, kind: str) -> Int64:
        """Return the keys of the distinct contexts of a kind, increasing; the place of each is the context's number."""
        return self._keys[kind]

    def num_contexts(self, kind: str) -> int:
        """Return how many distinct contexts of a kind the questions ask about."""
        return len(self._keys[kind])


@dataclass(frozen=True, slots=True, eq=False)
class Continuations:
    """Which tokens stood in each context of one kind, with absolute discounting.

    A token seen c times among a context's C has the share (c - D) / C; what the discount takes away, D times the
    number of distinct tokens / C, is the share `rest` of a shorter context.

    Attributes:
        starts: int64[K + 1], where each context's entries begin and end.
        codes: int64[E], context * base + token, increasing.
        tokens: integers[E].
        shares: floats[E].
        rest: floats[K + 1], 1 for a context never seen; the last one, reached by index -1, is for "no context".
        discount: D = n1 / (n1 + 2 n2), with n1 and n2 the number of entries seen once and twice.

    Source: Ney, Essen and Kneser 1994, "On structuring probabilistic dependences in stochastic language modelling",
    equation for the discount; one entry is added to n1 so that small counts keep D between 0 and 1.
    """

    starts: Int64
    codes: Int64
    tokens: npt.NDArray[np.integer[Any]]
    shares: npt.NDArray[np.floating[Any]]
    rest: npt.NDArray[np.floating[Any]]
    discount: float

    @classmethod
    def of(cls, codes: Int64, counts: Int64, num_contexts: int, base: int) -> Continuations:
        """Make the table of one kind from its distinct (context, token) codes and their counts."""
        contexts, tokens = np.divmod(codes, base)
        once, twice = int((counts == 1).sum()), int((counts == 2).sum())
        discount = (once + 1) / (once + 2 * twice + 2)
        totals = np.bincount(contexts, weights=counts, minlength=num_contexts)
        starts = np.searchsorted(contexts, np.arange(num_contexts + 1))
        rest = np.ones(num_contexts + 1)
        seen = totals > 0
        rest[:-1][seen] = discount * np.diff(starts)[seen] / totals[seen]
        shares = (counts - discount) / totals[contexts]
        return cls(starts=starts, codes=codes, tokens=tokens, shares=shares, rest=rest, discount=discount)

    def seen(self, contexts: Int64) -> npt.NDArray[np.bool_]:
        """Return whether each context (-1: none) has any continuation."""
        return self.rest[contexts] < 1.0

    def entries(self, contexts: Int64) -> tuple[Int64, Int64]:
        """Return for all entries of the contexts (-1: none) the row that asks and the entry's index."""
        asked = np.where(contexts >= 0, contexts, len(self.starts) - 1)  # no context: an empty range at the end
        lengths = np.append(np.diff(self.starts), 0)[asked]
        rows = np.repeat(np.arange(len(contexts)), lengths)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return rows, np.repeat(self.starts[asked], lengths) + within

    def share_of(self, contexts: Int64, tokens: Int64, base: int) -> Float64:
        """Return the share of one token in each context (-1: none); 0 where it never stood there."""
        if not len(self.codes):
            return np.zeros(len(contexts))
        wanted = contexts * base + tokens
        found = np.minimum(np.searchsorted(self.codes, wanted), len(self.codes) - 1)
        return np.where((contexts >= 0) & (self.codes[found] == wanted), self.shares[found], 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """What was counted for some questions.

    Attributes:
        contexts: for each kind the context of each question, int64[M].
        continuations: for each kind its table.
        unigram: floats[V], share of each token, (count + 1/2) normalized; 0 for special tokens other than [UNK].
        num_tokens: number of tokens counted.
        base: factor in the codes of `Continuations`.
    """

    contexts: dict[str, Int64]
    continuations: dict[str, Continuations]
    unigram: npt.NDArray[np.floating[Any]]
    num_tokens: int
    base: int


def count_contexts(chunks: Iterable[tuple[Int64, Int64]], questions: Int64, vocabulary: Vocabulary) -> Counts:
    """Count the continuations of every context that the questions ask about.

    Args:
        chunks: (tokens, sentence lengths) of the training text, as `read_documents` yields them.
        questions: int64[M, 4], the neighbors around each token to predict.
        vocabulary: for its size and special ids.
    """
    index = ContextIndex(questions, vocabulary.num_tokens)
    nothing = np.zeros(0, dtype=np.int64)
    found: dict[str, tuple[Int64, Int64]] = dict.fromkeys(KINDS, (nothing, nothing))
    unigram = np.zeros(vocabulary.num_tokens, dtype=np.int64)
    for tokens, lengths in chunks:
        unigram += np.bincount(tokens, minlength=vocabulary.num_tokens)
        located = index.locate(sentence_neighbors(tokens, lengths, vocabulary.num_tokens))
        for kind, contexts in located.items():
            rows = np.flatnonzero(contexts >= 0)
            codes, counts = np.unique(contexts[rows] * index.base + tokens[rows], return_counts=True)
            found[kind] = add_counts(found[kind], (codes, counts))
    continuations = {
        kind: Continuations.of(codes, counts, index.num_contexts(kind), index.base)
        for kind, (codes, counts) in found.items()
    }
    return Counts(
        contexts=index.questions,
        continuations=continuations,
        unigram=smoothed_unigram(unigram, vocabulary),
        num_tokens=int(unigram.sum()),
        base=index.base,
    )


def smoothed_unigram(counts: Int64, vocabulary: Vocabulary) -> Float64:
    """Return the share of each token, float64[V]: (count + 1/2) normalized; 0 for special ones other than [UNK]."""
    smoothed = counts + 0.5
    no_text = vocabulary.special.is_special(vocabulary.num_tokens)
    no_text[vocabulary.special.unk] = False
    smoothed[no_text] = 0.0
    shares: Float64 = smoothed / smoothed.sum()
    return shares


def add_counts(old: tuple[Int64, Int64], new: tuple[Int64, Int64]) -> tuple[Int64, Int64]:
    """Return the union of two tables of (increasing codes, counts), counts of equal codes added."""
    if not len(old[0]):
        return new
    codes, counts = np.concatenate([old[0], new[0]]), np.concatenate([old[1], new[1]])
    order = np.argsort(codes, kind="stable")  # two sorted runs: merged in linear time
    codes, counts = codes[order], counts[order]
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    return codes[starts], np.add.reduceat(counts, starts)
