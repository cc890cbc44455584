"""Gaps, and the places of groups, against code that takes the long way."""

import hashlib

import numpy as np

from xuebu.corpus.dedup import keep_sentences
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
