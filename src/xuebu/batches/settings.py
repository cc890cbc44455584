"""Settings of batches: how sequences are formed and masked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from xuebu.config import Range
from xuebu.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """How a step's sequences are formed and masked."""

    objective: Literal["nsp", "mlm"] = "nsp"
    """nsp: sentence pairs, half of them true neighbors, with next-sentence prediction; mlm: one sentence a sequence."""
    sequences_per_step: Annotated[int, Range(1, 1_000_000)] = 64
    """Sequences of one optimizer update, over all micro-batches."""
    sequence_length: Annotated[int, Range(8, 65_536)] = 128
    """Longest sequence in tokens, [CLS] and [SEP] included; each sentence of a pair gets half of the rest."""
    mask_rate: Annotated[float, Range(0.01, 0.9)] = 0.15
    """Share of tokens chosen for prediction (each on its own, so the realized share varies)."""
    mask_unit: Literal["character", "word"] = "character"
    """What is chosen: single tokens, or whole words by the word-start bits of the store."""
    mask_token_share: Annotated[float, Range(0.0, 1.0)] = 0.8
    """Share of the chosen tokens that become [MASK]."""
    random_token_share: Annotated[float, Range(0.0, 1.0)] = 0.1
    """Share of the chosen tokens that become a random token; what is left stays as it is."""

    def __post_init__(self) -> None:
        """Check what no single field can tell."""
        if self.mask_token_share + self.random_token_share > 1.0 + 1e-9:
            raise ConfigError("`mask_token_share` and `random_token_share` add up to more than 1")

    @property
    def sentence_tokens(self) -> int:
        """Longest sentence of a sequence, in tokens: (length - 3) // 2 in pairs, length - 2 alone."""
        return (self.sequence_length - 3) // 2 if self.objective == "nsp" else self.sequence_length - 2


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
