"""Near-duplicates: the estimate against the exact similarity, who survives, and on which side what stays."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xuebu.corpus.build import build_corpus
from xuebu.corpus.document import CorpusFile, Document
from xuebu.corpus.near import (
    NUM_PERMUTATIONS,
    SHORT_CHARACTERS,
    Fingerprints,
    SignatureStore,
    ngram_hashes,
    rows_of_a_band,
    shingles,
    signature,
)
from xuebu.corpus.overlap import code_points
from xuebu.corpus.settings import CorpusSettings
from xuebu.corpus.split import is_held_out
from xuebu.progress import SILENT
from xuebu.rng import key_of

LETTERS = [chr(code) for code in range(0x4E00, 0x5E00)]


def written(seed: int, length: int = 400) -> str:
    """Return sentences of characters drawn by chance: no two texts have a run in common."""
    text = random.Random(seed).choices(LETTERS, k=length)
    return "".join(character + "。" * (place % 40 == 39) for place, character in enumerate(text))


def changed(text: str, *places: int) -> str:
    """Return a text with a character no other text has at each of these places."""
    return "".join(chr(0x9000 + place) if place in places else each for place, each in enumerate(text))


def find(texts, similarity=0.8, groups=None, folder=Path()):
    store = SignatureStore(folder, similarity)
    for start in range(0, len(texts), 700):  # of several parts
        fingerprints = Fingerprints(similarity)
        for text in texts[start : start + 700]:
            fingerprints.append([text])
        own = (groups or list(map(str, range(len(texts)))))[start : start + 700]
        store.extend(fingerprints.table(), np.array(list(map(key_of, own)), dtype=np.uint64))
    store.close()
    with SILENT.task("") as task:
        return store.find(task)


def test_runs_are_equal_where_their_characters_are():
    text = "学步" * 40 + "邯郸" + "学步" * 3
    hashes = ngram_hashes(code_points(text), 5)
    runs = [text[place : place + 5] for place in range(len(text) - 4)]
    assert len(hashes) == len(runs) and len(np.unique(hashes)) == len(set(runs))
    assert all(
        (a == b) == (x == y) for a, x in zip(runs, hashes, strict=True) for b, y in zip(runs, hashes, strict=True)
    )
    assert len(ngram_hashes(code_points("学步学"), 5)) == 0 and len(ngram_hashes(code_points(""), 5)) == 0


@pytest.mark.parametrize("length", [49, 50])
def test_short_texts_are_one_member(length):
    text = "".join(LETTERS[:length])
    assert len(shingles(text)) == (1 if length < SHORT_CHARACTERS else length - 4)
    assert shingles("，" + text + "！ ").tolist() == shingles(text).tolist()


@pytest.mark.parametrize("similarity", [0.5, 0.8, 0.95])
def test_the_estimate_has_no_bias_and_the_error_that_is_stated(similarity):
    random_bits = np.random.default_rng(5)
    errors = []
    for _ in range(300):
        members = random_bits.integers(0, 2**64, size=600, dtype=np.uint64)
        common = round(2 * similarity * 300 / (1 + similarity))
        one, other = members[:300], np.concatenate([members[:common], members[300 : 600 - common]])
        exact = common / (600 - common)
        errors.append(float((signature(one) == signature(other)).mean()) - exact)
    stated = (similarity * (1 - similarity) / NUM_PERMUTATIONS) ** 0.5
    assert abs(np.mean(errors)) < 4 * stated / 300**0.5
    assert np.std(errors) == pytest.approx(stated, rel=0.2)


def test_a_signature_depends_on_the_set_only():
    hashes = ngram_hashes(code_points(written(1, 3000)))
    shuffled = np.random.default_rng(0).permutation(np.concatenate([hashes, hashes[:700]]))
    assert signature(hashes).tolist() == signature(shuffled).tolist()


def test_signatures_never_change():
    assert signature(shingles("学而时习之，不亦说乎？有朋自远方来，不亦乐乎？" * 3))[:3].tolist() == [
        9809499,
        23843191,
        224526731,
    ]


@pytest.mark.parametrize("similarity", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_meet_what_they_should(similarity):
    rows = rows_of_a_band(similarity)
    met = [1 - (1 - similarity**each) ** (NUM_PERMUTATIONS // each) for each in range(1, NUM_PERMUTATIONS + 1)]
    assert met[rows - 1] >= 0.99
    assert all(each < 0.99 for each in met[rows:])


def test_recall_and_precision_on_pairs_of_known_similarity(tmp_path):
    chooser = random.Random(3)
    texts = [written(seed) for seed in range(300)]
    copies = [changed(text, *chooser.sample(range(len(text)), chooser.randint(0, 30))) for text in texts]
    exact = []
    for one, other in zip(texts, copies, strict=True):
        a, b = set(shingles(one).tolist()), set(shingles(other).tolist())
        exact.append(len(a & b) / len(a | b))
    leaders = find(texts + copies, folder=tmp_path).leaders
    linked = leaders[300:] == np.arange(300)
    assert (leaders[:300] == np.arange(300)).all() and set(leaders[300:]) <= set(range(600))
    high, low = np.array(exact) >= 0.9, np.array(exact) <= 0.6
    assert high.sum() > 20 and low.sum() > 20
    assert linked[high].all() and not linked[low].any()


def test_the_first_survives_and_a_chain_loses_no_text(tmp_path):
    first = written(3)
    second = changed(first, *range(10, 400, 65))
    third = changed(second, *range(42, 400, 65))
    found = find([written(9), first, second, third, first + "！"], folder=tmp_path)
    assert found.leaders.tolist() == [0, 1, 1, 1, 1]
    assert found.repeats.tolist() == [-1, -1, 1, -1, 1]  # the third is near to the second only, which goes
    assert found.equal.tolist() == [False, False, False, False, True]


def test_short_texts_that_share_32_bits_are_not_near(tmp_path):
    fingerprints = Fingerprints(0.8)
    for text in ("海内存知己。", "天涯若比邻！", "海内，存知己", written(1), written(1)):
        fingerprints.append([text])
    table = fingerprints.table()
    alike = replace(table, signatures=table.signatures.copy(), bands=table.bands.copy())
    alike.signatures[1], alike.bands[:, 1] = alike.signatures[0], alike.bands[:, 0]
    store = SignatureStore(tmp_path, 0.8)
    store.extend(alike, np.arange(5, dtype=np.uint64))
    store.close()
    with SILENT.task("") as task:
        found = store.find(task)
    assert found.leaders.tolist() == [0, 1, 0, 3, 3] and found.repeats.tolist() == [-1, -1, 0, -1, 3]
    assert found.equal.tolist() == [False, False, True, False, True]


def test_groups_join_clusters_but_repeat_nothing(tmp_path):
    text = written(1)
    found = find([written(2), text, changed(text, 7), written(3)], groups=["甲", "乙", "甲", "乙"], folder=tmp_path)
    assert found.leaders.tolist() == [0, 0, 0, 0]
    assert found.repeats.tolist() == [-1, -1, 1, -1]


@pytest.mark.parametrize("count", [0, 1, 1030])
def test_any_number_of_documents(tmp_path, count):
    found = find(["同一篇很短的文字。"] * count, folder=tmp_path)
    assert found.repeats.tolist() == [-1, *[0] * (count - 1)][:count]


def documents() -> list[Document]:
    """Return 40 documents; the even ones have a near copy 40 places later, of another title."""
    texts = [written(seed) for seed in range(40)]
    texts += [changed(text, 3, 200) for text in texts[::2]]
    return [Document(id=str(n), title=f"篇{n}", group=f"篇{n}", text=text, source="t") for n, text in enumerate(texts)]


def build(folder, mode, given=None):
    settings = CorpusSettings(held_out_fraction=0.3, near_duplicates=mode)
    card = build_corpus(given or documents(), folder, settings)
    sides = [list(CorpusFile(folder / f"{side}.jsonl")) for side in ("train", "held_out")]
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "card.md", "held_out.jsonl", "train.jsonl"]
    return card, sides


def test_what_stays_shares_a_group_and_a_side(tmp_path):
    card, sides = build(tmp_path / "c", "group")
    assert "near_duplicate_document" not in card.refusals and card.documents == 60
    for side, held_out in zip(sides, (False, True), strict=True):
        assert side and all(is_held_out(document.group, 0.3) == held_out for document in side)
        ids = {int(document.id) for document in side}
        assert all((number * 2 in ids) == (40 + number in ids) for number in range(20))
        assert [int(document.id) for document in side] == sorted(ids)
    assert "held_out_overlaps_training" not in card.refusals
    ignored = build(tmp_path / "i", "ignore")[0]
    assert ignored.refusals["held_out_overlaps_training"].count > 0


def test_what_goes_is_the_later_copy_and_is_counted(tmp_path):
    given = documents()
    given.append(replace(given[5], id="60", title="篇60", group="篇60", text=given[5].text.replace("。", "！")))
    card, sides = build(tmp_path / "c", "drop", given)
    assert sorted(int(document.id) for side in sides for document in side) == list(range(40))
    assert card.refusals["near_duplicate_document"].count == 20
    assert card.refusals["duplicate_document"].count == 1
    assert card.characters + sum(each.characters for each in card.refusals.values()) == card.characters_cleaned
    again = build(tmp_path / "again", "drop", given)[0]
    assert again == card


def test_without_near_duplicates_nothing_changes(tmp_path):
    given = documents()[:40]
    digests = {build(tmp_path / mode, mode, given)[0].digest for mode in ("ignore", "group", "drop")}
    assert len(digests) == 1
