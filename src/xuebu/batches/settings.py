"""Settings of batches: how sequences are formed and masked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt

from xuebu.config import Range
from xuebu.errors import ConfigError

WORD_UNITS = ("word", "ngram", "span", "pmi")
"""Values of `mask_unit` that need to know where words start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """How a step's sequences are formed and masked."""

    objective: Literal["nsp", "sop", "mlm"] = "nsp"
    """nsp: half of the pairs are true neighbors (BERT); sop: all are, half in the wrong order (ALBERT); mlm: masked
    tokens alone (RoBERTa)."""
    sequences: Literal["sentences", "segments", "full", "pairs"] = "sentences"
    """sentences: single ones; segments: runs of them filled to the length within a document (BERT); full: filled across
    documents, parted by [SEP] (RoBERTa, objective mlm); pairs: documents of two sentences given as pairs."""
    sequences_per_step: Annotated[int, Range(1, 1_000_000)] = 64
    """Sequences of one optimizer update, over all micro-batches."""
    sequence_length: Annotated[int, Range(8, 65_536)] = 128
    """Longest sequence in tokens, [CLS] and [SEP] included; each sentence of a pair gets half of the rest."""
    short_sequence_share: Annotated[float, Range(0.0, 1.0)] = 0.0
    """Share of `segments` that are cut to a length drawn from 2 to the longest; BERT's short_seq_prob, there 0.1."""
    swap_pairs: bool = False
    """With `pairs`: an epoch shows each pair in both orders."""
    static_copies: Annotated[int, Range(0, 10_000)] = 0
    """0: every epoch draws masks and pairs anew; k: epochs repeat k fixed copies (BERT's dupe_factor, there 10)."""
    mask_rate: Annotated[float, Range(0.01, 0.9)] = 0.15
    """Share of tokens to predict, at the first step."""
    final_mask_rate: Annotated[float, Range(0.0, 0.9)] = 0.0
    """Share that `mask_rate` moves to, linearly; 0: it stays (Ankner et al. 2023 went from 0.3 to 0.15)."""
    mask_rate_steps: Annotated[int, Range(0)] = 0
    """Step at which `final_mask_rate` is reached; from there on it stays."""
    mask_unit: Literal["character", "word", "ngram", "span", "pmi"] = "character"
    """What is chosen: single tokens; whole words; 1 to 4 words (MacBERT); spans of words (SpanBERT); collocations,
    the words of a store with `store.segmenter` "statistics". Words are those of the store's word-start bits."""
    ngram_weights: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1)
    """With `ngram`: share of units of 1, 2, ... words (MacBERT's); none is longer than what a sequence has to mask."""
    span_end: Annotated[float, Range(0.01, 1.0)] = 0.2
    """With `span`: probability that a span ends after a word; p of SpanBERT's geometric distribution."""
    span_words: Annotated[int, Range(1, 100)] = 10
    """With `span`: longest span in words (SpanBERT's)."""
    mask_budget: Literal["bernoulli", "exact"] = "bernoulli"
    """bernoulli: each unit on its own, so that the realized share varies; exact: as many tokens of each sequence as its
    share rounded, at least 1, in units drawn until no further one fits (BERT)."""
    max_predictions: Annotated[int, Range(0, 65_536)] = 0
    """Most predictions of a sequence; 0: no limit. BERT's max_predictions_per_seq, there 20 for 128 tokens."""
    mask_replacement: Literal["mask", "matched"] = "mask"
    """What most chosen tokens become: [MASK], or a token of similar frequency, so that no [MASK] is ever seen (after
    MacBERT, which takes similar words)."""
    mask_token_share: Annotated[float, Range(0.0, 1.0)] = 0.8
    """Share of the chosen tokens that become what `mask_replacement` says; 1: all of them."""
    random_token_share: Annotated[float, Range(0.0, 1.0)] = 0.1
    """Share of the chosen tokens that become a random token; what is left stays as it is."""

    def __post_init__(self) -> None:
        """Check what no single field can tell."""
        if self.mask_token_share + self.random_token_share > 1.0 + 1e-9:
            raise ConfigError("`mask_token_share` and `random_token_share` add up to more than 1")
        if bool(self.final_mask_rate) != bool(self.mask_rate_steps):
            raise ConfigError("`final_mask_rate` and `mask_rate_steps` are a schedule together; set both, or neither")
        if 0.0 < self.final_mask_rate < 0.01:
            raise ConfigError(f"`final_mask_rate` must be 0 (no schedule) or at least 0.01, not {self.final_mask_rate}")
        if self.sequences == "full" and self.objective != "mlm":
            raise ConfigError(
                f'`sequences` = "full" has no pairs to judge; set `objective` = "mlm", not {self.objective!r}'
            )
        if self.swap_pairs and self.sequences != "pairs":
            raise ConfigError('`swap_pairs` needs `sequences` = "pairs"')
        if self.swap_pairs and self.objective == "sop":
            raise ConfigError(
                '`swap_pairs` shows both orders as right, and `objective` = "sop" calls one wrong; drop one'
            )
        if self.short_sequence_share and self.sequences != "segments":
            raise ConfigError('`short_sequence_share` needs `sequences` = "segments"')
        weights = self.ngram_weights
        if not 1 <= len(weights) <= 100 or min(weights) < 0.0 or weights[0] <= 0.0:
            raise ConfigError("`ngram_weights` must be 1 to 100 numbers of at least 0, the first above 0")

    @property
    def has_pairs(self) -> bool:
        """Whether rows have two parts, `[CLS] a [SEP] b [SEP]`."""
        return self.objective != "mlm" or self.sequences == "pairs"

    @property
    def pair_task(self) -> Literal["nsp", "sop"]:
        """What the two-class head is asked, and so what its figures are called."""
        return "sop" if self.objective == "sop" else "nsp"

    @property
    def sentence_tokens(self) -> int:
        """Longest sentence of a sequence, in tokens: (length - 3) // 2 in pairs, length - 2 alone."""
        return (self.sequence_length - 3) // 2 if self.has_pairs else self.sequence_length - 2

    @property
    def text_tokens(self) -> int:
        """Tokens that a full sequence has beside [CLS] and [SEP]."""
        return self.sequence_length - (3 if self.has_pairs else 2)

    def rate_at(self, step: int) -> float:
        """Return the share of tokens to predict at a step, numbered from 1: a fact of the recipe and the step.

        Source: Ankner et al. 2023, "Dynamic Masking Rate Schedules for MLM Pretraining" (linear).
        """
        if not self.mask_rate_steps:
            return self.mask_rate
        if step >= self.mask_rate_steps:
            return self.final_mask_rate
        way = max(step - 1, 0) / (self.mask_rate_steps - 1)
        return self.mask_rate + way * (self.final_mask_rate - self.mask_rate)

    def length_weights(self) -> npt.NDArray[np.float64]:
        """Return the share of units of 1, 2, ... words, float64, adding up to 1; [1] where units are single words."""
        match self.mask_unit:
            case "ngram":
                weights = np.array(self.ngram_weights, dtype=np.float64)
            case "span":
                weights = np.asarray((1.0 - self.span_end) ** np.arange(self.span_words), dtype=np.float64)
            case _:
                weights = np.ones(1)
        shares: npt.NDArray[np.float64] = weights / weights.sum()
        return shares


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """What held-out accuracy is measured on. The masks are fixed: no seed and no training setting changes them."""

    predictions: Annotated[int, Range(100)] = 4_000
    """About how many masked held-out tokens each evaluation along the run scores."""
    final_predictions: Annotated[int, Range(100)] = 40_000
    """At most how many the evaluation at the end scores; the baselines are scored on the same ones."""
    min_predictions: Annotated[int, Range(1)] = 2_000
    """Where one round of masks gives fewer, further rounds mask the same text anew until there are so many."""
    max_pairs_per_group: Annotated[int, Range(1)] = 40
    """Most sentence pairs of one held-out group (title): a single long article must not decide the figure."""
