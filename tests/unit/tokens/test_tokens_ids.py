"""The vocabulary of anonymised ids: by frequency and first occurrence, the same for any numbering."""

import numpy as np
import pytest

from xuebu.corpus.symbols import symbols_of
from xuebu.errors import InputError
from xuebu.tokens.extend import extend_vocabulary
from xuebu.tokens.settings import VocabularySettings
from xuebu.tokens.special import SPECIAL_TOKENS
from xuebu.tokens.statistics import learn_words
from xuebu.tokens.vocab import Vocabulary, load_vocabulary, train_vocabulary

SETTINGS = VocabularySettings(kind="ids", min_count=1)
TEXTS = [symbols_of([901, 17, 17, 4]), symbols_of([17, 4, 65_600, 12])]


def test_ids_are_ordered_by_frequency_and_ties_by_first_occurrence():
    found = train_vocabulary(TEXTS, SETTINGS)
    assert found.tokens == (*SPECIAL_TOKENS, "17", "4", "901", "65600", "12")
    assert train_vocabulary(TEXTS, VocabularySettings(kind="ids", min_count=2)).tokens[5:] == ("17", "4")


def test_no_numbering_changes_the_ids_of_a_text():
    rng = np.random.default_rng(0)
    rows = [rng.zipf(1.3, 12) % 300 for _ in range(400)]
    numbers = rng.permutation(70_000)[:300]
    plain, secret = ([symbols_of(one) for one in each] for each in (rows, [numbers[row] for row in rows]))
    settings = VocabularySettings(kind="ids", min_count=3)
    first, second = train_vocabulary(plain, settings), train_vocabulary(secret, settings)
    assert first.num_tokens == second.num_tokens > 50
    for one, other in zip(plain, secret, strict=True):
        assert first.encode(one).tolist() == second.encode(other).tolist()
    assert [numbers[int(token)] for token in first.tokens[5:]] == [int(token) for token in second.tokens[5:]]


def test_characters_can_be_ordered_by_first_occurrence_too_whatever_the_chunks():
    texts = ["丙甲乙" * 400_000, "丁甲" * 200_000, "戊"]  # 乙 is U+4E59, 丙 is U+4E19
    settings = VocabularySettings(min_count=1, ties="first")
    assert train_vocabulary(["乙" + texts[0], *texts[1:], "丙"], settings).tokens[5:] == ("甲", "乙", "丙", "丁", "戊")
    assert train_vocabulary(texts[::-1], settings).tokens[5:] == ("甲", "丙", "乙", "丁", "戊")
    by_code_point = VocabularySettings(min_count=1)
    assert train_vocabulary(["乙" + texts[0], *texts[1:], "丙"], by_code_point).tokens[5:8] == ("甲", "丙", "乙")


def test_numbers_and_symbols_are_read_alike_and_come_back():
    vocabulary = train_vocabulary(TEXTS, SETTINGS)
    assert vocabulary.encode("901 17  17 4").tolist() == vocabulary.encode(TEXTS[0]).tolist() == [7, 5, 5, 6]
    assert vocabulary.encode_with_specials("17 [MASK] 4").tolist() == [5, 4, 6]
    assert vocabulary.decode([5, 4, 8]) == "17 [MASK] 65600"
    assert vocabulary.unknown_texts("17 33 5 33") == ("33", "5")
    assert vocabulary.num_characters().tolist() == [1] * 10
    assert not vocabulary.continues_word().any()
    assert "token ids" in vocabulary.summary()


def test_the_saved_files_are_read_back_and_by_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    vocabulary = train_vocabulary(TEXTS, SETTINGS)
    vocabulary.save(tmp_path)
    assert load_vocabulary(tmp_path) == vocabulary
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ("901 17 17 4", "17 [MASK] 65600 33", ""):
        assert theirs(text, add_special_tokens=False)["input_ids"] == vocabulary.encode_with_specials(text).tolist()
    assert theirs("17 4", "12")["input_ids"] == [2, 5, 6, 3, 9, 3]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("007", "'007' is no token id"),
        ("131068", "a vocabulary of ids has decimal numbers from 0 to 131067"),
        ("17", "'17' is there twice"),
    ],
)
def test_a_wrong_entry_is_named_with_its_line(tmp_path, entry, problem):
    with pytest.raises(Exception, match=problem):
        Vocabulary((*SPECIAL_TOKENS, "17", entry), "ids")
    if entry != "007":  # a number with zeros before it makes the file one of characters
        (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, "17", entry]) + "\n", encoding="utf-8")
        with pytest.raises(InputError, match=r"vocab\.txt:7: "):
            load_vocabulary(tmp_path)


def test_words_are_learned_from_ids_as_from_characters():
    rng = np.random.default_rng(1)
    words = [[70_000, 3], [12, 9, 44], [8]]
    texts = [symbols_of(np.concatenate([words[i] for i in rng.integers(0, 3, 30)])) for _ in range(50)]
    noise = [symbols_of(rng.integers(100, 4_000, 60)) for _ in range(50)]
    learned = learn_words([*texts, *noise])
    assert {symbols_of([70_000, 3]), symbols_of([12, 9, 44])} <= learned.keys()


def test_ids_of_one_digit_stay_ids(tmp_path):
    vocabulary = train_vocabulary([symbols_of([1, 2, 3, 1, 2, 3, 9])], SETTINGS)
    vocabulary.save(tmp_path)
    assert load_vocabulary(tmp_path) == vocabulary


def test_ids_are_read_from_numbers_too_and_text_without_any_is_refused():
    assert train_vocabulary(["12 345 12", "7 12"], SETTINGS).tokens[5:] == ("12", "345", "7")
    with pytest.raises(InputError, match="no token id stands in the text often enough"):
        train_vocabulary(["春天来了"], SETTINGS)


def test_more_ids_are_added_and_what_is_none_is_refused():
    vocabulary = train_vocabulary(["1 2"], SETTINGS)
    assert extend_vocabulary(vocabulary, ["1 77 77 12"], min_count=1)[1] == ("77", "12")
    for text in ("200000 200000", "1, 2"):
        with pytest.raises(InputError, match="is no token id from 0 to 131,067; give texts of ids parted by spaces"):
            extend_vocabulary(vocabulary, [text], min_count=1)
