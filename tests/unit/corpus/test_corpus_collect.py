"""Collecting from a wiki made of a dictionary, behind the same transport interface that carries real requests."""

from collections import Counter

import pytest
from fake_wiki import LIBRARY, Entry, FakeWiki, broken_page, documents, gather, lines, rich_and_poor, titles
from hypothesis import given, settings
from hypothesis import strategies as st

from xuebu.corpus.build import build_corpus
from xuebu.corpus.collect import Plan
from xuebu.corpus.journal import REFUSALS
from xuebu.corpus.queries import Source
from xuebu.corpus.settings import CorpusSettings
from xuebu.corpus.sources import read_documents
from xuebu.corpus.targeting import DECAY, Gain, Goal, choose, common_han, new_han
from xuebu.errors import ConfigError


def test_a_document_keeps_title_id_revision_licence_and_time(tmp_path):
    status = gather(FakeWiki(LIBRARY), tmp_path, Source("search", "书是"), variant="zh-hans")
    (document,) = documents(tmp_path)
    assert document == {
        "id": "101", "title": "书", "text": "书是人类进步的阶梯。\n读书要专心。",
        "source": "testwiki", "script": "hans", "revision": "9101",
        "licence": "CC BY-SA 4.0", "fetched_at": "2026-01-01T00:00:00Z", "domain": "书是",
    }  # fmt: skip
    assert (status.why, status.pages, status.requests) == ("exhausted", 1, 3)
    (read,) = read_documents([tmp_path / "pages.jsonl"])
    assert (read.id, read.group, read.licence, read.revision) == ("101", "书", "CC BY-SA 4.0", "9101")


def test_a_folder_of_a_collection_is_input_of_a_build(tmp_path):
    gather(FakeWiki(LIBRARY), tmp_path / "got", Source("all"), pages_per_query=2)
    rules = CorpusSettings(min_sentence_characters=5, held_out_fraction=0.0)
    card = build_corpus(read_documents([tmp_path / "got"], rules), tmp_path / "corpus", rules)
    assert "6 documents" in card.summary()


@pytest.mark.parametrize("per_query", [1, 2, 50])
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (Source("search", "书"), ["书"]),
        (Source("search", "砚"), ["墨", "砚"]),
        (Source("category", "文具"), ["书", "笔", "墨", "纸"]),
        (Source("category", "Category:文具", 3), ["书", "笔", "墨", "纸", "朱砂"]),
        (Source("category", "没有"), []),
        (Source("all"), ["书", "墨", "朱砂", "砚", "笔", "纸"]),
        (Source("all", "砚"), ["砚", "笔", "纸"]),
        (Source("links", "书"), ["书", "笔", "纸"]),
        (Source("links", "筆", 1), ["笔", "墨", "书", "砚", "纸"]),
        (Source("links", "无此页"), []),
    ],
)
def test_sources_find_what_they_should(tmp_path, source, expected, per_query):
    status = gather(FakeWiki(LIBRARY), tmp_path, source, pages_per_query=per_query)
    assert sorted(titles(tmp_path)) == sorted(expected)
    assert status.why == "exhausted" and status.waiting == 0 and not status.given_up


def test_other_namespaces_on_request(tmp_path):
    status = gather(FakeWiki(LIBRARY), tmp_path, Source("all"), namespaces=(0, 12))
    assert titles(tmp_path)[-1] == "Help:帮助" and status.pages == 7


def test_random_stops_at_its_limit_or_when_nothing_is_new(tmp_path):
    status = gather(FakeWiki(LIBRARY), tmp_path / "a", Source("random"), max_pages=4, pages_per_query=3)
    assert (status.why, status.pages) == ("pages", 4)
    status = gather(FakeWiki(LIBRARY), tmp_path / "b", Source("random"))
    assert (status.why, status.pages) == ("exhausted", 6) and "nothing new" in status.given_up["random"]


def test_sources_compose_without_fetching_a_page_twice(tmp_path):
    wiki = FakeWiki(LIBRARY)
    sources = [Source("links", "书"), Source("search", "笔"), Source("category", "文具", 2), Source("all")]
    status = gather(wiki, tmp_path, *sources)
    assert len(titles(tmp_path)) == len(set(titles(tmp_path))) == 6
    fetched = Counter(p["pageids"] for p in wiki.requests if "pageids" in p)
    assert max(fetched.values()) == 1 and status.repeats > 0


def test_everything_found_is_accounted_for(tmp_path):
    wiki = FakeWiki(LIBRARY)
    del wiki.pages[104]  # found by its category below, then deleted
    wiki.answer = lambda p, real=wiki.answer: (
        {"query": {"search": [{"pageid": n} for n in (101, 102, 103, 104, 105, 111, 112)]}}
        if "srsearch" in p
        else real(p)
    )
    status = gather(wiki, tmp_path, Source("search", "一"))
    assert status.refused == {"redirect": 3, "missing": 1, "no_text": 1, "other_namespace": 1}
    assert set(status.refused) <= set(REFUSALS)
    found = sum(len(line["pages"]) for line in lines(tmp_path) if line["kind"] == "found")
    settled = [page for line in lines(tmp_path) if line["kind"] in ("page", "refused") for page in line["ids"]]
    assert len(settled) == len(set(settled))
    # Two pages were reached through redirects only: 纸 (a document) and Category:文具 (of another namespace).
    assert found + 2 == status.pages + sum(status.refused.values()) == len(settled)


# What makes a request worth it


