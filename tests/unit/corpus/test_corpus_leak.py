"""The leak check: what a corpus shares with evaluation sets is found from both sides, and goes without a trace."""

import gzip
import json

import pytest

from xuebu.cli import main
from xuebu.corpus.build import build_corpus
from xuebu.corpus.card import load_card
from xuebu.corpus.document import CorpusFile, Document
from xuebu.corpus.evaluation_texts import EvaluationSet, read_evaluation_set
from xuebu.corpus.leak import LeakIndex, Overlap, check_leaks, remove_leaks
from xuebu.corpus.overlap import bare_text
from xuebu.corpus.settings import CorpusSettings
from xuebu.errors import ConfigError, InputError

RIVER = "清晨的河面上浮着一层薄薄的雾气。渔夫撑着竹篙慢慢离开了石砌的码头。对岸的炊烟正从瓦屋顶上升起来。"
MARKET = "集市在太阳出来以前就已经摆开了。卖豆腐的人敲着木梆子从巷口走过。孩子们围着糖画摊子不肯回家去。"
LONG = (
    "这座石桥由附近三个村子的人家合力修成，前后用了七年零四个月，桥上的石狮子没有两只是相同的，连爪下的绣球也各有花样。"
)


def leaks_of(sentences, texts, **options):
    index = LeakIndex([EvaluationSet("dev", tuple(texts))], **options)
    return index.mark(sentences).tolist(), index.found()[0]


def test_a_bare_text_is_letters_and_digits_in_one_form():
    assert bare_text("　ＡＢＣ，“你好”—— １２_三!\n") == "abc你好12三"


def test_equal_sentences_are_found_whatever_their_marks_and_spaces():
    marks, found = leaks_of(
        ["渔夫撑着竹篙，慢慢离开了石砌的码头！", "完全没有人写过的另外一句话在这里。"], [RIVER, MARKET]
    )
    assert marks == [Overlap.EQUAL, Overlap.NONE]
    assert (found.texts, found.whole, found.in_part) == (2, 0, 1)


def test_a_text_is_whole_only_when_all_its_sentences_are_there():
    pieces = RIVER.split("。")[:-1]
    for count in range(len(pieces) + 1):
        found = leaks_of(pieces[:count], [RIVER, RIVER, MARKET])[1]
        assert (found.whole, found.in_part) == ((2, 0) if count == 3 else (0, 2 if count else 0))
    assert leaks_of(pieces, [RIVER])[1].examples == (RIVER,)


@pytest.mark.parametrize(("shared", "found"), [(19, False), (21, False), (22, True), (40, True)])
def test_a_long_run_in_common_is_found_from_22_characters(shared, found):
    stem = bare_text(LONG)[:shared]
    sentence = "某甲写道" + stem + "某乙不以为然"
    marks, leaks = leaks_of([sentence, "毫不相干的句子放在后面作为对照之用。"], ["引语" + stem + "出处不明"])
    assert marks == [Overlap.LONG_RUN if found else Overlap.NONE, Overlap.NONE]
    assert (leaks.whole, leaks.in_part) == (0, int(found))


def test_runs_do_not_reach_across_sentences():
    text = bare_text(LONG)
    assert leaks_of([text[:15], text[15:30]], [text[:30]])[0] == [Overlap.NONE, Overlap.NONE]
    assert leaks_of([text[:40]], [text[:15], text[15:30]])[0] == [Overlap.NONE]


def test_a_sentence_of_20_characters_overlaps_inside_of_a_longer_one():
    text = bare_text(LONG)
    assert leaks_of([text[5:25], text[5:24] + "某"], [LONG])[0] == [Overlap.LONG_RUN, Overlap.NONE]


def test_short_texts_are_counted_and_not_compared():
    marks, found = leaks_of(["非常好。", RIVER[:15]], ["非常好", "1", RIVER])
    assert marks == [Overlap.NONE, Overlap.EQUAL]
    assert (found.texts, found.too_short) == (1, 2)
    assert leaks_of(["非常好。"], ["非常好"], min_characters=3)[0] == [Overlap.EQUAL]
    assert (
        leaks_of(["一、二、三、四、五、六、七、八、九、十。"], ["一。二。三。四。五。六。七。八。九。十。"])[1].whole
        == 1
    )


