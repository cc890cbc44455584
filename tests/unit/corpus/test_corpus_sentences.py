"""Where sentences end in lists, quotes inside of quotes, numbers and classical text; in linear time."""

import time

import pytest

from xuebu.corpus.sentences import split_sentences


@pytest.mark.parametrize(
    "pieces",
    [
        # lists
        ["1.查清家底；", "2.登记造册；", "3.按月上报。"],
        ["（一）总则；", "（二）分则。", "①甲；", "②乙。"],
        ["一、申请人须年满十八岁。", "二、材料须齐全：（1）身份证；", "（2）照片。"],
        ["- 开门；", "- 关门"],
        ["第3.1.4节见附录A.2。", "下一条"],
        # decimals, times, abbreviations, addresses
        ["圆周率约3.14159，误差0.5%。", "比分3:2；", "时间12:30。"],
        ["他用C++、.NET和Node.js写程序。", "文件名是a.b.txt，版本v2.0.1。"],
        ["U.S.A.是缩写，J. K. 罗琳是人名。", "参见www.example.com/a?b=c!d。"],
        ["增长了1．5倍。", "共１，２００人。"],
        # ellipses and dashes
        ["他想……还是算了。", "雪……风……都停了。", "“可是……”她说。"],
        ["等等...再说。", "然后——没有然后了！", "真的吗？……", "没人应。"],
        # a pause after the mark: the sentence goes on
        ["“走吧。”，他说。", "我们走了！"],
        ["他问：“去吗？”、“来吗？”。", "没人答。"],
        # quotes in quotes, marks before and after closing quotes
        ["「他說：『走吧。』」", "我沒動。"],
        ["“你说‘好’？”", "她问：“谁？！”", "“我。”", "他答。"],
        ["他喊：“来人！", "快来人！”", "没有人来。"],
        ["《红楼梦》（第一回：甄士隐梦幻识通灵；贾雨村风尘怀闺秀）很长。", "完。"],
        # classical text
        ["子曰：“学而时习之，不亦说乎？", "有朋自远方来，不亦乐乎？", "人不知而不愠，不亦君子乎？”"],
        ["天地玄黄，宇宙洪荒。", "日月盈昃，辰宿列张。"],
        ["道可道，非常道；", "名可名，非常名。", "无名，天地之始；", "有名，万物之母。"],
        ["環滁皆山也。", "其西南諸峯，林壑尤美；", "望之蔚然而深秀者，瑯琊也。"],
        ["孟子見梁惠王王曰叟不遠千里而來"],
    ],
)
def test_pieces(pieces: list[str]) -> None:
    assert split_sentences("".join(pieces)) == pieces


@pytest.mark.parametrize("attack", ["（", "(", "《", "。”", '"', "！？", "（甲）", "（甲。）", "甲（", "“", "…"])
def test_time_is_linear(attack: str) -> None:
    start = time.process_time()
    pieces = split_sentences(attack * 20_000)
    assert time.process_time() - start < 2
    assert "".join(pieces) == attack * 20_000