def test_han_characters_are_counted_as_the_build_cleans_them():
    assert (
        new_han("龙，龙 ABC 𠮷々㐀한글かな⺀\u200b車", set("龙")) == "𠮷々㐀⺀車"
    )  # the last one is U+F902 before cleaning


def test_candidates_are_common_characters_first_and_each_once():
    characters = common_han()
    assert len(characters) == len(set(characters)) > 20_000
    for early, late in ("的齄", "一龘", "书書", "書镕"):
        assert characters.index(early) < characters.index(late)
    assert all(new_han(character, set()) == character for character in characters[::97])


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50)), max_size=40))
@settings(max_examples=60, deadline=None)
def test_lately_is_the_weighted_average_of_its_definition(records):
    gain, age, above, below = Gain(), 0, 0.0, 0.0
    for requests, characters in records:
        gain.add(requests, characters)
    for requests, characters in reversed(records):
        above += DECAY**age * characters
        below += DECAY**age * requests
        age += requests
    assert gain.lately == pytest.approx(above / below if below else 0.0)
    assert gain.requests == sum(r for r, _ in records) and gain.characters == sum(c for _, c in records)


def test_the_untried_come_first_then_the_best_of_late():
    gains = {name: Gain() for name in "abc"}
    assert choose(["a", "b", "x"], gains) == "a"
    for name, characters in (("a", 5), ("b", 9), ("c", 9)):
        gains[name].add(2, characters)
    assert choose(["a", "b", "x"], gains) == "x"
    assert choose(["a", "b", "c"], gains) == "b"
    gains["b"].add(10, 1)
    assert choose(["a", "b", "c"], gains) == "c"


def test_the_source_that_brings_most_is_asked_most(tmp_path):
    sources = [Source("search", word) for word in "贫穷富"]
    goal = Goal(500)
    ranked = gather(FakeWiki(rich_and_poor()), tmp_path / "a", *sources, goal=goal, search_characters=False)
    assert ranked.why == "goal" and ranked.counted >= 500
    # One look at each poor source (1 list + 10 pages), then the rich one: 25 pages in 3 lists; 1 request for the site.
    assert ranked.requests <= 1 + 2 * 11 + 28
    in_order = gather(FakeWiki(rich_and_poor()), tmp_path / "b", *sources, max_requests=ranked.requests)
    assert in_order.distinct < 30
    best, *others = ranked.sources
    assert best.name == "search:富" and best.pages == 25 and {source.pages for source in others} == {10}


def test_it_stops_at_the_very_page_that_reaches_the_goal(tmp_path):
    gather(FakeWiki(rich_and_poor()), tmp_path, Source("search", "富"), goal=Goal(21), search_characters=False)
    assert titles(tmp_path) == ["富0"]


def test_missing_characters_of_a_table_are_searched_for_and_reported(tmp_path):
    table = tuple("砚歙龘朱")
    status = gather(FakeWiki(LIBRARY), tmp_path, Source("search", "书"), goal=Goal(4, table))
    assert (status.why, status.counted, status.goal, status.missing) == ("exhausted", 3, 4, "龘")
    assert (tmp_path / "missing.characters").read_text(encoding="utf-8") == "龘\n"
    assert {source.name for source in status.sources} == {"search:书", "characters"}
    assert sorted(titles(tmp_path)) == sorted(["书", "墨", "砚", "朱砂"])  # 墨 holds 砚: 歙 needs the page 砚 too
    assert "missing   1: 龘" in status.summary() and status.new_per_request == pytest.approx(3 / status.requests)
    reached = gather(FakeWiki(LIBRARY), tmp_path, goal=Goal(3, table))
    assert reached.why == "goal"


def test_a_page_that_was_not_needed_for_one_character_may_serve_another(tmp_path):
    entries = [Entry("甲", "子丑寅"), Entry("乙", "子卯辰"), Entry("丙", "子午未")]
    status = gather(FakeWiki(entries), tmp_path, goal=Goal(3, tuple("子卯午")))
    assert status.why == "goal" and titles(tmp_path) == ["甲", "乙", "丙"]
    assert status.unneeded == 2 and "2 not needed" in status.summary()  # 乙 and 丙, when 子 was searched for


def test_goal_and_plan_are_checked():
    with pytest.raises(ConfigError, match="characters"):
        Goal(5, tuple("一二"))
    for wrong in ({"pages_per_query": 0}, {"pages_per_query": 501}, {"max_pages": -1}, {"namespaces": ()}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Plan(sources=(Source("all"),), **wrong)
    with pytest.raises(ConfigError, match="source"):
        Plan(sources=())
    with pytest.raises(ConfigError, match="depth"):
        Plan(sources=(Source("category", "x", -1),))


# Wikitext, many pages a request


def test_wikitext_comes_in_batches_and_is_turned_into_text(tmp_path):
    pytest.importorskip("mwparserfromhell")
    entries = [Entry(f"页{i:03d}", f"'''页{i}'''有[[链接|字]]{{{{模板}}}}<ref>注</ref>。") for i in range(120)]
    wiki = FakeWiki(entries, extracts=False)
    status = gather(wiki, tmp_path, Source("all"), pages_per_query=100)
    assert status.form == "wikitext" and status.pages == 120 and status.requests == 1 + 2 + 3
    assert documents(tmp_path)[7]["text"].startswith("页7有字") and "注" not in documents(tmp_path)[7]["text"]
    bad = FakeWiki(entries, extracts=False, fault=broken_page("105"))
    status = gather(bad, tmp_path / "bad", Source("all"), pages_per_query=60, client={"max_attempts": 2})
    assert status.pages == 119 and status.refused == {"failed": 1}
