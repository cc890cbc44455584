"""Gaps, and the places of groups, against code that takes the long way."""

import hashlib
import random

import numpy as np
import pytest

from xuebu.corpus import dedup
from xuebu.corpus.dedup import digests_of, digests_of_runs, keep_sentences
from xuebu.corpus.split import group_place, is_held_out


def test_keep_sentences_records_each_loss_between_kept_ones() -> None:
    assert keep_sentences("abcdef", (2,), [True] * 6) == (tuple("abcdef"), (2,))
    assert keep_sentences("abcdef", (2,), [False, True, True, False, False, True]) == (("b", "c", "f"), (1, 2))
    assert keep_sentences("abcdef", (1, 5), [False, False, True, True, True, False]) == (("c", "d", "e"), ())
    assert keep_sentences("ab", (), [False, False]) == ((), ())


def test_group_place_is_even_fixed_and_nested() -> None:
    places = [group_place(f"条目{number}") for number in range(4000)]
    assert abs(np.mean(places) - 0.5) < 4 * (1 / 12) ** 0.5 / 4000**0.5
    assert abs(np.mean([is_held_out(f"条目{n}", 0.1) for n in range(4000)]) - 0.1) < 4 * (0.09 / 4000) ** 0.5
    assert all(is_held_out(f"条目{n}", 0.2) for n in range(4000) if is_held_out(f"条目{n}", 0.1))
    # A change of this moves every corpus ever built to another split.
    digest = hashlib.sha256("str:xuebu held-out split\x1fstr:李姓".encode()).digest()
    assert group_place("李姓") == int.from_bytes(digest[:8], "little") / 2**64


def test_digests_are_equal_exactly_where_sentences_are_but_for_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    chooser = random.Random(1)
    sentences = ["".join(chooser.choices("甲乙 a𠮷", k=chooser.randrange(1, 9))) for _ in range(3000)]
    sentences += ["山" * length for length in range(1, 300)] + ["水" * 9_999, "水" * 10_000]
    bare = [sentence.replace(" ", "") for sentence in sentences]
    digests = digests_of(sentences).tolist()
    assert len(digests) == len(sentences) and digests_of([]).size == 0
    assert len(set(digests)) == len(set(bare)) == len(set(zip(digests, bare, strict=True)))
    monkeypatch.setattr(dedup, "_BATCH_CHARACTERS", 50)
    assert digests_of(sentences).tolist() == digests  # whatever is computed together
    assert [digests_of([sentence])[0] for sentence in sentences[:50]] == digests[:50]


def test_digests_use_all_their_bits() -> None:
    digests = digests_of([f"{number:07}" for number in range(100_000)])
    assert len(np.unique(digests)) == 100_000
    for bits in (digests >> np.uint64(48), digests & np.uint64(0xFFFF)):
        counts = np.bincount(bits.astype(np.int64), minlength=1 << 16)
        expected = 100_000 / (1 << 16)
        chi_square = ((counts - expected) ** 2).sum() / expected
        assert abs(chi_square - (1 << 16)) < 5 * (2 * (1 << 16)) ** 0.5


def test_digests_of_runs_tell_order_and_cuts_apart() -> None:
    values = digests_of(["甲", "乙", "丙", "丁", "甲", "乙"])
    cut = digests_of_runs(values, np.array([2, 0, 1, 1, 2, 0]))
    assert cut[0] == cut[4] and cut[1] == cut[5] and len(set(cut.tolist())) == 4
    assert digests_of_runs(values[[1, 0]], np.array([2]))[0] != cut[0]
    assert digests_of_runs(values[:2], np.array([1, 1])).tolist() != values[:2].tolist()
