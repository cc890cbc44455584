"""Runs of characters that held-out text shares with training, against sets of strings."""

import random
from pathlib import Path

import numpy as np
import pytest

from xuebu.corpus.overlap import RunIndex, run_hashes, shares_text, shown_runs


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


@pytest.mark.parametrize("length", [1, 2, 7, 8, 20, 37, 64])
def test_runs_of_any_length(length: int) -> None:
    text = "".join(np.random.default_rng(length).choice(list("甲乙丙a"), 300))
    hashes = run_hashes(text, length).tolist()
    runs = [text[place : place + length] for place in range(len(text) - length + 1)]
    assert len(hashes) == len(runs)
    assert len(set(hashes)) == len(set(runs)) == len(set(zip(hashes, runs, strict=True)))
    assert run_hashes(text[: length - 1], length).size == 0


def text_of(chooser: random.Random, length: int) -> str:
    return "".join(chr(chooser.randrange(0x4E00, 0x9FFF)) for _ in range(length))


def shared(held_out: list[str], training: list[str], folder: Path) -> list[bool]:
    """Return which held-out texts share runs with training, as a build finds it."""
    RunIndex.write(folder / "runs", np.concatenate([run_hashes(text) for text in held_out]))
    shown = shown_runs(training, RunIndex(folder / "runs"))
    return [shares_text(text, shown) for text in held_out]


def test_an_index_finds_what_it_holds_sorted_and_once(tmp_path: Path) -> None:
    chooser = random.Random(6)
    text, other = text_of(chooser, 500), text_of(chooser, 500)
    RunIndex.write(tmp_path / "runs", run_hashes(text + text))
    index = RunIndex(tmp_path / "runs")
    assert index.find(run_hashes(other + text[100:200] + text[100:200])).tolist() == sorted(
        set(run_hashes(text[100:200] + text[100:119]).tolist()) & set(run_hashes(text).tolist())
    )
    assert index.find(run_hashes(other)).size == index.find(run_hashes("短")).size == 0


def test_overlap_needs_three_runs_over_all_training_texts(tmp_path: Path) -> None:
    chooser = random.Random(7)
    common = text_of(chooser, 60)
    training = [text_of(chooser, 40) + common[:21], common[30:50] + text_of(chooser, 5), "\u4e00" * 19]
    held_out = [common[:21] + "甲", common[:21] + "甲" + common[30:50], common[:22], text_of(chooser, 70)]
    assert shared(held_out, training, tmp_path) == [False, True, False, False]


def test_no_run_reaches_over_two_training_texts(tmp_path: Path) -> None:
    chooser = random.Random(8)
    text = text_of(chooser, 40)
    assert shared([text], [text[:21], text[21:]], tmp_path) == [False]
    assert shared([text], [text[:22]], tmp_path) == [True]


def test_a_run_counts_once_however_often_it_occurs(tmp_path: Path) -> None:
    chooser = random.Random(9)
    text = text_of(chooser, 21)
    assert shared([text + text + text], [text, text, text], tmp_path) == [False]
