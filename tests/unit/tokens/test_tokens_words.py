import numpy as np
import pytest

from xuebu.errors import InputError, StoreError
from xuebu.tokens.segmenters import Segmenter, make_segmenter
from xuebu.tokens.vocab import SPECIAL_TOKENS, Vocabulary
from xuebu.tokens.words import word_starts

RJIEBA = make_segmenter("rjieba")


def cut(text, segmenter=RJIEBA):
    """The words that `word_starts` sees, as strings."""
    characters = [character for character in text if not character.isspace()]
    words = []
    for character, starts in zip(characters, word_starts(text, segmenter), strict=True):
        words = [*words, character] if starts else [*words[:-1], words[-1] + character]
    return words


def test_chinese_words():
    assert cut("我们在北京大学学习。") == ["我们", "在", "北京大学", "学习", "。"]


def test_white_space_parts_words_and_is_dropped():
    assert cut("New  York\u3000纽约\nabc") == ["New", "York", "纽约", "abc"]


@pytest.mark.parametrize("run", ["iPhone15", "１２３ＡＢＣ", "café", "привет", "αβγ", "m\u0304a"])
def test_a_run_of_letters_and_digits_is_one_word(run):
    assert cut(f"用{run}的") == ["用", run, "的"]


def test_a_segmenter_may_join_letters_to_characters():
    assert cut("穿T恤") == ["穿", "T恤"]


def test_none_makes_every_token_a_word():
    segmenter = make_segmenter("none")
    assert segmenter.name == "none"
    assert cut("北京 abc", segmenter) == ["北", "京", "a", "b", "c"]


def test_the_name_carries_the_version():
    assert RJIEBA.name.startswith("rjieba 0.")


def test_as_many_bits_as_tokens_and_the_first_is_set():
    vocabulary = Vocabulary((*SPECIAL_TOKENS, "北"))
    for text in ("", " ", " 北京", "e\u0301 \u0301", "\x00\x1c北\u2028京", "😀𠀀"):
        starts = word_starts(text, RJIEBA)
        assert starts.dtype == np.bool_
        assert len(starts) == len(vocabulary.encode(text))
        assert starts[:1].all()


def test_words_that_do_not_rejoin_are_refused():
    careless = Segmenter("careless 1", lambda text: text.split())
    with pytest.raises(StoreError, match="careless 1 changed the text"):
        word_starts("a b", careless)


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(InputError, match="surrogate"):
        word_starts("北\ud800京", RJIEBA)
