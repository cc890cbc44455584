"""Dumps: every page kept or refused with its reason, the same by any way of reading, and damage told in one line."""

import bz2
import importlib.util
import sys
from itertools import islice
from pathlib import Path

import pytest

from xuebu.corpus.document import Document
from xuebu.corpus.dump import index_of, is_dump_name, is_index_name, read_dump
from xuebu.corpus.refusals import Refusals
from xuebu.corpus.settings import CorpusSettings
from xuebu.corpus.sources import read_documents
from xuebu.errors import InputError

pytest.importorskip("mwparserfromhell", reason="the extra `collect` is not installed")

_spec = importlib.util.spec_from_file_location(
    "generated_dump", Path(__file__).parents[3] / "benchmarks" / "generated_dump.py"
)
generated_dump = importlib.util.module_from_spec(_spec)
sys.modules["generated_dump"] = generated_dump
_spec.loader.exec_module(generated_dump)

SETTINGS = CorpusSettings(wiki_variant="zh-cn")
NUM_PAGES = 130


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generated_dump.write_dump(tmp_path_factory.mktemp("dump"), NUM_PAGES, seed=3, pages_per_stream=40)


def read(path: Path, settings: CorpusSettings = SETTINGS) -> tuple[list[Document], dict[str, int]]:
    refusals = Refusals()
    documents = list(read_dump(path, "wiki", settings=settings, refusals=refusals))
    return documents, {reason: each.count for reason, each in refusals.counts().items()}


def write(path: Path, *pages: str) -> Path:
    path.write_text(f"<mediawiki>\n<siteinfo/>\n{''.join(pages)}</mediawiki>", encoding="utf-8")
    return path


def page(id: int, text: str, *, ns: int = 0, extra: str = "", model: str = "wikitext", title: str = "") -> str:
    return (
        f"<page><title>{title or f'页{id}'}</title><ns>{ns}</ns><id>{id}</id>{extra}<revision><id>{id + 100}</id>"
        f"<model>{model}</model><text>{text}</text></revision></page>\n"
    )


def test_every_page_of_a_dump_is_kept_or_refused_with_its_reason(dump: Path) -> None:
    pages = list(islice(generated_dump.generate_pages(3), NUM_PAGES))
    documents, counts = read(dump)
    kept = [each for each in pages if not each.reason]
    assert [(d.id, d.title, d.group, d.text, d.revision) for d in documents] == [
        (str(each.id), each.title, each.title, each.text, str(each.id + 7)) for each in kept
    ]
    for reason in ("redirect", "other_namespace", "not_wikitext"):
        expected = sum(each.reason == reason for each in pages)
        assert counts.pop(reason) == expected > 0
    assert set(counts) == {
        "template", "table", "reference", "apparatus", "file", "category", "interlanguage", "comment",
    } - {"category", "interlanguage"}  # fmt: skip  # those stand in the apparatus


@pytest.mark.parametrize("size", range(300, 420))
def test_no_page_is_lost_wherever_blocks_of_reading_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    path = write(tmp_path / "dump.xml", *(page(number, "湖水很清。" * number) for number in (1, 2, 3)))
    monkeypatch.setattr("xuebu.corpus.dump.CHUNK_BYTES", size)
    assert [document.id for document in read(path)[0]] == ["1", "2", "3"]


def test_index_and_front_to_end_give_the_same(dump: Path, tmp_path: Path) -> None:
    expected = read(dump)
    assert index_of(dump) is not None
    alone = tmp_path / dump.name
    alone.write_bytes(dump.read_bytes())
    assert index_of(alone) is None
    assert read(alone) == expected
    plain = tmp_path / "wiki.xml"
    plain.write_bytes(bz2.decompress(dump.read_bytes()))
    assert read(plain) == expected


def test_a_folder_with_a_dump_and_its_index_is_one_input(dump: Path) -> None:
    reader = read_documents([dump.parent], SETTINGS)
    assert [file.kind for file in reader.files] == ["dump"]
    documents = list(reader)
    assert (len(documents), documents[0].source) == (len(read(dump)[0]), dump.parent.name)
    assert reader.refusals.count_of("redirect") == read(dump)[1]["redirect"]
    assert not reader.refusals.count_of("unknown_file")


