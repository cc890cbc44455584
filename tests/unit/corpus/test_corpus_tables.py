"""Markdown, parquet, .zst and the hub: what becomes a document, and one line for what does not."""

import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from xuebu.corpus import parts
from xuebu.corpus.build import build_corpus
from xuebu.corpus.document import Document
from xuebu.corpus.markdown import markdown_title, markdown_to_text
from xuebu.corpus.refusals import Refusals
from xuebu.corpus.settings import CorpusSettings
from xuebu.corpus.sources import read_documents, read_part
from xuebu.corpus.tables import read_hub
from xuebu.corpus.wikitext import MISSING_PART
from xuebu.errors import InputError, MissingExtraError

PAGE = """---
title: "最短路"
author: 某
---

# 最短路

求**最短路**有多种[算法](a.md)，
常用的有 `Dijkstra`
和 Bellman-Ford。复杂度是 $O(n\\log n)$，设点数为 $n$，$n \\le m$ 与 $a_i^2 < 9$。

$$
d_{ij} = 1
$$

??? note "注意"
    缩进的内容也是*正文*。

1. 第一步&amp;准备；
2. 第二步。![图](a.png)

| 甲 | 乙 |
|---|---|
| 1 | 2 |

```python
x = 1  # $不是公式$
```

<div>网页</div>

价格从 \\$5 到 `$6`，末尾。
"""


def test_markdown() -> None:
    text, removed = markdown_to_text(PAGE)
    assert text.split("\n") == [
        "最短路",
        "求最短路有多种算法，常用的有 Dijkstra和 Bellman-Ford。"
        f"复杂度是 {MISSING_PART}，设点数为 n，{MISSING_PART} 与 a_i^2 < 9。",
        MISSING_PART,
        "缩进的内容也是正文。",
        "第一步&准备；",
        "第二步。",
        MISSING_PART,
        "价格从 $5 到 $6，末尾。",
    ]
    assert removed == {"metadata": 1, "formula": 3, "file": 1, "table": 1, "code": 1, "html": 1}


@pytest.mark.parametrize(
    ("markdown", "title"),
    [
        (PAGE, "最短路"),
        ("# 标题\n文", "标题"),
        ("author: 某\ntitle: 题\n\n# 甲", "题"),
        ("文\n# 后来", ""),
        ("", ""),
        ("---\nauthor: 甲\n---\n# 乙", "乙"),
    ],
)
def test_title_of_markdown(markdown: str, title: str) -> None:
    assert markdown_title(markdown) == title


@pytest.mark.parametrize(
    "attack", ["```\n", "$", "$$", "`", "``a", "[", "*a ", "> ", "~~~\n`", "---\n", "!!! a\n", "- "]
)
def test_markdown_takes_no_more_than_linear_time(attack: str) -> None:
    start = time.process_time()
    markdown_to_text(attack * 2_000)
    assert time.process_time() - start < 3


