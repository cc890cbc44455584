"""The page of a corpus: what it says, in both languages, and that nothing in it can run or be fetched."""

import json
import re
from pathlib import Path

import pytest

from xuebu.cli.card import card as card_command
from xuebu.corpus.build import build_corpus
from xuebu.corpus.document import Document
from xuebu.corpus.settings import CorpusSettings
from xuebu.errors import ConfigError, InputError
from xuebu.report.corpus import render_card_page, write_card_page

EVIL = "<script>alert(1)</script>"
LINES = ("山脚下的小村子只有三十户人家，家家门前都种着梅树。", "溪水绕过石桥，流向远处的稻田。")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / f"corpus {EVIL.replace('/', '')}"
    documents = [
        Document(
            id=str(number),
            title=f"{EVIL}{number}",
            group=str(number),
            text=f"{LINES[0]}{LINES[1]}第{number}户人家养了{number}只羊。短。",
            source=EVIL,
            domain=f"{EVIL}{number % 3}",
            licence=EVIL,
        )
        for number in range(12)
    ]
    build_corpus(documents, folder, CorpusSettings(held_out_fraction=0.0))
    return folder


@pytest.mark.parametrize("language", ["en", "zh"])
def test_page_says_what_the_card_says_and_nothing_runs(corpus: Path, tmp_path: Path, language: str) -> None:
    page = write_card_page(corpus, tmp_path / "page.html", language=language, font=None)
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text and "&lt;script&gt;" in text
    assert not re.search(r"https?://|src=|@import|url\((?!#)", text)
    assert text.count('<svg class="picture"') == 2 + 2 + 1 + 1 + 1
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    for reference in re.findall(r'href="#([^"]+)"', text):
        assert reference in ids
    card = json.loads((corpus / "card.json").read_text(encoding="utf-8"))
    assert card["digest"] in text and f"{card['sentences']} " in text.replace("<", " ")
    assert card["profile"]["rare"]["1"][:3] in text
    assert ("Standard characters, Level 1" if language == "en" else "规范字，一级字") in text
    assert f'<html lang="{"en" if language == "en" else "zh-Hans"}">' in text
    first = text
    assert write_card_page(corpus, tmp_path / "page.html", language=language, font=None).read_text("utf-8") == first


def test_page_of_a_card_that_knows_little(corpus: Path) -> None:
    card = json.loads((corpus / "card.json").read_text(encoding="utf-8"))
    for name in ("profile", "duplicates_by_unit", "domains", "coverage", "refusals", "settings", "splits"):
        assert "Corpus card" in render_card_page({k: v for k, v in card.items() if k != name}, title="x")
    assert "Near-duplicates were not looked for" in render_card_page({}, title="x")


def test_command_writes_the_page_or_prints(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert card_command([str(corpus)]) == 0
    assert "standard level 1" in capsys.readouterr().out
    page = tmp_path / "new" / "page.html"
    assert card_command([str(corpus), "--out", str(page), "--language", "zh"]) == 0
    assert "page.html" in capsys.readouterr().out and "语料卡" in page.read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match=r"a file that ends in \.html"):
        card_command([str(corpus), "--out", str(tmp_path)])
    with pytest.raises(ConfigError, match="give one of them"):
        card_command([str(corpus), "--out", str(page), "--markdown"])
    with pytest.raises(InputError, match="no finished corpus"):
        card_command([str(tmp_path), "--out", str(page)])


def test_page_that_cannot_be_written_is_one_line(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--out"):
        write_card_page(corpus, tmp_path / "file" / "page.html", font=None)
