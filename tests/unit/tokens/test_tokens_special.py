import numpy as np
import pytest

from xuebu.tokens.special import SPECIAL_TOKENS, SpecialIds, find_special, is_ideograph
from xuebu.tokens.vocab import Vocabulary


def test_a_character_vocabulary_has_the_first_five():
    vocabulary = Vocabulary((*SPECIAL_TOKENS, *"学步"))
    assert vocabulary.special == SpecialIds(0, 1, 2, 3, 4)
    assert vocabulary.special.is_special(7).tolist() == [True] * 5 + [False] * 2
    ordinary = vocabulary.special.ordinary_ids(7)
    assert ordinary.dtype == np.int32
    assert ordinary.tolist() == [5, 6]


def test_special_ids_lie_where_the_vocabulary_has_them():
    tokens = ("[PAD]", "[unused1]", "学", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<S>", "##学", "##ing", "[", "<>", "一")
    special = find_special(tokens)
    assert special == SpecialIds(0, 3, 4, 5, 6, extra=(1, 7, 8))
    assert special.five == (0, 3, 4, 5, 6)
    ordinary = special.ordinary_ids(len(tokens))
    assert [tokens[index] for index in ordinary] == ["学", "##ing", "[", "<>", "一"]
    assert special.is_special(len(tokens)).sum() + len(ordinary) == len(tokens)


def test_a_missing_special_token_is_refused():
    with pytest.raises(ValueError, match="not in tuple"):
        find_special(("[PAD]", "[UNK]", "[CLS]", "[SEP]"))


def test_ideographs_are_those_that_the_library_sets_apart():
    tokenizers = pytest.importorskip("tokenizers")
    normalizer = tokenizers.normalizers.BertNormalizer(lowercase=False)
    edges = [0x3400, 0x4DBF, 0x4E00, 0x9FFF, 0xF900, 0xFAFF, 0x20000, 0x2A6DF, 0x2A700, 0x2B73F, 0x2B740, 0x2B81F]
    edges += [0x2B820, 0x2B920, 0x2CEAF, 0x2F800, 0x2FA1F, 0x3042, 0xAC00, 0x41]
    for code in sorted({code + step for code in edges for step in (-1, 0, 1)}):
        apart = len(normalizer.normalize_str(f"a{chr(code)}a").split()) == 3
        # unassigned code points are dropped as "other" before the ranges are asked
        known = len(normalizer.normalize_str(f"a{chr(code)}a")) > 2
        assert is_ideograph(chr(code)) == apart or not known, hex(code)
