"""The card there and back, in words and in Markdown; coverage; the five conditions."""

import json
import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from xuebu.corpus import tally as tally_module
from xuebu.corpus.build import build_corpus
from xuebu.corpus.card import Card, load_card
from xuebu.corpus.coverage import Coverage, measure_coverage, read_character_list, standard_lists
from xuebu.corpus.document import SentenceDocument
from xuebu.corpus.profile import Profile, kind_of, profile_of
from xuebu.corpus.refusals import REASONS, RefusalCount, Refusals
from xuebu.corpus.settings import CorpusSettings, VerifySettings
from xuebu.corpus.sources import read_documents
from xuebu.corpus.tally import MAX_NAMES, OTHERS, Tally, counts_of, profile_of_tallies
from xuebu.corpus.verify import verify_corpus
from xuebu.errors import ConfigError, InputError


def document(number: int, *sentences: str, **known: str) -> SentenceDocument:
    given = {"id": str(number), "title": f"题{number}", "group": f"题{number}", "source": "s"} | known
    return SentenceDocument(sentences=sentences, **given)


def card_of(*documents: SentenceDocument, held_out: tuple[SentenceDocument, ...] = (), **known: object) -> Card:
    tallies = [Tally(), Tally()]
    for tally, side in zip(tallies, (documents, held_out), strict=True):
        for each in side:
            tally.add(each)
    whole = counts_of(tallies)
    plain = {
        "digest": "d" * 64,
        "train_digest": "t" * 64,
        "held_out_digest": "h" * 64,
        "documents_read": whole.documents + 1,
        "characters_read": 500,
        "characters_cleaned": 400,
        "duplicates": 2,
        "duplicate_share": 0.25,
        "duplicates_left": 0,
        "renamed_ids": 0,
        "refusals": {"too_short": RefusalCount(3, 12)},
        "coverage": (Coverage(name="a|<b>.txt", size=4, covered=3, covered_in_training=2, missing="丁"),),
        "settings": CorpusSettings(min_han_share=0.4),
    }
    plain |= {
        "duplicates_by_unit": {"document": 0, "paragraph": 1, "sentence": 2},
        "profile": profile_of_tallies(tallies),
    }
    return Card(whole=whole, train=counts_of(tallies[:1]), held_out=counts_of(tallies[1:]), **(plain | known))


def test_card_there_and_back(tmp_path: Path) -> None:
    card = card_of(document(1, "山高水长。", "月明风清。"), held_out=(document(2, "一二三。"),))
    path = tmp_path / "card.json"
    path.write_text(json.dumps(card.to_json(), allow_nan=False), encoding="utf-8")
    assert load_card(tmp_path) == card
    table = card.to_json()
    assert (table["documents"], table["sentences"], table["characters"]) == (2, 3, 14)
    assert table["splits"]["held_out"]["characters"] == 4
    assert table["refusals"]["too_short"]["count"] == 3
    assert table["coverage"][0]["share"] == 0.75


def test_empty_side_has_no_mean_and_no_nan() -> None:
    card = card_of(document(1, "山高水长。"))
    assert card.held_out.mean_sentence_length is None
    json.dumps(card.to_json(), allow_nan=False)
    assert "| mean sentence length | 5.0 | 5.0 | - |" in card.to_markdown()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.pop("splits"), "not a corpus card"),
        (lambda table: table.pop("sentences"), "not a corpus card"),
        (lambda table: table.update(format=3), "a card of format 3; this xuebu reads up to 2"),
        (lambda table: table["settings"].update(oops=1), "unknown key `settings.oops`"),
        (lambda table: table.update(refusals=[]), "not a corpus card"),
    ],
)
def test_damaged_card_is_refused(tmp_path: Path, change: object, message: str) -> None:
    table = card_of(document(1, "山高水长。")).to_json()
    change(table)  # type: ignore[operator]
    path = tmp_path / "card.json"
    path.write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises((InputError, ConfigError)) as caught:
        load_card(path)
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_card_that_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text("[1]")
    with pytest.raises(InputError, match="not a corpus card"):
        load_card(tmp_path)


