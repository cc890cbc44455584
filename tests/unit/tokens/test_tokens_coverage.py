import json

import pytest

from xuebu.tokens.coverage import compare_vocabularies, report_text
from xuebu.tokens.extend import extend_vocabulary
from xuebu.tokens.vocab import SPECIAL_TOKENS, Vocabulary

CHARACTERS = Vocabulary((*SPECIAL_TOKENS, *"学步而行a"))
PIECES = Vocabulary(("[PAD]", "[unused1]", *SPECIAL_TOKENS[1:], *"学步ab", "##b", "##c", "##学"), "wordpiece", True)
TEXTS = ["学 步\u3000鹤鹤", "鹤Ab学", "", "xyz 行ab"]


def test_report_of_characters_counts_by_hand():
    report = report_text(CHARACTERS, TEXTS)
    assert (report.num_characters, report.num_tokens) == (14, 14)
    assert report.unknown == {"鹤": 3, "b": 2, "A": 1, "x": 1, "y": 1, "z": 1}
    assert (report.num_unknown, report.num_unknown_characters) == (9, 9)
    assert report.coverage == pytest.approx(5 / 14)
    assert (report.num_ordinary, report.num_used, report.unused) == (5, 4, ("而",))


def test_report_of_pieces_counts_by_hand():
    report = report_text(PIECES, TEXTS)
    # 学 步 鹤 鹤 | 鹤 a ##b 学 | xyz 行 a ##b
    assert (report.num_characters, report.num_tokens) == (14, 12)
    assert report.unknown == {"鹤": 3, "xyz": 1, "行": 1}
    assert (report.num_unknown, report.num_unknown_characters) == (5, 7)
    assert report.tokens_per_character == pytest.approx(12 / 14)
    # [unused1] and ##学 are no text
    assert (report.num_ordinary, report.num_used, report.unused) == (6, 4, ("b", "##c"))
    assert "coverage 50.0000%: 7 characters are read as [UNK]" in report.summary()
    assert "鹤 3 · xyz 1 · 行 1" in report.summary()
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["unknown"]["鹤"] == 3


def test_chunks_make_no_difference(monkeypatch):
    whole = report_text(PIECES, TEXTS)
    monkeypatch.setattr("xuebu.tokens.coverage._AT_ONCE", 1)
    assert report_text(PIECES, TEXTS) == whole


def test_no_text():
    report = report_text(CHARACTERS, [" "])
    assert report.coverage is None and report.tokens_per_character is None
    assert report.summary() == "the text has no characters"
    json.dumps(report.to_json(), allow_nan=False)


def test_comparison():
    compared = compare_vocabularies(CHARACTERS, PIECES, names=("one", "two"), texts=iter(TEXTS))
    assert (compared.sizes, compared.common, compared.same_ids) == ((10, 13), 3, 0)
    assert compared.only == (("而", "行"), ("b", "##b", "##c"))
    assert [report.num_tokens for report in compared.reports] == [14, 12]
    assert "14 tokens by one and 12 by two (0.857 times as many)" in compared.summary()
    assert ("coverage", "35.7143%", "50.0000%") in compared.rows()
    assert compare_vocabularies(CHARACTERS, CHARACTERS, names=("a", "b")).same_ids == 5
    json.dumps(compared.to_json(), allow_nan=False)


def test_characters_are_added_behind_the_old_ones():
    extended, added = extend_vocabulary(CHARACTERS, TEXTS, min_count=1)
    assert added == ("鹤", "b", "A", "x", "y", "z")
    assert extended.tokens == (*CHARACTERS.tokens, *added)
    assert report_text(extended, TEXTS).num_unknown == 0
    assert extend_vocabulary(CHARACTERS, TEXTS, min_count=2)[1] == ("鹤", "b")
    assert extend_vocabulary(CHARACTERS, TEXTS, min_count=1, max_added=1)[1] == ("鹤",)
    assert extend_vocabulary(CHARACTERS, ["\x00\ud800学"], min_count=1) == (CHARACTERS, ())


def test_words_get_the_missing_characters_where_they_stand():
    extended, added = extend_vocabulary(PIECES, [*TEXTS, "BÄx", "c" * 101], min_count=1)
    assert added == ("鹤", "##x", "##a", "##y", "##z", "x", "行")[:1] + added[1:]
    assert set(added) == {"鹤", "x", "##y", "##z", "行", "##a", "##x"}
    assert report_text(extended, [*TEXTS, "BÄx"]).num_unknown == 0
    assert extended.lowercase and extended.kind == "wordpiece"
