"""The finished model held against counting, on the same held-out questions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from xuebu.analysis.compare import mean_with_interval, paired_difference
from xuebu.batches.baselines import Baselines, score_baselines
from xuebu.batches.batch import KEPT, MASKED, RANDOM
from xuebu.batches.held_out import held_out_batches
from xuebu.batches.loader import Loader, count_tokens
from xuebu.batches.ngram_counts import ngram_counts
from xuebu.model.encoder import PretrainingModel
from xuebu.progress import SILENT, Progress
from xuebu.tokens.store import Store
from xuebu.tokens.vocab import Vocabulary
from xuebu.train.breakdown import (
    LEVEL,
    accuracy_entry,
    bounds,
    calibration,
    character_classes,
    finite,
    score_by_character,
)
from xuebu.train.evaluation import Evaluation, evaluate
from xuebu.train.machine import Machine
from xuebu.train.settings import Recipe

BASELINE_TOKENS = 20_000_000
"""Most training tokens that the counting baselines read: bounds their memory on large corpora."""
_RULE_STEPS = 64  # training batches on which the overlap rule chooses its threshold
_CLASSES = {"mask": MASKED, "random": RANDOM, "kept": KEPT}


def score_model(
    model: PretrainingModel,
    recipe: Recipe,
    machine: Machine,
    *,
    train_store: Store,
    held_out_store: Store,
    vocabulary: Vocabulary,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Return the content of baselines.json: accuracies with intervals, and signed differences from counting.

    Intervals are clustered by held-out group (title), since the predictions of one text are not independent. The masks
    are fixed, so their sampling error is common to all steps of a run and to all runs: it is in the levels given here.
    """
    questions = held_out_batches(
        held_out_store,
        vocabulary,
        settings=recipe.evaluation,
        batches=recipe.batches,
        predictions=recipe.evaluation.final_predictions,
    )
    counts = None
    if model.settings.ngram_prior:
        counts = ngram_counts(train_store, vocabulary, with_rows=recipe.train.ngram_rows, progress=progress)
    answers = evaluate(model, questions, machine, counts, recipe.batches)
    # Documents of one group (parts of an article) are alike: the group is what counts as independent.
    answers = replace(
        answers,
        documents=held_out_store.document_group[answers.documents],
        nsp_documents=held_out_store.document_group[answers.nsp_documents],
    )
    loader = Loader(train_store, vocabulary, recipe.batches, recipe.train.seed)
    rule_steps = min(_RULE_STEPS, max(1, loader.num_samples // recipe.batches.sequences_per_step))
    counting = score_baselines(
        train_store,
        (loader.batch(step) for step in range(1, rule_steps + 1)),
        questions,
        vocabulary,
        max_tokens=BASELINE_TOKENS,
        progress=progress,
    )
    scores = describe_scores(answers, counting, recipe.batches.pair_task)
    token_counts = count_tokens(train_store, vocabulary.num_tokens)
    scores["mlm"]["by_character"] = score_by_character(
        np.concatenate([batch.labels for batch in questions]),
        {"model": answers.mlm_hits, "ngram": counting.ngram_correct},
        answers.documents,
        character_classes(vocabulary, token_counts),
        token_counts,
    )
    return scores


def describe_scores(answers: Evaluation, counting: Baselines, pair_task: str = "nsp") -> dict[str, Any]:
    """Return the answers of model and baselines to the same questions as plain JSON values.

    Both orders of two sentences overlap alike, so beside sentence-order prediction ("sop") there is chance alone.
    """
    scores: dict[str, Any] = {
        "level": LEVEL,
        "clusters": len(np.unique(answers.documents)),
        "mlm": _mlm_scores(answers, counting),
        **_calibration(answers),
        "model_nats": finite(-answers.mlm_log_probability.mean()),
        "ngram_nats": finite(-counting.ngram_log_probability.mean()),
        "model_bits_per_character": finite(-answers.mlm_log_probability.mean() / math.log(2.0)),
        "ngram_bits_per_character": finite(-counting.ngram_log_probability.mean() / math.log(2.0)),
    }
    if len(answers.nsp_hits) and pair_task == "sop":
        scores["sop"] = {"model": accuracy_entry(answers.nsp_hits, answers.nsp_documents)}
    elif len(answers.nsp_hits):
        rule = counting.overlap_correct
        scores["nsp"] = {
            "model": accuracy_entry(answers.nsp_hits, answers.nsp_documents),
            "overlap_rule": {
                **accuracy_entry(rule, answers.nsp_documents),
                "description": counting.overlap_description,
                "threshold": counting.overlap_threshold,
            },
            "difference_from_overlap_rule": _difference(answers.nsp_hits, rule, answers.nsp_documents),
        }
    return scores


def _calibration(answers: Evaluation) -> dict[str, Any]:
    """Return the calibration at [MASK] positions: where the character is shown, its probability is that of copying."""
    shown = answers.mask_kinds == MASKED
    if not shown.any():
        return {}
    parts = (answers.mlm_top_probability.astype(np.float64), answers.mlm_hits, answers.documents)
    return {"calibration": calibration(*(part[shown] for part in parts))}


def _mlm_scores(answers: Evaluation, counting: Baselines) -> dict[str, Any]:
    by_class: dict[str, Any] = {}
    for name, kind in _CLASSES.items():
        chosen = answers.mask_kinds == kind
        if chosen.any():
            by_class[name] = {
                who: accuracy_entry(hits[chosen], answers.documents[chosen])
                for who, hits in (
                    ("model", answers.mlm_hits),
                    ("ngram", counting.ngram_correct),
                    ("most_frequent", counting.most_frequent_correct),
                )
            }
    return {
        "model": accuracy_entry(answers.mlm_hits, answers.documents),
        "most_frequent": {
            **accuracy_entry(counting.most_frequent_correct, answers.documents),
            "token": counting.most_frequent_token,
        },
        "ngram": {
            **accuracy_entry(counting.ngram_correct, answers.documents),
            "description": counting.ngram_description,
        },
        "loss_nats": _mean(-answers.mlm_log_probability, answers.documents),
        "difference_from_ngram": _difference(answers.mlm_hits, counting.ngram_correct, answers.documents),
        "difference_from_most_frequent": _difference(
            answers.mlm_hits, counting.most_frequent_correct, answers.documents
        ),
        "by_class": by_class,
    }


def _mean(values: npt.NDArray[np.floating[Any]], clusters: npt.NDArray[np.int64]) -> dict[str, Any]:
    if not np.isfinite(values).all():  # a model that has diverged
        return {}
    interval = mean_with_interval(values, clusters, LEVEL)
    return {"value": finite(interval.value), **bounds(interval)}


def _difference(
    model: npt.NDArray[np.bool_], baseline: npt.NDArray[np.bool_], clusters: npt.NDArray[np.int64]
) -> dict[str, Any]:
    interval = paired_difference(model, baseline, clusters, LEVEL)
    return {"value": finite(interval.value), **bounds(interval)}
