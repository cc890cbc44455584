"""Cleaning and cutting: what is dropped, what is kept, where sentences end."""

import pytest

from xuebu.corpus.clean import clean_line, clean_text, count_han, is_unreadable
from xuebu.corpus.sentences import split_sentences


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("\ufeff山高\u200b水长", "山高水长"),
        ("软\xad连字符\u202e和方向\u2066标记", "软连字符和方向标记"),
        ("鐘\ufe00楼\U000e0101上", "鐘楼上"),
        ("两个\u3000\xa0空格\t一个", "两个 空格 一个"),
        ("  首尾 \n\n\n 都去掉  ", "首尾\n都去掉"),
        ("一\r\n二\r三\f四\u2029五", "一\n二\n三\n四\n五"),
        ("句中\u2028换行\x85不断\x0b段", "句中 换行 不断 段"),
        ("cafe\u0301", "café"),
        ("e\u200d\u0301", "é"),
        ("\uf900", "豈"),
        ("铃\x07声\x00", "铃声"),
        ("坏\ud800字\uffff", "坏\ufffd字\ufffd"),
        ("范廷颂（，），圣名保禄（；）", "范廷颂，圣名保禄"),
        ("套（（）；）着", "套着"),
        ("函数 f() 不动", "函数 f() 不动"),
        ("狸藻（学名：）是小草。。", "狸藻是小草。"),
        ("生物（德语：；法语：）与虎河（学名：，又名河豚）", "生物与虎河（又名河豚）"),
        ("库（英语：)和酸(）和碱（)", "库和酸和碱"),
        ("套（甲：（英语：））完", "套完"),
        ("镇 ()，在 (）西岸", "镇 ，在 西岸"),
        ("书（北京：书局，1982年）和（上午：八点）", "书（北京：书局，1982年）和（上午：八点）"),
        ("慢。。。走，)", "慢。。。走)"),
        ("（\u037e）", ""),
        ("缺字\ue76c仍在", "缺字\ue76c仍在"),
        ("", ""),
        ("\n \u200b \n", ""),
    ],
)
def test_clean_text(raw: str, cleaned: str) -> None:
    assert clean_text(raw) == cleaned


def test_clean_line_is_one_line() -> None:
    assert clean_line(" 上\n下\u2029左 ") == "上 下 左"


def test_unreadable_is_private_use_or_replacement() -> None:
    assert is_unreadable("东平王\ue76c子")
    assert is_unreadable("坏\ufffd字")
    assert is_unreadable("\U000f0001")
    assert not is_unreadable("𠮷野家，寒山寺，ｋａｉ")


def test_count_han_takes_rare_ideographs_and_no_punctuation() -> None:
    assert count_han("𠮷〇々㐀，。ABC１２あカ한") == 4
    assert count_han("") == 0


@pytest.mark.parametrize(
    "pieces",
    [
        ["山高。", "水长！", "月明？", "风清；", "人远"],
        ["他说：“走吧。”", "她没动。"],
        ["他问：“你去吗？”。", "没有人答。"],
        ["“好！”", "“真好？！”", "众人齐声道。"],
        ["「去。」", "『来。』", "【完。】", "散了。"],
        ["等等。。。", "为什么？？！", "唉……他走了……。", "夜深了。……", "静"],
        ["怎么办?", "他说!", "Yahoo! 奇摩是门户。", "若 x != y 则止。"],
        ["均摊的分析．", "圆周率是３．１４。", "１．绪论"],
        ["版本3.14发布了。", "A;B;C"],
        ["罗素（1872年生；1970年卒）是哲学家。", "他得过奖。"],
        ["《怎么办？》一书很有名。", "《走吧！》也是。"],
        ["他读完了（真的吗？）就睡。", "（全书完。）", "后记"],
        ["括号（没有闭合；", "于是照常断。"],
        ['他说:"好。"', "她走了。", '"行。"', "散会。"],
        ["多谢。", "  前面有空格。"],
        ["。", "无头"],
        ["没有标点的标题"],
        [],
    ],
)
def test_split_sentences(pieces: list[str]) -> None:
    assert split_sentences("".join(pieces)) == pieces


def test_mark_in_very_long_bracket_still_ends() -> None:
    inside = "甲" * 121
    assert split_sentences(f"（{inside}；乙）丙。") == [f"（{inside}；", "乙）丙。"]
