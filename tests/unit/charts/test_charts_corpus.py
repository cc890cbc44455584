"""The charts of a corpus against the counts of its card, and what a card may lack."""

import pytest

from xuebu.charts.corpus import MAX_REASONS, corpus_figures, coverage, losses, origin, range_text, reason_name
from xuebu.charts.draw import render
from xuebu.corpus.document import SentenceDocument
from xuebu.corpus.refusals import REASONS
from xuebu.corpus.tally import Tally, counts_of, profile_of_tallies


def card_of(count: int = 40, **more: object) -> dict:
    tally = Tally()
    for number in range(count):
        sentences = tuple("春江潮水连海平" * (1 + (number + place) % 9) for place in range(1 + number % 4))
        tally.add(SentenceDocument(id=str(number), title="", group=str(number), source="s", sentences=sentences))
    counts = counts_of([tally])
    return {
        "documents": counts.documents,
        "sentences": counts.sentences,
        "characters": counts.characters,
        "length_quantiles": counts.length_quantiles,
        "profile": profile_of_tallies([tally]).to_json(),
        "characters_cleaned": counts.characters + 30,
        "refusals": {"too_short": {"count": 3, "characters": 30}, "unknown_file": {"count": 1, "characters": 0}},
        "coverage": [{"name": "standard level 1", "size": 10, "covered": 5, "covered_in_training": 4}],
        "sources": {"s": 30, "t": 10},
    } | more


def test_bars_are_the_counts_of_the_card() -> None:
    card = card_of()
    figures = {figure.name: figure for figure in corpus_figures(card)}
    assert list(figures) == [
        "corpus_lengths",
        "corpus_characters",
        "corpus_coverage",
        "corpus_refusals",
        "corpus_origin",
    ]
    sentences, documents = figures["corpus_lengths"].panels
    assert sum(sentences.marks[0].value) == card["sentences"] and sum(documents.marks[0].value) == card["documents"]
    assert len(documents.y_names) == len(documents.marks[0].value)
    _, rare = figures["corpus_characters"].panels
    assert sum(rare.marks[0].value) == 7 == card["profile"]["han"]
    whole, training = figures["corpus_coverage"].panels[0].marks
    assert (whole.value, training.value) == ((0.5,), (0.4,))
    assert figures["corpus_refusals"].panels[0].marks[0].value == (30.0,)


@pytest.mark.parametrize("language", ["en", "zh", "both"])
def test_every_chart_is_drawn(language: str) -> None:
    for figure in corpus_figures(card_of(domains={f"领域{n}": n + 1 for n in range(40)})):
        assert render(figure, "svg", language=language).startswith(b"<?xml")
        assert figure.description.en and figure.description.zh


@pytest.mark.parametrize(
    "missing", ["profile", "refusals", "coverage", "sources", "length_quantiles", "characters_cleaned"]
)
def test_a_card_may_lack_parts(missing: str) -> None:
    card = card_of()
    for odd in ({name: value for name, value in card.items() if name != missing}, card | {missing: None}):
        for figure in corpus_figures(odd):
            render(figure, "svg")
    assert corpus_figures({}) == ()


def test_domains_come_before_sources_and_the_largest_are_drawn() -> None:
    figure = origin(card_of(domains={f"领域{n:02}": n + 1 for n in range(40)} | {"": 5}))
    assert figure and figure.title.en == "Documents by domain"
    assert figure.panels[0].marks[0].value[0] == 40 and "16 smaller ones" in figure.description.en
    assert origin(card_of(sources={"s": 9}, domains={"": 9})) is None


def test_the_smallest_reasons_are_told_not_drawn() -> None:
    refusals = {reason: {"count": 1, "characters": n + 1} for n, reason in enumerate(REASONS)}
    figure = losses(card_of(refusals=refusals))
    assert figure and len(figure.panels[0].y_names) == MAX_REASONS
    assert f"{len(REASONS) - MAX_REASONS} smaller reasons" in figure.description.en
    assert losses(card_of(refusals={})) is None


def test_reasons_that_cost_characters_have_chinese_names() -> None:
    before_cleaning = ("unknown_file", "empty_file", "other_namespace", "redirect", "not_wikitext", "hidden_text")
    before_cleaning += ("older_revision", "empty_document", "no_sentence_left", "empty_column")
    for reason, (level, _) in REASONS.items():
        if level != "part" and reason not in before_cleaning:
            assert reason_name(reason).zh, reason
    assert reason_name("a_new_one").shown("zh") == "a new one"


def test_names_of_ranges_and_lists() -> None:
    assert range_text(3, 4) == "3" and range_text(1000, 2000) == "1,000–1,999"
    figure = coverage(card_of(coverage=[{"name": "very/long/" + "名" * 60, "size": 3, "covered": 1}]))
    assert figure and figure.panels[0].y_names[0].en.endswith("… (3)")
