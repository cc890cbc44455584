"""WordPiece ids against those of tokenizers and of transformers' AutoTokenizer."""

import os
from pathlib import Path

import numpy as np
import pytest

from xuebu.tokens.vocab import SPECIAL_TOKENS, Vocabulary, hugging_face_tokenizer, load_vocabulary

HARD = [
    "用iPhone15学步，unaffable！",
    "Ünïcödé CAFÉ cafe\u0301 e\u0323\u0301 ẞ İstanbul ŉ ǅ",
    "中\u0301文 !\u0301a \u0301开头 =\u0338 a\u302eb\u0323",
    "ＡＢＣ１２３，！？ ½ ﬁ ㍿ ℌ²³ ① ⅷ",
    "零\u200b宽\ufeff软\u00ad连\u200d字 a\u200bb\u00adc\u200d1",
    "控\x00制\x01字\x1c符\x1f与\x7f\x9f a\x00b \ufffd",
    "空\u00a0格\u3000与\u202f窄\u2009换\u2028行\u2029段\x85节",
    "tab\t回车\r\n换页\x0c垂直\x0b",
    "ひらがな カタカナ か\u3099 が 각 ᄀ\u1161\u11a8 한국어",
    "𠀀𠮷𪚥𫝀 \U0002b820\U0002b81f\U0002b920\U0002cea1\U0002f800 豈\uf900更",
    "😀👨‍👩‍👧‍👦🇨🇳❤️ ☃ ★ → ¥ $ ^ ` | ~ + < > = _",
    "א\u05b0ב العربية हिन्दी ไทย ελληνικός ΣΑΣ",
    "don't stop-2024/05/06 3.14% user@example.com C++ x_1 ##ing # ##",
    "x" * 100 + " " + "x" * 101 + " " + "é" * 100 + " " + "中" * 101,
    "  前后空白  ",
    "",
    " \n\u3000",
    "\u0301",
    "[MASK] [CLS]学[SEP]步[PAD][UNK] [unused1] <S> [ MASK ]",
    "\uffff\U0010ffff\ue000\u0378",
]
LITERAL = ["我在[MASK]京学习", "[MASK][MASK]", "e[MASK]\u0301", " [MASK] a[MASK]b ", "[[MASK]]"]


