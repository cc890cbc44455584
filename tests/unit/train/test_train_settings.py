import dataclasses

import pytest

from xuebu.errors import ConfigError
from xuebu.train.settings import Recipe, TrainSettings


def test_the_default_recipe_is_whole():
    assert Recipe().differing_keys(Recipe()) == []


def test_sequences_fit_the_positions(recipe_of):
    with pytest.raises(ConfigError, match=r"`batches.sequence_length` = 49 is more than `model.max_positions` = 48"):
        recipe_of(batches={"sequence_length": 49})


@pytest.mark.parametrize(("budget", "fits"), [(0, True), (47, False), (48, True), (4_000, True)])
def test_a_sequence_fits_the_token_budget(recipe_of, budget, fits):
    """Found at once, not when the first long sequence comes along hours later."""
    if fits:
        recipe_of(train={"micro_batch_tokens": budget}, batches={"sequence_length": 43})
    else:
        with pytest.raises(ConfigError, match=r"= 47 is less than one sequence, .* = 43 rounded up to 48"):
            recipe_of(train={"micro_batch_tokens": budget}, batches={"sequence_length": 43})


def test_next_sentences_need_a_head(recipe_of):
    """Without one the history would record an accuracy of 0 % that nothing predicted."""
    headless = {"nsp_head": False, "pooler": False}
    with pytest.raises(ConfigError, match=r'`batches.objective` = "nsp" needs `model.nsp_head` = true'):
        recipe_of(model=headless)
    recipe_of(model=headless, batches={"objective": "mlm"})


def test_differing_keys(recipe_of):
    one = recipe_of()
    other = recipe_of(train={"steps": 13, "seed": 6}, batches={"mask_unit": "word"})
    assert one.differing_keys(other) == ["batches.mask_unit", "train.seed", "train.steps"]
    assert one.differing_keys(dataclasses.replace(one)) == []


def test_train_settings_check_themselves():
    with pytest.raises(ConfigError, match="`train.warmup_steps`"):
        TrainSettings(steps=5)
