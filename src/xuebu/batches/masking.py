"""Masking of tokens for prediction, as a pure function of keys and counters.

Source: Devlin et al. 2019, "BERT", section 3.1 (15 %, of these 80 % [MASK], 10 % random, 10 % kept); whole words:
Cui et al. 2021, "Pre-Training With Whole Word Masking for Chinese BERT"; PMI: Levine et al. 2021, "PMI-Masking". For
further kinds see `units`.

Letters: N tokens, M predictions, B rows, V entries of the vocabulary, K of them ordinary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xuebu.batches.batch import KEPT, MASKED, MATCHED, RANDOM
from xuebu.batches.counts import MaskCounts
from xuebu.batches.rows import Rows
from xuebu.batches.settings import WORD_UNITS, BatchSettings
from xuebu.batches.units import Units, choose_units, phrase_starts, token_budgets, units_from
from xuebu.errors import ConfigError
from xuebu.rng import draw_below, draw_uniform
from xuebu.tokens.special import SpecialIds

_CHANNELS = 4  # counters 4p .. 4p+3 belong to position p: choice, kind, replacement, length of a unit
_SHORT_TEXT = 4  # tokens from which on a text says something about how it was cut into words
MATCHED_RANKS = 50
"""A token of similar frequency is drawn from so many on either side, by rank."""


@dataclass(frozen=True, slots=True, eq=False)
class Replacements:
    """What may be masked, and what may stand in its place.

    Attributes:
        mask_id: id of [MASK].
        is_ordinary: bool[V], whether a token may be predicted; of [UNK] there is nothing to learn.
        ordinary: int32[K], these ids, increasing: what random tokens are drawn from, each as likely as any other.
        by_frequency: int32[F], those seen in training by falling frequency, ties by id; None where nothing is drawn by
            frequency.
        rank: int64[V], the place of each there; of one never seen, the last.
    """

    mask_id: int
    is_ordinary: npt.NDArray[np.bool_]
    ordinary: npt.NDArray[np.int32]
    by_frequency: npt.NDArray[np.int32] | None = None
    rank: npt.NDArray[np.int64] | None = None


def make_replacements(
    special: SpecialIds, num_tokens: int, counts: npt.NDArray[np.int64] | None = None
) -> Replacements:
    """Return the replacements of a vocabulary.

    Args:
        special: its special ids.
        num_tokens: V.
        counts: int64[V], how often each token stands in the training text; for `mask_replacement` "matched" only.

    Raises:
        ConfigError: counts are given, and fewer than two tokens could replace each other.
    """
    ordinary = special.ordinary_ids(num_tokens)
    is_ordinary = ~special.is_special(num_tokens)
    if counts is None:
        return Replacements(special.mask, is_ordinary, ordinary)
    seen = ordinary[counts[ordinary] > 0]
    if len(seen) < 2:
        raise ConfigError('`mask_replacement` = "matched" needs two tokens or more in the training text; use "mask"')
    by_frequency = seen[np.argsort(-counts[seen], kind="stable")]
    rank = np.full(num_tokens, len(seen) - 1, dtype=np.int64)
    rank[by_frequency] = np.arange(len(by_frequency))
    return Replacements(special.mask, is_ordinary, ordinary, by_frequency, rank)


@dataclass(frozen=True, slots=True, eq=False)
class MaskedTokens:
    """Tokens after masking, and what was there before.

    Attributes:
        input_ids: int32[N], the tokens with the chosen ones replaced.
        positions: int64[M], indices of the chosen ones, increasing.
        labels: int32[M], their ids before.
        kinds: int8[M], MASKED, RANDOM, KEPT or MATCHED.
        counts: what was done, in sums.
    """

    input_ids: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int32]
    kinds: npt.NDArray[np.int8]
    counts: MaskCounts


def mask_tokens(
    rows: Rows,
    keys: npt.NDArray[np.uint64],
    counters: npt.NDArray[np.int64],
    settings: BatchSettings,
    replacements: Replacements,
    *,
    rate: float,
) -> MaskedTokens:
    """Choose units and replace their tokens, each by its own draw.

    The draws of a token depend on its key and counter alone, and which units of a row are chosen on this row alone, so
    neither the batch around it nor the order of the rows changes them.

    Args:
        rows: what to mask. Word starts are read where units are made of words, and counted where there are any.
        keys: uint64[N], the key of each token's stream (its sample's).
        counters: int64[N], its number in that stream, >= 0.
        settings: unit, budget and shares.
        replacements: of the vocabulary; with frequencies where the settings ask for matched ones.
        rate: share of tokens to choose (see `BatchSettings.rate_at`).

    Returns:
        The masked tokens. [UNK] and special tokens are never chosen; the rest of a unit that holds one is.
    """
    tokens = rows.tokens
    maskable = replacements.is_ordinary[tokens]
    units = _cut(rows, keys, counters, settings, rate)
    sizes = np.bincount(units.of_token[maskable], minlength=len(units.first))
    row_of_unit = rows.rows[units.first]
    maskable_of_row = np.bincount(rows.rows[maskable], minlength=len(rows.row_offsets) - 1)
    exact = settings.mask_budget == "exact"
    budgets = token_budgets(maskable_of_row, rate, settings.max_predictions, exact=exact)
    draws = draw_uniform(keys[units.first], counters[units.first] * _CHANNELS)
    chosen = choose_units(sizes, row_of_unit, draws, rate, budgets, exact=exact)
    positions = np.flatnonzero(chosen[units.of_token] & maskable)
    input_ids, kinds = _replace(
        tokens,
        positions,
        keys[positions],
        counters[positions] * _CHANNELS,
        settings=settings,
        replacements=replacements,
    )
    of_kind = np.bincount(kinds, minlength=MATCHED + 1).tolist()
    total = int(maskable_of_row.sum())
    counts = MaskCounts(
        tokens=len(tokens),
        maskable=total,
        predicted=len(positions),
        masked=of_kind[MASKED],
        random=of_kind[RANDOM],
        kept=of_kind[KEPT],
        matched=of_kind[MATCHED],
        expected=float(budgets.sum()) if exact and budgets is not None else rate * total,
        variance=0.0 if exact else rate * (1.0 - rate) * float((sizes**2).sum()),
        largest_unit=int(sizes.max(initial=0)),
        unfilled=_most_unfilled(sizes, row_of_unit, budgets) if exact and budgets is not None else 0,
        **_count_words(rows, maskable, positions),
    )
    return MaskedTokens(input_ids, positions, tokens[positions], kinds, counts)


def _cut(
    rows: Rows,
    keys: npt.NDArray[np.uint64],
    counters: npt.NDArray[np.int64],
    settings: BatchSettings,
    rate: float,
) -> Units:
    """Cut rows into the units that the settings name."""
    if settings.mask_unit not in WORD_UNITS:
        everywhere = np.arange(len(rows.tokens))
        return Units(everywhere, everywhere)
    if rows.word_starts is None:
        raise ValueError(f"units of kind {settings.mask_unit!r} need rows with word starts")
    weights = settings.length_weights()
    if len(weights) == 1:
        return units_from(rows.word_starts)
    lengths = np.zeros(len(rows.tokens))
    first = np.flatnonzero(rows.word_starts)
    lengths[first] = draw_uniform(keys[first], counters[first] * _CHANNELS + 3)
    starts = phrase_starts(rows.word_starts, rows.is_text, rows.row_offsets, lengths, weights=weights, rate=rate)
    return units_from(starts)


def _replace(
    tokens: npt.NDArray[np.int32],
    positions: npt.NDArray[np.int64],
    keys: npt.NDArray[np.uint64],
    counters: npt.NDArray[np.int64],
    *,
    settings: BatchSettings,
    replacements: Replacements,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int8]]:
    """Return the input ids int32[N] and the kinds int8[M] of the chosen positions; keys and counters are theirs."""
    most = MATCHED if settings.mask_replacement == "matched" else MASKED
    draw = draw_uniform(keys, counters + 1)
    kinds = np.full(len(positions), KEPT, dtype=np.int8)
    kinds[draw < settings.mask_token_share + settings.random_token_share] = RANDOM
    kinds[draw < settings.mask_token_share] = most
    input_ids = tokens.copy()
    input_ids[positions[kinds == MASKED]] = replacements.mask_id
    at = kinds == RANDOM
    drawn = draw_below(keys[at], counters[at] + 2, len(replacements.ordinary))
    input_ids[positions[at]] = replacements.ordinary[drawn]
    if most == MATCHED:
        at = kinds == MATCHED
        input_ids[positions[at]] = match_frequency(tokens[positions[at]], keys[at], counters[at] + 2, replacements)
    return input_ids, kinds


def match_frequency(
    tokens: npt.NDArray[np.int32],
    keys: npt.NDArray[np.uint64],
    counters: npt.NDArray[np.int64],
    replacements: Replacements,
) -> npt.NDArray[np.int32]:
    """Return for each token another one of similar frequency, int32 of the same shape.

    Drawn evenly from the `MATCHED_RANKS` tokens on either side by rank of frequency; near the ends of the list, from as
    many on the side that is left. MacBERT takes words of similar meaning from a thesaurus of word vectors instead: its
    replacement often fits the sentence, and the model corrects near-synonyms. Here nothing but the frequency is alike:
    the replacement seldom fits, and neither a thesaurus nor the labels' meaning enters.

    Args:
        tokens: ordinary ids.
        keys, counters: of the draws, same shape.
        replacements: with frequencies.

    Source: Cui et al. 2020, "Revisiting Pre-Trained Models for Chinese NLP", 3.1, for what is done there.
    """
    by_frequency, rank = replacements.by_frequency, replacements.rank
    if by_frequency is None or rank is None:
        raise ValueError("replacements were made without frequencies")
    others = min(2 * MATCHED_RANKS, len(by_frequency) - 1)
    own = rank[tokens]
    start = np.clip(own - others // 2, 0, len(by_frequency) - 1 - others)
    drawn = start + draw_below(keys, counters, others)
    found: npt.NDArray[np.int32] = by_frequency[drawn + (drawn >= own)]
    return found


def _most_unfilled(sizes: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], budgets: npt.NDArray[np.int64]) -> int:
    """Return how many predictions units that are never cut may leave out of the budgets, over all rows."""
    largest = np.zeros(len(budgets), dtype=np.int64)
    np.maximum.at(largest, rows, sizes)
    return int(np.minimum(np.maximum(largest - 1, 0), budgets).sum())


def _count_words(rows: Rows, maskable: npt.NDArray[np.bool_], positions: npt.NDArray[np.int64]) -> dict[str, int]:
    """Return the counts of words and texts, none where word starts were not read."""
    if rows.word_starts is None or not len(rows.tokens):
        return {}
    first = np.flatnonzero(rows.word_starts)
    word = np.cumsum(rows.word_starts) - 1
    sizes = np.bincount(word[maskable], minlength=len(first))
    hit = np.bincount(word[positions], minlength=len(first))
    long, is_text = sizes > 1, rows.is_text
    parted = np.diff(rows.rows) > 0
    text_starts = np.flatnonzero(is_text & np.append(True, ~is_text[:-1] | parted))
    text_ends = np.flatnonzero(is_text & np.append(~is_text[1:] | parted, True)) + 1
    enough = text_ends - text_starts >= _SHORT_TEXT
    words_in_text = np.searchsorted(first, text_ends) - np.searchsorted(first, text_starts)
    return {
        "words": int(is_text[first].sum()),
        "long_words": int(long.sum()),
        "touched_words": int((long & (hit > 0)).sum()),
        "whole_words": int((long & (hit == sizes)).sum()),
        "texts": int(enough.sum()),
        "one_word_texts": int((enough & (words_in_text == 1)).sum()),
    }
