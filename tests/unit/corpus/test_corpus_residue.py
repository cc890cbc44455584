"""Markup that is left in plain text, sentences that lost a part, and a README that was read in the wrong encoding."""

from pathlib import Path

import pytest

from xuebu.corpus.build import build_corpus
from xuebu.corpus.document import CorpusFile, Document
from xuebu.corpus.refusals import Refusals
from xuebu.corpus.residue import without_markup
from xuebu.corpus.settings import CorpusSettings
from xuebu.corpus.sieve import reason_against, sieve_document
from xuebu.corpus.sources import read_documents


@pytest.mark.parametrize(
    ("raw", "variant", "plain", "counts"),
    [
        ("<strong>炒豆<br/></strong>取嫩豆", None, "炒豆\n取嫩豆", {"html_residue": 3}),
        ('见<a href="x.html">此处</a><BR >再走', None, "见此处\n再走", {"html_residue": 3}),
        ("<nowiki>甲</nowiki><!-- 注 -->乙", None, "甲乙", {"html_residue": 3}),
        ("甲&nbsp;乙&ldquo;丙&rdquo;&#183;&amp;", None, "甲\xa0乙“丙”·&", {"html_residue": 5}),
        ("vector<int> a<b>c 3<5 且 5>3", None, "vector<int> ac 3<5 且 5>3", {"html_residue": 1}),
        ("AT&T 与 R&D，&；&x;", None, "AT&T 与 R&D，&；&x;", {}),
        ("许多-{zh-cn:自行车; zh-hk:单车;}-与-{表}-面", "zh-hk", "许多单车与表面", {"conversion_residue": 2}),
        ("许多-{zh-cn:自行车; zh-hk:单车;}-", None, "许多自行车", {"conversion_residue": 1}),
        ("-{zh-cn:甲-{乙}-;zh-tw:丙}-", "zh-cn", "甲乙", {"conversion_residue": 2}),
        ("-{H|zh-cn:网球;zh-tw:網球}-打網球", "zh-cn", "打网球", {"conversion_residue": 1}),
        ("没有关上-{的括号，a}-b", None, "没有关上的括号，ab", {"conversion_residue": 1}),
        ("x-{y", None, "x-{y", {}),
    ],
)
def test_residue(raw: str, variant: str | None, plain: str, counts: dict[str, int]) -> None:
    assert without_markup(raw, variant) == (plain, counts)
    assert without_markup(plain, variant)[0] == plain


@pytest.mark.parametrize("attack", ["<", "<a ", "<!--", "-{", "-{a", "}-", "&", "&#", "<a\n", "-{-{a}-"])
def test_time_is_linear(attack: str) -> None:
    import time

    start = time.process_time()
    without_markup(attack * 20_000 + "}-")
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "sentence",
    [
        "，是一九七七年拍成的武侠片，片长两小时。",
        "、又叫作水边的小亭子，供人歇脚。",
        "他以一封《》说服了对岸的守将，兵不血刃。",
        "所谓“”就是在别人家门口唱歌的人，唱完就走。",
        "这个词最先出自于古希腊文「」，原意是自然。",
    ],
)
def test_sentences_that_lost_a_part_are_refused(sentence: str) -> None:
    assert reason_against(sentence, CorpusSettings()) == "missing_part"
    assert (
        reason_against(sentence.lstrip("，、").translate(dict.fromkeys(map(ord, "《》“”「」"))), CorpusSettings())
        is None
    )


def test_residue_is_counted_and_a_lost_part_leaves_a_gap() -> None:
    text = "山路很长，走了整整三天才到。他写的《》已经失传，没人见过。<br>第四天的早晨下起了&ldquo;太阳雨&rdquo;。"
    refusals = Refusals()
    document = Document(id="1", title="", group="1", text=text, source="s")
    sieved = sieve_document(document, CorpusSettings(), refusals).document
    assert sieved and sieved.sentences == ("山路很长，走了整整三天才到。", "第四天的早晨下起了“太阳雨”。")
    assert sieved.gaps == (1,) and sieved.paragraphs == (1,)
    assert {reason: each.count for reason, each in refusals.counts().items()} == {"missing_part": 1, "html_residue": 3}


README = """# 小步走远路 👣

> 记录一次从零开始的预训练：十万步，一千个读数。

## 结果 📊

| 步数 | 准确率 |
|---|---|
| 25K | 35.2% |

- 语料：三十二万句维基百科，字表一万零四十九字；
- 模型：四千八百万参数，“十二层”编码器——在一块显卡上训练了三天。

准确率与步数的相关系数是零点七八……这是一条直线吗？不是。占
"""


def test_a_readme_read_as_windows_1252_is_repaired(tmp_path: Path) -> None:
    pytest.importorskip("ftfy", reason="the extra `collect` is not installed")
    # As browsers and editors read it: the five bytes that Windows-1252 leaves open become controls.
    wrong = "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in README.encode())
    assert "è®°å½•" in wrong  # 记录
    settings = CorpusSettings(held_out_fraction=0.0, repair_encoding=True, min_han_share=0.2)
    corpora = []
    for name, text in (("right", README), ("wrong", wrong)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "README.md").write_text(text, encoding="utf-8")
        card = build_corpus(read_documents([folder / "README.md"], settings), tmp_path / f"{name}.corpus", settings)
        (document,) = CorpusFile(tmp_path / f"{name}.corpus" / "train.jsonl")
        corpora.append((document.title, document.sentences, document.gaps))
        repaired = card.refusals.get("repaired_line")
        assert (repaired is not None and repaired.count >= 5) == (name == "wrong")
    right, wrong_repaired = corpora
    assert wrong_repaired == right and "十万步，一千个读数。" in "".join(right[1])
