import random
import subprocess
import sys

import pytest

from xuebu.errors import ConfigError
from xuebu.tokens.settings import VocabularySettings
from xuebu.tokens.vocab import SPECIAL_TOKENS, train_vocabulary

TEXTS = [
    f"第{number}步，学步而行。token{number % 7} tokens Tokenizer café 学习learning-rate {'ab' * (number % 4)} ひらがな"
    for number in range(60)
]


def settings(**changes):
    return VocabularySettings(**{"kind": "wordpiece", "max_size": 140, "min_count": 2, **changes})


def test_order_of_entries():
    tokens = train_vocabulary(TEXTS, settings(extra_tokens=("<S>", "<T>"))).tokens
    assert tokens[:7] == (*SPECIAL_TOKENS, "<S>", "<T>")
    singles = [token for token in tokens[7:] if len(token) == 1]
    plain = [text.lower().replace("é", "e").replace("が", "か") for text in TEXTS]
    counts = {one: sum(text.count(one) for text in plain) for one in singles}
    assert singles == sorted(singles, key=lambda one: (-counts[one], one))
    continuing = [token for token in tokens if token.startswith("##") and len(token) == 3]
    first, last = tokens.index(continuing[0]), tokens.index(continuing[-1])
    assert continuing == sorted(continuing) == list(tokens[first : last + 1])
    assert {"token", "##ken"} & set(tokens[last + 1 :])
    assert len(tokens) <= 140


def test_neither_order_nor_process_nor_threads_make_a_difference(tmp_path):
    expected = train_vocabulary(TEXTS, settings())
    shuffled = random.Random(1).sample(TEXTS, len(TEXTS))
    assert train_vocabulary(shuffled, settings()).tokens == expected.tokens
    code = (
        "import sys; from xuebu.tokens.vocab import *; from xuebu.tokens.settings import *\n"
        f"texts = {shuffled!r}\n"
        "v = train_vocabulary(texts, VocabularySettings(kind='wordpiece', max_size=140, min_count=2)); print(v.digest)"
    )
    for threads in ("1", "4"):  # another process: other seeds of the library's hash maps
        found = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"RAYON_NUM_THREADS": threads, "PYTHONPATH": ":".join(sys.path)},
        )
        assert found.stdout.strip() == expected.digest


def test_every_kept_character_is_encoded_and_text_comes_back():
    # cased: stripping accents would take the voicing marks of kana away too
    vocabulary = train_vocabulary(TEXTS, settings(min_count=1, max_size=300, lowercase=False))
    for text in TEXTS:
        ids = vocabulary.encode(text)
        assert vocabulary.unk_id not in ids
        assert vocabulary.decode(ids).replace(" ", "") == text.replace(" ", "")
        assert "tokens Tokenizer" in vocabulary.decode(ids)


def test_case_is_kept_if_asked():
    cased = train_vocabulary(TEXTS, settings(lowercase=False, max_size=300))
    assert {"T", "é"} <= {character for token in cased.tokens for character in token}
    assert "T" not in {character for token in train_vocabulary(TEXTS, settings()).tokens[5:] for character in token}


def test_rare_characters_are_left_out_and_pairs_too():
    tokens = train_vocabulary([*TEXTS, "罕 zzzz"], settings(max_size=300)).tokens
    assert "罕" not in tokens and "zz" not in tokens
    assert "罕" in train_vocabulary([*TEXTS, "罕"], settings(min_count=1, max_size=300)).tokens


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"max_size": 30},
            r"`max_size` 30 does not hold the \d+ characters that occur 2 times or more .* set it to \d+",
        ),
        ({"extra_tokens": ("S",)}, r"`extra_tokens` 'S' must stand in \[brackets\]"),
        ({"extra_tokens": ("<S T>",)}, r"`extra_tokens` '<S T>' must stand"),
        ({"extra_tokens": ("<S>", "<S>")}, r"`extra_tokens` '<S>' is there twice"),
        ({"extra_tokens": ("[MASK]",)}, r"'\[MASK\]' is there twice"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        train_vocabulary(TEXTS, settings(**changes))


def test_the_size_that_is_asked_for_is_enough():
    with pytest.raises(ConfigError) as caught:
        train_vocabulary(TEXTS, settings(max_size=30))
    enough = int(str(caught.value).split("set it to ")[1].split()[0].replace(",", ""))
    assert train_vocabulary(TEXTS, settings(max_size=enough)).num_tokens == enough


def test_no_text_gives_the_special_tokens_and_halves_of_pairs_are_passed_over():
    assert train_vocabulary([], settings()).tokens == SPECIAL_TOKENS
    assert train_vocabulary(["\ud800学 a\ud800a\x00\x01"], settings(min_count=1)).tokens[5:] == ("a", "学")
