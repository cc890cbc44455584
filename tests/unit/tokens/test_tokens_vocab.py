import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from xuebu.errors import InputError, StoreError
from xuebu.tokens.settings import VocabularySettings
from xuebu.tokens.vocab import SPECIAL_TOKENS, Vocabulary, load_vocabulary, train_vocabulary

SMALL = Vocabulary((*SPECIAL_TOKENS, *"学步而行[]MASK1é"))


def test_special_ids_stand_first():
    ids = [SMALL.pad_id, SMALL.unk_id, SMALL.cls_id, SMALL.sep_id, SMALL.mask_id]
    assert ids == [0, 1, 2, 3, 4]
    assert [SMALL.tokens[index] for index in ids] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def test_encode_looks_up_each_character_and_drops_white_space():
    ids = SMALL.encode("学 步\u3000\u20281\t行\x85?")
    assert ids.dtype == np.int32
    assert [SMALL.tokens[index] for index in ids] == ["学", "步", "1", "行", "[UNK]"]
    assert SMALL.encode("").tolist() == SMALL.encode(" \n").tolist() == []


def test_encode_composes_to_nfc():
    assert SMALL.encode("e\u0301").tolist() == SMALL.encode("é").tolist() == [len(SMALL.tokens) - 1]


def test_characters_beyond_the_table_and_lone_surrogates_are_unknown():
    assert SMALL.encode("\U0010ffff\ud800𠀀").tolist() == [1, 1, 1]


def test_special_tokens_in_text_are_text_unless_asked_for():
    text = "学[MASK]行"
    assert SMALL.decode(SMALL.encode(text)) == text
    assert len(SMALL.encode(text)) == len(text)
    assert SMALL.encode_with_specials(text).tolist() == [5, SMALL.mask_id, 8]
    assert SMALL.encode_with_specials("[MASK][SEP]").tolist() == [SMALL.mask_id, SMALL.sep_id]
    assert SMALL.encode_with_specials("").tolist() == []
    # a combining mark does not reach across a special token
    assert SMALL.encode_with_specials("e[MASK]\u0301").tolist() == [1, SMALL.mask_id, 1]


def test_encode_batch_equals_encode_one_by_one():
    texts = ["学步", "", " 学 行 ", "e\u0301e", "\u0301步"]
    ids, offsets = SMALL.encode_batch(texts)
    for index, text in enumerate(texts):
        assert ids[offsets[index] : offsets[index + 1]].tolist() == SMALL.encode(text).tolist()
    assert offsets[-1] == len(ids)
    assert SMALL.encode_batch([])[1].tolist() == [0]


def test_decode_refuses_ids_outside():
    with pytest.raises(ValueError, match="0 to"):
        SMALL.decode([-100])
    with pytest.raises(ValueError, match="0 to"):
        SMALL.decode([SMALL.num_tokens])


def test_digest_is_of_vocab_txt(tmp_path):
    SMALL.save(tmp_path)
    assert SMALL.digest == hashlib.sha256((tmp_path / "vocab.txt").read_bytes()).hexdigest()
    assert SMALL.digest != Vocabulary(SMALL.tokens[:-1]).digest


def test_saved_vocabulary_loads_from_folder_and_file(tmp_path):
    SMALL.save(tmp_path / "new", max_length=64)
    assert load_vocabulary(tmp_path / "new") == SMALL
    assert load_vocabulary(tmp_path / "new" / "vocab.txt").digest == SMALL.digest
    config = json.loads((tmp_path / "new" / "tokenizer_config.json").read_text())
    assert config["model_max_length"] == 64
    assert config["mask_token"] == "[MASK]"


def test_saving_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        SMALL.save(tmp_path / name)
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


SPECIAL_LINES = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xef\xbb\xbf" + SPECIAL_LINES, r"vocab.txt:1: begins with a byte-order mark"),
        (SPECIAL_LINES + "学\r\n步\r\n".encode(), r"vocab.txt:6: line ends with a carriage return"),
        (SPECIAL_LINES + "学\n步\n学\n".encode(), r"vocab.txt:8: '学' is there twice \(before: id 5\)"),
        (b"[PAD]\n[UNK]\n[CLS]\n[MASK]\n", r"vocab.txt:4: \[SEP\] belongs here, found '\[MASK\]'"),
        (b"[PAD]\n[UNK]\n", r"vocab.txt:3: \[CLS\] belongs here, found nothing"),
        (b"", r"vocab.txt:1: \[PAD\] belongs here"),
        (SPECIAL_LINES + "学步\n".encode(), r"vocab.txt:6: .* has 2 characters"),
        (SPECIAL_LINES + "学\n\n步\n".encode(), r"vocab.txt:7: '' has 0 characters"),
        (SPECIAL_LINES + "\u3000\n".encode(), r"vocab.txt:6: .* is white space"),
        (SPECIAL_LINES + b"\xff\n", r"vocab.txt:6: not UTF-8"),
    ],
)
def test_damaged_vocabulary_is_refused_with_its_line(tmp_path, data, message):
    (tmp_path / "vocab.txt").write_bytes(data)
    with pytest.raises(InputError, match=message):
        load_vocabulary(tmp_path)


def test_missing_vocabulary_is_named(tmp_path):
    with pytest.raises(InputError, match=r"vocab\.txt: No such file"):
        load_vocabulary(tmp_path)


def test_a_list_that_is_no_vocabulary_is_refused():
    with pytest.raises(StoreError, match="id 5"):
        Vocabulary((*SPECIAL_TOKENS, "ab"))
    with pytest.raises(StoreError, match="surrogate"):
        Vocabulary((*SPECIAL_TOKENS, "\ud800"))


def test_training_orders_by_frequency_then_code_point():
    texts = ["丙丙丙甲乙", "甲乙丁", "e\u0301e\u0301 \u3000\n"]
    settings = VocabularySettings(min_count=2, max_size=100)
    trained = train_vocabulary(texts, settings)
    assert trained.tokens[5:] == ("丙", "é", "乙", "甲")  # 3, then 2 each by code point: U+00E9, U+4E59, U+7532
    assert train_vocabulary(reversed(texts), settings) == trained
    assert train_vocabulary(texts, VocabularySettings(min_count=1, max_size=7)).tokens[5:] == ("丙", "é")
    assert "丁" in train_vocabulary(texts, VocabularySettings(min_count=1)).tokens


def test_training_counts_across_its_chunks(monkeypatch):
    monkeypatch.setattr("xuebu.tokens.characters._COUNT_CHUNK", 3)
    trained = train_vocabulary(["甲", "甲乙", "", "乙甲", "丙"], VocabularySettings(min_count=2))
    assert trained.tokens[5:] == ("甲", "乙")


def test_control_characters_and_surrogates_never_become_tokens():
    trained = train_vocabulary(["\x00\x1c\x7f\x85\u2028\ud800甲\u200b"], VocabularySettings(min_count=1))
    assert trained.tokens[5:] == ("\u200b", "甲")
    assert train_vocabulary([], VocabularySettings()).tokens == SPECIAL_TOKENS


def test_importing_tokens_loads_nothing_heavy():
    heavy = "{'torch', 'scipy', 'transformers', 'tokenizers', 'rjieba', 'matplotlib'}"
    code = f"import sys, xuebu.tokens.build, xuebu.tokens.vocab; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
