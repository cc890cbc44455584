import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest

from xuebu.batches.batch import KEPT, MASKED, RANDOM
from xuebu.batches.loader import Loader
from xuebu.batches.masking import make_replacements, mask_tokens
from xuebu.batches.rows import Rows
from xuebu.batches.settings import BatchSettings
from xuebu.rng import draw_bits
from xuebu.tokens.special import SpecialIds

SETTINGS = BatchSettings()
VOCAB, MASK, SPECIAL, ROW = 40, 4, 5, 50
REPLACEMENTS = make_replacements(SpecialIds(0, 1, 2, 3, MASK), VOCAB)


def rows_of(tokens, starts=None, width=ROW):
    """Rows of `width` tokens, all of them text."""
    places = np.arange(len(tokens))
    return Rows(
        tokens=tokens,
        segment_ids=np.zeros(len(tokens), dtype=np.int8),
        word_starts=np.ones(len(tokens), dtype=bool) if starts is None else starts,
        row_offsets=np.append(np.arange(0, len(tokens), width), len(tokens)),
        rows=places // width,
        places=places,
    )


def mask(tokens, settings=SETTINGS, stream=1, starts=None, width=ROW):
    rows = rows_of(tokens, starts, width)
    keys = draw_bits(stream, rows.rows)
    return mask_tokens(rows, keys, rows.places % width, settings, REPLACEMENTS, rate=settings.mask_rate)


def random_tokens(count, low=0):
    return np.random.default_rng(7).integers(low, VOCAB, count).astype(np.int32)


def within(count, total, share, sigmas=4.5):
    return abs(count - total * share) < sigmas * np.sqrt(total * share * (1 - share)) + 1e-9


@pytest.mark.parametrize("rate", [0.05, 0.15, 0.4])
def test_rate_and_shares(rate):
    tokens = random_tokens(200_000)
    settings = dataclasses.replace(SETTINGS, mask_rate=rate)
    masked = mask(tokens, settings)
    eligible = int((tokens >= SPECIAL).sum())
    chosen = len(masked.positions)
    assert within(chosen, eligible, rate)
    counts = Counter(masked.kinds.tolist())
    assert within(counts[MASKED], chosen, 0.8)
    assert within(counts[RANDOM], chosen, 0.1)
    assert within(counts[KEPT], chosen, 0.1)


@pytest.mark.parametrize(("mask_share", "random_share"), [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (0.5, 0.5)])
def test_shares_at_their_edges(mask_share, random_share):
    masked = mask(
        random_tokens(20_000),
        dataclasses.replace(SETTINGS, mask_token_share=mask_share, random_token_share=random_share),
    )
    share = {kind: np.mean(masked.kinds == kind) for kind in (MASKED, RANDOM, KEPT)}
    assert share[MASKED] == pytest.approx(mask_share, abs=0.04)
    assert share[RANDOM] == pytest.approx(random_share, abs=0.04)
    assert (share[KEPT] == 0.0) == (mask_share + random_share == 1.0)


def test_kinds_are_what_was_done():
    tokens = random_tokens(100_000)
    before = tokens.copy()
    masked = mask(tokens)
    assert (tokens == before).all()  # the argument is not written to
    assert (masked.labels == tokens[masked.positions]).all()
    assert (masked.labels >= SPECIAL).all()  # never a special token, never [UNK]
    shown = masked.input_ids[masked.positions]
    assert (shown[masked.kinds == MASKED] == MASK).all()
    assert (shown[masked.kinds == KEPT] == masked.labels[masked.kinds == KEPT]).all()
    untouched = np.ones(len(tokens), dtype=bool)
    untouched[masked.positions] = False
    assert (masked.input_ids[untouched] == tokens[untouched]).all()


def test_random_replacements_are_uniform_on_the_vocabulary_and_know_nothing_of_the_label():
    masked = mask(random_tokens(400_000))
    is_random = masked.kinds == RANDOM
    replacements = masked.input_ids[masked.positions[is_random]]
    assert replacements.min() == SPECIAL and replacements.max() == VOCAB - 1
    counts = np.bincount(replacements)[SPECIAL:]
    mean = counts.mean()
    assert abs(((counts - mean) ** 2 / mean).sum() - (len(counts) - 1)) < 5 * np.sqrt(2 * len(counts))
    assert within((replacements == masked.labels[is_random]).sum(), len(replacements), 1 / (VOCAB - SPECIAL))


