import dataclasses

import numpy as np
import pytest

from xuebu.batches.batch import concatenate
from xuebu.batches.held_out import held_out_batches
from xuebu.batches.loader import Loader
from xuebu.batches.packing import split_micro_batches
from xuebu.batches.settings import BatchSettings, EvaluationSettings
from xuebu.errors import ConfigError

SETTINGS = BatchSettings(sequences_per_step=64, sequence_length=128)


def check_union(batch, micro_batches, budget):
    """Every token, label, position and next-sentence label of the batch is there, once."""
    rows = np.concatenate([micro.rows for micro in micro_batches])
    assert sorted(rows) == list(range(batch.num_rows))
    predictions = np.concatenate([micro.predictions for micro in micro_batches])
    assert sorted(predictions) == list(range(batch.num_predictions))
    for micro in micro_batches:
        count, length = micro.input_ids.shape
        assert length % 8 == 0 and count * length <= budget
        assert micro.segment_ids.shape == (count, length)
        assert length - 8 < micro.lengths.max() <= length
        for number, row in enumerate(micro.rows):
            part = slice(*batch.row_offsets[row : row + 2])
            real = micro.lengths[number]
            assert real == part.stop - part.start
            assert (micro.input_ids[number, :real] == batch.input_ids[part]).all()
            assert (micro.segment_ids[number, :real] == batch.segment_ids[part]).all()
            assert not micro.input_ids[number, real:].any() and not micro.segment_ids[number, real:].any()
        assert (micro.nsp_labels == batch.nsp_labels[micro.rows]).all()
        assert (micro.labels == batch.labels[micro.predictions]).all()
        in_row, column = np.divmod(micro.masked_positions, length)
        places = batch.row_offsets[micro.rows[in_row]] + column
        assert (places == batch.masked_positions[micro.predictions]).all()
        arrays = [getattr(micro, field.name) for field in dataclasses.fields(micro)]
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


def test_longest_first_and_ties_in_order(tokens):
    batch = Loader(tokens.train, tokens.vocabulary, SETTINGS, 0).batch(1)
    rows = np.concatenate([micro.rows for micro in split_micro_batches(batch, 512)])
    lengths = np.diff(batch.row_offsets)
    assert rows.tolist() == sorted(range(64), key=lambda row: (-lengths[row], row))


def test_little_padding(tokens):
    batch = Loader(tokens.train, tokens.vocabulary, dataclasses.replace(SETTINGS, sequences_per_step=573), 0).batch(1)
    padded = sum(micro.input_ids.size for micro in split_micro_batches(batch, 1_024))
    assert 1 - batch.num_tokens / padded < 0.10
    assert 1 - batch.num_tokens / (573 * 128) > 0.5  # what rows of one length would waste here


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
        if field.name != "step":
            assert getattr(whole, field.name).dtype == getattr(batches[0], field.name).dtype
    assert read.digest(concatenate(batches[:1])) == read.digest(batches[0])
    check_union(whole, split_micro_batches(whole, 2_048), 2_048)
