"""Baselines that only count, scored on the very questions that a model is scored on: same text, masks and pairs.

Whatever they learn, they learn from the training store and from training pairs; of the held-out batches they see what
the model sees, and labels are compared with their guesses only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xuebu.batches.batch import NO_PAIR, Batch, concatenate
from xuebu.batches.contexts import (
    Counts,
    Float64,
    Int64,
    count_contexts,
    read_documents,
    read_neighbors,
    sentence_neighbors,
)
from xuebu.batches.held_out import HELD_OUT_MASKING
from xuebu.batches.ngram import BUCKETS, COMPONENTS, corrupt_neighbors, default_weights, fit_weights, guess
from xuebu.errors import StoreError
from xuebu.progress import SILENT, Progress
from xuebu.rng import draw_uniform, key_of, permute
from xuebu.tokens.store import Store
from xuebu.tokens.vocab import Vocabulary

_HELD_BACK_SHARE = 0.08  # of the training groups, for the weights
_FIT_PREDICTIONS = 8_000

Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Baselines:
    """What counting reaches on the held-out questions.

    M masked tokens in the order of the batches; P judged pairs (rows whose `nsp_labels` is not NO_PAIR) in theirs.

    Attributes:
        most_frequent_correct: bool[M], for guessing the most frequent training token everywhere.
        ngram_correct: bool[M], for the interpolated n-gram's best guess.
        ngram_log_probability: float64[M], natural log of the probability that it gives to the true token.
        overlap_correct: bool[P], for the rule that sentences with enough characters in common are neighbors.
        most_frequent_token: that token.
        counted_tokens: training tokens that were counted.
        training_tokens: training tokens that there are.
        fitted_predictions: tokens of held-back training documents that the weights were fitted on; 0: equal weights.
        ngram_weights: float64[buckets, components], the fitted weights.
        overlap_threshold: overlap from which on a pair is called neighbors; None where no pair is judged.
        overlap_training_accuracy: fraction of training pairs that this threshold judges rightly, or None.
        overlap_training_pairs: how many there were.
    """

    most_frequent_correct: Bool
    ngram_correct: Bool
    ngram_log_probability: Float64
    overlap_correct: Bool
    most_frequent_token: str
    counted_tokens: int
    training_tokens: int
    fitted_predictions: int
    ngram_weights: Float64
    overlap_threshold: float | None
    overlap_training_accuracy: float | None
    overlap_training_pairs: int

    @property
    def ngram_nats(self) -> float:
        """Mean loss of the n-gram in nats per prediction, to be compared with `mlm_loss_nats`."""
        return -float(self.ngram_log_probability.mean())

    @property
    def ngram_description(self) -> str:
        """What the n-gram is, in one line."""
        share = "" if self.counted_tokens == self.training_tokens else f" of {self.training_tokens:,}"
        weights = (
            f"weights fitted on {self.fitted_predictions:,} tokens of held-back training documents"
            if self.fitted_predictions
            else "equal weights (too few training documents to hold any back)"
        )
        return (
            "interpolated character n-gram that sees up to two characters on the left and two on the right, "
            f"counted on {self.counted_tokens:,}{share} training tokens, {weights}"
        )

    @property
    def overlap_description(self) -> str:
        """What the overlap rule is, in one line; empty where no pair is judged."""
        if self.overlap_threshold is None:
            return ""
        return (
            "sentences are called neighbors where the cosine of their sets of characters, weighted by inverse "
            f"frequency, is at least {self.overlap_threshold:.3f} (chosen on {self.overlap_training_pairs:,} training "
            "pairs)"
        )

    def summary(self) -> str:
        """Return accuracies and losses in plain words."""
        lines = [
            f"on {len(self.ngram_correct):,} held-out predictions, always guessing {self.most_frequent_token!a} is "
            f"right in {100 * self.most_frequent_correct.mean():.1f} %",
            f"{self.ngram_description}: right in {100 * self.ngram_correct.mean():.1f} %, "
            f"{self.ngram_nats:.3f} nats a prediction",
        ]
        if self.overlap_threshold is not None:
            accuracy = f"{100 * self.overlap_correct.mean():.1f} % of {len(self.overlap_correct):,} held-out pairs"
            lines.append(f"{self.overlap_description}: right in {accuracy}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return figures and descriptions as plain values; the arrays stay behind."""
        nats = self.ngram_nats
        return {
            "predictions": len(self.ngram_correct),
            "most_frequent_accuracy": float(self.most_frequent_correct.mean()),
            "most_frequent_token": self.most_frequent_token,
            "ngram_accuracy": float(self.ngram_correct.mean()),
            "ngram_nats": nats if np.isfinite(nats) else None,
            "ngram_description": self.ngram_description,
            "ngram_counted_tokens": self.counted_tokens,
            "ngram_training_tokens": self.training_tokens,
            "ngram_fitted_predictions": self.fitted_predictions,
            "ngram_weights": {
                bucket: dict(zip(COMPONENTS, row, strict=True))
                for bucket, row in zip(BUCKETS, self.ngram_weights.tolist(), strict=True)
            },
            "pairs": len(self.overlap_correct),
            "overlap_accuracy": float(self.overlap_correct.mean()) if len(self.overlap_correct) else None,
            "overlap_threshold": self.overlap_threshold,
            "overlap_training_accuracy": self.overlap_training_accuracy,
            "overlap_training_pairs": self.overlap_training_pairs,
        }


