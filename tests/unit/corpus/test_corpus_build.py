"""Building a corpus: what is kept, what is refused and why, who is held out, and that nothing leaks."""

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path

import pytest

from xuebu.corpus.build import build_corpus
from xuebu.corpus.card import Card, load_card
from xuebu.corpus.document import CorpusFile, Document, SentenceDocument
from xuebu.corpus.refusals import Refusals
from xuebu.corpus.settings import CorpusSettings
from xuebu.corpus.sieve import reason_against, sieve_document
from xuebu.corpus.sources import read_documents
from xuebu.corpus.split import is_held_out
from xuebu.errors import ConfigError, InputError
from xuebu.progress import SilentProgress

HALF = CorpusSettings(held_out_fraction=0.5)


def document(id: str, text: str, *, title: str = "", group: str = "") -> Document:
    return Document(id=id, title=title, group=group or title or id, text=text, source="test")


def titles(held_out: bool) -> Iterator[str]:
    return (f"条目{n}" for n in count() if is_held_out(f"条目{n}", 0.5) == held_out)


class Writer:
    """Writes original sentences that share no run of characters with each other."""

    def __init__(self, seed: int) -> None:
        self.chooser = random.Random(seed)

    def characters(self, length: int) -> str:
        return "".join(chr(self.chooser.randrange(0x4E00, 0x9F00)) for _ in range(length))

    def sentence(self) -> str:
        return self.characters(self.chooser.randrange(12, 60)) + self.chooser.choice("。！？；")

    def text(self, paragraphs: int = 2) -> str:
        return "\n".join("".join(self.sentence() for _ in range(3)) for _ in range(paragraphs))


def build(documents: Iterable[Document], out: Path, settings: CorpusSettings = HALF) -> tuple[Card, list, list]:
    card = build_corpus(documents, out, settings)
    return card, list(CorpusFile(out / "train.jsonl")), list(CorpusFile(out / "held_out.jsonl"))


def anchor(writer: Writer) -> list[Document]:
    """Return one training and one held-out document that nothing refuses."""
    train, held = next(titles(False)), next(titles(True))
    return [document("t", writer.text(), title=train), document("h", writer.text(), title=held)]


def counts(card: Card) -> dict[str, int]:
    return {reason: refused.count for reason, refused in card.refusals.items()}


# Independent of xuebu's own search: sets of strings, and nothing else.
def runs_of(document: SentenceDocument) -> set[str]:
    whole = "".join(document.sentences)
    return {whole[place : place + 20] for place in range(len(whole) - 19)}


def assert_no_leak(training: list[SentenceDocument], held_out: list[SentenceDocument]) -> None:
    assert training and held_out
    assert not {d.title for d in training} & {d.title for d in held_out} - {""}
    assert not {d.group for d in training} & {d.group for d in held_out}
    assert not {s for d in training for s in d.sentences} & {s for d in held_out for s in d.sentences}
    training_runs = [runs_of(each) for each in training]
    for each in held_out:
        own = runs_of(each)
        assert max(len(own & others) for others in training_runs) < 3


@pytest.mark.parametrize("deduplicate", [True, False])
def test_planted_leaks_do_not_remain(tmp_path: Path, deduplicate: bool) -> None:
    writer = Writer(1)
    trained, held = titles(False), titles(True)
    shared_sentence, leak = writer.characters(40) + "。", writer.characters(22)
    short_leak, across = writer.characters(21), f"{writer.characters(11)}。{writer.characters(11)}"
    name = next(held)
    documents = [
        document("same title 1", writer.text(), title=name),
        document("same title 2", writer.text(), title=name),
        document("same title, other group", writer.text(), title=name, group=next(trained)),
        document("shared sentence, held out", shared_sentence + writer.text(), title=next(held)),
        document("shared sentence, training", writer.text() + shared_sentence, title=next(trained)),
        document("long run, training", f"{writer.characters(9)}{leak}{writer.characters(9)}。", title=next(trained)),
        document("long run, held out", f"{writer.text()}{writer.characters(5)}{leak}也。", title=next(held)),
        document("shorter run, training", f"{short_leak}{writer.characters(9)}。", title=next(trained)),
        document("shorter run, held out", f"{writer.characters(9)}{short_leak}。", title=next(held)),
        # Three runs that lie across the ends of sentences, where no one sentence holds them.
        document("across, training", f"{writer.characters(9)}{across}{writer.characters(9)}。", title=next(trained)),
        document("across, held out", f"{writer.characters(9)}{across}{writer.characters(9)}。", title=next(held)),
        *(document(f"t{n}", writer.text(), title=next(trained)) for n in range(10)),
        *(document(f"h{n}", writer.text(), title=next(held)) for n in range(10)),
    ]
    settings = replace(HALF, deduplicate=deduplicate)
    card, training, held_out = build(documents, tmp_path, settings)
    assert_no_leak(training, held_out)
    held_ids = {each.id for each in held_out}
    assert {"shared sentence, held out", "shorter run, held out"} <= held_ids
    assert not held_ids & {"long run, held out", "across, held out", "same title 1", "same title 2"}
    assert shared_sentence in next(d for d in training if d.id == "shared sentence, training").sentences
    assert counts(card) == {
        "held_out_title_in_training": 2,
        "held_out_overlaps_training": 2,
        "held_out_sentence_in_training": 1,
    }
    # The split does not depend on the order of the documents.
    _, again, held_again = build(documents[::-1], tmp_path / "reversed", settings)
    assert {d.id: set(d.sentences) for d in again} == {d.id: set(d.sentences) for d in training}
    assert {d.id: set(d.sentences) for d in held_again} == {d.id: set(d.sentences) for d in held_out}


