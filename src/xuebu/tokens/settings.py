"""Settings of the vocabulary and of the token store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from xuebu.config import Range

SegmenterKind = Literal["rjieba", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VocabularySettings:
    """How the vocabulary is drawn up from the training documents."""

    kind: Literal["character"] = "character"
    """character: every character is a token, Latin letters and digits too."""
    min_count: Annotated[int, Range(1)] = 2
    """Rarer characters become [UNK]: what was seen once cannot be learned, and [UNK] has to be seen to be learned."""
    max_size: Annotated[int, Range(6, 1_114_117)] = 21_128
    """Most entries, the five special ones included; the most frequent characters are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """How documents become token shards."""

    segmenter: SegmenterKind = "rjieba"
    """What finds words for whole-word masking; none: each token is its own word."""
    shard_tokens: Annotated[int, Range(1)] = 64 * 2**20
    """Most tokens of one shard file; a longer document gets a shard of its own."""
