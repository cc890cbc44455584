"""Masking of tokens for prediction, as a pure function of keys and counters.

Source: Devlin et al. 2019, "BERT", section 3.1 (15 %, of these 80 % [MASK], 10 % random, 10 % kept); whole words:
Cui et al. 2021, "Pre-Training With Whole Word Masking for Chinese BERT".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xuebu.batches.batch import KEPT, MASKED, RANDOM
from xuebu.batches.settings import BatchSettings
from xuebu.rng import draw_below, draw_uniform

_CHANNELS = 4  # counters 4p .. 4p+3 belong to position p: choice, kind, replacement, one in reserve


@dataclass(frozen=True, slots=True, eq=False)
class MaskedTokens:
    """Tokens after masking, and what was there before.

    Attributes:
        input_ids: int32[N], the tokens with the chosen ones replaced.
        positions: int64[M], indices of the chosen ones, increasing.
        labels: int32[M], their ids before.
        kinds: int8[M], MASKED, RANDOM or KEPT.
    """

    input_ids: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int32]
    kinds: npt.NDArray[np.int8]


def mask_tokens(
    tokens: npt.NDArray[np.int32],
    keys: npt.NDArray[np.uint64],
    counters: npt.NDArray[np.int64],
    word_starts: npt.NDArray[np.bool_],
    settings: BatchSettings,
    *,
    num_tokens: int,
    mask_id: int,
    num_special: int,
) -> MaskedTokens:
    """Choose tokens and replace them, each by its own draw.

    The draws of a token depend on its key and counter alone, so neither the batch around it nor the order of the
    rows changes them.

    Args:
        tokens: int32[N], ids; special tokens (below `num_special`, [UNK] apart) are never chosen.
        keys: uint64[N], the key of each token's stream (its sample's).
        counters: int64[N], its number in that stream, >= 0.
        word_starts: bool[N], True where a word starts; read for `mask_unit = "word"` only. The first token of every
            sentence must be True.
        settings: rates and unit.
        num_tokens: size of the vocabulary; random replacements are uniform on [num_special, num_tokens).
        mask_id: id of [MASK].
        num_special: number of special tokens, which are ids 0 .. num_special - 1.

    Returns:
        The masked tokens. [UNK] is never chosen either: there is nothing to learn from it.
    """
    choice = draw_uniform(keys, counters * _CHANNELS)
    if settings.mask_unit == "word":
        first_of_word = np.maximum.accumulate(np.where(word_starts, np.arange(len(tokens)), 0))
        choice = choice[first_of_word]
    positions = np.flatnonzero((choice < settings.mask_rate) & (tokens >= num_special))
    labels = tokens[positions]
    chosen_keys, chosen_counters = keys[positions], counters[positions] * _CHANNELS
    kind_draw = draw_uniform(chosen_keys, chosen_counters + 1)
    kinds = np.full(len(positions), KEPT, dtype=np.int8)
    kinds[kind_draw < settings.mask_token_share + settings.random_token_share] = RANDOM
    kinds[kind_draw < settings.mask_token_share] = MASKED
    input_ids = tokens.copy()
    input_ids[positions[kinds == MASKED]] = mask_id
    is_random = kinds == RANDOM
    replacements = num_special + draw_below(
        chosen_keys[is_random], chosen_counters[is_random] + 2, num_tokens - num_special
    )
    input_ids[positions[is_random]] = replacements.astype(np.int32)
    return MaskedTokens(input_ids, positions, labels, kinds)
