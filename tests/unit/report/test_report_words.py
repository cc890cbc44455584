import re
import string
from pathlib import Path

import pytest

from xuebu.analysis.curves import FAMILIES
from xuebu.report import words as module
from xuebu.report.texts import TEXTS
from xuebu.report.words import NO_BREAK, Words

ENGLISH, CHINESE = Words("en"), Words("zh")
REPORT = Path(module.__file__).parent


def places(text):
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name is not None)


@pytest.mark.parametrize("key", TEXTS)
def test_both_languages_say_it_with_the_same_places(key):
    english, chinese = TEXTS[key]
    assert places(english) == places(chinese)
    letters = re.sub(r"\{\w+\}|\[MASK\]", "", english)
    if re.search("[A-Za-z]", letters):
        assert re.search("[一-鿿]", chinese) or key == "html_lang"
    assert not re.search("[一-鿿]", english)


def test_every_text_is_used_and_every_used_text_exists():
    code = "".join(
        path.read_text(encoding="utf-8") for path in REPORT.glob("*.py") if path.name not in ("words.py", "texts.py")
    )
    template = "".join(path.read_text(encoding="utf-8") for path in sorted((REPORT / "templates").iterdir()))
    own = (REPORT / "words.py").read_text(encoding="utf-8").split("class Words")[1]
    quoted = set(re.findall(r'"(\w+)"', code + template + own)) | set(FAMILIES) | {"smooth_trend"}
    built = re.compile(r"(level|class|rate|difference|unit|card)_|\w+_(name|accuracy|accuracy_train)$")
    assert {key for key in TEXTS if key not in quoted and not built.match(key)} == set()
    called = set(re.findall(r'\b(?:t|words)\(\s*"(\w+)"', code + template))
    assert called <= set(TEXTS)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (ENGLISH.percent(0.1764), f"17.6{NO_BREAK}%"),
        (CHINESE.percent(0.1764), "17.6%"),
        (ENGLISH.percent(None), "–"),
        (ENGLISH.points(-0.2038), "−20.4"),
        (ENGLISH.points(0.05), "+5.0"),
        (ENGLISH.points(-0.0001), "0.0"),
        (ENGLISH.count(12345.0), "12,345"),
        (ENGLISH.number(-0.5, 3), "−0.500"),
        (ENGLISH.span(0.164, 0.189, factor=100), "16.4 to 18.9".replace(" ", NO_BREAK)),
        (ENGLISH.span(-0.012, 0.008, factor=100), "−1.2 to +0.8".replace(" ", NO_BREAK)),
        (ENGLISH.span(-0.22, -0.19, factor=100), "−22.0 to −19.0".replace(" ", NO_BREAK)),
        (CHINESE.shares(0.164, 0.189), "16.4 至 18.9%".replace(" ", NO_BREAK)),
        (ENGLISH.span(0.1, None), "–"),
        (ENGLISH.duration(8), f"8{NO_BREAK}s"),
        (ENGLISH.duration(845.4), f"14{NO_BREAK}min 05{NO_BREAK}s"),
        (ENGLISH.duration(7325), f"2{NO_BREAK}h 02{NO_BREAK}min"),
        (ENGLISH.plain(True), "true"),
        (ENGLISH.plain(1234567), "1,234,567"),
        (ENGLISH.plain(1e-3), "0.001"),
        (ENGLISH.plain(float("nan")), "–"),
        (ENGLISH.plain([1, "a", False]), "1, a, false"),
    ],
)
def test_numbers_are_written_for_reading(shown, expected):
    assert shown == expected
