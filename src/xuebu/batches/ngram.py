"""A character n-gram that sees both sides: the strongest guess at a masked token that plain counting makes.

Eight distributions are interpolated (Jelinek and Mercer): the unigram; up to two tokens on the left, and on the right,
each backing off to shorter contexts; their product; and four two-sided contexts, each backing off to the shorter ones
and at last to the product. Weights are fitted by expectation maximization on training documents held back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xuebu.batches.contexts import LEFT, RIGHT, UNUSABLE, Counts, Float64, Int64
from xuebu.batches.settings import BatchSettings
from xuebu.rng import draw_below, draw_uniform, key_of
from xuebu.tokens.vocab import Vocabulary

COMPONENTS = ("unigram", "left", "right", "product", "both", "two_left_right", "left_two_right", "two_both")
"""The distributions that are interpolated."""

BUCKETS = (
    "no neighbor readable",
    "one neighbor readable",
    "both readable, never seen together",
    "both seen together",
    "three neighbors seen together",
    "four neighbors seen together",
)
"""Each has its own weights: how much of what stands around the token the training text has shown before."""

_BUFFER_ENTRIES = 1 << 17  # predictions x vocabulary at once: small enough to stay in a core's cache
_EM_ROUNDS = 60
_PRIOR_PREDICTIONS = 20.0  # weight of the common weights in each bucket, in predictions


@dataclass(frozen=True, slots=True, eq=False)
class Guesses:
    """What the n-gram says about each masked token.

    Attributes:
        tokens: int64[M], the most probable id.
        log_probabilities: float64[M], natural log of the probability that it gives to the true one.
    """

    tokens: Int64
    log_probabilities: Float64


def _buckets(counts: Counts, neighbors: Int64) -> Int64:
    """Return the bucket of each question, int64[M]."""
    contexts, tables = counts.contexts, counts.continuations
    buckets: Int64 = np.count_nonzero(neighbors[:, [LEFT, RIGHT]] != UNUSABLE, axis=1).astype(np.int64)
    three = np.zeros(len(neighbors), dtype=np.bool_)
    for kind in ("two_left_right", "left_two_right"):
        three |= tables[kind].seen(contexts[kind])
    buckets[tables["both"].seen(contexts["both"])] = 3
    buckets[three] = 4
    buckets[tables["two_both"].seen(contexts["two_both"])] = 5
    return buckets


class _Distributions:
    """The dense distributions of some questions at a time, in buffers that are used again."""

    def __init__(self, counts: Counts, neighbors: Int64) -> None:
        self._counts, self._neighbors = counts, neighbors
        size = len(counts.unigram)
        self.num_rows = max(1, _BUFFER_ENTRIES // size)
        self._buffers = np.empty((3, self.num_rows, size), dtype=counts.unigram.dtype)
        with np.errstate(divide="ignore"):
            self._inverse_unigram = np.where(counts.unigram > 0, 1.0 / counts.unigram, 0.0)

    def compute(self, rows: slice) -> tuple[Float64, Float64, Float64]:
        """Return left, right and product for questions `rows`, each float64[rows, V], each row adding up to 1.

        The product of left and right over the unigram takes the two sides as independent given the token.
        """
        left, right, product = self._buffers[:, : rows.stop - rows.start]
        self._fill_side(left, rows, "left", "far_left", "two_left")
        self._fill_side(right, rows, "right", "far_right", "two_right")
        np.multiply(left, self._inverse_unigram, out=product)
        product *= right
        product /= product.sum(axis=1, keepdims=True)
        return left, right, product

    def _fill_side(self, out: Float64, rows: slice, near: str, far: str, two: str) -> None:
        """Write the distribution that one side gives; where the near neighbor is unusable, by the far one alone."""
        counts, tables = self._counts, self._counts.continuations
        near_context, two_context = counts.contexts[near][rows], counts.contexts[two][rows]
        far_context = np.where(near_context < 0, counts.contexts[far][rows], -1)
        rest_of_two = tables[two].rest[two_context]
        rest = tables[near].rest[near_context] * tables[far].rest[far_context]  # one of the two is 1
        np.multiply.outer(rest_of_two * rest, counts.unigram, out=out)
        self.add(out, near, near_context, rest_of_two)
        self.add(out, far, far_context, rest_of_two)
        self.add(out, two, two_context, np.ones(len(out)))

    def add(self, out: Float64, kind: str, contexts: Int64, weights: npt.NDArray[np.floating[Any]]) -> None:
        """Add to each row its context's discounted shares, times the row's weight."""
        table = self._counts.continuations[kind]
        rows, entries = table.entries(contexts)
        places = rows * out.shape[1]
        places += table.tokens[entries]
        out.reshape(-1)[places] += weights[rows] * table.shares[entries]  # an entry occurs once a row


def _at_tokens(counts: Counts, neighbors: Int64, tokens: Int64) -> Float64:
    """Return the probability that each component gives to one token at each question, float64[M, components]."""
    contexts, tables = counts.contexts, counts.continuations
    result = np.empty((len(tokens), len(COMPONENTS)))
    result[:, 0] = counts.unigram[tokens]
    distributions = _Distributions(counts, neighbors)
    for start in range(0, len(tokens), distributions.num_rows):
        rows = slice(start, min(start + distributions.num_rows, len(tokens)))
        picked = np.arange(rows.stop - rows.start), tokens[rows]
        for column, dense in enumerate(distributions.compute(rows), start=1):
            result[rows, column] = dense[picked]
    share = {kind: tables[kind].share_of(contexts[kind], tokens, counts.base) for kind in COMPONENTS[4:]}
    rest = {kind: tables[kind].rest[contexts[kind]] for kind in COMPONENTS[4:]}
    both = share["both"] + rest["both"] * result[:, 3]
    three = [share[kind] + rest[kind] * both for kind in ("two_left_right", "left_two_right")]
    four = share["two_both"] + rest["two_both"] * (three[0] + three[1]) / 2
    result[:, 4:] = np.stack([both, *three, four], axis=1)
    return result


def default_weights() -> Float64:
    """Return equal weights, float64[buckets, components], for a corpus too small to hold anything back."""
    return np.full((len(BUCKETS), len(COMPONENTS)), 1.0 / len(COMPONENTS))


def fit_weights(counts: Counts, neighbors: Int64, tokens: Int64) -> Float64:
    """Fit the weights of interpolation by expectation maximization, float64[buckets, components].

    First common weights for all questions, then those of each bucket, drawn towards the common ones, so that a bucket
    with few questions keeps these.

    Args:
        counts: from training text without the documents that `tokens` come from.
        neighbors: int64[M, 4], corrupted as the input will be.
        tokens: int64[M], the true tokens.

    Source: Jelinek and Mercer 1980, "Interpolated estimation of Markov source parameters from sparse data".
    """
    probabilities = _at_tokens(counts, neighbors, tokens)
    buckets = _buckets(counts, neighbors)
    common = default_weights()[0]
    for _ in range(_EM_ROUNDS):
        shares = probabilities * common
        shares /= shares.sum(axis=1, keepdims=True)
        common = (shares.sum(axis=0) + 1.0) / (len(tokens) + len(COMPONENTS))
    weights = np.tile(common, (len(BUCKETS), 1))
    for _ in range(_EM_ROUNDS):
        shares = probabilities * weights[buckets]
        shares /= shares.sum(axis=1, keepdims=True)
        sums = np.tile(_PRIOR_PREDICTIONS * common, (len(BUCKETS), 1))
        np.add.at(sums, buckets, shares)
        weights = sums / sums.sum(axis=1, keepdims=True)
    return weights


def corrupt_neighbors(neighbors: Int64, vocabulary: Vocabulary, masking: BatchSettings) -> Int64:
    """Return neighbors in clean text as the masked input would show them: some unusable, some random.

    Draws are keyed by the place in the array, so the result is a function of the arguments.
    """
    key = key_of("n-gram neighbors")
    place = np.arange(neighbors.size).reshape(neighbors.shape)
    draw = draw_uniform(key, 2 * place) / masking.mask_rate
    is_token = (neighbors != UNUSABLE) & (neighbors < vocabulary.num_tokens)
    ordinary = vocabulary.special.ordinary_ids(vocabulary.num_tokens)
    random_tokens = ordinary[draw_below(key, 2 * place + 1, len(ordinary))]
    masked = is_token & (draw < masking.mask_token_share)
    randomized = is_token & ~masked & (draw < masking.mask_token_share + masking.random_token_share)
    return np.where(masked, UNUSABLE, np.where(randomized, random_tokens, neighbors))


def guess(
    counts: Counts,
    weights: Float64,
    neighbors: Int64,
    *,
    visible: npt.NDArray[np.int32],
    labels: npt.NDArray[np.int32],
    vocabulary: Vocabulary,
    masking: BatchSettings,
) -> Guesses:
    """Guess each masked token from its neighbors and from what is visible in its own place.

    A visible token other than [MASK] is evidence: it was kept, or it is random. By Bayes' rule the n-gram's
    probability of a token x is multiplied by P(visible v | x) = kept share [x = v] + random share / number of tokens.

    Args:
        counts: of the contexts around these questions, in their order.
        weights: from `fit_weights`.
        neighbors: int64[M, 4].
        visible: int32[M], the ids in the masked places of the input.
        labels: int32[M], the true ids; they are read for `log_probabilities` alone.
        vocabulary: for ids and size.
        masking: the shares with which the input was masked.
    """
    same, other = _likelihoods(visible, vocabulary, masking)
    buckets = _buckets(counts, neighbors)
    distributions = _Distributions(counts, neighbors)
    tokens = np.empty(len(labels), dtype=np.int64)
    log_probabilities = np.empty(len(labels))
    for start in range(0, len(labels), distributions.num_rows):
        rows = slice(start, min(start + distributions.num_rows, len(labels)))
        mixture = _mix(distributions, counts, weights[buckets[rows]], rows)
        line = np.arange(rows.stop - rows.start)
        shown, label = visible[rows].astype(np.int64), labels[rows].astype(np.int64)
        of_label, of_shown = mixture[line, label], mixture[line, shown]
        evidence = same[rows] * of_shown + other[rows] * (1.0 - of_shown)
        likelihood = np.where(label == shown, same[rows], other[rows])
        with np.errstate(divide="ignore"):
            log_probabilities[rows] = np.log(of_label * likelihood / evidence)
        mixture[line, shown] = 0.0
        best = mixture.argmax(axis=1)
        tokens[rows] = np.where(same[rows] * of_shown >= other[rows] * mixture[line, best], shown, best)
    return Guesses(tokens=tokens, log_probabilities=log_probabilities)


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """Tokens that the row of a question shows, and the share of the guess that each is given.

    Attributes:
        questions: int64[E], increasing.
        tokens: int64[E].
        shares: float32[E]; those of a question add up to less than 1.
    """

    questions: Int64
    tokens: Int64
    shares: npt.NDArray[np.float32]

    def mix_in(self, mixture: npt.NDArray[np.floating[Any]], rows: slice) -> None:
        """Give the shares of questions `rows` to their tokens, in place; the rest stays the mixture's."""
        here = slice(*np.searchsorted(self.questions, [rows.start, rows.stop]))
        line, shares = self.questions[here] - rows.start, self.shares[here]
        mixture *= 1.0 - np.bincount(line, shares, len(mixture)).astype(mixture.dtype)[:, None]
        np.add.at(mixture, (line, self.tokens[here]), shares)


