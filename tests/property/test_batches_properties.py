"""Masking and packing over arbitrary rows."""

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xuebu.batches.batch import KEPT, MASKED, NO_PAIR, RANDOM, Batch
from xuebu.batches.masking import mask_tokens
from xuebu.batches.packing import split_micro_batches
from xuebu.batches.settings import BatchSettings
from xuebu.rng import draw_bits

VOCAB, MASK, SPECIAL = 30, 4, 5


@st.composite
def masking_cases(draw):
    size = draw(st.integers(0, 80))
    tokens = np.array(draw(st.lists(st.integers(0, VOCAB - 1), min_size=size, max_size=size)), dtype=np.int32)
    starts = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), dtype=bool)
    starts[:1] = True
    share = draw(st.floats(0, 1))
    settings_ = BatchSettings(
        mask_rate=draw(st.floats(0.01, 0.9)),
        mask_unit=draw(st.sampled_from(["character", "word"])),
        mask_token_share=share,
        random_token_share=draw(st.floats(0, 1)) * (1 - share),
    )
    return tokens, starts, settings_, draw(st.integers(0, 2**63))


def run(tokens, keys, counters, starts, settings_):
    return mask_tokens(tokens, keys, counters, starts, settings_, num_tokens=VOCAB, mask_id=MASK, num_special=SPECIAL)


@given(masking_cases())
def test_masking_keeps_labels_and_specials(case):
    tokens, starts, settings_, key = case
    keys, counters = np.full(len(tokens), key, dtype=np.uint64), np.arange(len(tokens))
    masked = run(tokens, keys, counters, starts, settings_)
    chosen = np.zeros(len(tokens), dtype=bool)
    chosen[masked.positions] = True
    assert (np.diff(masked.positions) > 0).all()
    assert (masked.labels == tokens[masked.positions]).all() and (masked.labels >= SPECIAL).all()
    assert (masked.input_ids[~chosen] == tokens[~chosen]).all()
    shown = masked.input_ids[masked.positions]
    assert (shown[masked.kinds == MASKED] == MASK).all()
    assert (shown[masked.kinds == KEPT] == masked.labels[masked.kinds == KEPT]).all()
    replaced = shown[masked.kinds == RANDOM]
    assert ((replaced >= SPECIAL) & (replaced < VOCAB)).all()
    if settings_.mask_unit == "word":
        word = np.cumsum(starts) - 1
        for number in range(word[-1] + 1 if len(word) else 0):
            assert len(set(chosen[(word == number) & (tokens >= SPECIAL)].tolist())) <= 1


@given(masking_cases(), st.randoms(use_true_random=False))
def test_a_tokens_draws_are_its_own(case, random):
    """In another order, and with half of the rows gone, each token meets the same fate."""
    tokens, _, settings_, key = case
    settings_ = dataclasses.replace(settings_, mask_unit="character")
    keys, counters = draw_bits(key, np.arange(len(tokens)) // 7), np.arange(len(tokens)) % 7
    order = np.array(random.sample(range(len(tokens)), len(tokens) // 2), dtype=np.int64)
    ones = np.ones(len(tokens), dtype=bool)
    whole = run(tokens, keys, counters, ones, settings_)
    part = run(tokens[order], keys[order], counters[order], ones[order], settings_)
    assert (part.input_ids == whole.input_ids[order]).all()
    assert set(order[part.positions].tolist()) == set(order.tolist()) & set(whole.positions.tolist())


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
