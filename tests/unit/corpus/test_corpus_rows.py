"""Rows of sentences and of anonymised ids: what is read, and what is refused with its place."""

import gzip
import unicodedata

import numpy as np
import pytest

from xuebu.corpus.rows import read_rows
from xuebu.corpus.symbols import MAX_ID, ids_of, read_ids, spell_ids, symbols_of
from xuebu.errors import InputError


def rows_of(path, columns=2, ids=False):
    return [(each.id, each.group, each.text) for each in read_rows(path, path.name, "rows", columns=columns, ids=ids)]


def test_ids_become_characters_of_their_own_and_come_back():
    edges = np.array([0, 1, 65_533, 65_534, 65_535, MAX_ID])
    symbols = symbols_of(edges)
    assert [hex(ord(one)) for one in symbols] == ["0xf0000", "0xf0001", "0xffffd", "0x100000", "0x100001", "0x10fffd"]
    assert ids_of(symbols).tolist() == edges.tolist()
    everything = symbols_of(np.arange(MAX_ID + 1))
    assert (ids_of(everything) == np.arange(MAX_ID + 1)).all()
    assert {unicodedata.category(one) for one in everything} == {"Co"}
    assert unicodedata.is_normalized("NFC", everything)
    assert sorted(everything) == list(everything)


def test_what_is_no_symbol_has_no_id():
    assert ids_of("学a\uf8ff\U000efffd\U000ffffe\U000fffff\U0010fffe\U0010ffff").tolist() == [-1] * 8


def test_numbers_in_a_text_are_spelled_as_symbols():
    assert spell_ids("12 7 [MASK] 0") == f"{symbols_of([12])} {symbols_of([7])} [MASK] {symbols_of([0])}"
    assert spell_ids(f"{MAX_ID + 1} 007 99999999999999999999") == "\ufffd \ufffd \ufffd"
    assert spell_ids(symbols_of([3, 4])) == symbols_of([3, 4])


@pytest.mark.parametrize("text", ["12 x7", "1.5", "-3", "１２", "12,7", "²", "7 007"])
def test_what_is_no_number_is_named_with_its_place(text):
    with pytest.raises(InputError, match=r"^here:3: .* is no token id; ids are decimal numbers without zeros"):
        read_ids(text, "here:3")


@pytest.mark.parametrize("text", [str(MAX_ID + 1), "7 99999999999999999999999999"])
def test_an_id_beyond_the_last_one_is_refused(text):
    with pytest.raises(InputError, match="an id above 131,067; number the tokens anew from 0"):
        read_ids(text, "here:1")


def test_rows_of_two_columns_with_and_without_a_label(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("12 7\t7 12 5\t1\n\n3\t4 4\n", encoding="utf-8")
    assert rows_of(path, ids=True) == [
        ("pairs.tsv:1", "pairs.tsv:1", symbols_of([12, 7]) + "\n" + symbols_of([7, 12, 5])),
        ("pairs.tsv:3", "pairs.tsv:3", symbols_of([3]) + "\n" + symbols_of([4, 4])),
    ]


def test_one_column_with_a_label(tmp_path):
    path = tmp_path / "queries.txt.gz"
    path.write_bytes(gzip.compress(b"5 6\t0\n8\t1\n"))
    assert [text for _, _, text in rows_of(path, columns=1, ids=True)] == [symbols_of([5, 6]), symbols_of([8])]


def test_text_in_each_kind_of_file_gives_the_same_sentences(tmp_path):
    wanted = ["怎么还款？\n如何还款？", '他说"好"，走了。\n走吧。']
    contents = {
        "a.tsv": 'sentence1\tsentence2\tlabel\n怎么还款？\t如何还款？\t1\n他说"好"，走了。\t走吧。\t0\n',
        "a.csv": 'sentence1,sentence2,label\n怎么还款？,如何还款？,1\n"他说""好""，走了。",走吧。,0\n',
        "a.jsonl": '{"sentence1": "怎么还款？", "sentence2": "如何还款？", "label": "1"}\n'
        '{"sentence1": "他说\\"好\\"，走了。", "sentence2": "走吧。"}\n',
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
        assert [text for _, _, text in rows_of(tmp_path / name)] == wanted, name


def test_an_empty_column_is_left_out(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("只有一句。\t\t0\n\t另一句。\n", encoding="utf-8")
    assert [text for _, _, text in rows_of(path)] == ["只有一句。", "另一句。"]


@pytest.mark.parametrize(
    ("name", "content", "columns", "problem"),
    [
        ("a.tsv", "1 2\n", 2, r"a\.tsv:1: 1 columns; 2 of them are to be sentences and one more may be a label"),
        ("a.tsv", "1\t2\n1\t2\t3\t4\n", 2, r"a\.tsv:2: 4 columns"),
        ("a.tsv", "1 2\t3\t0\n", 1, r"a\.tsv:1: 3 columns; 1 of them"),
        ("a.csv", '1,"2\n', 2, r"a\.csv:1: not a row of CSV"),
        ("a.jsonl", "{\n", 2, r"a\.jsonl:1: not JSON"),
        ("a.jsonl", '{"text": "1 2"}\n', 2, r"a\.jsonl:1: each line needs `sentence1` and `sentence2`, of strings"),
        ("a.jsonl", '["1"]\n', 1, r"a\.jsonl:1: each line needs `sentence1`, of strings"),
        ("a.tsv", "1 2\t3 4\nsentence1\tsentence2\n", 2, r"a\.tsv:2: 'sentence1' is no token id"),
    ],
)
def test_a_wrong_row_is_named_with_file_and_line(tmp_path, name, content, columns, problem):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=problem):
        rows_of(path, columns=columns, ids=True)


def test_a_cell_of_several_lines_is_one_sentence(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"sentence1": "今天去公园\\n然后回家", "sentence2": ""}\n', encoding="utf-8")
    assert [text for _, _, text in rows_of(path)] == ["今天去公园 然后回家"]