def distribute(
    counts: Counts,
    weights: Float64,
    neighbors: Int64,
    *,
    visible: npt.NDArray[np.int32],
    vocabulary: Vocabulary,
    masking: BatchSettings,
    shown: Shown | None = None,
) -> npt.NDArray[np.float32]:
    """Return what `guess` guesses from: the probability of every token in each masked place, float32[M, V].

    Args:
        counts, weights, neighbors, visible, vocabulary, masking: as in `guess`.
        shown: what the rows themselves show, mixed in by its shares; None: they are not looked at.
    """
    same, other = _likelihoods(visible, vocabulary, masking)
    same, other = same.astype(counts.unigram.dtype), np.maximum(other, 1e-12).astype(counts.unigram.dtype)
    weights = weights[_buckets(counts, neighbors)].astype(counts.unigram.dtype)
    distributions = _Distributions(counts, neighbors)
    found = np.empty((len(neighbors), len(counts.unigram)), dtype=np.float32)
    for start in range(0, len(neighbors), distributions.num_rows):
        rows = slice(start, min(start + distributions.num_rows, len(neighbors)))
        mixture = _mix(distributions, counts, weights[rows], rows)
        line, own = np.arange(len(mixture)), visible[rows]
        if shown is not None:
            shown.mix_in(mixture, rows)
        of_shown = mixture[line, own]
        evidence = same[rows] * of_shown + other[rows] * (1.0 - of_shown)
        np.multiply(mixture, (other[rows] / evidence)[:, None], out=found[rows])
        found[rows][line, own] = same[rows] * of_shown / evidence
    return found