def entries():
    """Special tokens at other places than ours, letters, some pieces, every second character of the texts."""
    characters = sorted({character for text in HARD for character in text if character.isprintable()})
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = [
        "una",
        "##ff",
        "##able",
        "iphone",
        "iPhone",
        "##15",
        "cafe",
        "CAFÉ",
        "strasse",
        "##ラ",
        "ひら",
        "##がな",
        "xx",
    ]
    rest = [*characters[::2], *letters, *pieces, *(f"##{one}" for one in (*letters, *characters[::3], "15"))]
    listed = ("[PAD]", "[unused1]", "!", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<S>", *rest)
    return tuple(dict.fromkeys(token for token in listed if token.strip()))


@pytest.fixture(scope="module", params=[True, False], ids=["lowercase", "cased"])
def vocabulary(request):
    return Vocabulary(entries(), "wordpiece", request.param)


def reference_of(vocabulary):
    reference = hugging_face_tokenizer(vocabulary)
    reference.encode_special_tokens = True  # text is text
    return reference


def test_hard_texts_equal_tokenizers(vocabulary):
    reference = reference_of(vocabulary)
    expected = [encoding.ids for encoding in reference.encode_batch(HARD, add_special_tokens=False)]
    assert [vocabulary.encode(text).tolist() for text in HARD] == expected
    located = vocabulary.locate(HARD)
    assert [part.tolist() for part in np.split(located.ids, located.offsets[1:-1])] == expected
    assert len({index for ids in expected for index in ids}) > 60


def test_places_equal_the_offsets_of_tokenizers(vocabulary):
    for text in HARD:
        found = [first for first, _ in reference_of(vocabulary).encode(text, add_special_tokens=False).offsets]
        places = vocabulary.locate([text]).places.tolist()
        assert places == sorted(places)
        # A run begins, for us, with a character that is dropped from it; every other place is the library's.
        differing = [(a, b) for a, b in zip(places, found, strict=True) if a != b]
        assert all(not vocabulary.encode(text[a:b]).size for a, b in differing), (text, differing)


def test_every_code_point_equals_tokenizers(vocabulary):
    edges = ((0, 0x3400), (0x4DB0, 0x4E10), (0x9FE0, 0xAC10), (0xD790, 0x20010), (0x2A6D0, 0x2A710), (0x2B730, 0x2B930))
    edges += ((0x2CEA0, 0x2CEC0), (0x2F7F0, 0x2FA30))
    codes = [code for first, last in edges for code in range(first, last) if not 0xD800 <= code < 0xE000]
    texts = ["a".join(map(chr, codes[start : start + 64])) for start in range(0, len(codes), 64)]
    texts += ["".join(map(chr, codes[start : start + 64])) for start in range(0, len(codes), 64)]
    expected = reference_of(vocabulary).encode_batch_fast(texts, add_special_tokens=False)
    ids, offsets = vocabulary.encode_batch(texts)
    assert np.diff(offsets).tolist() == [len(encoding) for encoding in expected]
    assert np.array_equal(ids, np.concatenate([encoding.ids for encoding in expected]))


def test_half_of_a_surrogate_pair_is_unknown(vocabulary):
    assert vocabulary.encode("a\ud800b").tolist() == [
        *vocabulary.encode("a").tolist(),
        vocabulary.unk_id,
        *vocabulary.encode("b").tolist(),
    ]


def test_auto_tokenizer_reloads_the_same_ids(vocabulary, tmp_path):
    from transformers import AutoTokenizer, BertConfig

    vocabulary.save(tmp_path, max_length=128)
    BertConfig(vocab_size=vocabulary.num_tokens).save_pretrained(tmp_path)
    assert load_vocabulary(tmp_path) == vocabulary
    reloaded = AutoTokenizer.from_pretrained(tmp_path)
    reloaded.save_pretrained(tmp_path / "again")
    for tokenizer in (reloaded, AutoTokenizer.from_pretrained(tmp_path / "again")):
        for text in [*HARD, *LITERAL]:
            expected = [vocabulary.cls_id, *vocabulary.encode_with_specials(text).tolist(), vocabulary.sep_id]
            assert tokenizer(text)["input_ids"] == expected, text
        assert len(tokenizer) == vocabulary.num_tokens
        assert tokenizer.mask_token_id == vocabulary.mask_id
    pair = reloaded("学步1a", "café 2")
    a, b = (len(vocabulary.encode(text)) for text in ("学步1a", "café 2"))
    assert pair["token_type_ids"] == [0] * (a + 2) + [1] * (b + 1)
    assert reloaded.model_max_length == 128


@pytest.mark.long
def test_ids_equal_on_all_shared_text():
    """Both vocabularies on every file of real text; its folder is named by XUEBU_SHARED_DATA."""
    if "XUEBU_SHARED_DATA" not in os.environ:
        pytest.skip("XUEBU_SHARED_DATA names no folder of real text")
    folder = Path(os.environ["XUEBU_SHARED_DATA"])
    google = load_vocabulary(folder / "vocab" / "bert_base_chinese_vocab.txt")
    assert google.special.five == (0, 100, 101, 102, 103)
    characters = Vocabulary((*SPECIAL_TOKENS, *(token for token in google.tokens if len(token) == 1 and token.strip())))
    files = [path for kind in ("jsonl", "json", "txt", "tsv", "conllu") for path in sorted(folder.glob(f"*/*.{kind}"))]
    assert len(files) > 40
    for vocabulary in (google, characters):
        reference = reference_of(vocabulary)
        for path in files:
            lines = path.read_text(encoding="utf-8").split("\n")
            expected = reference.encode_batch_fast(lines, add_special_tokens=False)
            ids, offsets = vocabulary.encode_batch(lines)
            assert np.array_equal(np.diff(offsets), [len(encoding) for encoding in expected]), path
            assert np.array_equal(ids, np.concatenate([encoding.ids for encoding in expected])), path