@pytest.mark.parametrize("texts", [(), ("短",)])
def test_sets_without_anything_to_compare_find_nothing(texts):
    assert leaks_of([RIVER], texts)[0] == [Overlap.NONE]
    assert LeakIndex([EvaluationSet("dev", (RIVER,))]).mark([]).tolist() == []


def test_evaluation_sets_come_in_four_kinds(tmp_path):
    squad = {"data": [{"paragraphs": [{"context": RIVER, "qas": [{"question": MARKET, "id": "q1"}]}]}]}
    (tmp_path / "a.json").write_text(json.dumps(squad))
    (tmp_path / "b.tsv").write_text(f"label\tsentence\n1\t{RIVER}\n0\t{MARKET}\n")
    (tmp_path / "c.txt").write_text(f"{RIVER}\n\n{MARKET}\n")
    with gzip.open(tmp_path / "d.jsonl.gz", "wt") as stream:
        stream.write(json.dumps({"text_a": RIVER, "label": 1}) + "\n\n" + json.dumps({"text_a": MARKET}) + "\n")
    assert read_evaluation_set(tmp_path / "a.json").texts == (RIVER, MARKET, "q1")
    assert read_evaluation_set(tmp_path / "a.json", ["context"]).texts == (RIVER,)
    (tmp_path / "b.csv").write_text(f'label,sentence\n1,"{RIVER}"\n0,"他说：""{MARKET}"""\n')
    assert read_evaluation_set(tmp_path / "b.csv", ["sentence"]).texts == (RIVER, f'他说："{MARKET}"')
    assert read_evaluation_set(tmp_path / "b.tsv").texts == ("label", "sentence", "1", RIVER, "0", MARKET)
    assert read_evaluation_set(tmp_path / "b.tsv", ["sentence"]).texts == (RIVER, MARKET)
    assert read_evaluation_set(tmp_path / "c.txt").texts == (RIVER, MARKET)
    assert read_evaluation_set(tmp_path / "d.jsonl.gz").texts == (RIVER, MARKET)


def test_traditional_sets_are_converted_if_asked(tmp_path):
    pytest.importorskip("opencc")
    (tmp_path / "a.txt").write_text("漁夫慢慢離開了石砌的碼頭。\n")
    found = read_evaluation_set(tmp_path / "a.txt", convert="t2s").texts
    assert leaks_of(["渔夫慢慢离开了石砌的码头。"], found)[1].whole == 1