def test_words_and_markdown_escape_what_comes_from_the_data() -> None:
    evil = document(1, "山高水长。", source="<script>a|b*c\x1b[2J", licence="`x`")
    card = card_of(evil)
    page = card.to_markdown()
    assert "&lt;script&gt;a\\|b\\*c\\[2J" in page and "\\`x\\`" in page and "a\\|&lt;b&gt;.txt" in page
    assert "\x1b" not in page + card.summary() and "<script>" not in page
    assert "refused: 3 sentences, too_short (12 characters)" in card.summary()
    assert (
        "2 duplicate sentences found (25.00%), 1 whole paragraphs and 0 whole documents among them; 0 left"
        in card.summary()
    )


def test_quantiles_agree_with_numpy() -> None:
    lengths = np.random.default_rng(3).integers(1, 60, size=357)
    counts = card_of(document(1, *("字" * int(length) for length in lengths))).whole
    for name, value in counts.length_quantiles.items():
        assert value == np.quantile(lengths, float(name), method="inverted_cdf")


def test_too_many_sources_are_put_together() -> None:
    tally = Tally()
    for number in range(MAX_NAMES + 5):
        tally.add(document(number, "山高水长。", source=f"s{number}"))
    tally.add(document(0, "山高水长。", source="s0"))
    sources = counts_of([tally]).sources
    assert (len(sources), sources[OTHERS], sources["s0"]) == (MAX_NAMES + 1, 5, 2)


def test_refusals_add_up_in_the_order_of_reasons() -> None:
    lines: list[str] = []
    one, other = Refusals(lines.append), Refusals()
    one.add("too_short", "短。", source="s", id="1")
    one.add("held_out_overlaps_training", "甲。", "乙丙。")
    other.add("empty_file")
    other.add("too_short", "也短。")
    one.include(other)
    assert list(one.counts()) == ["empty_file", "held_out_overlaps_training", "too_short"]
    assert one.counts()["too_short"] == RefusalCount(2, 5)
    assert one.counts()["held_out_overlaps_training"] == RefusalCount(1, 5)
    assert json.loads(lines[1])["text"] == "甲。\n乙丙。"
    assert all(
        level in ("file", "document", "paragraph", "sentence", "part") and meaning
        for level, meaning in REASONS.values()
    )


