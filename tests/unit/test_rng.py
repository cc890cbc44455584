"""Keyed draws: pinned bits, uniform, and permutations that are permutations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xuebu.rng import draw_below, draw_bits, draw_uniform, key_of, permute, seed_of


def test_bits_are_pinned():
    # A change of these numbers changes every batch of every run: it needs a new format, not a new test.
    assert key_of(1, "mask", 2) == 2_987_412_976_319_298_773
    assert draw_bits(7, [0, 1]).tolist() == [9_922_009_867_685_901_578, 3_814_649_351_532_488_660]
    assert permute(np.arange(5), 5, 7).tolist() == [0, 2, 4, 1, 3]


def test_names_of_streams_do_not_run_together():
    keys = {key_of(1, "a"), key_of("1", "a"), key_of(1, "a", 0), key_of(11, "a"), key_of(1, "1a"), key_of("1a")}
    assert len(keys) == 6
    assert 0 <= seed_of(3, "x") < 2**63


@pytest.mark.parametrize("by", ["counter", "key"])
def test_draws_are_uniform_and_unrelated(by):
    many = np.arange(400_000)
    u = draw_uniform(5, many) if by == "counter" else draw_uniform(many, 0)
    assert 0.0 <= u.min() and u.max() < 1.0
    counts = np.bincount((u * 100).astype(int), minlength=100)
    chi_square = ((counts - 4000) ** 2 / 4000).sum()
    assert 60 < chi_square < 150  # 99 degrees of freedom
    assert abs(np.corrcoef(u[1:], u[:-1])[0, 1]) < 0.01


def test_draw_below_stays_below():
    values = draw_below(1, np.arange(10_000), np.array(7))
    assert set(values.tolist()) == set(range(7))


@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_permutation_is_one(size, key):
    assert sorted(permute(np.arange(size), size, key).tolist()) == list(range(size))


def test_permutation_of_a_huge_range_needs_no_table():
    size = 2**61 + 3
    places = permute(np.array([0, 1, size - 1]), size, 9)
    assert ((places >= 0) & (places < size)).all() and len(set(places.tolist())) == 3


def test_permutation_looks_random():
    places = permute(np.arange(20_000), 20_000, 3)
    assert abs(np.corrcoef(places, np.arange(20_000))[0, 1]) < 0.03
    assert abs(np.corrcoef(places[1:], places[:-1])[0, 1]) < 0.03
    fixed = (places == np.arange(20_000)).sum()
    assert fixed <= 8  # Poisson with mean 1


def test_outside_is_refused():
    with pytest.raises(ValueError, match="outside"):
        permute(5, 5, 0)