@pytest.mark.parametrize(
    ("name", "content", "fields", "error", "message"),
    [
        ("a.pdf", "x", (), InputError, "not a kind"),
        ("a.txt", "\n", (), InputError, "holds no text; give a file with texts"),
        ("a.csv", "a,b\n1,2\n", ("c",), InputError, "names no column 'c'"),
        ("a.jsonl", "{}\n{", (), InputError, "a.jsonl:2: not JSON"),
        ("a.jsonl", '{"a": 1}\n', (), InputError, "holds no text"),
        ("a.jsonl", '{"a": "b"}\n', ("c",), InputError, "no text under c"),
        ("a.tsv", "a\tb\n1\t2\n", ("c",), InputError, "names no column 'c'"),
        ("a.txt", "a\n", ("c",), ConfigError, "has no fields"),
        ("a.txt", None, (), InputError, "No such file"),
    ],
)
def test_wrong_evaluation_sets_are_refused(tmp_path, name, content, fields, error, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(error, match=message):
        read_evaluation_set(tmp_path / name, fields)


@pytest.fixture
def corpus(tmp_path):
    texts = {"河": RIVER, "集市": MARKET, "桥": LONG + "过桥的人都要摸一摸最前面的那一只。桥下的流水到了冬天也不结冰。"}
    documents = [Document(id=name, title=name, group=name, text=text, source="test") for name, text in texts.items()]
    build_corpus(documents, tmp_path / "corpus", CorpusSettings(held_out_fraction=0.0))
    return tmp_path / "corpus"


def test_removal_keeps_order_records_gaps_and_counts(corpus, tmp_path):
    sets = [EvaluationSet("dev", (RIVER, MARKET.split("。")[1], LONG[:40]))]
    report, card = remove_leaks(corpus, tmp_path / "clean", sets)
    assert report == check_leaks(corpus, sets)
    train = report.splits["train"]
    assert (train.documents, train.sentences, train.equal, train.long_run, train.documents_with) == (3, 9, 4, 1, 3)
    kept = list(CorpusFile(tmp_path / "clean" / "train.jsonl"))
    assert [document.id for document in kept] == ["集市", "桥"]
    market = MARKET.split("。")
    assert kept[0].sentences == (market[0] + "。", market[2] + "。") and kept[0].gaps == (1,)
    assert len(kept[1].sentences) == 2 and kept[1].gaps == ()
    assert load_card(tmp_path / "clean") == card
    before = load_card(corpus)
    counts = {reason: count.count for reason, count in card.refusals.items()}
    assert counts == {"evaluation_sentence": 4, "evaluation_overlap": 1, "no_sentence_left": 1}
    assert sum(count.characters for count in card.refusals.values()) == before.characters - card.characters
    assert not check_leaks(tmp_path / "clean", sets).found
    remove_leaks(corpus, tmp_path / "again", sets)
    for name in ("train.jsonl", "held_out.jsonl", "card.json", "card.md"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "clean" / name).read_bytes()


def test_a_corpus_without_leaks_stays_the_same_to_the_byte(corpus, tmp_path):
    _, card = remove_leaks(corpus, tmp_path / "same", [EvaluationSet("dev", ("没有任何一句话和这里的文字相同。",))])
    assert card == load_card(corpus)
    assert (tmp_path / "same" / "train.jsonl").read_bytes() == (corpus / "train.jsonl").read_bytes()


def test_whole_documents_go_if_asked(corpus, tmp_path):
    _, card = remove_leaks(corpus, tmp_path / "clean", [EvaluationSet("dev", (MARKET[:15],))], whole_documents=True)
    assert [document.id for document in CorpusFile(tmp_path / "clean" / "train.jsonl")] == ["河", "桥"]
    assert card.refusals["evaluation_document"].count == 1


def test_duplicates_that_were_kept_are_counted_anew(tmp_path):
    documents = [Document(id=str(n), title="", group=str(n), text=RIVER + MARKET, source="test") for n in range(2)]
    build_corpus(documents, tmp_path / "corpus", CorpusSettings(held_out_fraction=0.0, deduplicate=False))
    assert load_card(tmp_path / "corpus").duplicates_left == 6
    assert remove_leaks(tmp_path / "corpus", tmp_path / "clean", [EvaluationSet("", (RIVER,))])[1].duplicates_left == 3


def test_what_goes_is_written_aside_where_the_build_did(tmp_path):
    settings = CorpusSettings(held_out_fraction=0.0, write_refused=True)
    build_corpus([Document(id="河", title="", group="河", text=RIVER, source="test")], tmp_path / "corpus", settings)
    remove_leaks(tmp_path / "corpus", tmp_path / "clean", [EvaluationSet("dev", (RIVER[:15],))])
    lines = (tmp_path / "clean" / "refused.jsonl").read_text().splitlines()
    assert [json.loads(line)["reason"] for line in lines] == ["evaluation_sentence"]
    assert json.loads(lines[0])["text"] == RIVER[:15] + "。"


def test_nothing_is_written_where_nothing_would_be_left(corpus, tmp_path):
    with pytest.raises(InputError, match="nothing is left"):
        remove_leaks(corpus, tmp_path / "clean", [EvaluationSet("dev", (RIVER, MARKET, LONG))], whole_documents=True)
    assert list((tmp_path / "clean").iterdir()) == []
    with pytest.raises(ConfigError, match="holds a finished corpus"):
        remove_leaks(corpus, corpus, [EvaluationSet("dev", (RIVER,))])


def test_the_command(corpus, tmp_path, capsys):
    (tmp_path / "dev.jsonl").write_text(json.dumps({"text": MARKET + "\x1b[31m"}) + "\n")
    asked = ["corpus", "leaks", str(corpus), "--against", str(tmp_path / "dev.jsonl")]
    assert main(asked) == 1
    printed = capsys.readouterr().out
    assert "of 1 texts the corpus holds 1 whole" in printed and "\x1b" not in printed
    assert main([*asked, "--as-json"]) == 1
    assert json.loads(capsys.readouterr().out)["splits"]["train"]["equal"] == 3
    assert main([*asked, "--remove", "--out", str(tmp_path / "clean")]) == 0
    assert main(["corpus", "leaks", str(tmp_path / "clean"), *asked[3:]]) == 0
    capsys.readouterr()
    for wrong in (asked[:3], [*asked, "--remove"], [*asked, "--whole-documents"], [*asked, "--fields", "none"]):
        assert main(wrong) == 2
        assert capsys.readouterr().err.count("\n") == 1
