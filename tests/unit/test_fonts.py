import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xuebu import fonts


def test_a_font_that_is_not_installed_is_not_chosen():
    assert fonts.cjk_font(("No Such Family", "Nor This One")) is None


def test_a_font_without_chinese_characters_is_not_chosen():
    assert fonts.cjk_font((fonts.LATIN_FONT,)) is None


def test_a_font_that_lacks_one_needed_character_is_not_chosen(install_font):
    lacking = sorted(set(fonts._PROBE) - {"渐"})
    install_font("Xuebu Lacking", lacking)
    install_font("Xuebu Whole")
    assert len(fonts._characters("Xuebu Lacking")) == len(lacking)
    assert fonts.cjk_font(("Xuebu Lacking",)) is None
    assert fonts.cjk_font(("Xuebu Lacking", "Xuebu Whole")) == "Xuebu Whole"


def test_the_first_of_the_list_wins(install_font):
    install_font("Xuebu One")
    install_font("Xuebu Two")
    assert fonts.cjk_font(("Xuebu Two", "Xuebu One")) == "Xuebu Two"
    assert fonts.cjk_font(("Xuebu One", "Xuebu Two")) == "Xuebu One"


def test_a_font_installed_after_matplotlib_made_its_list_is_found(install_font, tmp_path, monkeypatch):
    from matplotlib import font_manager

    new = install_font("Xuebu New", tell=False)
    damaged = tmp_path / "damaged.ttf"
    damaged.write_bytes(b"not a font")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(damaged), str(new)])
    assert fonts.cjk_font(("Xuebu New",)) == "Xuebu New"


def test_a_font_removed_since_matplotlib_made_its_list_is_not_chosen(install_font):
    install_font("Xuebu Gone").unlink()
    assert fonts.cjk_font(("Xuebu Gone",)) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("MLM accuracy, 95 %", "MLM accuracy, 95 %"),
        ("naïve – ρ", "naïve – ρ"),
        ("学步", r"\u5b66\u6b65"),
        ("red \x1b[31m", r"red \x1b[31m"),
        ("two\nlines\t", r"two\nlines\t"),
        ("\x7f\x9b", r"\x7f\x9b"),
        ("\u202eback", r"\u202eback"),
        ("𠮷", r"\U00020bb7"),
        ("", ""),
    ],
)
def test_what_the_latin_font_lacks_is_escaped(text, shown):
    assert fonts.drawable(text, None) == shown


def test_what_the_chinese_font_has_is_kept(chinese_font):
    assert fonts.drawable("学步 step \x07 𠮷", chinese_font) == r"学步 step \x07 \U00020bb7"


@given(st.text(max_size=40))
def test_every_character_left_can_be_drawn(text):
    shown = fonts.drawable(text, None)
    assert set(shown) <= fonts._characters(fonts.LATIN_FONT)
    assert not any(unicodedata.category(character).startswith("C") for character in shown)


@given(st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
def test_plain_text_is_left_alone(text):
    assert fonts.drawable(text, None) == text


def test_the_line_names_the_font_or_says_what_to_install():
    assert "Noto Sans CJK SC" in fonts.lettering_line("Noto Sans CJK SC")
    assert "English" in fonts.lettering_line(None) and "install" in fonts.lettering_line(None)
    for font in ("Noto Sans CJK SC", None):
        line = fonts.lettering_line(font, "zh")
        assert re.search("[一-鿿]", line) and "\n" not in line
        assert (font or "英文") in line


def test_importing_the_module_does_not_import_matplotlib():
    code = "import sys, xuebu.fonts; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_installed_font_draws_every_label_of_ours():
    family = fonts.cjk_font()
    if family is None:
        pytest.skip("no font with Chinese characters is installed here")
    source = Path(fonts.__file__).parent / "charts" / "figures.py"
    ours = set(re.findall("[一-鿿]", source.read_text(encoding="utf-8")))
    assert len(ours) > 40
    assert ours <= fonts._characters(family)
