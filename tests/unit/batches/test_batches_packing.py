import dataclasses
import timeit

import numpy as np
import pytest

from xuebu.batches.batch import Batch, concatenate
from xuebu.batches.held_out import held_out_batches
from xuebu.batches.loader import Loader
from xuebu.batches.packing import ROWS_PER_BLOCK, TOKEN_MULTIPLE, deal_micro_batches, split_micro_batches
from xuebu.batches.settings import BatchSettings, EvaluationSettings
from xuebu.errors import ConfigError
from xuebu.runtime import NATIVE_SETTINGS

SETTINGS = BatchSettings(sequences_per_step=64, sequence_length=128)


def check_union(batch, micro_batches, budget):
    """Every token, label, position and next-sentence label of the batch is there, once."""
    rows = np.concatenate([micro.rows for micro in micro_batches])
    assert sorted(rows) == list(range(batch.num_rows))
    predictions = np.concatenate([micro.predictions for micro in micro_batches])
    assert sorted(predictions) == list(range(batch.num_predictions))
    for micro in micro_batches:
        (size,) = micro.input_ids.shape
        assert micro.segment_ids.shape == (size,) and size <= budget
        assert size % TOKEN_MULTIPLE == 0 or size == budget or size == sum(b * t for b, t in micro.blocks)
        assert sum(count for count, _ in micro.blocks) == len(micro.rows)
        grid = []  # row and column of each token of the blocks
        number = 0
        for count, length in micro.blocks:
            assert 0 < count <= ROWS_PER_BLOCK and length % 8 == 0
            assert length - 8 < micro.lengths[number : number + count].max() <= length
            grid += [(number + i // length, i % length) for i in range(count * length)]
            number += count
        start = 0
        for number, row in enumerate(micro.rows):
            part = slice(*batch.row_offsets[row : row + 2])
            real = micro.lengths[number]
            assert real == part.stop - part.start
            start = grid.index((number, 0), start)
            assert (micro.input_ids[start : start + real] == batch.input_ids[part]).all()
            assert (micro.segment_ids[start : start + real] == batch.segment_ids[part]).all()
        padding = np.ones(size, dtype=bool)
        padding[[i for i, (number, column) in enumerate(grid) if column < micro.lengths[number]]] = False
        assert not micro.input_ids[padding].any() and not micro.segment_ids[padding].any()
        assert (micro.nsp_labels == batch.nsp_labels[micro.rows]).all()
        assert (micro.labels == batch.labels[micro.predictions]).all()
        places = [batch.row_offsets[micro.rows[grid[at][0]]] + grid[at][1] for at in micro.masked_positions]
        assert places == batch.masked_positions[micro.predictions].tolist()
        arrays = [getattr(micro, field.name) for field in dataclasses.fields(micro) if field.name != "blocks"]
        assert {array.dtype.name for array in arrays} == {"int64"}


@pytest.mark.parametrize("objective", ["nsp", "mlm"])
@pytest.mark.parametrize("budget", [128, 129, 1_000, 8_192, 10**6])
def test_union_of_micro_batches_is_the_batch(tokens, objective, budget):
    loader = Loader(tokens.train, tokens.vocabulary, dataclasses.replace(SETTINGS, objective=objective), 0)
    for step in (1, 2):
        batch = loader.batch(step)
        micro_batches = split_micro_batches(batch, budget)
        check_union(batch, micro_batches, budget)
        if budget == 10**6:
            assert len(micro_batches) == 1


@pytest.mark.parametrize("lanes", [2, 3, 4])
@pytest.mark.parametrize("budget", [128, 1_000, 8_192, 10**6])
def test_union_of_dealt_micro_batches_is_the_batch(tokens, budget, lanes):
    batch = Loader(tokens.train, tokens.vocabulary, SETTINGS, 0).batch(1)
    micro_batches = deal_micro_batches(batch, budget, lanes)
    longest = -(-int(np.diff(batch.row_offsets).max()) // 8) * 8
    check_union(batch, micro_batches, max(longest, budget // lanes))
    if budget > 1_000:  # in the smallest a row often has no place beside another
        assert len(micro_batches) % lanes == 0
    if budget == 10**6:
        assert len(micro_batches) == lanes


def test_longest_first_and_ties_in_order(tokens):
    batch = Loader(tokens.train, tokens.vocabulary, SETTINGS, 0).batch(1)
    rows = np.concatenate([micro.rows for micro in split_micro_batches(batch, 512)])
    lengths = np.diff(batch.row_offsets)
    assert rows.tolist() == sorted(range(64), key=lambda row: (-lengths[row], row))


def batch_of(lengths):
    """A batch of rows of given lengths, every seventh token masked."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.arange(1, offsets[-1] + 1, dtype=np.int32)
    return Batch(
        step=1,
        input_ids=ids,
        segment_ids=(ids % 2).astype(np.int8),
        row_offsets=offsets,
        masked_positions=np.arange(3, offsets[-1], 7),
        labels=ids[3::7] + 1,
        mask_kinds=np.zeros(len(ids[3::7]), dtype=np.int8),
        nsp_labels=np.zeros(len(lengths), dtype=np.int8),
        row_documents=np.zeros((len(lengths), 2), dtype=np.int64),
    )


SHARES, QUANTILES = (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1), (28, 46, 63, 81, 100, 116, 127)
WIKI_LENGTHS = np.interp((np.arange(64) + 0.5) / 64, SHARES, QUANTILES).astype(np.int64)


@pytest.mark.parametrize(("repeats", "bound"), [(1, 0.14), (2, 0.11), (4, 0.10)])
def test_little_padding_in_few_shapes(repeats, bound):
    """Lengths of sentence pairs from Wikipedia, drawn anew for each step: 37 % padding if they were all one block."""
    random = np.random.default_rng(1)
    steps = [batch_of(random.choice(WIKI_LENGTHS, 64 * repeats)) for _ in range(40)]
    micro_batches = [micro for batch in steps for micro in split_micro_batches(batch, 8_192)]
    padded = sum(micro.input_ids.size for micro in micro_batches)
    assert 1 - sum(batch.num_tokens for batch in steps) / padded < bound
    whole = [micro for batch in steps for micro in split_micro_batches(batch, 8_192, None)]
    assert 1 - sum(batch.num_tokens for batch in steps) / sum(micro.input_ids.size for micro in whole) > bound + 0.03
    # Kernels: 12 for each number of tokens, 6 for each shape of attention, with room for those of the heads.
    sizes = {micro.input_ids.size for micro in micro_batches}
    shapes = {block for micro in micro_batches for block in micro.blocks}
    assert 12 * len(sizes) + 6 * len(shapes) < int(NATIVE_SETTINGS["ONEDNN_PRIMITIVE_CACHE_CAPACITY"])


@pytest.mark.parametrize(("rows", "lanes"), [(64, 2), (64, 4), (16, 2), (8, 2), (33, 3)])
def test_lanes_have_about_equal_work(rows, lanes):
    random, shares = np.random.default_rng(1), []
    for _ in range(50):
        batch = batch_of(random.choice(WIKI_LENGTHS, rows))
        sizes = np.array([sum(b * t for b, t in micro.blocks) for micro in deal_micro_batches(batch, 8_192, lanes)])
        assert len(sizes) == lanes
        shares.append(sizes.max() / sizes.mean())
    assert np.median(shares) < (1.06 if rows >= 16 else 1.12)


def test_fewer_rows_than_lanes():
    micro_batches = deal_micro_batches(batch_of(np.array([20, 40, 12])), 1_000, 4)
    assert [micro.rows.tolist() for micro in micro_batches] == [[1], [0], [2]]
    assert [micro.rows.tolist() for micro in deal_micro_batches(batch_of(np.array([20])), 24, 4)] == [[0]]
    with pytest.raises(ConfigError, match=r"`micro_batch_tokens` = 16 is below one sequence of 24"):
        deal_micro_batches(batch_of(np.array([20])), 16, 4)


def test_one_block_a_micro_batch():
    batch = batch_of(np.array([9, 30, 17, 17, 5, 31, 24]))
    blocks = [micro.blocks for micro in split_micro_batches(batch, 100, None)]
    assert blocks == [((3, 32),), ((4, 24),)]
    assert [micro.blocks for micro in split_micro_batches(batch, 1_000, None)] == [((7, 32),)]


def test_splitting_takes_no_time():
    batch = batch_of(np.tile(WIKI_LENGTHS, 4))
    seconds = min(timeit.repeat(lambda: split_micro_batches(batch, 8_192), number=1, repeat=20))
    assert seconds < 0.003  # measured: 0.0003


def test_dealing_many_small_hands_takes_no_time():
    batch = batch_of(np.tile(WIKI_LENGTHS, 64))
    seconds = min(timeit.repeat(lambda: deal_micro_batches(batch, 512, 4), number=1, repeat=3))
    assert seconds < 1.0  # measured: 0.2, of which dealing 0.01


def test_a_row_over_the_budget_is_an_error(tokens):
    batch = Loader(tokens.train, tokens.vocabulary, SETTINGS, 0).batch(1)
    longest = -(-int(np.diff(batch.row_offsets).max()) // 8) * 8
    split_micro_batches(batch, longest)
    with pytest.raises(ConfigError, match=rf"`micro_batch_tokens` = {longest - 1} is below one sequence of {longest}"):
        split_micro_batches(batch, longest - 1)


def test_concatenate(tokens, read):
    batches = held_out_batches(
        tokens.held_out,
        tokens.vocabulary,
        settings=EvaluationSettings(min_predictions=1),
        batches=SETTINGS,
        predictions=10_000,
    )
    assert len(batches) > 1
    whole = concatenate(batches)
    assert list(read.rows(whole)) == [row for batch in batches for row in read.rows(batch)]
    assert whole.input_ids.tolist() == np.concatenate([batch.input_ids for batch in batches]).tolist()
    assert whole.mask_kinds.tolist() == np.concatenate([batch.mask_kinds for batch in batches]).tolist()
    documents = np.concatenate([batch.prediction_documents for batch in batches])
    assert (whole.prediction_documents == documents).all()
    for name in ("num_rows", "num_tokens", "num_predictions", "num_judged_pairs"):
        assert getattr(whole, name) == sum(getattr(batch, name) for batch in batches)
    assert whole.step == 0
    for field in dataclasses.fields(whole):
        if field.name not in ("step", "masking"):
            assert getattr(whole, field.name).dtype == getattr(batches[0], field.name).dtype
    assert read.digest(concatenate(batches[:1])) == read.digest(batches[0])
    check_union(whole, split_micro_batches(whole, 2_048), 2_048)
