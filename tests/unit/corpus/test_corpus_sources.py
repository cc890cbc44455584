"""Reading files and folders: every kind that is known, and one clear line for every kind of damage."""

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pytest

from xuebu.corpus import formats
from xuebu.corpus.document import Document
from xuebu.corpus.settings import CorpusSettings
from xuebu.corpus.sources import read_documents
from xuebu.errors import InputError
from xuebu.progress import SilentProgress

WIKI = """<doc id="13" url="https://example.org/?curid=13" title="山 "五岳" 与水">
山 "五岳" 与水

泰山在东；A &lt; B &amp; C。
</doc>

<doc id="14" revid="99" url="https://example.org/?curid=14" title="河">
河

黄河入海。
</doc>
"""


def read(*inputs: Path, **settings: str) -> list[Document]:
    return list(read_documents(inputs, CorpusSettings(**settings)))


class Notes(SilentProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    path = tmp_path / "文.txt"
    path.write_text("\ufeff第一段\r\n\r\n第二段\n", encoding="utf-8")
    (document,) = read(path, script="hans")
    assert document == Document(
        id="文.txt", title="", group="文.txt", text="第一段\n\n第二段", source=tmp_path.name, script="hans"
    )


def test_blank_lines_part_documents_if_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n甲一\n甲二\n \t\n\n乙一", encoding="utf-8")
    documents = read(path, txt_documents="blank-line")
    assert [(d.id, d.group, d.text, d.source) for d in documents] == [
        ("a.txt:2", "a.txt:2", "甲一\n甲二", "a.txt"),
        ("a.txt:6", "a.txt:6", "乙一", "a.txt"),
    ]


@pytest.mark.parametrize(("suffix", "opener"), [(".gz", gzip.open), (".bz2", bz2.open), (".xz", lzma.open)])
def test_compressed_files_read_like_plain_ones(tmp_path: Path, suffix: str, opener: object) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    with opener(path, "wt", encoding="utf-8") as stream:  # type: ignore[operator]
        stream.write('{"id": 7, "title": "山", "text": "山高。"}\n')
    (document,) = read(path)
    assert (document.id, document.title, document.text) == ("7", "山", "山高。")


def test_json_lines_fields(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    records = [
        {"id": "法/1", "title": " 某\n法 ", "text": "条\u2028文", "date": "2014-01-01", "extra": [1]},
        {"text": "无题", "title": None, "source": "报", "script": "Hant", "license": "CC0-1.0", "fetched_at": "2020"},
    ]
    path.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in records) + "\n\n", encoding="utf-8")
    first, second = read(path, script="hans")
    assert first == Document(
        id="法/1",
        title="某 法",
        group="某 法",
        text="条\u2028文",
        source="a.jsonl",
        revision="2014-01-01",
        script="hans",
    )
    assert second == Document(
        id="a.jsonl:2",
        title="",
        group="a.jsonl:2",
        text="无题",
        source="报",
        script="hant",
        licence="CC0-1.0",
        fetched_at="2020",
    )


@pytest.mark.parametrize("name", ["wiki_00", "wiki.txt", "wiki_01.gz"])
def test_wikiextractor_output(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(WIKI.encode()) if name.endswith(".gz") else WIKI.encode())
    first, second = read(tmp_path)
    assert (first.id, first.title, first.group) == ("13", '山 "五岳" 与水', '山 "五岳" 与水')
    assert first.text == '山 "五岳" 与水\n\n泰山在东；A < B & C。'
    assert (second.id, second.title, second.revision, second.source) == ("14", "河", "99", tmp_path.name)


def test_wikiextractor_json_lines_without_suffix(tmp_path: Path) -> None:
    path = tmp_path / "wiki_00"
    path.write_text('{"id": "13", "revid": "5", "url": "u", "title": "山", "text": "山高。"}\n', encoding="utf-8")
    (document,) = read(path)
    assert (document.id, document.title, document.revision) == ("13", "山", "5")


