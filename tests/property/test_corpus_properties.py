"""Properties of cleaning, cutting and dropping, on text that tries to break them."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unicodedata import is_normalized

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xuebu.corpus.clean import clean_text
from xuebu.corpus.dedup import keep_sentences
from xuebu.corpus.document import Document, SentenceDocument, sentence_document_from
from xuebu.corpus.overlap import RunIndex, bare_codes, bare_text, code_points, run_hashes, shares_text, shown_runs
from xuebu.corpus.refusals import Refusals
from xuebu.corpus.sentences import split_sentences
from xuebu.corpus.settings import CorpusSettings
from xuebu.corpus.sieve import _prepared, sieve_document

NASTY = (
    "，、；：·/()（）（）,;:!?.@+-０１３８１３８０012345678Ａé\u00e4\u00b8\u0096〈〉『「“‘\ufffc"
    "山水ab１。！？；…!?．；”’」』）（《》()\"' \n\r\t\x0b\f\x85\u2028\u2029\u3000\xa0\u200b\u200d\ufeff\xad"
    "e\u0301\u0308가\u1100\u1161\uf900\u037e，\ud800\uffff\ue000\ufe0f\x00\U0002f800"
)
texts = st.one_of(st.text(alphabet=NASTY, max_size=80), st.text(max_size=40))


@given(texts)
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    once = clean_text(text)
    assert clean_text(once) == once
    assert is_normalized("NFC", once)
    once.encode("utf-8")
    for paragraph in once.split("\n") if once else []:
        assert paragraph == " ".join(paragraph.split()) != ""


STEPS = {
    "repair_encoding": st.booleans(),
    "convert": st.sampled_from(["none", "t2s"]),
    "full_width": st.sampled_from(["keep", "half"]),
    "punctuation": st.sampled_from(["keep", "chinese"]),
    "mask_personal": st.sets(st.sampled_from(["email", "phone", "id_number"])).map(lambda kinds: tuple(sorted(kinds))),
}


@settings(deadline=None)
@given(texts, st.fixed_dictionaries(STEPS))
def test_all_steps_twice_are_all_steps_once(text: str, steps: dict[str, Any]) -> None:
    for package in ("ftfy", "opencc"):
        pytest.importorskip(package, reason="the extra `collect` is not installed")
    asked = CorpusSettings(**steps)

    def once(text: str, script: str = "") -> tuple[str, str]:
        document = Document(id="1", title="", group="1", text=text, source="s", script=script)
        return _prepared(document, "", asked, Refusals())[:2]

    assert once(*once(text)) == once(text)  # OpenCC alone is not idempotent (么麼): the script says that it is done


@given(texts)
def test_pieces_join_to_the_paragraph(paragraph: str) -> None:
    pieces = split_sentences(paragraph)
    assert "".join(pieces) == paragraph
    assert all(pieces)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=12))
def test_kept_neighbors_were_neighbors(flags: list[tuple[bool, bool]]) -> None:
    gaps = [place for place, (gap, _) in enumerate(flags) if gap and place]
    keep = [kept for _, kept in flags]
    sentences, left = keep_sentences([str(place) for place in range(len(flags))], gaps, keep)
    assert list(sentences) == [str(place) for place, kept in enumerate(keep) if kept]
    for place in range(1, len(sentences)):
        before, after = int(sentences[place - 1]), int(sentences[place])
        assert (place not in left) == (after == before + 1 and after not in gaps)
    assert list(left) == sorted(set(left)) and all(1 <= gap < len(sentences) for gap in left)


@given(texts, st.integers(1, 12), st.floats(0, 1))
def test_every_character_is_kept_or_refused(text: str, shortest: int, share: float) -> None:
    asked = CorpusSettings(min_sentence_characters=shortest, max_sentence_characters=20, min_han_share=share)
    refusals = Refusals()
    sieved = sieve_document(Document(id="1", title="山", group="山", text=text, source="s"), asked, refusals)
    refused = sum(count.characters for count in refusals.counts().values())
    kept = sum(map(len, sieved.document.sentences)) if sieved.document else 0
    assert kept + refused == sieved.characters
    if sieved.document:
        assert sentence_document_from(sieved.document.to_line(), "x") == replace(sieved.document, paragraphs=())
        assert all(shortest <= len(sentence) <= 20 for sentence in sieved.document.sentences)
        assert len(sieved.document.gaps) < len(sieved.document.sentences)


short = st.text(alphabet="甲乙", min_size=1, max_size=45)


@settings(deadline=None)
@given(st.lists(short, max_size=5), st.lists(short, max_size=5))
def test_overlap_equals_sets_of_runs(held_out: list[str], training: list[str]) -> None:
    def runs(text: str) -> set[str]:
        return {text[start : start + 20] for start in range(len(text) - 19)}

    seen = set().union(*map(runs, training))
    expected = [len(runs(text) & seen) >= min(len(runs(text)) or 1, 3) for text in held_out]
    hashes = np.concatenate([np.empty(0, dtype=np.uint64), *(run_hashes(code_points(text)) for text in held_out)])
    shown = np.empty(0, dtype=np.uint64)
    if len(hashes):
        with TemporaryDirectory() as folder:
            RunIndex.write(Path(folder) / "runs", hashes)
            (shown,) = shown_runs(training, [Path(folder) / "runs"])
    assert [shares_text(code_points(text), shown) for text in held_out] == expected


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), max_size=5))
def test_bare_codes_are_those_of_bare_texts(given_texts: list[str]) -> None:
    found = bare_codes(given_texts).tobytes().decode("utf-32-le")
    assert found == "\0".join(map(bare_text, given_texts))


def test_sentence_documents_have_no_more_fields_than_documents() -> None:
    extra = set(SentenceDocument.__dataclass_fields__) - set(Document.__dataclass_fields__)
    assert extra == {"sentences", "gaps", "paragraphs"}
