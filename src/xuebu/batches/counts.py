"""What masking did, in sums that add up over batches, and whether that is what the settings ask for."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from xuebu.batches.settings import WORD_UNITS, BatchSettings

FALSE_ALARM = 1e-14
"""Most probability that one look at a figure calls it wrong by chance: of 10,000 looks at 5 figures, below 1e-9."""
_MIN_WORDS = 1_500  # 0.98 to this power is 7e-14: if 2 % of words were longer than a token, one would have been seen
_MIN_TEXTS = 300  # 0.9 to this power is 2e-14: if 10 % of texts held more than a word, one would have been seen


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskCounts:
    """Sums over the rows of some batches.

    Attributes:
        tokens: all of them, [CLS] and [SEP] included.
        maskable: those that may be predicted: neither special nor [UNK].
        predicted: those that are.
        masked, random, kept, matched: these by what became of them.
        expected: predictions that the rate asks for.
        variance: of their number, for units that are drawn each on its own.
        largest_unit: most tokens that were drawn together.
        unfilled: most predictions that exact budgets may have to leave out, since units are not cut.
        words: words, where word-start bits were read.
        long_words: words with two maskable tokens or more.
        touched_words: long words with a predicted token.
        whole_words: long words all of whose maskable tokens are predicted.
        texts: runs of text of four tokens and more, where word-start bits were read.
        one_word_texts: those that are a single word.
    """

    tokens: int = 0
    maskable: int = 0
    predicted: int = 0
    masked: int = 0
    random: int = 0
    kept: int = 0
    matched: int = 0
    expected: float = 0.0
    variance: float = 0.0
    largest_unit: int = 0
    unfilled: int = 0
    words: int = 0
    long_words: int = 0
    touched_words: int = 0
    whole_words: int = 0
    texts: int = 0
    one_word_texts: int = 0

    def __add__(self, other: MaskCounts) -> MaskCounts:
        """Return the counts of both."""
        added = {name: getattr(self, name) + getattr(other, name) for name in _NAMES}
        return MaskCounts(**added, largest_unit=max(self.largest_unit, other.largest_unit))


_NAMES = [field.name for field in dataclasses.fields(MaskCounts) if field.name != "largest_unit"]


def tolerance(variance: float, largest: float) -> float:
    """Return how far a sum of independent terms may be from its mean, but for a probability of `FALSE_ALARM`.

    Args:
        variance: of the sum.
        largest: no term is further from its own mean than this.

    Source: Bernstein's inequality, P(|X - E X| >= t) <= 2 exp(-t^2 / (2 (variance + largest t / 3))), solved for t.
    """
    bound = math.log(2.0 / FALSE_ALARM)
    linear = largest * bound / 3.0
    return linear + math.sqrt(linear * linear + 2.0 * variance * bound)


def mask_problem(counts: MaskCounts, settings: BatchSettings, segmenter: str = "") -> str:
    """Return the first thing that was masked otherwise than the settings say, in one line; "" if all is well.

    With few counts the tolerance is wide, so that chance alone never brings a line about (see `FALSE_ALARM`). A setting
    that does nothing is told from 1,500 words.

    Args:
        counts: of some batches.
        settings: that they were made by.
        segmenter: what cut the store's words, for the message.
    """
    words = _words_problem(counts, settings, segmenter)
    return words or _rate_problem(counts, settings) or _shares_problem(counts, settings)


def _words_problem(counts: MaskCounts, settings: BatchSettings, segmenter: str) -> str:
    if settings.mask_unit not in WORD_UNITS:
        return ""
    unit, cut_by = f'`batches.mask_unit` = "{settings.mask_unit}"', f" (cut by {segmenter})" if segmenter else ""
    if counts.texts >= _MIN_TEXTS and counts.one_word_texts == counts.texts:
        return (
            f"{unit} would mask whole texts or nothing: each of {counts.texts:,} texts of the store is one single word"
            f'{cut_by}; build the store with another `store.segmenter`, or mask by "character"'
        )
    if settings.mask_unit in ("word", "pmi") and counts.words >= _MIN_WORDS and not counts.long_words:
        return (
            f"{unit} would do nothing: each of {counts.words:,} words of the store is a single token{cut_by}; "
            'build the store with another `store.segmenter`, or mask by "character"'
        )
    if counts.whole_words < counts.touched_words:
        broken = counts.touched_words - counts.whole_words
        return f"{unit}: {broken:,} of {counts.touched_words:,} masked words are masked in part only"
    return ""


def _rate_problem(counts: MaskCounts, settings: BatchSettings) -> str:
    if not counts.maskable:
        if counts.tokens < _MIN_WORDS:
            return ""
        return f"none of {counts.tokens:,} tokens can be masked: all are special or [UNK]; use another vocabulary"
    low, high = expected_range(counts, settings)
    if low - 1e-6 <= counts.predicted <= high + 1e-6:
        return ""
    found, asked = counts.predicted / counts.maskable, counts.expected / counts.maskable
    return (
        f"{counts.predicted:,} of {counts.maskable:,} tokens are masked, {found:.2%}; `batches.mask_rate` asks for "
        f"{asked:.2%}, and by chance it would be {low / counts.maskable:.2%} to {high / counts.maskable:.2%}"
    )


def expected_range(counts: MaskCounts, settings: BatchSettings) -> tuple[float, float]:
    """Return between how many predictions there are but for a probability of `FALSE_ALARM`."""
    if settings.mask_budget == "exact":
        low, high = counts.expected - counts.unfilled, counts.expected
    else:
        margin = tolerance(counts.variance, float(counts.largest_unit))
        low, high = counts.expected - margin, counts.expected + margin
    return 0.0 if settings.max_predictions else max(low, 0.0), min(high, float(counts.maskable))


def _shares_problem(counts: MaskCounts, settings: BatchSettings) -> str:
    for name, found, share in shares_of(counts, settings):
        margin = tolerance(counts.predicted * share * (1.0 - share), 1.0) if 0.0 < share < 1.0 else 0.0
        if abs(found - counts.predicted * share) > margin + 1e-6:
            return (
                f"{found:,} of {counts.predicted:,} chosen tokens, {found / max(counts.predicted, 1):.2%}, became "
                f"{name}; the settings ask for {share:.2%}"
            )
    return ""


def shares_of(counts: MaskCounts, settings: BatchSettings) -> list[tuple[str, int, float]]:
    """Return what chosen tokens became: (name, how many, the share that the settings ask for)."""
    replaced, drawn = settings.mask_token_share, settings.random_token_share
    matched = settings.mask_replacement == "matched"
    kept = max(1.0 - replaced - drawn, 0.0)
    return [
        ("[MASK]", counts.masked, 0.0 if matched else replaced),
        ("a token of similar frequency", counts.matched, replaced if matched else 0.0),
        ("a random token", counts.random, drawn),
        ("themselves", counts.kept, kept if kept > 1e-9 else 0.0),
    ]
