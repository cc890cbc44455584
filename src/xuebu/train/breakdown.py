"""Held-out answers by class of character, and how far the model's probabilities can be believed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from xuebu.analysis.compare import mean_with_interval
from xuebu.analysis.intervals import Interval
from xuebu.batches.classes import PATTERNS
from xuebu.corpus.clean import HAN
from xuebu.tokens.vocab import Vocabulary

Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

LEVEL = 0.95
HAN_RANKS = (100, 500, 1500)
"""Where the bands of Han characters end, by rank of frequency in training; the last band has no end."""
CLASSES = (
    *(f"han_{first}_{last}" for first, last in zip((1, *(rank + 1 for rank in HAN_RANKS)), HAN_RANKS, strict=False)),
    *(f"han_{HAN_RANKS[-1] + 1}_up", "latin", "digit", "punctuation", "other"),
)
NUM_BINS = 10
_HAN = re.compile(f"[{HAN}]")


def accuracy_entry(hits: Bool, clusters: Int64) -> dict[str, Any]:
    """Return an accuracy with its interval, clustered by document, and the number of predictions, as plain values."""
    interval = mean_with_interval(hits, clusters, LEVEL)
    return {"accuracy": finite(interval.value), **bounds(interval), "predictions": len(hits)}


def bounds(interval: Interval) -> Mapping[str, Any]:
    """Return the ends of an interval with level and method as plain values."""
    return {
        "low": finite(interval.low),
        "high": finite(interval.high),
        "level": interval.level,
        "method": interval.method,
    }


def finite(value: float | None) -> float | None:
    """Return a number for JSON, None where it is not finite."""
    return None if value is None or not math.isfinite(value) else float(value)


def character_classes(vocabulary: Vocabulary, counts: Int64) -> npt.NDArray[np.int8]:
    """Return int8[tokens], for each token the index of its class in CLASSES.

    Han characters are ranked by their count in training, ties by id, so each is in one band; special tokens are
    "other".

    Args:
        vocabulary: its tokens are single characters, and the special ones.
        counts: int64[tokens], how often each stands in the training text.
    """
    found = np.full(vocabulary.num_tokens, CLASSES.index("other"), dtype=np.int8)
    for token, text in enumerate(vocabulary.tokens):
        if len(text) == 1:
            name = next((name for name, pattern in PATTERNS if pattern.match(text)), "other")
            found[token] = CLASSES.index(name)
    han = np.array([token for token, text in enumerate(vocabulary.tokens) if _HAN.fullmatch(text)], dtype=np.int64)
    by_rank = han[np.argsort(-counts[han], kind="stable")]
    found[by_rank] = np.searchsorted(HAN_RANKS, np.arange(len(by_rank)), side="right")
    return found


def score_by_character(
    labels: npt.NDArray[np.int32],
    hits: Mapping[str, Bool],
    clusters: Int64,
    classes: npt.NDArray[np.int8],
    counts: Int64,
) -> dict[str, Any]:
    """Return for each class of character that was asked for: who got how much of it right, and its training count.

    Args:
        labels: int32[M], the true tokens.
        hits: by name ("model", "ngram"), bool[M].
        clusters: int64[M], what counts as independent.
        classes: of `character_classes`.
        counts: int64[tokens], of the training text.
    """
    found: dict[str, Any] = {}
    asked = classes[labels]
    for number, name in enumerate(CLASSES):
        chosen = asked == number
        if chosen.any():
            found[name] = {who: accuracy_entry(right[chosen], clusters[chosen]) for who, right in hits.items()}
            found[name]["training_count"] = int(counts[classes == number].sum())
    return found


def calibration(probability: Float64, hits: Bool, clusters: Int64, num_bins: int = NUM_BINS) -> dict[str, Any]:
    """Return how often the first candidate is right beside the probability that it was given.

    Bins hold equally many predictions, since a young model gives few high probabilities: bins of equal width would be
    nearly empty but for the first. Equal probabilities stay in one bin.

    Args:
        probability: float[M], of the most probable token, 0 to 1.
        hits: bool[M], whether it was right.
        clusters: int64[M], what counts as independent.
        num_bins: at most so many; fewer where there are not 50 predictions for each.

    Returns:
        "bins" (mean "probability", "accuracy" with its interval, "predictions"), "ece": expected calibration error, the
        mean distance of the two, "ece_if_calibrated": what sampling alone would make of it for a model that is right
        as often as it says, and "predictions".

    Source: Naeini et al. 2015, "Obtaining well calibrated probabilities using Bayesian binning"; bins of equal size:
    Nguyen and O'Connor 2015, "Posterior calibration and exploratory analysis for natural language processing models".
    The mean distance of a share of n draws from its p is about sqrt(2 p (1 - p) / (pi n)).
    """
    size = len(hits)
    count = max(1, min(num_bins, size // 50))
    order = np.argsort(probability, kind="stable")
    ranked = probability[order]
    starts = np.searchsorted(ranked, ranked[[size * number // count for number in range(count)]], side="left")
    bins = []
    distance = by_chance = 0.0
    for part in np.split(order, np.unique(starts)[1:]):
        mean, right = float(probability[part].mean()), float(hits[part].mean())
        bins.append({"probability": mean, **accuracy_entry(hits[part], clusters[part])})
        distance += len(part) / size * abs(right - mean)
        by_chance += len(part) / size * math.sqrt(2 * mean * max(1 - mean, 0.0) / (math.pi * len(part)))
    return {"bins": bins, "ece": distance, "ece_if_calibrated": by_chance, "predictions": size}