@pytest.mark.parametrize("indent", [None, 1])
def test_the_study_json_gives_sentences_without_neighbors(tmp_path: Path, indent: int | None) -> None:
    path = tmp_path / "corpus.json"
    path.write_text(json.dumps({"vocab": ["山"], "sentences": ["山高。", "水长。"]}, indent=indent), encoding="utf-8")
    documents = read(path)
    assert [(d.id, d.group, d.text) for d in documents] == [
        ("corpus.json:0", "corpus.json:0", "山高。"),
        ("corpus.json:1", "corpus.json:1", "水长。"),
    ]


def test_the_study_json_may_be_one_line_of_any_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "MAX_LINE_BYTES", 30)
    path = tmp_path / "corpus.json"
    path.write_text(json.dumps({"sentences": ["山高。" * 20]}), encoding="utf-8")
    assert [document.text for document in read(path)] == ["山高。" * 20]


def test_json_lines_in_a_json_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('\n{"title": "山", "text": "山高。"}\n{"title": "水", "text": "水长。"}\n', encoding="utf-8")
    assert [document.title for document in read(path)] == ["山", "水"]


def test_a_folder_is_read_sorted_and_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    for name in ("b/2.txt", "b/10.txt", "a.jsonl", "c.pdf", "README", ".hidden.txt", ".git/x.txt", "d.PDF", "bin"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\xff\xfe\x00" if name == "bin" else b'{"text": "t"}' if name == "a.jsonl" else b"text")
    (tmp_path / "empty.txt").touch()
    for name, target in (("link", "b"), ("circle", ".")):
        (tmp_path / name).symlink_to(target)
    notes = Notes()
    reader = read_documents([tmp_path], progress=notes)
    assert [document.id for document in reader] == ["a.jsonl:1", "b/10.txt", "b/2.txt"]
    assert {document.source for document in reader} == {tmp_path.name}
    counts = reader.refusals.counts()
    assert (counts["unknown_file"].count, counts["empty_file"].count) == (8, 1)
    assert notes.lines[0] == (
        "8 files and folders passed over, not of a kind that is read: "
        ".pdf 2, .txt 1, hidden folder 1, link to a folder 2, no suffix 2"
    )
    assert "empty.txt: holds no document" in notes.lines[1]


def test_where_a_folder_lies_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("here", "there/deeper"):
        (tmp_path / place / "texts" / "b").mkdir(parents=True)
        (tmp_path / place / "texts" / "b" / "a.txt").write_text("山高。", encoding="utf-8")
    here = read(tmp_path / "here" / "texts")
    assert here == read(tmp_path / "there" / "deeper" / "texts")
    assert (here[0].source, here[0].id) == ("texts", "b/a.txt")
    monkeypatch.chdir(tmp_path / "here" / "texts")
    assert here == read(Path()) == read(Path("b/.."))
    monkeypatch.chdir("b")
    assert here == read(Path(".."))
    assert read(Path("a.txt"))[0].source == read(Path("../b/a.txt"))[0].source == "b"


GOOD = b'{"text": "t"}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", GOOD + b"{oops\n", "a.jsonl:2: not JSON: Expecting property name"),
        ("a.jsonl", GOOD + b"[1]\n", "a.jsonl:2: each line must be a JSON object, not [1]"),
        ("a.jsonl", GOOD + b"[" * 100_000, "a.jsonl:2: not JSON"),
        ("a.jsonl", b'{"title": "t"}\n', "a.jsonl:1: no `text`; each line needs id, title and text"),
        ("a.jsonl", b'{"text": ["t"]}\n', "a.jsonl:1: `text` must be a string, not ['t']"),
        ("a.jsonl", b'{"text": "t", "id": {}}\n', "a.jsonl:1: `id` must be a string, not {}"),
        ("a.jsonl", b'{"text": "t", "title": true}\n', "a.jsonl:1: `title` must be a string, not True"),
        (
            "a.jsonl",
            b'{"text": "t", "script": "\\u001b[2J"}\n',
            'a.jsonl:1: `script` must be "hans" or "hant", not \'[2j\'',
        ),
        ("a.jsonl", GOOD + "中文".encode("gb18030"), "a.jsonl:2: not UTF-8 (byte 0xd6 at column 1); convert it first"),
        ("a.txt", b"ok\n\xff\n", "a.txt:2: not UTF-8"),
        ("a.txt.gz", gzip.compress(b"ok\n" * 9999)[:-9], "compressed data is cut short or damaged"),
        ("a.txt.gz", gzip.compress(b"ok\n" * 999)[:15] + b"\x00" * 20, "a.txt.gz:1: compressed data is cut short"),
        ("a.txt.gz", b"not gzip", "a.txt.gz:1: compressed data is cut short or damaged"),
        ("a.txt.bz2", b"not bzip2", "a.txt.bz2:1: compressed data is cut short or damaged"),
        ("a.txt.xz", lzma.compress(b"ok\n" * 999)[:-20], "compressed data is cut short or damaged"),
        ("a.json.gz", gzip.compress(b'{"sentences": []}' * 99)[:-9], "a.json.gz: cannot be read to its end"),
        ("a.txt", b"", "a.txt: is empty; give a file with text in it"),
        ("a.txt", b" \n\n", "a.txt: is empty"),
        ("a.jsonl", b"\n", "a.jsonl: is empty"),
        ("a.json", b"", "a.json: is empty"),
        ("a.json", b'{"sentences": []}', "a.json: is empty"),
        ("a.json", b'{"a": 1}', 'a.json:1: needs {"sentences": [...]}'),
        ("a.json", b'[{"text": "t"}]', 'a.json:1: needs {"sentences": [...]}'),
        ("a.json", b'{"sentences": ["a", 5]}', "a.json: `sentences[1]` must be a string, not 5"),
        ("a.json", b'{"sentences":\n ["a",\n oops]}', "a.json:3: not JSON"),
        ("a.json", b'{"sentences":\n ["\xff"]}', "a.json:2: not UTF-8"),
        ("a.pdf", b"text", "a.pdf: not of a kind that is read; known are .txt, .md, .jsonl"),
        ("wiki_00", b"plain text", "wiki_00: not of a kind that is read"),
        ("wiki_00", b'<doc id="1" url="" title="t">\ntext\n', "wiki_00:1: <doc> is never closed"),
        (
            "wiki_00",
            b'<doc id="1" url="" title="t">\n<doc id="2" url="" title="u">\n',
            "wiki_00:2: <doc> inside the <doc> of line 1",
        ),
        (
            "wiki_00",
            b'<doc id="1" url="" title="t">\n</doc>\nstray\n',
            "wiki_00:3: text outside <doc> ... </doc>: 'stray'",
        ),
    ],
)
def test_bad_files_are_named_with_their_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


def test_bad_inputs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no input"):
        read()
    with pytest.raises(InputError, match=r"gone\.txt: no such file or folder"):
        read(tmp_path / "gone.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no file of a kind that is read"):
        read(tmp_path / "empty")
    path = tmp_path / "a.txt"
    path.write_text("山高。", encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.txt: given twice"):
        read(path, tmp_path)
    (tmp_path / "b.txt").touch()
    path.write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="all 2 input files are empty"):
        read(path, tmp_path / "b.txt")


def test_too_large_a_document_is_refused_before_it_fills_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "MAX_DOCUMENT_CHARACTERS", 10)
    path = tmp_path / "a.txt"
    path.write_text("一二三四五\n" * 4, encoding="utf-8")
    with pytest.raises(InputError, match=r'a\.txt:3: one document of over .* txt_documents = "blank-line"'):
        read(path)


def test_reading_is_lazy_and_can_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD * 3 + b"{oops\n")
    reader = read_documents([path])
    assert next(iter(reader)).id == "a.jsonl:1"
    assert next(iter(reader)).id == "a.jsonl:1"
