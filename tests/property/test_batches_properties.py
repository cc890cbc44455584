"""Masking and packing over arbitrary rows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xuebu.batches.batch import KEPT, MASKED, MATCHED, NO_PAIR, RANDOM, Batch
from xuebu.batches.counts import mask_problem
from xuebu.batches.masking import make_replacements, mask_tokens
from xuebu.batches.packing import split_micro_batches
from xuebu.batches.rows import Rows
from xuebu.batches.settings import BatchSettings
from xuebu.batches.units import choose_units, phrase_starts
from xuebu.rng import draw_bits, draw_uniform
from xuebu.tokens.special import SpecialIds

VOCAB, MASK, SPECIAL = 30, 4, 5
REPLACEMENTS = make_replacements(
    SpecialIds(0, 1, 2, 3, MASK), VOCAB, np.where(np.arange(VOCAB) % 7 == 6, 0, np.arange(VOCAB) ** 2)
)
UNITS = ("character", "word", "ngram", "span", "pmi")


def words_of(rows):
    """The words of each row: lists of its maskable tokens, numbered in the batch."""
    words = {}
    number = np.cumsum(rows.word_starts)
    for place in np.flatnonzero(rows.tokens >= SPECIAL):
        words.setdefault(int(rows.rows[place]), {}).setdefault(int(number[place]), []).append(int(place))
    return {row: list(found.values()) for row, found in words.items()}


@st.composite
def rows_to_mask(draw):
    """Rows of `[CLS] text [SEP] ...`, texts with [UNK] among their tokens and words of any length."""
    tokens, starts, places, rows = [], [], [], []
    sizes = draw(st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=3), min_size=1, max_size=5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    word_share = draw(st.floats(0, 1))
    for row, texts in enumerate(sizes):
        tokens, starts, places, rows = [*tokens, 2], [*starts, True], [*places, -1], [*rows, row]
        for size in texts:
            ids = np.where(rng.random(size) < 0.1, 1, rng.integers(SPECIAL, VOCAB, size))
            tokens += [*ids.tolist(), 3]
            starts += [True, *(rng.random(size - 1) < word_share).tolist(), True]
            places += [*range(100, 100 + size), -1]
            rows += [row] * (size + 1)
    offsets = np.append(np.flatnonzero(np.diff(rows, prepend=-1)), len(rows))
    return Rows(
        tokens=np.array(tokens, dtype=np.int32),
        segment_ids=np.zeros(len(tokens), dtype=np.int8),
        word_starts=np.array(starts),
        row_offsets=offsets,
        rows=np.array(rows),
        places=np.array(places),
    )


@st.composite
def maskings(draw, units=UNITS):
    share = draw(st.floats(0, 1))
    return BatchSettings(
        mask_rate=draw(st.floats(0.01, 0.9)),
        mask_unit=draw(st.sampled_from(units)),
        ngram_weights=tuple(draw(st.lists(st.floats(0.01, 1), min_size=1, max_size=5))),
        span_end=draw(st.floats(0.01, 1)),
        mask_budget=draw(st.sampled_from(["bernoulli", "exact"])),
        max_predictions=draw(st.sampled_from([0, 1, 3, 10])),
        mask_replacement=draw(st.sampled_from(["mask", "matched"])),
        mask_token_share=share,
        random_token_share=draw(st.floats(0, 1)) * (1 - share),
    )


def run(rows, settings_, key):
    keys = draw_bits(key, rows.rows)
    counters = np.arange(len(rows.tokens)) - rows.row_offsets[rows.rows]
    return mask_tokens(rows, keys, counters, settings_, REPLACEMENTS, rate=settings_.mask_rate)


def part_of(rows, chosen):
    """Some rows, in another order."""
    tokens = np.concatenate([np.arange(*rows.row_offsets[row : row + 2]) for row in chosen])
    lengths = np.diff(rows.row_offsets)[chosen]
    return tokens, Rows(
        tokens=rows.tokens[tokens],
        segment_ids=rows.segment_ids[tokens],
        word_starts=rows.word_starts[tokens],
        row_offsets=np.append(0, np.cumsum(lengths)),
        rows=np.repeat(np.arange(len(chosen)), lengths),
        places=rows.places[tokens],
    )


@given(rows_to_mask(), maskings(), st.integers(0, 2**63))
def test_masking_keeps_labels_and_specials(rows, settings_, key):
    tokens = rows.tokens
    masked = run(rows, settings_, key)
    chosen = np.zeros(len(tokens), dtype=bool)
    chosen[masked.positions] = True
    assert (np.diff(masked.positions) > 0).all()
    assert (masked.labels == tokens[masked.positions]).all() and (masked.labels >= SPECIAL).all()
    assert (masked.input_ids[~chosen] == tokens[~chosen]).all()
    shown, kinds = masked.input_ids[masked.positions], masked.kinds
    assert (shown[kinds == MASKED] == MASK).all()
    assert (shown[kinds == KEPT] == masked.labels[kinds == KEPT]).all()
    replaced = shown[(kinds == RANDOM) | (kinds == MATCHED)]
    assert ((replaced >= SPECIAL) & (replaced < VOCAB)).all()
    assert (shown[kinds == MATCHED] != masked.labels[kinds == MATCHED]).all()
    assert (kinds != (MASKED if settings_.mask_replacement == "matched" else MATCHED)).all()


@given(rows_to_mask(), maskings(UNITS[1:]), st.integers(0, 2**63))
def test_whole_words_are_whole(rows, settings_, key):
    chosen = set(run(rows, settings_, key).positions.tolist())
    for words in words_of(rows).values():
        for word in words:
            assert len(chosen & set(word)) in (0, len(word))


@given(rows_to_mask(), maskings(), st.integers(0, 2**63))
def test_budgets(rows, settings_, key):
    """Within its budget, and if exact, no further unit fits: of single tokens, it is met to the token."""
    masked = run(rows, settings_, key)
    chosen = set(masked.positions.tolist())
    for row, words in words_of(rows).items():
        size = sum(map(len, words))
        found = len(chosen & {token for word in words for token in word})
        budget = max(1, round(settings_.mask_rate * size)) if settings_.mask_budget == "exact" else size
        budget = min(budget, settings_.max_predictions or budget)
        assert found <= budget
        if settings_.mask_budget == "exact" and settings_.mask_unit == "character":
            assert found == budget
        if settings_.mask_budget == "exact" and settings_.mask_unit in ("word", "pmi"):
            left = [len(word) for word in words if not chosen & set(word)]
            assert not left or min(left) > budget - found, row
    assert not mask_problem(masked.counts, settings_)


@given(rows_to_mask(), maskings(), st.integers(0, 2**63), st.randoms(use_true_random=False))
def test_a_rows_masks_are_its_own(rows, settings_, key, random):
    """In another order, and with some of the rows gone, each row meets the same fate."""
    count = len(rows.row_offsets) - 1
    chosen = np.array(random.sample(range(count), random.randint(1, count)))
    tokens, some = part_of(rows, chosen)
    whole = run(rows, settings_, key)
    keys = draw_bits(key, chosen)[some.rows]
    counters = np.arange(len(some.tokens)) - some.row_offsets[some.rows]
    part = mask_tokens(some, keys, counters, settings_, REPLACEMENTS, rate=settings_.mask_rate)
    assert (part.input_ids == whole.input_ids[tokens]).all()
    assert set(tokens[part.positions].tolist()) == set(tokens.tolist()) & set(whole.positions.tolist())


@given(st.lists(st.tuples(st.integers(1, 7), st.floats(0, 1, exclude_max=True)), min_size=1, max_size=40), st.data())
def test_budgets_are_filled_as_one_by_one(units, data):
    """The vectorized filling equals going through the units in the order of their draws."""
    sizes = np.array([size for size, _ in units])
    draws = np.array([draw for _, draw in units])
    rows = np.sort(data.draw(st.lists(st.integers(0, 4), min_size=len(units), max_size=len(units))))
    budgets = np.array(data.draw(st.lists(st.integers(0, 20), min_size=5, max_size=5)))
    expected, left = np.zeros(len(units), dtype=bool), budgets.copy()
    for unit in sorted(range(len(units)), key=lambda unit: (rows[unit], draws[unit], unit)):
        if sizes[unit] <= left[rows[unit]]:
            expected[unit] = True
            left[rows[unit]] -= sizes[unit]
    assert (choose_units(sizes, rows, draws, 0.0, budgets, exact=True) == expected).all()


@given(rows_to_mask(), maskings(("ngram", "span")), st.integers(0, 2**63))
def test_phrases_are_cut_as_one_by_one(rows, settings_, key):
    """Pointer doubling equals walking through each text, and no unit is longer than what its row has to mask."""
    weights, rate = settings_.length_weights(), settings_.mask_rate
    draws = draw_uniform(key, np.arange(len(rows.tokens)))
    starts = phrase_starts(rows.word_starts, rows.is_text, rows.row_offsets, draws, weights=weights, rate=rate)
    expected = np.zeros(len(rows.tokens), dtype=bool)
    for row in range(len(rows.row_offsets) - 1):
        first, last = rows.row_offsets[row : row + 2]
        begins = [place for place in range(first, last) if rows.word_starts[place]]
        words = sum(bool(rows.is_text[place]) for place in begins)
        longest = min(max(1, int(rate * words + 1e-9)), len(weights))
        left = 0
        for place in begins:
            if not rows.is_text[place] or not rows.is_text[place - 1] or not left:
                expected[place] = True
                share = draws[place] * weights[:longest].sum()
                left = next((n + 1 for n in range(longest) if share < weights[: n + 1].sum()), longest)
                left = left if rows.is_text[place] else 1
            left -= 1
    assert (starts == expected).all()


@st.composite
def batches(draw):
    lengths = np.array(draw(st.lists(st.integers(3, 70), min_size=1, max_size=30)))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    total = int(offsets[-1])
    chosen = np.flatnonzero(draw_bits(draw(st.integers(0, 2**32)), np.arange(total)) % np.uint64(5) == 0)
    ids = np.arange(1, total + 1, dtype=np.int32)  # each token is another one, and none is padding
    return Batch(
        step=1,
        input_ids=ids,
        segment_ids=(ids % 2).astype(np.int8),
        row_offsets=offsets,
        masked_positions=chosen,
        labels=-ids[chosen],
        mask_kinds=np.zeros(len(chosen), dtype=np.int8),
        nsp_labels=(np.arange(len(lengths)) % 3 + NO_PAIR).astype(np.int8),
        row_documents=np.zeros((len(lengths), 2), dtype=np.int64),
    )


@given(batches(), st.integers(72, 700))
def test_micro_batches_are_the_batch(batch, budget):
    ids, labels, pairs = [], {}, {}
    for micro in split_micro_batches(batch, budget):
        assert micro.input_ids.size <= budget
        strides = np.repeat([length for _, length in micro.blocks], [count for count, _ in micro.blocks])
        real = np.zeros(micro.input_ids.size, dtype=bool)
        for start, length in zip(np.cumsum(strides) - strides, micro.lengths, strict=True):
            real[start : start + length] = True
        ids += micro.input_ids[real].tolist()
        assert not micro.input_ids[~real].any()
        at = micro.input_ids[micro.masked_positions]
        labels |= dict(zip(micro.predictions.tolist(), zip(at, micro.labels, strict=True), strict=True))
        pairs |= dict(zip(micro.rows.tolist(), micro.nsp_labels.tolist(), strict=True))
    assert sorted(ids) == batch.input_ids.tolist()
    assert len(labels) == batch.num_predictions
    assert all(token == -label == batch.input_ids[batch.masked_positions[n]] for n, (token, label) in labels.items())
    assert [pairs[row] for row in range(batch.num_rows)] == batch.nsp_labels.tolist()