def test_choice_kind_and_replacement_are_independent():
    """All three come from one key: a shared draw would show as a correlation."""
    masked = mask(random_tokens(400_000, low=SPECIAL))
    chosen = np.zeros(400_000, dtype=bool)
    chosen[masked.positions] = True
    assert within((chosen[1:] & chosen[:-1]).sum(), 400_000, 0.15**2)
    gaps = np.diff(masked.positions) == 1
    together = masked.kinds[1:][gaps] == masked.kinds[:-1][gaps]
    assert within(together.sum(), len(together), 0.8**2 + 2 * 0.1**2)


def test_nothing_to_mask():
    for tokens in (np.zeros(0, dtype=np.int32), np.arange(SPECIAL, dtype=np.int32).repeat(40)):
        masked = mask(tokens)
        assert len(masked.positions) == len(masked.labels) == len(masked.kinds) == 0
        assert (masked.input_ids == tokens).all()


def test_whole_words_go_together(tokens):
    settings = BatchSettings(sequences_per_step=573, sequence_length=64, mask_unit="word")
    loader = Loader(tokens.train, tokens.vocabulary, settings, 0)
    words = chosen = 0
    sizes = Counter()
    for step in (1, 2, 3):
        batch = loader.batch(step)
        ids = batch.input_ids.copy()
        ids[batch.masked_positions] = batch.labels
        is_chosen = np.zeros(batch.num_tokens, dtype=bool)
        is_chosen[batch.masked_positions] = True
        for start, stop in zip(batch.row_offsets[:-1], batch.row_offsets[1:], strict=True):
            bounds = word_bounds(tokens, ids[start:stop])
            for first, last in itertools.pairwise(bounds):
                part = slice(start + first, start + last)
                eligible = ids[part] >= SPECIAL
                picked = set(is_chosen[part][eligible].tolist())
                assert len(picked) <= 1  # all or none
                assert not is_chosen[part][~eligible].any()
                if picked:
                    words += 1
                    chosen += picked.pop()
                    sizes[last - first] += 1
    assert within(chosen, words, 0.15)
    assert sum(sizes[size] for size in sizes if size > 1) > 1_000


def word_bounds(tokens, row):
    """Word starts of one unmasked row, found in the documents' text: an independent reading of the store's bits."""
    from xuebu.tokens.words import make_segmenter, word_starts

    if not hasattr(word_bounds, "known"):
        word_bounds.known = {}
        for document in tokens.train_documents:
            for sentence in document.sentences:
                key = tuple(tokens.vocabulary.encode(sentence)[:30].tolist())
                word_bounds.known[key] = word_starts(sentence, make_segmenter("rjieba"))[:30]
    ends = np.flatnonzero(row == 3)
    starts = np.ones(len(row), dtype=bool)
    for first, last in ((1, ends[0]), (ends[0] + 1, ends[1])):
        starts[first:last] = word_bounds.known[tuple(row[first:last].tolist())]
    return [*np.flatnonzero(starts).tolist(), len(row)]


@pytest.mark.parametrize("word", [(7, 1, 8, 9), (1, 7, 8, 9)])
def test_a_word_with_an_unknown_character(word):
    """The rest of the word is chosen or not as one, [UNK] never, wherever it stands."""
    tokens = np.array(word * 10_000, dtype=np.int32)
    masked = mask(tokens, BatchSettings(mask_unit="word"), starts=np.arange(len(tokens)) % 4 == 0)
    words, counts = np.unique(masked.positions // 4, return_counts=True)
    assert (counts == 3).all()
    assert within(len(words), 10_000, 0.15)
    assert (tokens[masked.positions] != 1).all()


def test_rate_of_whole_words_counts_tokens():
    sizes = np.random.default_rng(0).integers(1, 6, 40_000)
    starts = np.zeros(sizes.sum(), dtype=bool)
    starts[np.cumsum(sizes) - sizes] = True
    tokens = random_tokens(len(starts), low=SPECIAL)
    masked = mask(tokens, BatchSettings(mask_unit="word"), stream=3, starts=starts, width=len(tokens))
    sigma = np.sqrt((sizes.astype(float) ** 2).sum() * 0.15 * 0.85)
    assert abs(len(masked.positions) - 0.15 * len(tokens)) < 4.5 * sigma
    assert masked.counts.variance == pytest.approx(sigma**2)
    # Kinds are drawn token by token within a word.
    kinds = Counter(masked.kinds.tolist())
    assert within(kinds[MASKED], len(masked.positions), 0.8)


def test_the_unit_does_not_matter_where_each_token_is_a_word():
    tokens = random_tokens(5_000)
    one, other = (mask(tokens, dataclasses.replace(SETTINGS, mask_unit=unit)) for unit in ("character", "word"))
    assert (one.input_ids == other.input_ids).all() and (one.positions == other.positions).all()