def test_a_copy_with_other_marks_and_widths_is_not_held_out(tmp_path: Path) -> None:
    writer = Writer(4)
    clauses = [writer.characters(7) + "2019" for _ in range(8)]
    wide = str.maketrans("0123456789", "０１２３４５６７８９")
    copied = document("copy", "；".join(clauses).translate(wide) + "！", title=next(titles(True)))
    documents = [*anchor(writer), document("t1", "，".join(clauses) + "。", title=next(titles(False))), copied]
    card, _, held_out = build(documents, tmp_path)
    assert counts(card) == {"held_out_overlaps_training": 1} and [each.id for each in held_out] == ["h"]


@pytest.mark.parametrize("near", ["ignore", "drop"])
def test_token_ids_are_compared_as_they_are(tmp_path: Path, near: str) -> None:
    chooser = random.Random(5)
    rows = [" ".join(str(chooser.randrange(200)) for _ in range(60)) for _ in range(40)]
    rows += ["0 " + row for row in rows[:20]]  # of which some fall on the other side
    (tmp_path / "a.txt").write_text("\n\n".join(rows), encoding="utf-8")
    settings = CorpusSettings(
        layout="lines",
        token_ids=True,
        txt_documents="blank-line",
        held_out_fraction=0.3,
        near_duplicates=near,
        min_han_share=0.0,
    )
    card = build_corpus(read_documents([tmp_path / "a.txt"], settings), tmp_path / "out", settings)
    lost = "near_duplicate_document" if near == "drop" else "held_out_overlaps_training"
    assert set(counts(card)) == {lost} and 2 < counts(card)[lost] <= 20
    assert card.documents == 60 - counts(card)[lost]


