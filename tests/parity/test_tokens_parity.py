"""Our ids against those of tokenizers and of transformers' AutoTokenizer."""

import numpy as np
import pytest

from xuebu.tokens.settings import VocabularySettings
from xuebu.tokens.text import WHITESPACE
from xuebu.tokens.vocab import SPECIAL_TOKENS, Vocabulary, hugging_face_tokenizer, train_vocabulary

HARD = [
    "学步，从第1步到第100步。",
    "GPT4与BERT-base在2024年",
    "iPhone15 ProMax  3.14%",
    "ＡＢＣ１２３，！？",
    "cafe\u0301 e\u0323\u0301 A\u030a Å ﬁ ½",
    "\u0301开头的组合符",
    "각 ᄀ\u1161\u11a8 か\u3099 が",
    "𠀀𠮷𪚥𫝀生僻字",
    "😀👨‍👩‍👧‍👦🇨🇳❤️",
    "换\u2028行\u2029段\x85节",
    "空\u00a0格\u3000与\u202f窄\u200b零宽\ufeff",
    "控\x00制\x01字\x1c符\x1f与\x7f\x9f",
    "tab\t回车\r\n换页\x0c垂直\x0b",
    "  前后空白  ",
    "",
    " \n\u3000",
    "א\u05b0ב العربية हिन्दी ไทย",
    "㍿㊀ℌ²³",
    "mask MASK [mask] [ MASK ] [MASK",
    "\ufffd\uffff\U0010ffff",
]

LITERAL_SPECIALS = [
    "我在[MASK]京学习",
    "[MASK][MASK]",
    "[CLS]学[SEP]步[PAD][UNK]",
    "e[MASK]\u0301",
    " [MASK] 学 ",
    "[[MASK]]",
]


@pytest.fixture(scope="module")
def vocabulary():
    return train_vocabulary([*HARD[:-3], *LITERAL_SPECIALS], VocabularySettings(min_count=1))


@pytest.fixture(scope="module")
def folder(vocabulary, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    vocabulary.save(folder, max_length=128)
    return folder


def test_hard_texts_equal_tokenizers(vocabulary):
    reference = hugging_face_tokenizer(vocabulary)
    expected = [encoding.ids for encoding in reference.encode_batch_fast(HARD, add_special_tokens=False)]
    assert [vocabulary.encode(text).tolist() for text in HARD] == expected
    ids, offsets = vocabulary.encode_batch(HARD)
    assert [part.tolist() for part in np.split(ids, offsets[1:-1])] == expected


def test_every_code_point_equals_tokenizers():
    codes = [code for code in (*range(0x33500), *range(0xE0000, 0xE0200)) if not 0xD800 <= code < 0xE000]
    known = [chr(code) for code in codes[::3] if code not in WHITESPACE and code > 0x20]
    vocabulary = Vocabulary((*SPECIAL_TOKENS, *known))
    reference = hugging_face_tokenizer(vocabulary)
    # one text for each 16 neighbors, parted by a starter that composes with nothing
    texts = ["一".join(map(chr, codes[start : start + 16])) for start in range(0, len(codes), 16)]
    expected = reference.encode_batch_fast(texts, add_special_tokens=False)
    ids, offsets = vocabulary.encode_batch(texts)
    assert offsets.tolist() == np.cumsum([0, *(len(encoding) for encoding in expected)]).tolist()
    assert np.array_equal(ids, np.concatenate([encoding.ids for encoding in expected]))


def test_literal_special_tokens_equal_tokenizers(vocabulary):
    reference = hugging_face_tokenizer(vocabulary)
    for text in [*HARD, *LITERAL_SPECIALS]:
        expected = reference.encode(text, add_special_tokens=False).ids
        assert vocabulary.encode_with_specials(text).tolist() == expected, text


def test_auto_tokenizer_reloads_the_same_ids(vocabulary, folder):
    from transformers import AutoTokenizer

    reloaded = AutoTokenizer.from_pretrained(folder)
    for text in [*HARD, *LITERAL_SPECIALS]:
        expected = [vocabulary.cls_id, *vocabulary.encode_with_specials(text).tolist(), vocabulary.sep_id]
        assert reloaded(text)["input_ids"] == expected, text
    pair = reloaded("学步1a", "cafe\u0301 2")
    a, b = vocabulary.encode("学步1a").tolist(), vocabulary.encode("cafe\u0301 2").tolist()
    assert pair["input_ids"] == [2, *a, 3, *b, 3]
    assert pair["token_type_ids"] == [0] * (len(a) + 2) + [1] * (len(b) + 1)
    assert pair["attention_mask"] == [1] * len(pair["input_ids"])
    assert reloaded.model_max_length == 128
    names = ("pad", "unk", "cls", "sep", "mask")
    assert [getattr(reloaded, f"{name}_token_id") for name in names] == [0, 1, 2, 3, 4]
    assert len(reloaded) == vocabulary.num_tokens
    assert reloaded.decode(vocabulary.encode("学步1a"), skip_special_tokens=True) == "学步1a"


def test_auto_tokenizer_reloads_beside_a_bert_config(vocabulary, folder):
    """The model folder also holds a config of type bert, by which AutoTokenizer could choose another class."""
    from transformers import AutoTokenizer, BertConfig

    BertConfig(vocab_size=vocabulary.num_tokens).save_pretrained(folder)
    text = "用iPhone15学步"
    reloaded = AutoTokenizer.from_pretrained(folder)
    assert reloaded(text, add_special_tokens=False)["input_ids"] == vocabulary.encode(text).tolist()
    reloaded.save_pretrained(folder / "again")
    again = AutoTokenizer.from_pretrained(folder / "again")
    assert again(text, add_special_tokens=False)["input_ids"] == vocabulary.encode(text).tolist()