def score_baselines(
    train_store: Store,
    train_batches: Iterable[Batch],
    held_out_batches: Sequence[Batch],
    vocabulary: Vocabulary,
    *,
    max_tokens: int = 20_000_000,
    progress: Progress = SILENT,
) -> Baselines:
    """Score the most frequent token, the n-gram and the overlap rule on held-out batches.

    Args:
        train_store: what is counted.
        train_batches: batches of the training store, for the overlap rule's threshold; read once.
        held_out_batches: the questions, masked by `HELD_OUT_MASKING`; at least one prediction.
        vocabulary: the stores' vocabulary.
        max_tokens: at most so many training tokens are counted, as whole documents drawn by a fixed key (one document
            at least), so that memory is bounded; the result states how many.
        progress: where the counting reports to.

    Raises:
        StoreError: the training store was built with another vocabulary.
        ValueError: nothing to predict, or held-out pairs but no training pair.
    """
    if train_store.vocabulary_digest != vocabulary.digest:
        raise StoreError(f"{train_store.folder}: built with another vocabulary; build the store again")
    questions = concatenate(list(held_out_batches))
    if not questions.num_predictions:
        raise ValueError("the held-out batches hold no masked token")
    ordinary = vocabulary.special.ordinary_ids(vocabulary.num_tokens)
    documents = draw_documents(train_store, max_tokens)
    with progress.task("counting baselines", total=4, unit="steps") as task:
        weights, fitted = fit_interpolation(train_store, documents, vocabulary)
        task.advance()
        neighbors = read_neighbors(questions, vocabulary)
        counts = count_contexts(read_documents(train_store, documents), neighbors, vocabulary)
        task.advance()
        visible = questions.input_ids[questions.masked_positions]
        guesses = guess(
            counts,
            weights,
            neighbors,
            visible=visible,
            labels=questions.labels,
            vocabulary=vocabulary,
            masking=HELD_OUT_MASKING,
        )
        task.advance()
        threshold, training_accuracy, num_training_pairs = _choose_threshold(train_batches, counts, ordinary)
        task.advance()
    most_frequent = int(ordinary[counts.unigram[ordinary].argmax()])
    judged = questions.nsp_labels != NO_PAIR
    if judged.any() and threshold is None:
        raise ValueError(
            "held-out pairs are to be judged, but the training batches hold no pair to choose a threshold on"
        )
    overlap = pair_overlap(questions, counts, ordinary)[judged]
    called_neighbors = overlap >= (threshold if threshold is not None else 0.0)
    return Baselines(
        most_frequent_correct=questions.labels == most_frequent,
        ngram_correct=guesses.tokens == questions.labels,
        ngram_log_probability=guesses.log_probabilities,
        overlap_correct=called_neighbors == (questions.nsp_labels[judged] == 1),
        most_frequent_token=vocabulary.tokens[most_frequent],
        counted_tokens=counts.num_tokens,
        training_tokens=train_store.num_tokens,
        fitted_predictions=fitted,
        ngram_weights=weights,
        overlap_threshold=threshold if judged.any() else None,
        overlap_training_accuracy=training_accuracy,
        overlap_training_pairs=num_training_pairs,
    )


def draw_documents(store: Store, max_tokens: int) -> Int64:
    """Return the documents to count, increasing: all, or a keyed random choice that fits into `max_tokens`."""
    if store.num_tokens <= max_tokens:
        return np.arange(store.num_documents)
    drawn = permute(np.arange(min(store.num_documents, max_tokens)), store.num_documents, key_of("n-gram documents"))
    starts = store.sentence_offsets[store.document_offsets[drawn]]
    ends = store.sentence_offsets[store.document_offsets[drawn + 1]]
    fitting = int(np.searchsorted(np.cumsum(ends - starts), max_tokens, side="right"))
    return np.sort(drawn[: max(1, fitting)])


