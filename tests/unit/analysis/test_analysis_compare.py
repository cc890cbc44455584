import math

import numpy as np
import pytest

from xuebu.analysis.compare import mean_with_interval, paired_difference, proportion_interval
from xuebu.analysis.intervals import Interval, normal_quantile, student_quantile


def test_wilson_equals_the_published_table() -> None:
    # Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I, method 3.
    for right, trials, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        found = proportion_interval(right, trials)
        assert found.value == right / trials
        assert found.low == pytest.approx(low, abs=5e-5)
        assert found.high == pytest.approx(high, abs=5e-5)


def test_wilson_is_symmetric_and_refuses_counts_that_do_not_fit() -> None:
    few, many = proportion_interval(3, 40), proportion_interval(37, 40)
    assert few.low == pytest.approx(1 - (many.high or 0))
    assert proportion_interval(40, 40).high == 1.0
    for right, trials in ((1, 0), (-1, 5), (6, 5)):
        with pytest.raises(ValueError, match="no share"):
            proportion_interval(right, trials)


def test_quantiles() -> None:
    assert normal_quantile(0.95) == pytest.approx(1.959963984540054, abs=1e-12)
    assert student_quantile(0.95, 4) == pytest.approx(2.7764451051977987, abs=1e-10)
    for level in (0.0, 1.0, 95.0):
        with pytest.raises(ValueError, match="level"):
            normal_quantile(level)


def test_a_clustered_mean_equals_the_hand_computation() -> None:
    # Three documents of 2, 2 and 4 values; mean 3, residual totals -3, -1, 4.
    values, clusters = [1.0, 2.0, 2.0, 3.0, 4.0, 4.0, 3.0, 5.0], [7, 7, 1, 1, 9, 9, 9, 9]
    found = mean_with_interval(values, clusters)
    variance = (9 / (1 - 2 / 8) + 1 / (1 - 2 / 8) + 16 / (1 - 4 / 8)) / 64
    ratio = variance * 8 / float(np.var(values))
    alike = (ratio - 1) / (24 / 8 - 1)
    sizes = np.array([2, 2, 4])
    expected = sizes * (1 + (sizes - 1) * min(alike, 1))
    degrees = expected.sum() ** 2 / (expected**2).sum() - 1
    half = student_quantile(0.95, degrees) * math.sqrt(variance)
    assert found.value == 3.0
    assert found.low == pytest.approx(3 - half, rel=1e-12)
    assert found.high == pytest.approx(3 + half, rel=1e-12)
    assert "3 documents" in found.note


def test_one_prediction_a_document_gives_the_ordinary_t_interval() -> None:
    values = np.array([0.3, 1.7, 2.2, 0.9, 4.1])
    found = mean_with_interval(values, np.arange(5))
    half = student_quantile(0.95, 4) * values.std(ddof=1) / math.sqrt(5)
    assert found.low == pytest.approx(values.mean() - half, rel=1e-12)


def test_copies_of_each_prediction_do_not_narrow_the_interval() -> None:
    right = np.array([1, 0, 0, 1, 1, 0, 1, 1, 0, 1] * 3)
    once = mean_with_interval(right, np.arange(30))
    copied = mean_with_interval(np.repeat(right, 20), np.repeat(np.arange(30), 20))
    assert once.low is not None
    assert copied.low == pytest.approx(once.low, abs=0.01)
    assert copied.high == pytest.approx(once.high or 0, abs=0.01)


@pytest.mark.parametrize("right", [0, 1])
def test_all_right_or_all_wrong_still_has_a_width_set_by_the_documents(right: int) -> None:
    clusters = np.repeat(np.arange(12), 50)
    found = mean_with_interval(np.full(600, right), clusters)
    assert found.value == right
    assert found.low is not None
    assert found.high is not None
    assert 0.2 < found.high - found.low < 0.35  # about 1 - 0.05 ** (1 / 12), not 1 / 600
    difference = paired_difference(np.full(600, right), np.full(600, right), clusters)
    assert difference.value == 0
    assert difference.low == pytest.approx(-(difference.high or 0))
    assert (difference.high or 0) > 0.2


def test_a_model_that_is_always_right_against_one_always_wrong() -> None:
    found = paired_difference(np.ones(40), np.zeros(40), np.repeat(np.arange(10), 4))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low is not None
    assert 0.3 < found.low < 0.7


def test_one_document_has_no_interval() -> None:
    for found in (mean_with_interval([1, 0, 1], [4, 4, 4]), paired_difference([1, 0], [0, 0], [1, 1])):
        assert found.low is None
        assert found.high is None
        assert "one document" in found.note


def test_one_document_with_nearly_everything_widens_the_interval() -> None:
    draw = np.random.default_rng(3).random(1000) < 0.3
    even = mean_with_interval(draw, np.repeat(np.arange(10), 100))
    skewed = mean_with_interval(draw, np.concatenate([np.zeros(910, int), np.arange(90) // 10 + 1]))
    assert even.high is not None
    assert even.low is not None
    assert skewed.high is not None
    assert skewed.low is not None
    assert skewed.high - skewed.low > even.high - even.low


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="cluster numbers"):
        mean_with_interval([1, 0], [1])
    with pytest.raises(ValueError, match="cluster numbers"):
        mean_with_interval([], [])
    with pytest.raises(ValueError, match="not finite"):
        mean_with_interval([1.0, math.nan], [0, 1])
    with pytest.raises(ValueError, match="same predictions"):
        paired_difference([1, 0], [1], [0, 1])


@pytest.mark.parametrize("documents", [8, 40])
def test_intervals_cover_as_promised(documents: int) -> None:
    """Documents of unequal size and difficulty; the independent Wilson interval covers far less."""
    rng = np.random.default_rng(documents)
    hits = np.zeros(3)
    rounds = 300
    for _ in range(rounds):
        sizes = (np.exp(rng.normal(size=documents)) * 50).astype(int) + 1
        ease = rng.beta(2.0, 6.0, documents)  # mean 0.25, intra-document correlation 1 / 9
        clusters = np.repeat(np.arange(documents), sizes)
        first = rng.random(clusters.size) < ease[clusters]
        second = rng.random(clusters.size) < np.minimum(ease[clusters] + 0.1, 1)
        gain = float(np.average(np.minimum(ease + 0.1, 1) - ease, weights=sizes))
        hits += [
            0.25 in mean_with_interval(first, clusters),
            gain in paired_difference(second, first, clusters),
            0.25 in proportion_interval(int(first.sum()), first.size),
        ]
    mean, paired, naive = hits / rounds
    assert mean > 0.92
    assert 0.92 < paired < 0.995
    assert naive < 0.8


def test_an_interval_says_itself() -> None:
    found = Interval(0.574, 0.56, 0.59, 0.95, "Wilson", "why")
    assert found.words(100, " %") == "57.4 % (56.0 to 59.0)"
    assert found.to_json() == {
        "value": 0.574,
        "low": 0.56,
        "high": 0.59,
        "level": 0.95,
        "method": "Wilson",
        "note": "why",
    }
    assert "95 %" in found.summary()
    assert 0.57 in found
    assert 0.6 not in found
    assert found.scaled(100).high == pytest.approx(59)
    refused = Interval(0.5, None, None, 0.95, "x", "too few")
    assert "too few" in refused.words()
    assert 0.5 not in refused