def test_other_xml_in_a_folder_is_of_an_unknown_kind(dump: Path, tmp_path: Path) -> None:
    (tmp_path / "build.xml").write_text("<project/>")
    (tmp_path / "wiki.xml").write_bytes(bz2.decompress(dump.read_bytes()))
    reader = read_documents([tmp_path], SETTINGS)
    assert [file.name for file in reader.files] == ["wiki.xml"]
    assert {document.source for document in reader} == {tmp_path.name}
    assert reader.refusals.count_of("unknown_file") == 1


def test_names_of_dumps_and_indexes() -> None:
    assert is_dump_name(Path("zhwiki-20260101-pages-articles1.xml-p1p187712.bz2"))
    assert is_dump_name(Path("a.xml")) and not is_dump_name(Path("a.xml.txt"))
    assert is_index_name(Path("zhwiki-latest-pages-articles-multistream-index1.txt-p1p187712.bz2"))
    assert not is_index_name(Path("index.txt"))


def test_index_of_a_dump_in_parts(tmp_path: Path) -> None:
    index = tmp_path / "w-multistream-index2.txt-p5p9.bz2"
    index.touch()
    assert index_of(tmp_path / "w-multistream2.xml-p5p9.bz2") == index
    assert index_of(tmp_path / "w-multistream3.xml-p5p9.bz2") is None


def test_namespaces_histories_hidden_and_blank_pages(tmp_path: Path) -> None:
    old = "<revision><id>5</id><text>旧</text></revision>"
    path = write(
        tmp_path / "a.xml",
        page(1, "一。"),
        page(2, "二。", ns=1),
        page(3, "三。", extra=old),
        page(4, "").replace("<text>", '<text deleted="deleted">'),
        page(5, "#REDIRECT [[甲]]"),
        page(6, ""),
        page(7, "A &amp;amp; &lt;b&gt;乙&lt;/b&gt;", title="甲 &amp; 乙"),
    )
    documents, counts = read(path)
    assert [(d.id, d.title, d.text, d.revision) for d in documents] == [
        ("1", "页1", "一。", "101"),
        ("3", "页3", "三。", "103"),
        ("6", "页6", "", "106"),
        ("7", "甲 & 乙", "A & 乙", "107"),
    ]
    assert counts == {"other_namespace": 1, "redirect": 1, "hidden_text": 1, "older_revision": 1}
    assert [d.id for d in read(path, settings=CorpusSettings(dump_namespaces=(1,)))[0]] == ["2"]


def test_a_dump_of_refused_pages_only_is_no_empty_file(tmp_path: Path) -> None:
    reader = read_documents([write(tmp_path / "a.xml", page(1, "#重定向 [[甲]]"))])
    assert list(reader) == []
    assert reader.refusals.count_of("redirect") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html></html>", "not a dump of a wiki"),
        (b"<mediawiki><page><title>a</title><ns>0</ns><id>1</id></page>", "cut short: </mediawiki> is missing"),
        (b"<mediawiki><page><title>a</ns></page></mediawiki>", "damaged XML"),
        (b"<mediawiki><page><title>a</title><id>1</id></page></mediawiki>", "no <ns>"),
        (b"<mediawiki><page><title>a</title><ns>0</ns></page></mediawiki>", "no <id>"),
    ],
)
def test_damage_is_told(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(path)


def test_damage_of_streams_and_index_is_told(dump: Path, tmp_path: Path) -> None:
    path, index = tmp_path / dump.name, tmp_path / index_of(dump).name
    data, lines = dump.read_bytes(), index_of(dump).read_bytes()

    def message(dump_bytes: bytes, index_bytes: bytes) -> str:
        path.write_bytes(dump_bytes)
        index.write_bytes(index_bytes)
        with pytest.raises(InputError) as error:
            read(path)
        return str(error.value)

    offsets = sorted({int(line.split(b":")[0]) for line in bz2.decompress(lines).splitlines()})
    assert len(offsets) == 4
    assert "ends at byte" in message(data[: offsets[2]], lines)
    assert "does not end where it should" in message(data[: offsets[2] + 50], lines)
    assert "does not end where it should" in message(data[:-200], lines)
    assert "does not end where it should" in message(data, bz2.compress(b"500:2:b\n"))
    damaged = data[: offsets[1]] + b"\0\0\0" + data[offsets[1] + 3 :]
    assert f"no stream at byte {offsets[1]:,}" in message(damaged, lines)
    assert "not a dump" in message(data, bz2.compress(b"0:2:b\n"))
    assert "must be offset:id:title" in message(data, bz2.compress(b"page\n"))
    assert "is empty" in message(data, bz2.compress(b""))