def _draw_held_back(store: Store, documents: Int64) -> Bool:
    """Return which of the documents are held back for the weights, whole groups; none if there is one group only."""
    groups = store.document_group[documents]
    distinct = np.unique(groups)
    if len(distinct) < 2:
        return np.zeros(len(documents), dtype=np.bool_)
    order = np.argsort(draw_uniform(key_of("n-gram held back"), distinct))
    chosen = distinct[order[: max(1, round(_HELD_BACK_SHARE * len(distinct)))]]
    return np.isin(groups, chosen)


def fit_interpolation(store: Store, documents: Int64, vocabulary: Vocabulary) -> tuple[Float64, int]:
    """Return the n-gram's weights, and on how many held-back tokens of these documents they were fitted."""
    held_back = _draw_held_back(store, documents)
    if not held_back.any():
        return default_weights(), 0
    chosen = documents[held_back]
    total = int(
        (
            store.sentence_offsets[store.document_offsets[chosen + 1]]
            - store.sentence_offsets[store.document_offsets[chosen]]
        ).sum()
    )
    questions, answers = [], []
    key = key_of("n-gram fit")
    done = 0
    for tokens, lengths in read_documents(store, chosen):
        picked = draw_uniform(key, np.arange(done, done + len(tokens))) < _FIT_PREDICTIONS / total
        questions.append(sentence_neighbors(tokens, lengths, vocabulary.num_tokens)[picked])
        answers.append(tokens[picked])
        done += len(tokens)
    neighbors = corrupt_neighbors(np.concatenate(questions), vocabulary, HELD_OUT_MASKING)
    counts = count_contexts(read_documents(store, documents[~held_back]), neighbors, vocabulary)
    return fit_weights(counts, neighbors, np.concatenate(answers)), len(neighbors)


def pair_overlap(batch: Batch, counts: Counts, ordinary: npt.NDArray[np.int32]) -> Float64:
    """Return how much the two sentences of each row overlap, 0 to 1, float64[B].

    The cosine between the sets of tokens of a and b, each token weighted by its inverse frequency -ln p: a rare
    character in common says more than 的. Special tokens count for nothing.

    Args:
        batch: rows of pairs.
        counts: for the frequencies.
        ordinary: int32[K], the ids that are no special tokens.

    Source: Salton and Buckley 1988, "Term-weighting approaches in automatic text retrieval", with binary term counts.
    """
    base = len(counts.unigram)
    rows = np.repeat(np.arange(batch.num_rows), np.diff(batch.row_offsets))
    squared = np.zeros(base)
    squared[ordinary] = np.log(counts.unigram[ordinary]) ** 2
    is_ordinary = np.zeros(base, dtype=np.bool_)
    is_ordinary[ordinary] = True
    is_text = is_ordinary[batch.input_ids]
    codes = rows * base + batch.input_ids
    first = np.unique(codes[is_text & (batch.segment_ids == 0)])
    second = np.unique(codes[is_text & (batch.segment_ids == 1)])

    def weigh(codes: Int64) -> Float64:
        sums = np.bincount(codes // base, weights=squared[codes % base], minlength=batch.num_rows)
        return sums.astype(np.float64)  # without any code, bincount gives whole numbers

    shared = weigh(np.intersect1d(first, second, assume_unique=True))
    return shared / np.maximum(np.sqrt(weigh(first) * weigh(second)), 1e-12)


def _choose_threshold(
    batches: Iterable[Batch], counts: Counts, ordinary: npt.NDArray[np.int32]
) -> tuple[float | None, float | None, int]:
    """Return the overlap that parts training pairs best, the fraction judged rightly, and how many pairs there were."""
    overlaps, labels = [], []
    for batch in batches:
        judged = batch.nsp_labels != NO_PAIR
        overlaps.append(pair_overlap(batch, counts, ordinary)[judged])
        labels.append(batch.nsp_labels[judged] == 1)
    if not sum(map(len, labels)):
        return None, None, 0
    overlap, follows = np.concatenate(overlaps), np.concatenate(labels)
    values, place = np.unique(overlap, return_inverse=True)
    num_following = np.bincount(place, weights=follows, minlength=len(values))
    num_strangers = np.bincount(place, weights=~follows, minlength=len(values))
    # Calling neighbors from values[i] on: right are the strangers below it and the neighbors from it on.
    right = np.cumsum(num_strangers) - num_strangers + num_following[::-1].cumsum()[::-1]
    best = int(right.argmax())
    threshold = values[best] if best == 0 else (values[best - 1] + values[best]) / 2
    return float(threshold), float(right[best] / len(follows)), len(follows)