def test_order_gaps_and_every_sentence_reason(tmp_path: Path) -> None:
    writer = Writer(2)
    one, two, three, four = (writer.characters(20) + "。" for _ in range(4))
    title = next(titles(False))
    refused = {
        "too_short": "短。",
        "too_long": writer.characters(250) + "。",
        "low_han_share": "only Latin letters stand here。",
        "unreadable_character": writer.characters(15) + "\ue76c。",
        "duplicate_sentence": one,
    }
    text = f"{title}\n{one}{two}" + "".join(
        f"\n{each}{three if n == 0 else ''}" for n, each in enumerate(refused.values())
    )
    documents = [document("a", text + four, title=title), *anchor(writer)]
    settings = replace(HALF, write_refused=True)
    card, training, _ = build(documents, tmp_path, settings)
    assert training[0].sentences == (one, two, three, four)
    assert training[0].gaps == (2, 3)
    assert [each.id for each in training] == ["a", "t"]
    assert counts(card) == dict.fromkeys(["repeats_title", *refused], 1)
    assert card.refusals["too_long"].characters == 251
    aside = [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {(each["reason"], each["text"]) for each in aside} == {("repeats_title", title), *refused.items()}
    assert {(each["level"], each["id"], each["source"]) for each in aside} == {("sentence", "a", "test")}


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
def test_limits_include_their_ends(share: float) -> None:
    han = round(30 * share)
    settings = CorpusSettings(min_sentence_characters=30, max_sentence_characters=30, min_han_share=share)
    assert reason_against("山" * han + "a" * (30 - han), settings) is None
    assert reason_against("山" * (han - 1) + "a" * (31 - han), settings) == "low_han_share"
    assert reason_against("山" * 29, settings) == "too_short"
    assert reason_against("山" * 31, settings) == "too_long"


def test_document_reasons(tmp_path: Path) -> None:
    writer = Writer(3)
    sentence = writer.sentence()
    documents = [
        *anchor(writer),
        document("kept", sentence, title=next(titles(False))),
        document("blank", " \u200b\n", title=next(titles(False))),
        document("short", "短。也短。", title=next(titles(False))),
        document("all repeated", sentence, title=next(titles(False))),
    ]
    card, training, _ = build(documents, tmp_path)
    assert [each.id for each in training] == ["t", "kept"]
    assert counts(card) == {"empty_document": 1, "no_sentence_left": 1, "too_short": 2, "duplicate_document": 1}
    assert card.documents_read == 6
    lost = sum(refused.characters for refused in card.refusals.values())
    assert card.characters + lost == card.characters_cleaned
    assert (card.duplicates, card.duplicates_left) == (1, 0)


def test_a_title_alone_is_text(tmp_path: Path) -> None:
    title = "这一条新闻只有标题而没有正文"
    _, training, held_out = build([document("x", title, title=title), *anchor(Writer(4))], tmp_path)
    assert (title,) in [each.sentences for each in training + held_out]


def test_duplicates_may_stay_but_never_on_both_sides(tmp_path: Path) -> None:
    writer = Writer(5)
    trained, held = titles(False), titles(True)
    a, b, c = (writer.characters(19) + "。" for _ in range(3))
    documents = [
        document("1", f"{a}{a}{b}", title=next(trained)),
        document("2", f"{c}{b}{c}", title=next(held)),
        *anchor(writer),
    ]
    card, training, held_out = build(documents, tmp_path, replace(HALF, deduplicate=False))
    assert training[0].sentences == (a, a, b)
    assert (held_out[0].sentences, held_out[0].gaps) == ((c, c), (1,))
    assert (card.duplicates, card.duplicates_left) == (3, 2)
    assert counts(card) == {"held_out_sentence_in_training": 1}


def test_repeated_ids_of_one_source_are_told_apart(tmp_path: Path) -> None:
    writer = Writer(6)
    trained = titles(False)
    documents = [document("1", writer.text(), title=next(trained)) for _ in range(3)] + anchor(writer)
    documents.append(replace(document("1", writer.text(), title=next(trained)), source="other"))
    card, training, _ = build(documents, tmp_path)
    assert [each.id for each in training] == ["1", "1~2", "1~3", "t", "1"]
    assert card.renamed_ids == 2


def test_same_input_same_bytes_and_card_last(tmp_path: Path) -> None:
    documents = [document(str(n), Writer(n).text()) for n in range(30)]
    first = build_corpus(documents, tmp_path / "a", HALF)
    second = build_corpus(iter(documents), tmp_path / "b", HALF)
    assert first == second == load_card(tmp_path / "a") == load_card(tmp_path / "b" / "card.json")
    names = ["card.json", "card.md", "held_out.jsonl", "train.jsonl"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    assert len({build_corpus(documents[n:], tmp_path / "c", HALF).digest for n in range(3)}) == 3


def test_an_unfinished_build_leaves_the_old_corpus_and_no_litter(tmp_path: Path) -> None:
    documents = [document(str(n), Writer(n).text()) for n in range(20)]
    out = tmp_path / "corpus"

    def broken() -> Iterator[Document]:
        yield from documents[:15]
        raise InputError("a.jsonl:16: torn")

    with pytest.raises(InputError, match="torn"):
        build_corpus(broken(), out, HALF)
    with pytest.raises(InputError, match=r"card\.json: not there; no finished corpus"):
        load_card(out)
    assert not list(out.iterdir())
    (out / ".unfinished").mkdir()
    (out / ".unfinished" / "train.sieved").write_text("left by a killed build")
    (out / "train.jsonl").write_text("left by a killed build")
    card = build_corpus(documents, out, replace(HALF, write_refused=True))
    with pytest.raises(InputError, match="torn"):
        build_corpus(broken(), out, HALF)
    assert load_card(out) == card
    assert (out / "refused.jsonl").exists()
    build_corpus(documents, out, HALF)
    assert not (out / "refused.jsonl").exists()


def test_groups_that_all_fall_on_one_side(tmp_path: Path) -> None:
    writer = Writer(8)
    train, held = next(titles(False)), next(titles(True))
    with pytest.raises(InputError, match="all 2 documents fall on the held-out side"):
        build([document(str(n), writer.text(), title=held) for n in range(2)], tmp_path)
    with pytest.raises(InputError, match='give more documents; a .txt file of many documents needs txt_documents = "b'):
        build([document("1", writer.text(), title=train)], tmp_path)
    documents = [document(str(n), writer.text()) for n in range(100)]
    fraction = 0.001
    with pytest.raises(InputError, match="no group of 100 documents falls on the held-out side") as caught:
        build(documents, tmp_path, replace(HALF, held_out_fraction=fraction))
    advised = float(str(caught.value).split("set held_out_fraction = ")[1].split(" ")[0])
    card, _, held_out = build(documents, tmp_path, replace(HALF, held_out_fraction=advised))
    assert held_out and card.held_out.documents == len(held_out)
    card, training, held_out = build(documents, tmp_path, replace(HALF, held_out_fraction=0.0))
    assert (len(training), held_out, card.held_out.mean_sentence_length) == (100, [], None)


def test_nothing_left(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no sentence is left of 2 documents \(no_sentence_left 2, too_short 2\)"):
        build([document("1", "短。"), document("2", "短。")], tmp_path)
    with pytest.raises(InputError, match=r"no sentence is left of 0 documents \(nothing was read\)"):
        build([], tmp_path)
    same = Writer(9).text()
    with pytest.raises(InputError, match="all 1 held-out documents share text or titles with training"):
        build([document("1", same, title=next(titles(False))), document("2", same, title=next(titles(True)))], tmp_path)
    with pytest.raises(InputError, match="source 'test' has an empty id"):
        build([replace(document("1", same), id="\u200b")], tmp_path)


def test_bad_settings_and_places(tmp_path: Path) -> None:
    documents = anchor(Writer(10))
    with pytest.raises(ConfigError, match=r"`min_han_share` must be 0 to 1, not 2\.0"):
        build_corpus(documents, tmp_path, CorpusSettings(min_han_share=2.0))
    with pytest.raises(ConfigError, match=r"`min_sentence_characters` \(300\) must not exceed"):
        CorpusSettings(min_sentence_characters=300)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file.*; the corpus is not finished"):
        build_corpus(documents, tmp_path / "file" / "corpus", HALF)


def test_files_that_were_passed_over_are_on_the_card(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number}.txt").write_text(Writer(number).text(), encoding="utf-8")
    (folder / "picture.png").touch()
    (folder / "empty.txt").touch()
    card = build_corpus(read_documents([folder]), tmp_path / "out", HALF)
    assert counts(card) == {"unknown_file": 1, "empty_file": 1}
    assert card.whole.sources == {"texts": 20}


def test_a_corpus_of_which_most_held_out_text_repeats_training_says_so(tmp_path: Path) -> None:
    class Notes(SilentProgress):
        lines: list[str] = []  # noqa: RUF012

        def note(self, text: str) -> None:
            self.lines.append(text)

    writer = Writer(11)
    trained, held = titles(False), titles(True)
    boilerplate = writer.characters(30)
    documents = [document("t", boilerplate + writer.sentence(), title=next(trained))]
    documents += [document(f"h{n}", boilerplate + writer.sentence(), title=next(held)) for n in range(3)]
    documents += [document("clean", writer.text(), title=next(held))]
    build_corpus(documents, tmp_path, HALF, progress=Notes())
    (line,) = Notes.lines
    assert line.startswith("only 1 of 4 held-out documents share no long run of text with training; a larger")


def test_counts_on_the_card_are_those_of_the_files(tmp_path: Path) -> None:
    documents = [
        document(str(n), Writer(n).text(n % 4 + 1) + f"\n短\n尾页又隔一行才有{n:03}", title=f"题{n % 25}")
        for n in range(60)
    ]
    card, training, held_out = build(documents, tmp_path)
    for split, kept in ((card.train, training), (card.held_out, held_out), (card.whole, training + held_out)):
        sentences = [sentence for each in kept for sentence in each.sentences]
        lengths = sorted(map(len, sentences))
        assert (split.documents, split.sentences, split.characters) == (len(kept), len(sentences), sum(lengths))
        assert split.groups == len({each.group for each in kept})
        assert split.distinct_characters == len(set("".join(sentences)))
        assert split.neighbors == sum(3 * (int(each.id) % 4 + 1) - 1 for each in kept)
        assert split.mean_sentence_length == pytest.approx(sum(lengths) / len(lengths))
        assert split.length_quantiles["0"] == lengths[0] and split.length_quantiles["1"] == lengths[-1]
        assert split.length_quantiles["0.5"] == lengths[(len(lengths) + 1) // 2 - 1]
        assert split.filled["title"] == len(kept) and split.filled["licence"] == 0
    assert Counter(each.title for each in documents).keys() == {each.title for each in training + held_out}


def brute_force_reasons(documents: list[SentenceDocument], unit: str) -> list[list[str]]:
    """What copies on one side lose, by comparing texts: the long way."""
    seen: dict[str, set[tuple[str, ...]]] = {"document": set(), "paragraph": set(), "sentence": set()}
    rank = ("document", "paragraph", "sentence").index(unit)
    lost = []
    for each in documents:
        bounds = (0, *each.paragraphs, len(each.sentences))
        parts = {
            "document": [each.sentences],
            "paragraph": [each.sentences[a:b] for a, b in pairwise(bounds)],
            "sentence": [(sentence,) for sentence in each.sentences],
        }
        reasons = [""] * len(each.sentences)
        for level, name in enumerate(("document", "paragraph", "sentence")):
            place = 0
            for part in parts[name]:
                if part in seen[name] and level <= rank:
                    reasons[place : place + len(part)] = [
                        r or f"duplicate_{name}" for r in reasons[place:][: len(part)]
                    ]
                seen[name].add(part)
                place += len(part)
        lost.append(reasons)
    return lost


@pytest.mark.parametrize("unit", ["document", "paragraph", "sentence"])
def test_copies_are_dropped_and_counted_by_their_largest_unit(tmp_path: Path, unit: str) -> None:
    writer, chooser = Writer(31), random.Random(32)
    paragraphs = [[writer.sentence() for _ in range(chooser.randrange(1, 4))] for _ in range(12)]
    texts = [[chooser.choice(paragraphs) for _ in range(chooser.randrange(1, 4))] for _ in range(30)]
    texts += chooser.choices(texts, k=10)
    for text in texts[::3]:  # a paragraph with one sentence of another
        text.append([chooser.choice(chooser.choice(paragraphs)), writer.sentence()])
    documents = [
        document(str(number), "\n".join("".join(paragraph) for paragraph in text), group="同")
        for number, text in enumerate(texts)
    ]
    refusals = Refusals()
    sieved = [sieve_document(each, HALF, refusals).document for each in documents]
    expected = brute_force_reasons([each for each in sieved if each], unit)
    settings = CorpusSettings(held_out_fraction=0.0, deduplicate_unit=unit, write_refused=True)
    card, training, _ = build(documents, tmp_path, settings)
    kept = {each.id: each for each in training}
    for before, reasons in zip(sieved, expected, strict=True):
        assert before
        wanted = tuple(s for s, reason in zip(before.sentences, reasons, strict=True) if not reason)
        after = kept.get(before.id)
        assert (after.sentences if after else ()) == wanted
        places = [place for place, reason in enumerate(reasons) if not reason]
        gaps = tuple(n for n in range(1, len(places)) if places[n] != places[n - 1] + 1)
        assert (after.gaps if after else ()) == gaps
    refused = [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text("utf-8").splitlines()]
    sentences = Counter()
    for record in refused:
        if record["reason"].startswith("duplicate_"):
            sentences[record["reason"]] += len(record["text"].split("\n"))
    assert sentences == Counter(reason for reasons in expected for reason in reasons if reason)
    found = card.duplicates_by_unit
    assert found and found["document"] == counts(card)["duplicate_document"] and found["sentence"] == card.duplicates
    assert card.duplicates_left == sum(map(len, (d.sentences for d in training))) - len(
        {s for d in training for s in d.sentences}
    )
    assert all(not each.paragraphs for each in training)  # known while building only


def test_titles_and_refused_sentences_make_no_documents_different(tmp_path: Path) -> None:
    writer = Writer(33)
    text = writer.text()
    documents = [
        document("a", text, title=next(titles(False))),
        document(
            "b", "短。\n" + text.replace("\n", "\n\n"), title="另" + next(titles(False)), group=next(titles(False))
        ),
    ]
    card, training, _ = build(documents, tmp_path, CorpusSettings(held_out_fraction=0.0))
    assert [each.id for each in training] == ["a"] and card.duplicates_by_unit == {
        "document": 1,
        "paragraph": 2,
        "sentence": 6,
    }
    assert counts(card)["duplicate_document"] == 1 and "duplicate_sentence" not in counts(card)