def _mix(distributions: _Distributions, counts: Counts, weights: Float64, rows: slice) -> Float64:
    """Return the interpolated distribution of questions `rows`, float64[rows, V], in a buffer of `distributions`."""
    left, right, product = distributions.compute(rows)
    contexts = {kind: counts.contexts[kind][rows] for kind in COMPONENTS[4:]}
    rest = {kind: counts.continuations[kind].rest[contexts[kind]] for kind in COMPONENTS[4:]}
    unigram_weight, left_weight, right_weight, product_weight, both, first_three, second_three, four = weights.T
    # What a longer context leaves over goes to the shorter ones.
    first_three = first_three + four * rest["two_both"] / 2
    second_three = second_three + four * rest["two_both"] / 2
    both = both + first_three * rest["two_left_right"] + second_three * rest["left_two_right"]
    product_weight = product_weight + both * rest["both"]
    product *= product_weight[:, None]
    left *= left_weight[:, None]
    product += left
    right *= right_weight[:, None]
    product += right
    product += np.multiply.outer(unigram_weight, counts.unigram)
    for kind, weight in zip(COMPONENTS[4:], (both, first_three, second_three, four), strict=True):
        distributions.add(product, kind, contexts[kind], weight)
    return product


def _likelihoods(
    visible: npt.NDArray[np.int32], vocabulary: Vocabulary, masking: BatchSettings
) -> tuple[Float64, Float64]:
    """Return P(visible | it is the true token) and P(visible | the true token is another one), up to a factor."""
    random_share = masking.random_token_share
    kept_share = 1.0 - masking.mask_token_share - random_share
    is_ordinary = ~vocabulary.special.is_special(vocabulary.num_tokens)
    by_chance = np.where(is_ordinary[visible], random_share / is_ordinary.sum(), 0.0)
    is_masked = visible == vocabulary.special.mask
    return np.where(is_masked, 1.0, kept_share + by_chance), np.where(is_masked, 1.0, by_chance)
