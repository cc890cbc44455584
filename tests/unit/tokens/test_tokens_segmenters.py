import numpy as np
import pytest

from xuebu.corpus.document import SentenceDocument
from xuebu.errors import ConfigError, InputError, StoreError
from xuebu.tokens.build import build_store
from xuebu.tokens.segmenters import Segmenter, longest_match, make_segmenter, read_words, write_words
from xuebu.tokens.settings import StoreSettings
from xuebu.tokens.statistics import BREAK, find_collocations, learn_words
from xuebu.tokens.vocab import SPECIAL_TOKENS, Vocabulary
from xuebu.tokens.words import token_word_starts

ENTRIES = ("una", "##ff", "##able", "a", "##b", "1", "##2", "か", "##な", "-")
PIECES = Vocabulary((*SPECIAL_TOKENS, *"我们在北京大学习用步，。", *ENTRIES), "wordpiece", True)


def words_of(text, segmenter, vocabulary=PIECES):
    """The words of a text as lists of tokens."""
    located = vocabulary.locate([text])
    starts = token_word_starts(
        located.text, located.ids, located.places, vocabulary.continues_word(), segmenter
    ).tolist()
    words = []
    for token, begins in zip(located.ids.tolist(), starts, strict=True):
        if begins:
            words.append([])
        words[-1].append(vocabulary.tokens[token])
    return words


def fixed(*words):
    return Segmenter("fixed", lambda text: list(words))


RJIEBA = make_segmenter("rjieba")


def test_a_word_is_all_its_pieces():
    assert words_of("我们用unaffable，在北京大学", RJIEBA) == [
        ["我", "们"],
        ["用"],
        ["una", "##ff", "##able"],
        ["，"],
        ["在"],
        ["北", "京", "大", "学"],
    ]


def test_without_a_segmenter_a_word_is_a_token_with_the_pieces_that_go_on():
    none = make_segmenter("none")
    assert words_of("用unaffable学ab 1", none) == [["用"], ["una", "##ff", "##able"], ["学"], ["a", "##b"], ["1"]]
    characters = Vocabulary((*SPECIAL_TOKENS, *"学ab"))
    assert words_of("学ab", none, characters) == [["学"], ["a"], ["b"]]


def test_a_boundary_inside_a_piece_counts_at_the_next_token():
    assert words_of("北京大学", fixed("北京", "大学")) == [["北", "京"], ["大", "学"]]
    pieces = Vocabulary((*SPECIAL_TOKENS, "か", "##なか", "##な", "北"), "wordpiece", True)
    # かなか北 cut as かな|か北: the boundary lies inside ##なか, so 北 begins the word
    assert words_of("かなか北", fixed("かな", "か北"), pieces) == [["か", "##なか"], ["北"]]
    # a boundary before a piece parts a run of kana, which is not spelt with letters
    assert words_of("かな", fixed("か", "な"), pieces) == [["か"], ["##な"]]


def test_letters_and_digits_are_never_cut_inside():
    assert words_of("unaffable", fixed("unaf", "fable")) == [["una", "##ff", "##able"]]
    assert words_of("una-a", fixed("una", "-", "a")) == [["una"], ["-"], ["a"]]
    assert words_of("una a", fixed("una a")) == [["una"], ["a"]]  # white space always parts words


def test_a_segmenter_may_join_letters_to_characters():
    assert words_of("用a步", fixed("用a", "步")) == [["用", "a"], ["步"]]


def test_longest_match():
    cut = longest_match({"北京": 0, "北京大学": 0, "大学": 0, "学习": 3})
    assert cut("在北京大，学习学") == ["在", "北京", "大", "，", "学习", "学"]
    assert cut("北京大学学习") == ["北京大学", "学习"]
    assert cut("") == []