def test_a_markdown_file_is_one_document_with_its_title(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(PAGE, encoding="utf-8")
    (tmp_path / "b.txt").write_text("*别动*", encoding="utf-8")
    reader = read_documents([tmp_path])
    first, second = reader
    assert (first.id, first.title, first.group) == ("a.md", "最短路", "最短路")
    assert first.text.startswith("最短路\n求最短路") and second.text == "*别动*"
    assert reader.refusals.count_of("code") == 1


@pytest.mark.parametrize(
    ("markup", "text"), [("plain", "*[[甲]]*''乙''"), ("markdown", "[[甲]]''乙''"), ("wikitext", "甲*乙")]
)
def test_markup_of_lines_of_json(tmp_path: Path, markup: str, text: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1, "text": "*[[甲]]*\'\'乙\'\'"}', encoding="utf-8")
    (document,) = read_documents([tmp_path / "a.jsonl"], CorpusSettings(markup=markup))
    assert document.text == text


def test_parquet_is_cut_by_its_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    chooser = random.Random(3)
    texts = ["".join(chr(chooser.randrange(0x4E00, 0x9F00)) for _ in range(150)) + "。" for _ in range(50)]
    texts = [text + text[::-1][1:] + "。" for text in texts]
    table = pyarrow.table({"other": [text * 3 for text in texts], "text": texts})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    whole = read_documents([tmp_path / "a.parquet"])
    expected = list(whole)
    assert len(list(whole.parts())) == 1
    monkeypatch.setattr(parts, "MIN_PART_BYTES", 30_000)
    cut = list(whole.parts())
    found = [each for part in cut for each in read_part(part, CorpusSettings(), Refusals(), Counter())]
    assert found == expected and [each.id for each in found][-1] == "a.parquet:50"
    assert 1 < len(cut) < 8 and len({part.identity() for part in cut}) == len(cut)
    assert sum(part.size for part in cut) == pytest.approx((tmp_path / "a.parquet").stat().st_size, rel=0.01)
    build_corpus(whole, tmp_path / "cut", CorpusSettings())
    monkeypatch.undo()
    build_corpus(whole, tmp_path / "whole", CorpusSettings())
    assert (tmp_path / "cut" / "card.json").read_bytes() == (tmp_path / "whole" / "card.json").read_bytes()


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra `hub` is not installed")
    pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({
        "id": [7, None], "title": ["山", None], "text": ["山高。", "水长。"], "url": ["a", "b"],
        "date": ["2020", "2021"],
    })  # fmt: skip
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert list(read_documents([tmp_path / "a.parquet"])) == [
        Document(id="7", title="山", group="山", text="山高。", source="a.parquet", revision="2020"),
        Document(id="a.parquet:2", title="", group="a.parquet:2", text="水长。", source="a.parquet", revision="2021"),
    ]
    pyarrow.parquet.write_table(table.drop_columns(["text"]), tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"b\.parquet: no column `text`; its columns are id, title"):
        list(read_documents([tmp_path / "b.parquet"]))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["甲", None]}), tmp_path / "c.parquet")
    with pytest.raises(InputError, match=r"c\.parquet: row 2: `text` must be a string"):
        list(read_documents([tmp_path / "c.parquet"]))
    (tmp_path / "d.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    with pytest.raises(InputError, match=r"d\.parquet: cannot be read as parquet"):
        list(read_documents([tmp_path / "d.parquet"]))


def test_zst_reads_like_a_plain_file_and_tells_damage(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard", reason="the extra `hub` is not installed")
    path = tmp_path / "a.jsonl.zst"
    lines = [json.dumps({"id": str(number), "text": f"第{number}篇。"}, ensure_ascii=False) for number in range(500)]
    compressor = zstandard.ZstdCompressor()
    frames = [
        compressor.compress("".join(f"{line}\n" for line in part).encode()) for part in (lines[:300], lines[300:])
    ]
    path.write_bytes(b"".join(frames))
    assert [document.id for document in read_documents([path])] == [str(number) for number in range(500)]
    for damaged in (b"".join(frames)[:-3], frames[0] + b"no frame"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.jsonl\.zst:\d+: compressed data is cut short or damaged"):
            list(read_documents([path]))


class FakeHub:
    """Stands for the package `datasets`."""

    def __init__(self, rows: list[object]) -> None:
        self.rows, self.asked = rows, None

    def load_dataset(self, name: str, config: str | None, *, split: str, streaming: bool) -> list[object]:
        self.asked = (name, config, split, streaming)
        if name == "no/such":
            raise FileNotFoundError("Dataset 'no/such' doesn't exist\nmore")
        return self.rows


def test_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = FakeHub([{"id": "1", "title": "山", "text": "**山高**。", "url": "x"}, {"text": "水长。"}])
    monkeypatch.setitem(sys.modules, "datasets", hub)
    reader = read_documents([], CorpusSettings(markup="markdown"), hub=["own/texts:20231101.zh:test"])
    assert list(reader) == [
        Document(id="1", title="山", group="山", text="山高。", source="own/texts"),
        Document(id="2", title="", group="2", text="水长。", source="own/texts"),
    ]
    assert hub.asked == ("own/texts", "20231101.zh", "test", True)
    list(read_hub("own/texts"))
    assert hub.asked == ("own/texts", None, "train", True)
    with pytest.raises(InputError, match="no/such: cannot be opened on the hub"):
        list(read_hub("no/such"))
    with pytest.raises(InputError, match="not a data set"):
        list(read_hub("a:b:c:d"))
    hub.rows = [{"content": "甲"}]
    with pytest.raises(InputError, match="own/texts: row 1: no `text`"):
        list(read_hub("own/texts"))


def test_a_hub_that_breaks_off_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows():
        yield {"text": "甲"}
        raise ConnectionError("reset")

    monkeypatch.setitem(sys.modules, "datasets", FakeHub(rows()))
    with pytest.raises(InputError, match="own/texts: broke off after row 1"):
        list(read_hub("own/texts"))


@pytest.mark.long  # the import takes seconds
def test_the_real_package_streams_a_file(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra `hub` is not installed")
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": "1", "text": "山高。"}\n{"id": "2", "text": "水长。"}\n', encoding="utf-8")
    from xuebu.corpus.tables import _hub_documents

    rows = iter(datasets.load_dataset("json", data_files=str(path), split="train", streaming=True))
    assert [document.text for document in _hub_documents(rows, "own", "own")] == ["山高。", "水长。"]


@pytest.mark.parametrize(
    ("module", "suffix", "extra"),
    [("pyarrow", ".parquet", "hub"), ("zstandard", ".txt.zst", "hub"), ("mwparserfromhell", ".xml", "collect")],
)
def test_a_missing_extra_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, suffix: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    path = tmp_path / f"a{suffix}"
    page = "<page><title>t</title><ns>0</ns><id>1</id><revision><text>x</text></revision></page>"
    path.write_text(f"<mediawiki>{page}</mediawiki>")
    with pytest.raises(MissingExtraError, match=rf"needs the extra `{extra}`: pip install 'xuebu\[{extra}\]'"):
        list(read_documents([path]))