def test_coverage(tmp_path: Path) -> None:
    one, two = tmp_path / "一.txt", tmp_path / "二.txt"
    one.write_text("\ufeff山\n水\n\n山\n𠮷", encoding="utf-8")
    two.write_text("水\r\n火\r\n", encoding="utf-8")
    lists = [read_character_list(one), read_character_list(two)]
    assert [each.characters for each in lists] == [("山", "水", "𠮷"), ("水", "火")]
    first, second, together = measure_coverage(lists, set("山水木"), set("木山"))[4:]
    assert (first.size, first.covered, first.covered_in_training, first.missing) == (3, 2, 1, "𠮷")
    assert (second.share, second.covered_in_training) == (0.5, 0)
    assert (together.name, together.size, together.covered, together.missing) == ("all 2 lists", 4, 2, "𠮷火")
    assert len(measure_coverage(lists[:1], set(), set())) == 5
    one.write_text("山\n山水\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"一\.txt:2: '山水' is not one character"):
        read_character_list(one)
    one.write_text("\n", encoding="utf-8")
    with pytest.raises(InputError, match="is empty; a character list holds one character a line"):
        read_character_list(one)


def test_five_conditions_at_their_edges() -> None:
    card = card_of(document(1, "一二三四", "五六七八"), held_out=(document(2, "九十百千"),), duplicates_left=1)
    passing = VerifySettings(
        min_sentences=3, min_vocabulary=12, min_mean_length=4, max_mean_length=4, max_duplicate_share=0.34
    )
    assert verify_corpus(card, passing).passed
    failing = {
        "min_sentences": 4,
        "min_vocabulary": 13,
        "min_mean_length": 4.1,
        "max_mean_length": 3.9,
        "max_duplicate_share": 0.33,
        "required_fields": ("id", "licence"),
    }
    for name, value in failing.items():
        result = verify_corpus(card, replace(passing, **{name: value}))
        assert [condition.passed for condition in result.conditions].count(False) == 1, name
        assert "1 of 5 failed" in result.summary() and not result.to_json()["passed"]
    exact = replace(passing, max_duplicate_share=1 / 3)
    assert not verify_corpus(card, exact).passed  # the study asks for "< 5 %"
    assert verify_corpus(replace(card, duplicates_left=0), replace(passing, max_duplicate_share=0.0)).passed


def test_verification_of_the_defaults_names_what_fails() -> None:
    result = verify_corpus(card_of(document(1, "一二三四")))
    lines = result.summary().splitlines()
    assert lines[1].split() == ["sentences", "1", "at", "least", "100,000", "FAILED"]
    assert lines[-1] == "3 of 5 failed: sentences, vocabulary (different characters), mean sentence length (characters)"
    json.dumps(result.to_json(), allow_nan=False)


def test_empty_corpus_and_bad_thresholds_fail() -> None:
    assert not any(condition.passed for condition in verify_corpus(card_of()).conditions)
    with pytest.raises(ConfigError, match="`max_duplicate_share` must be 0 to 1"):
        verify_corpus(card_of(), VerifySettings(max_duplicate_share=5.0))


def test_standard_characters_are_three_levels_without_repeats() -> None:
    *levels, whole = standard_lists()
    assert [len(each.characters) for each in levels] == [3500, 3000, 1605]
    assert len(set(whole.characters)) == len(whole.characters) == 8105
    # Each level's first and last characters by stroke count, and what is no standard character.
    for level, inside in zip(levels, ("一乙矗罐", "乂乜爨鹳", "亍䲢"), strict=True):
        assert set(inside) <= set(level.characters), level.name
    assert not set("龍書") & set(whole.characters)
    covered = measure_coverage((), set("一乙乂"), set("一"))
    assert [(each.covered, each.covered_in_training) for each in covered] == [(2, 1), (1, 0), (0, 0), (3, 1)]
    assert covered[0].missing == "".join(sorted(set(levels[0].characters) - set("一乙"))[:50])


def test_profile_against_counting_one_by_one() -> None:
    chooser = random.Random(9)
    documents = [
        document(n, *("".join(chooser.choices("天地玄黄宇宙，A7 ω", k=chooser.randrange(1, 300))) for _ in range(4)))
        for n in range(60)
    ]
    tallies = [Tally(), Tally(), Tally()]
    for number, each in enumerate(documents):
        tallies[number % 3].add(each)
    profile = profile_of_tallies(tallies)
    text = "".join(sentence for each in documents for sentence in each.sentences)
    han = Counter(character for character in text if character in "天地玄黄宇宙")
    assert profile.kinds == {
        "han": han.total(),
        "mark": text.count("，"),
        "latin": text.count("A"),
        "digit": text.count("7"),
        "other_letter": text.count("ω"),
        "space": text.count(" "),
    }
    assert profile.han == 6 and dict(profile.common) == han and profile.rare == {}
    assert [count for _, count in profile.common] == sorted(han.values(), reverse=True)
    for histogram, values in (
        (profile.sentence_lengths, [len(sentence) for each in documents for sentence in each.sentences]),
        (profile.document_lengths, [sum(map(len, each.sentences)) for each in documents]),
        (profile.rarity, list(han.values())),
    ):
        assert list(histogram.counts) == [
            sum(low <= value < high for value in values) for low, high in pairwise(histogram.edges)
        ]
        assert sum(histogram.counts) == len(values)
    assert profile.sentence_lengths.edges[:3] == (0, 10, 20)
    merged = Tally()
    for tally in tallies:
        merged.include(Tally.from_json(json.loads(json.dumps(tally.to_json()))))
    assert profile_of_tallies([merged]) == profile


def test_rank_shares_and_rarity() -> None:
    characters = {chr(0x4E00 + n): 1 + n // 4 for n in range(60)} | {"。": 1000}
    profile = profile_of(characters, {5: 1}, {3: 1})
    counts = sorted((1 + n // 4 for n in range(60)), reverse=True)
    assert profile.rank_shares == {k: pytest.approx(sum(counts[: int(k)]) / sum(counts)) for k in ("10", "25", "50")}
    assert profile.rare["1"] == "一丁丂七" and profile.rare["2"][0] == "丄" and list(profile.rare)[-1] == "10"
    assert profile.rarity.edges[:4] == (1, 2, 3, 6) and profile.rarity.counts[:3] == (4, 4, 12)
    assert sum(profile.rarity.counts) == 60


def test_profile_of_nothing() -> None:
    profile = profile_of({}, {}, {})
    assert profile.han == 0 and not profile.rank_shares and profile.sentence_lengths.counts == (0,)
    assert Profile.from_json(json.loads(json.dumps(profile.to_json(), allow_nan=False))) == profile


def test_every_character_of_real_use_has_a_kind() -> None:
    kinds = {"han": "一々〇龘𠮷\u3400", "mark": "，。“”《》—…·!@#$%^&*()_+-=×÷°①㈱€￥←√≠™½＋", "digit": "09７"}
    kinds |= {"latin": "AzéßĀＺ", "other_letter": "ωЖあアㄅ한ー", "space": " \u3000", "other": "\ue000\U000f0000"}
    for kind, characters in kinds.items():
        assert [kind_of(character) for character in characters] == [kind] * len(characters), kind


def test_card_of_format_1_is_read(tmp_path: Path) -> None:
    table = card_of(document(1, "山高水长。")).to_json() | {"format": 1}
    for name in ("profile", "duplicates_by_unit", "domains"):
        del table[name]
    for split in table["splits"].values():
        del split["domains"]
    (tmp_path / "card.json").write_text(json.dumps(table), encoding="utf-8")
    card = load_card(tmp_path)
    assert card.profile is None and card.whole.domains == {} and card.sentences == 1
    assert "## Characters" not in card.to_markdown() and "duplicate" in card.summary()


def test_what_is_taken_off_was_never_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    chooser = random.Random(4)
    documents = [
        replace(
            document(
                n,
                "".join(chooser.choices("天地玄黄宇宙洪荒", k=chooser.randrange(3, 9))),
                f"{n}。",
                licence="甲" * (n % 3),
            ),
            revision="9" * (n % 2),
            gaps=(1,) * (n % 4 == 0),
        )
        for n in range(90)
    ]
    stays = [chooser.random() < 0.4 for _ in documents]
    for limit in (10_000, 7):
        monkeypatch.setattr(tally_module, "_MAX_KNOWN_NAMES", limit)
        expected, found = Tally(), Tally()
        for each, stay in zip(documents, stays, strict=True):
            found.add(each)
            if stay:
                expected.add(each)
        found = Tally.from_json(json.loads(json.dumps(found.to_json())))
        for each, stay in zip(documents, stays, strict=True):
            if not stay:
                found.take_off(each)
        assert replace(counts_of([found]), groups=0) == replace(counts_of([expected]), groups=0)
        assert profile_of_tallies([found]) == profile_of_tallies([expected])
        left = found.to_json()
        assert {**left, "names": 0, "filled": 0} == {**expected.to_json(), "names": 0, "filled": 0}


def test_the_card_of_token_ids_counts_ids_and_asks_for_no_character(tmp_path: Path) -> None:
    rows = [" ".join(str((7 * n + 31 * k * k) % 500) for k in range(20)) for n in range(40)]
    (tmp_path / "a.txt").write_text("\n\n".join(rows), encoding="utf-8")
    settings = CorpusSettings(layout="lines", token_ids=True, txt_documents="blank-line")
    build_corpus(read_documents([tmp_path / "a.txt"], settings), tmp_path / "out", settings)
    card = load_card(tmp_path / "out")
    assert card.coverage == () and card.characters == 800
    assert f"800 token ids ({card.distinct_characters:,} different)" in card.summary()
    assert "character" not in card.summary() and "standard" not in card.summary()
    markdown = card.to_markdown()
    assert "| token ids | 800 |" in markdown and "Han" not in markdown and "## Coverage" not in markdown
