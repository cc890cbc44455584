"""What is masked as a whole: the units that rows are cut into, and which of them are chosen.

A unit is a token, a word, or some words in a row. Every token belongs to one unit, and every unit is as likely to be
chosen as any other, so that each token is predicted with the same probability, whatever the lengths of units and
wherever it stands.

Letters: N tokens, U units, B rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """Rows cut into units.

    Attributes:
        of_token: int64[N], the unit of each token.
        first: int64[U], the first token of each unit, increasing.
    """

    of_token: Int64
    first: Int64


def units_from(starts: Bool) -> Units:
    """Return the units that begin where `starts` (bool[N]) is True; the first token must begin one."""
    return Units(np.cumsum(starts) - 1, np.flatnonzero(starts))


def phrase_starts(
    word_starts: Bool, is_text: Bool, row_offsets: Int64, draws: Float64, *, weights: Float64, rate: float
) -> Bool:
    """Cut each text, from its first word on, into units of 1, 2, ... words; return where they begin.

    Lengths are drawn one by one with the given weights. No unit is longer than the number of words that its row has to
    mask (its words times the rate, rounded down, at least 1), so short texts get short units; the weights of the
    lengths that are left keep their proportions. A text ends at [CLS], at [SEP] and at the end of its row.

    Args:
        word_starts: bool[N]; True at each token that is no text, and at the first one of every text.
        is_text: bool[N], False for [CLS] and [SEP].
        row_offsets: int64[B + 1].
        draws: float64[N] in [0, 1); that of a word's first token draws the length of the unit that begins there.
        weights: float64[K], share of each length.
        rate: share of tokens to mask.

    Returns:
        bool[N]. It takes as many steps as the logarithm of the longest text: every word knows where a unit that began
        with it would end, and the distance covered doubles at each step.

    Source: Cui et al. 2020, "Revisiting Pre-Trained Models for Chinese NLP", 3.1 (1 to 4 words, 40/30/20/10 %); Joshi
    et al. 2020, "SpanBERT", 3.1 (geometric lengths). SpanBERT draws places one after the other, which masks the edges
    of a text less than its middle; here every token is as likely to be masked.
    """
    first = np.flatnonzero(word_starts)
    num_words, text = len(first), is_text[first]
    if not num_words:
        return np.zeros(0, dtype=np.bool_)
    rows = np.searchsorted(row_offsets, first, side="right") - 1
    words_of_row = np.bincount(rows[text], minlength=len(row_offsets) - 1)
    longest = np.clip(np.floor(rate * words_of_row + 1e-9), 1, len(weights)).astype(np.int64)[rows]
    cumulative = np.cumsum(weights)
    lengths = np.searchsorted(cumulative, draws[first] * cumulative[longest - 1], side="right") + 1
    lengths = np.where(text, np.minimum(lengths, longest), 1)

    breaks = ~text
    breaks[1:] |= ~text[:-1] | (rows[1:] != rows[:-1])
    breaks[0] = True
    number = np.arange(num_words + 1)
    following = np.append(np.where(breaks, number[:-1], num_words), num_words)
    next_break = np.minimum.accumulate(following[::-1])[::-1][1:]
    ends = np.append(np.minimum(number[:-1] + lengths, next_break), num_words)
    reached = np.append(breaks, True)
    reach, longest_text = 1, int(np.diff(np.append(np.flatnonzero(breaks), num_words)).max())
    while reach < longest_text:
        reached[ends[np.flatnonzero(reached)]] = True
        ends = ends[ends]
        reach *= 2
    starts = np.zeros(len(word_starts), dtype=np.bool_)
    starts[first[reached[:-1]]] = True
    return starts


def choose_units(sizes: Int64, rows: Int64, draws: Float64, rate: float, budgets: Int64 | None, *, exact: bool) -> Bool:
    """Choose units by their own draws, or by budgets of tokens.

    Args:
        sizes: int64[U], tokens of each unit that can be predicted; a unit without any is never chosen.
        rows: int64[U], the row of each unit, not decreasing.
        draws: float64[U] in [0, 1).
        rate: share of units that are chosen, where `exact` is False.
        budgets: int64[B], most tokens of each row; None: no limit.
        exact: units are taken in the order of their draws until no further one fits into the budget.

    Returns:
        bool[U].

    Source: `create_masked_lm_predictions` in Google's create_pretraining_data.py, for the exact budgets.
    """
    candidates = sizes > 0
    if not exact:
        candidates &= draws < rate
    if budgets is None:
        return candidates
    chosen = np.zeros(len(sizes), dtype=np.bool_)
    order = np.flatnonzero(candidates)
    if not exact:  # few rows exceed the limit; of the others all candidates stay
        excess = np.bincount(rows[order], weights=sizes[order], minlength=len(budgets)) > budgets
        chosen[order[~excess[rows[order]]]] = True
        order = order[excess[rows[order]]]
    order = order[np.lexsort((draws[order], rows[order]))]
    left = budgets.copy()
    while order.size:
        order = order[sizes[order] <= left[rows[order]]]  # what does not fit now never will
        total = np.cumsum(sizes[order])
        row = rows[order]
        before = np.searchsorted(row, row, side="left")
        within = total - np.append(0, total)[before]
        fits = within <= left[row]  # a row's first units, up to the one that does not fit
        chosen[order[fits]] = True
        left -= np.bincount(row[fits], weights=sizes[order[fits]], minlength=len(left)).astype(np.int64)
        order = order[~fits]
    return chosen


def token_budgets(maskable: Int64, rate: float, max_predictions: int, *, exact: bool) -> Int64 | None:
    """Return the most tokens that each row may have predicted, int64[B]; None where nothing limits them.

    Args:
        maskable: int64[B], tokens of each row that can be predicted.
        rate: share of them.
        max_predictions: limit of each row, 0 for none.
        exact: rate times tokens, rounded, at least 1.

    Source: `create_masked_lm_predictions` in Google's create_pretraining_data.py, which counts [CLS] and [SEP] in.
    """
    budgets = None
    if exact:
        budgets = np.where(maskable > 0, np.maximum(np.rint(rate * maskable), 1.0), 0.0).astype(np.int64)
    if max_predictions:
        budgets = np.minimum(maskable if budgets is None else budgets, max_predictions)
    return budgets
