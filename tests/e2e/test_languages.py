"""Other languages, and text without one: the shipped recipes on small text of our own, from files to weights."""

import dataclasses
import json

import numpy as np

from xuebu.cli.flags import load_recipe
from xuebu.corpus.build import build_corpus
from xuebu.corpus.sources import read_documents
from xuebu.history.records import read_history
from xuebu.study import StudyFolder, fill_questions, prepare_run
from xuebu.tokens.store import Store
from xuebu.tokens.vocab import load_vocabulary
from xuebu.train.session import start_run

SYLLABLES = [
    "ba",
    "der",
    "fin",
    "go",
    "hul",
    "in",
    "jar",
    "ko",
    "lem",
    "mi",
    "nor",
    "pel",
    "qua",
    "ri",
    "sto",
    "tum",
    "ven",
    "wy",
]
JAPANESE = [
    "漁師",
    "司書",
    "医者",
    "大工",
    "駅長",
    "は",
    "が",
    "を",
    "に",
    "で",
    "と",
    "毎朝",
    "静か",
    "友人",
    "一緒",
    "望遠鏡",
    "時計",
    "手紙",
]
JAPANESE += ["石灯籠", "修理", "思い出", "大切", "古い", "長い", "眺めて", "描いて", "久しぶり"]


def latin_words():
    """Return 400 words of two or three syllables."""
    rng = np.random.default_rng(8)
    return ["".join(rng.choice(SYLLABLES, rng.integers(2, 4))) for _ in range(400)]


def write_documents(path, words, space, stop):
    """Write documents of six sentences of drawn words, parted by blank lines."""
    rng = np.random.default_rng(4)
    documents = []
    for _ in range(40):
        sentences = [space.join(words[i] for i in rng.integers(0, len(words), 12)).capitalize() for _ in range(6)]
        documents.append(space.join(sentence + stop for sentence in sentences))
    path.write_text("\n\n".join(documents) + "\n", encoding="utf-8")


def train(tmp_path, name, path, recipe_of, **corpus):
    """Build and train a few steps by a shipped recipe, its model and batches made small; return folder and recipe."""
    shipped, small = load_recipe(name), recipe_of()
    recipe = dataclasses.replace(
        shipped,
        corpus=dataclasses.replace(shipped.corpus, held_out_fraction=0.3, **corpus),
        vocabulary=dataclasses.replace(shipped.vocabulary, max_size=400, min_count=2),
        batches=dataclasses.replace(shipped.batches, sequences_per_step=8, sequence_length=48),
        evaluation=small.evaluation,
        model=small.model,
        train=dataclasses.replace(small.train, steps=6),
    )
    study = StudyFolder(tmp_path / "run")
    build_corpus(read_documents([path], recipe.corpus), tmp_path / "corpus", recipe.corpus)
    prepare_run(study, tmp_path / "corpus", recipe)
    stores = {"train_store": study.store("train"), "held_out_store": study.store("held_out")}
    assert start_run(study.run, recipe, **stores, vocabulary=study.vocabulary).finished
    losses = read_history(study.run.history).column("train", "mlm_loss_nats").value
    assert np.isfinite(losses).all()
    return study


def words_of(store, vocabulary):
    """Return the words of the first sentences, each as its tokens."""
    words = []
    for sentence in range(50):
        starts = np.flatnonzero(store.word_starts(sentence))[1:]
        words += [
            [vocabulary.tokens[token] for token in word] for word in np.split(store.sentence_tokens(sentence), starts)
        ]
    return words


def test_english_by_pieces_and_whole_words(tmp_path, recipe_of):
    path = tmp_path / "english.txt"
    write_documents(path, latin_words(), " ", " by Dr. Hale!")
    study = train(tmp_path, "english", path, recipe_of, txt_documents="blank-line")
    vocabulary, store = load_vocabulary(study.vocabulary), Store.open(study.store("train"))
    assert vocabulary.kind == "wordpiece"
    words = words_of(store, vocabulary)
    assert all(not word[0].startswith("##") for word in words)
    assert any(len(word) > 1 for word in words)
    assert all(piece.startswith("##") for word in words for piece in word[1:])
    documents = [json.loads(line) for line in (tmp_path / "corpus" / "train.jsonl").read_text("utf-8").splitlines()]
    assert {len(document["sentences"]) for document in documents} == {6}  # "Dr." ends none
    assert len(fill_questions(store, vocabulary)) in range(4)


def test_japanese_by_characters_and_words_from_statistics(tmp_path, recipe_of):
    path = tmp_path / "japanese.txt"
    write_documents(path, JAPANESE, "", "。")
    study = train(tmp_path, "japanese", path, recipe_of, txt_documents="blank-line")
    vocabulary, store = load_vocabulary(study.vocabulary), Store.open(study.store("train"))
    assert store.metadata["unknown_tokens"] == 0
    words = {"".join(word) for word in words_of(store, vocabulary)}
    assert len({"漁師", "司書", "医者", "望遠鏡", "石灯籠"} & words) >= 3
    assert len(fill_questions(store, vocabulary)) > 0


def test_pairs_of_ids(tmp_path, recipe_of):
    rng = np.random.default_rng(2)
    words = [rng.integers(0, 30_000, rng.integers(1, 4)).tolist() for _ in range(60)]
    rows = []
    for _ in range(120):
        first, second = ([token for word in rng.choice(60, 8) for token in words[word]] for _ in range(2))
        rows.append("\t".join([" ".join(map(str, first)), " ".join(map(str, second)), str(rng.integers(2))]))
    path = tmp_path / "pairs.tsv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    study = train(tmp_path, "ids", path, recipe_of)
    vocabulary, store = load_vocabulary(study.vocabulary), Store.open(study.store("train"))
    assert vocabulary.kind == "ids"
    assert store.metadata["num_words"] < store.num_tokens  # statistics found some
    assert len(store.anchors) == store.num_documents
