"""Anonymised ids: a corpus whose characters were replaced by secret numbers gives the plain-text run exactly."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from xuebu.cli import main
from xuebu.corpus.build import build_corpus
from xuebu.corpus.document import CorpusFile
from xuebu.corpus.settings import CorpusSettings
from xuebu.corpus.sources import read_documents
from xuebu.history.records import read_history
from xuebu.study import StudyFolder, describe_run, prepare_run
from xuebu.tokens.settings import StoreSettings, VocabularySettings
from xuebu.train.session import start_run


def write_both(folder, pairs):
    """Write pairs of sentences as text and as ids by a secret numbering, under the same name."""
    characters = sorted({character for pair in pairs for sentence in pair for character in sentence})
    numbers = np.random.default_rng(11).permutation(90_000)[: len(characters)]
    secret = dict(zip(characters, map(str, numbers), strict=True))
    paths = {name: folder / name / "pairs.tsv" for name in ("text", "ids")}
    for path in paths.values():
        path.parent.mkdir()
    paths["text"].write_text("".join(f"{a}\t{b}\t1\n" for a, b in pairs), encoding="utf-8")
    coded = [[" ".join(secret[character] for character in sentence) for sentence in pair] for pair in pairs]
    paths["ids"].write_text("".join(f"{a}\t{b}\t0\n" for a, b in coded), encoding="utf-8")
    return paths, secret


def run_both(folder, pairs, recipe, objective):
    """Train on each; return the folders and the numbering."""
    paths, secret = write_both(folder, pairs)
    corpus = CorpusSettings(
        layout="rows", min_sentence_characters=1, min_han_share=0.0, deduplicate=False, held_out_fraction=0.2
    )
    recipe = dataclasses.replace(
        recipe,
        corpus=corpus,
        vocabulary=VocabularySettings(min_count=2, ties="first"),
        store=StoreSettings(segmenter="none"),
        batches=dataclasses.replace(recipe.batches, sequences="pairs", objective=objective),
    )
    of_ids = dataclasses.replace(
        recipe,
        corpus=dataclasses.replace(corpus, token_ids=True),
        vocabulary=VocabularySettings(kind="ids", min_count=2),
    )
    studies = {}
    for name, own in (("text", recipe), ("ids", of_ids)):
        studies[name] = study = StudyFolder(folder / name / "run")
        build_corpus(read_documents([paths[name]], own.corpus), folder / name / "corpus", own.corpus)
        prepare_run(study, folder / name / "corpus", own)
        stores = {"train_store": study.store("train"), "held_out_store": study.store("held_out")}
        assert start_run(study.run, own, **stores, vocabulary=study.vocabulary).finished
    return studies, secret


def assert_equal_runs(studies, secret):
    """Hold weights, history and vocabularies of both against each other."""
    weights = {name: (study.run.model / "model.safetensors").read_bytes() for name, study in studies.items()}
    assert weights["text"] == weights["ids"]
    histories = {name: read_history(study.run.history) for name, study in studies.items()}
    for kind, metric in (("train", "mlm_loss_nats"), ("eval", "mlm_loss_nats"), ("eval", "mlm_accuracy")):
        text, ids = (histories[name].column(kind, metric).value for name in ("text", "ids"))
        assert text.tolist() == ids.tolist()
    text, ids = ((study.vocabulary / "vocab.txt").read_text("utf-8").split() for study in studies.values())
    assert [secret[token] for token in text[5:]] == ids[5:]


def test_a_secret_numbering_changes_nothing_but_the_names_of_tokens(tmp_path, recipe_of, documents_of, capsys):
    documents = documents_of(60, seed=3)
    sentences = [sentence.replace(" ", "") for document in documents for sentence in document.sentences]
    pairs = list(zip(sentences[::2], sentences[1::2], strict=False))
    studies, secret = run_both(tmp_path, pairs, recipe_of(), "nsp")
    assert_equal_runs(studies, secret)
    capsys.readouterr()
    known = (studies["ids"].vocabulary / "vocab.txt").read_text("utf-8").split()[5:8]
    assert main(["fill", str(studies["ids"].path), f"{known[0]} [MASK] {known[1]}"]) == 0
    assert "[MASK]" in capsys.readouterr().out


@pytest.mark.long
def test_real_pairs_by_a_secret_numbering(tmp_path, recipe_of):
    shared = os.environ.get("XUEBU_SHARED_DATA")
    if not shared:
        pytest.skip("XUEBU_SHARED_DATA is not set")
    lines = (Path(shared) / "pairs_afqmc" / "train.jsonl").read_text("utf-8").splitlines()[:4_000]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    settings = CorpusSettings(layout="rows", min_han_share=0.0, deduplicate=False, held_out_fraction=0.0)
    build_corpus(read_documents([tmp_path / "pairs.jsonl"], settings), tmp_path / "cleaned", settings)
    cleaned = [document.sentences for document in CorpusFile(tmp_path / "cleaned" / "train.jsonl")]
    # Cleaned beforehand, because ids never are; without spaces, which are no tokens.
    pairs = [tuple("".join(sentence.split()) for sentence in pair) for pair in cleaned if len(pair) == 2]
    recipe = recipe_of(train={"steps": 100, "evaluate_every": 50, "checkpoint_every": 50})
    studies, secret = run_both(tmp_path, pairs, recipe, "nsp")
    assert_equal_runs(studies, secret)
    scores = {}
    for name, study in studies.items():
        describe_run(study.run)
        scores[name] = json.loads(study.run.baselines.read_text())
        scores[name]["mlm"]["most_frequent"].pop("token")
        scores[name]["mlm"].pop("by_character")  # ids have no kinds of characters
    assert scores["text"] == scores["ids"]
