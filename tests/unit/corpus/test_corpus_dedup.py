"""Equal sentences, gaps, and shared runs, against code that takes the long way."""

import hashlib
import random

import numpy as np
import pytest

from xuebu.corpus.dedup import Mark, keep_sentences, mark_equals, sentence_digest
from xuebu.corpus.overlap import RunIndex, overlapping_documents, run_hashes
from xuebu.corpus.split import group_place, is_held_out


def digests(*names: str) -> np.ndarray:
    return np.frombuffer(b"".join(map(sentence_digest, names)), dtype="<u8")


@pytest.mark.parametrize("block", [1, 2, 1 << 22])
def test_marks_prefer_training_and_then_the_first(block: int) -> None:
    training, held_out = mark_equals(
        digests("甲", "乙", "甲", "丙"), digests("丁", "乙", "丁", "乙", "戊"), block=block
    )
    assert [Mark(mark) for mark in training] == [Mark.FIRST, Mark.FIRST, Mark.REPEATED, Mark.FIRST]
    assert [Mark(mark) for mark in held_out] == [
        Mark.FIRST,
        Mark.IN_TRAINING,
        Mark.REPEATED,
        Mark.IN_TRAINING,
        Mark.FIRST,
    ]


def test_marks_of_nothing() -> None:
    empty = np.empty(0, dtype=np.uint64)
    assert [len(side) for side in mark_equals(empty, empty)] == [0, 0]
    assert mark_equals(digests("甲"), empty)[0].tolist() == [Mark.FIRST]


def test_keep_sentences_records_each_loss_between_kept_ones() -> None:
    assert keep_sentences("abcdef", (2,), [True] * 6) == (tuple("abcdef"), (2,))
    assert keep_sentences("abcdef", (2,), [False, True, True, False, False, True]) == (("b", "c", "f"), (1, 2))
    assert keep_sentences("abcdef", (1, 5), [False, False, True, True, True, False]) == (("c", "d", "e"), ())
    assert keep_sentences("ab", (), [False, False]) == ((), ())


def test_run_hashes_are_equal_exactly_where_runs_are() -> None:
    chooser = random.Random(5)
    text = "".join(chooser.choices("天地玄黄𠮷", k=400))
    text += text[37:90]
    hashes = run_hashes(text).tolist()
    runs = [text[start : start + 20] for start in range(len(text) - 19)]
    assert len(hashes) == len(runs)
    assert len(set(hashes)) == len(set(runs)) < len(runs)
    assert all(
        (hashes[a] == hashes[b]) == (runs[a] == runs[b]) for a in range(0, len(runs), 7) for b in range(len(runs))
    )
    assert run_hashes("十" * 19).size == 0
    assert run_hashes("十" * 20).size == 1


def text_of(chooser: random.Random, length: int) -> str:
    return "".join(chr(chooser.randrange(0x4E00, 0x9FFF)) for _ in range(length))


def test_shared_runs_are_counted_per_document_and_once() -> None:
    chooser = random.Random(6)
    shared = text_of(chooser, 22)
    texts = [text_of(chooser, 30) + shared, shared[:21], text_of(chooser, 50), shared + shared, "短"]
    index = RunIndex(texts)
    index.show(text_of(chooser, 10) + shared[:21] + "\0" + shared[1:])
    assert index.shared_runs().tolist() == [3, 2, 0, 3, 0]


@pytest.mark.parametrize("block", [1, 60, 1 << 22])
def test_overlap_needs_three_runs_over_all_training_texts(block: int) -> None:
    chooser = random.Random(7)
    shared = text_of(chooser, 60)
    training = [text_of(chooser, 40) + shared[:21], shared[30:50] + text_of(chooser, 5), "\u4e00" * 19]
    held_out = [shared[:21] + "甲", shared[:21] + "甲" + shared[30:50], shared[:22], text_of(chooser, 70)]
    flags = list(overlapping_documents(held_out, lambda: training, block_characters=block))
    assert flags == [False, True, False, False]
    assert list(overlapping_documents(["\u4e01" * 18, "短"], lambda: training)) == [False, False]
    assert list(overlapping_documents([], lambda: training)) == []


def test_run_of_a_held_out_text_never_crosses_into_the_next() -> None:
    chooser = random.Random(8)
    left, right = text_of(chooser, 30), text_of(chooser, 30)
    assert list(overlapping_documents([left, right], lambda: [left[15:] + right[:15]])) == [False, False]


def test_group_place_is_even_fixed_and_nested() -> None:
    places = [group_place(f"条目{number}") for number in range(4000)]
    assert abs(np.mean(places) - 0.5) < 4 * (1 / 12) ** 0.5 / 4000**0.5
    assert abs(np.mean([is_held_out(f"条目{n}", 0.1) for n in range(4000)]) - 0.1) < 4 * (0.09 / 4000) ** 0.5
    assert all(is_held_out(f"条目{n}", 0.2) for n in range(4000) if is_held_out(f"条目{n}", 0.1))
    # A change of this moves every corpus ever built to another split.
    digest = hashlib.sha256("str:xuebu held-out split\x1fstr:李姓".encode()).digest()
    assert group_place("李姓") == int.from_bytes(digest[:8], "little") / 2**64
