"""Runs of characters that held-out text shares with training, against sets of strings."""

import random
from pathlib import Path

import numpy as np
import pytest

from xuebu.corpus import overlap
from xuebu.corpus.document import SentenceDocument, raw_sentences
from xuebu.corpus.overlap import RunIndex, bare_codes, bare_text, code_points, run_hashes, shares_text, shown_runs
from xuebu.errors import InputError


def hashes_of(text: str, length: int = 20) -> np.ndarray:
    return run_hashes(code_points(text), length)


def test_run_hashes_are_equal_exactly_where_runs_are() -> None:
    chooser = random.Random(5)
    text = "".join(chooser.choices("天地玄黄𠮷", k=400))
    text += text[37:90]
    hashes = hashes_of(text).tolist()
    runs = [text[start : start + 20] for start in range(len(text) - 19)]
    assert len(hashes) == len(runs)
    assert len(set(hashes)) == len(set(runs)) < len(runs)
    assert all(
        (hashes[a] == hashes[b]) == (runs[a] == runs[b]) for a in range(0, len(runs), 7) for b in range(len(runs))
    )
    assert hashes_of("十" * 19).size == 0
    assert hashes_of("十" * 20).size == 1


@pytest.mark.parametrize("length", [1, 2, 7, 8, 20, 37, 64])
def test_runs_of_any_length(length: int) -> None:
    text = "".join(np.random.default_rng(length).choice(list("甲乙丙a"), 300))
    hashes = hashes_of(text, length).tolist()
    runs = [text[place : place + length] for place in range(len(text) - length + 1)]
    assert len(hashes) == len(runs)
    assert len(set(hashes)) == len(set(runs)) == len(set(zip(hashes, runs, strict=True)))
    assert hashes_of(text[: length - 1], length).size == 0


def text_of(chooser: random.Random, length: int) -> str:
    return "".join(chr(chooser.randrange(0x4E00, 0x9FFF)) for _ in range(length))


def shared(held_out: list[str], training: list[str], folder: Path) -> list[bool]:
    """Return which held-out texts share runs with training, as a build finds it."""
    RunIndex.write(folder / "runs", np.concatenate([hashes_of(text) for text in held_out]))
    (shown,) = shown_runs(training, [folder / "runs"])
    return [shares_text(code_points(text), shown) for text in held_out]


def test_an_index_finds_what_it_holds_sorted_and_once(tmp_path: Path) -> None:
    chooser = random.Random(6)
    text, other = text_of(chooser, 500), text_of(chooser, 500)
    RunIndex.write(tmp_path / "runs", hashes_of(text + text))
    index = RunIndex(tmp_path / "runs")
    assert index.find(hashes_of(other + text[100:200] + text[100:200])).tolist() == sorted(
        set(hashes_of(text[100:200] + text[100:119]).tolist()) & set(hashes_of(text).tolist())
    )
    assert index.find(hashes_of(other)).size == index.find(hashes_of("短")).size == 0


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


def test_training_texts_stream_by_and_each_index_gets_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chooser = random.Random(10)
    texts = [text_of(chooser, 100) for _ in range(30)]
    paths = [tmp_path / name for name in "ab"]
    RunIndex.write(paths[0], hashes_of(texts[3]))
    RunIndex.write(paths[1], np.concatenate([hashes_of(texts[3][:50]), hashes_of(texts[29])]))
    monkeypatch.setattr(overlap, "_BATCH_CHARACTERS", 1_000)
    given, seen = 0, []
    find = RunIndex.find

    def streamed():
        nonlocal given
        for text in texts:
            given += 1
            yield text

    def watched(self, hashes):
        seen.append(given)
        return find(self, hashes)

    monkeypatch.setattr(RunIndex, "find", watched)
    shown = shown_runs(streamed(), paths)
    assert seen == [10, 10, 20, 20, 30, 30]  # batches are looked up before the next are read
    assert shown[0].tolist() == np.unique(hashes_of(texts[3])).tolist()
    assert shown[1].tolist() == np.unique(np.concatenate([hashes_of(texts[3][:50]), hashes_of(texts[29])])).tolist()


MARKED = [
    "山，水；",
    "",
    "ＡＢＣ　１２_三!",
    "㎡与½：㈱①…",
    "ΣΟΦΟΣ，其二",
    "e\u0301té",
    "ｶﾞ",
    "한글 \u1112\u1161\u11ab",
    "𝒜𠮷😀",
]


def test_bare_codes_are_the_code_points_of_bare_texts() -> None:
    together = "\0".join(map(bare_text, MARKED))
    for _ in range(2):  # the table is filled in as characters are met
        assert bare_codes(MARKED).tobytes().decode("utf-32-le") == together
    for texts in ([], [""], MARKED[1:2], MARKED[3:4], MARKED[::-1]):
        assert bare_codes(texts).tobytes().decode("utf-32-le") == "\0".join(map(bare_text, texts))
    for code in range(1, 0x30000):
        if not 0xD800 <= code < 0xE000:
            character = chr(code)
            if bare_codes([f"a{character}b"]).tobytes().decode("utf-32-le") != bare_text(f"a{character}b"):
                pytest.fail(f"U+{code:04X}")


def test_sentences_of_a_line_are_found_without_parsing() -> None:
    document = SentenceDocument(
        id='"sentences": ["甲"]',
        title='"sentences": ["乙"]',
        group='\\"gaps": [1]',
        source="s",
        sentences=('他说："sentences": ["丙"]，', '走\\了。"]', "\u2028二十一"),
        gaps=(1, 2),
    )
    bare = bare_text("".join(document.sentences))
    assert bare_text(raw_sentences(document.to_line(), "x")) == bare
    with pytest.raises(InputError, match="^x: not a corpus line"):
        raw_sentences('{"id": "1"}', "x")