def test_dictionaries_are_read_strictly(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("# own words\n学步网 100 n\n\ncafe\u0301\n邯郸 n\n北京\t7\n", encoding="utf-8")
    assert read_words(path) == {"学步网": 100, "café": 0, "邯郸": 0, "北京": 7}
    path.write_text("学步\n学习 3.5 n\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"words.txt:2: the count '3.5' is no whole number"):
        read_words(path)
    path.write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"words.txt:1: holds no word"):
        read_words(path)
    with pytest.raises(InputError, match=r"nowhere.txt: No such file"):
        make_segmenter("longest", tmp_path / "nowhere.txt")
    write_words(path, {"学步": 3, "学习": 1})
    assert read_words(path) == {"学步": 3, "学习": 1}


@pytest.mark.parametrize("kind", ["rjieba", pytest.param("jieba", marks=pytest.mark.long), "longest"])
@pytest.mark.filterwarnings("ignore")  # jieba's own, on import
def test_a_dictionary_of_ones_own_is_heeded(kind, tmp_path):
    if kind == "jieba":
        pytest.importorskip("jieba")
    path = tmp_path / "words.txt"
    path.write_text("邯郸学步网\n", encoding="utf-8")
    own = make_segmenter(kind, path)
    assert "邯郸学步网" in own.cut("我在邯郸学步网上")
    if kind != "longest":
        assert "邯郸学步网" not in make_segmenter(kind).cut("我在邯郸学步网上")
        assert own.name.startswith(f"{make_segmenter(kind).name}, words ")
    path.write_text("学步\n", encoding="utf-8")
    assert make_segmenter(kind, path).name != own.name


def test_a_callable_is_named_by_module_or_file(tmp_path):
    source = tmp_path / "mine.py"
    source.write_text("def cut(text):\n    return iter([text[:1], text[1:]])\nword = 3\n", encoding="utf-8")
    mine = make_segmenter(f"{source}:cut")
    assert mine.cut("学步行") == ["学", "步行"]
    assert mine.name.startswith("mine.py:cut, source ")
    source.write_text("def cut(text):\n    return [text]\n", encoding="utf-8")
    assert make_segmenter(f"{source}:cut").name != mine.name
    assert make_segmenter("textwrap:wrap").cut("a b") == ["a b"]
    for name, message in {
        "no_such_module:cut": "No module named",
        f"{source}:none": "no attribute",
        f"{tmp_path}/none.py:cut": "No such file",
        "textwrap:__name__": "is no function",
    }.items():
        with pytest.raises(ConfigError, match=message):
            make_segmenter(name)


def test_what_a_callable_returns_is_checked(tmp_path):
    (tmp_path / "bad.py").write_text(
        "def number(text):\n    return 3\n\n\ndef bytes_(text):\n    return [b'a']\n"
        "def fails(text):\n    return 1 / 0\n"
    )
    with pytest.raises(InputError, match="returned int, not words"):
        make_segmenter(f"{tmp_path}/bad.py:number").cut("学")
    with pytest.raises(InputError, match="returned a bytes among its words"):
        make_segmenter(f"{tmp_path}/bad.py:bytes_").cut("学")
    with pytest.raises(InputError, match=r"failed at '学步': ZeroDivisionError: division by zero"):
        make_segmenter(f"{tmp_path}/bad.py:fails").cut("学步")
    with pytest.raises(InputError, match="returned str, not words"):
        make_segmenter("textwrap:dedent").cut("学步")


def test_a_segmenter_that_changes_the_text_is_refused_with_document_and_place(tmp_path):
    (tmp_path / "bad.py").write_text("def cut(text):\n    return text.split()\n")
    document = SentenceDocument(id="7", title="", group="g", source="s", sentences=("学步", "北 京"))
    with pytest.raises(StoreError, match=r"document '7' of 's': segmenter bad.py:cut.* changed the text in sentence 1"):
        build_store(
            [document], PIECES, tmp_path / "s", StoreSettings(segmenter=f"{tmp_path}/bad.py:cut"), corpus_digest=""
        )


def test_the_store_says_what_cut_it_and_refuses_another(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("北京大学\n", encoding="utf-8")
    document = SentenceDocument(id="7", title="", group="g", source="s", sentences=("在北京大学unaffable",))
    settings = StoreSettings(segmenter="longest", dictionary=str(words))
    store = build_store([document], PIECES, tmp_path / "s", settings, corpus_digest="")
    assert store.segmenter.startswith("longest, words ")
    assert store.word_starts(0).tolist() == [True, True, False, False, False, True, False, False]
    words.write_text("北京\n", encoding="utf-8")
    with pytest.raises(StoreError, match="another segmenter"):
        build_store([document], PIECES, tmp_path / "s", settings, corpus_digest="")


def test_words_learned_are_recorded_too(tmp_path):
    words = tmp_path / "words.txt"
    write_words(words, {"北京": 5})
    document = SentenceDocument(id="7", title="", group="g", source="s", sentences=("在北京",))
    store = build_store(
        [document], PIECES, tmp_path / "s", StoreSettings(segmenter="statistics"), corpus_digest="", words=words
    )
    assert store.segmenter.startswith("statistics, words ")
    assert store.word_starts(0).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"segmenter": "rjeiba"}, "did you mean 'rjieba'"),
        ({"segmenter": "my"}, "a callable is named"),
        ({"segmenter": "longest"}, "needs a file of words"),
        ({"segmenter": "none", "dictionary": "a.txt"}, "`dictionary` is read by"),
    ],
)
def test_settings_that_contradict_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        StoreSettings(**settings)


def test_collocations_by_hand():
    # a b a b c | a b : tokens 0 1 0 1 2, 0 1
    tokens = np.array([0, 1, 0, 1, 2, BREAK, 0, 1])
    pairs, triples = find_collocations(tokens, max_length=3, min_count=2)
    assert (pairs.first.tolist(), pairs.counts.tolist()) == ([0], [3])
    assert pairs.pmi[0] == pytest.approx(np.log2(3 / 7) - 2 * np.log2(3 / 7))
    assert len(triples.first) == 0
    pairs, triples = find_collocations(tokens, max_length=3, min_count=1)
    grams = {tuple(tokens[at : at + 2].tolist()): count for at, count in zip(pairs.first, pairs.counts, strict=True)}
    assert grams == {(0, 1): 3, (1, 0): 1, (1, 2): 1}
    place = [tuple(tokens[at : at + 3].tolist()) for at in triples.first].index((0, 1, 2))
    # the likeliest way by chance: "a b" as one, then "c"
    assert triples.pmi[place] == pytest.approx(np.log2(1 / 7) - np.log2(3 / 7) - np.log2(1 / 7))
    assert all(len(one.first) == 0 for one in find_collocations(np.array([BREAK]), max_length=3, min_count=1))


def test_words_are_learned_from_a_text_without_spaces():
    rng = np.random.default_rng(3)
    lexicon = ["邯郸", "学步", "北京", "大学生", "我", "在", "很", "好", "看"]
    texts = ["".join(lexicon[index] for index in rng.integers(len(lexicon), size=30)) + "，ab1" for _ in range(200)]
    words = learn_words(texts, min_pmi=2.5, min_count=20)
    assert {"邯郸", "学步", "北京"} <= set(words)
    assert "我在" not in words and not any("a" in word or "，" in word for word in words)
    assert list(words.values()) == sorted(words.values(), reverse=True)
    assert learn_words(texts, min_pmi=2.5, min_count=20, max_characters=50) == {}
