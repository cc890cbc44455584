"""Mistakes and interruptions before the training begins: nothing finished is lost, nothing left over is trusted."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from xuebu.corpus.build import build_corpus
from xuebu.corpus.document import Document
from xuebu.corpus.sample import sample_documents
from xuebu.errors import ConfigError, InputError, StoreError
from xuebu.model.settings import ModelSettings
from xuebu.study import StudyFolder, prepare_run, run_study
from xuebu.train.settings import Recipe, TrainSettings
from xuebu.train.trainer import StopRequest

RECIPE = Recipe(
    model=ModelSettings(num_layers=1, hidden_size=32, intermediate_size=64),
    train=TrainSettings(steps=2, warmup_steps=1, threads=1, precision="fp32"),
)


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for number, document in enumerate(list(sample_documents())[:40]):
        (folder / f"{number}.txt").write_text(document.text, encoding="utf-8")
    return folder


def test_a_wrong_input_claims_no_folder_and_costs_no_study(tmp_path, texts):
    folder = StudyFolder(tmp_path / "out")
    with pytest.raises(InputError, match="no such file"):
        run_study(folder, RECIPE, [tmp_path / "typo"])
    stopped = run_study(folder, RECIPE, [texts], stop=StopRequest("SIGTERM"))  # the folder is free
    assert stopped.step == 1
    with pytest.raises(InputError, match="no such file"):
        run_study(folder, RECIPE, [tmp_path / "typo"], fresh=True)
    assert folder.run.run_toml.exists()
    with pytest.raises(ConfigError, match=r"train\.seed"):
        run_study(folder, replace(RECIPE, train=replace(RECIPE.train, seed=1)), [texts])
    again = run_study(folder, replace(RECIPE, train=replace(RECIPE.train, seed=1)), [texts], fresh=True)
    assert again.finished


def test_a_vocabulary_half_written_is_made_anew(tmp_path, texts):
    folder = StudyFolder(tmp_path / "out")
    run_study(folder, RECIPE, [texts], stop=StopRequest("SIGTERM"))
    whole = (folder.vocabulary / "vocab.txt").read_bytes()
    (folder.vocabulary / "vocab.txt").unlink()  # killed before its last file
    folder.run.run_toml.unlink()
    folder.run.history.unlink()
    for path in folder.run.checkpoints.iterdir():
        path.rename(tmp_path / path.name)
    assert run_study(folder, RECIPE, [texts]).finished
    assert (folder.vocabulary / "vocab.txt").read_bytes() == whole


def test_leftovers_of_another_corpus_are_not_trained_on(tmp_path):
    documents = list(sample_documents())
    for name, part in (("a", documents[:40]), ("b", documents[40:80])):
        build_corpus(part, tmp_path / name)
    folder = StudyFolder(tmp_path / "run")
    prepare_run(folder, tmp_path / "a", RECIPE)  # and then interrupted, before run.toml
    with pytest.raises(StoreError, match="corpus_digest"):
        prepare_run(folder, tmp_path / "b", RECIPE)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_training_interrupts_at_once(tmp_path, number, code):
    pipe = tmp_path / "slow.txt"
    os.mkfifo(pipe)  # an input that never comes to its end
    process = subprocess.Popen(
        [sys.executable, "-m", "xuebu", "study", str(pipe), "--out", str(tmp_path / "out")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with Path(pipe).open("w", encoding="utf-8") as stream:  # opens when the other side does: signals are caught by then
        stream.write("有头无尾的一行\n")
        stream.flush()
        time.sleep(0.1)
        process.send_signal(number)
        _, printed = process.communicate(timeout=60)
    assert process.returncode == code
    assert "interrupted" in printed and "Traceback" not in printed


def test_a_study_of_a_file_whose_name_is_no_text(tmp_path):
    name = os.fsdecode(b"\xff.txt")
    (tmp_path / name).write_text("只有这一句完整而且足够长的话，别的什么也没有。", encoding="utf-8")
    with pytest.raises(InputError, match="held_out_fraction"):
        run_study(StudyFolder(tmp_path / "out"), RECIPE, [tmp_path / name])
    assert "xff.txt" in (tmp_path / "out" / "study.toml").read_text(encoding="utf-8")


def test_text_that_differs_in_spaces_only_is_not_held_out(tmp_path):
    documents = list(sample_documents())[:60]
    spaced = [
        Document(
            id=f"spaced {one.id}",
            title=f"其二·{one.title}",
            group=f"其二·{one.title}",
            text="\n".join(" ".join(line) for line in one.text.split("\n")),
            source="spaced",
        )
        for one in documents
    ]
    with pytest.raises(InputError, match="share text"):  # so every held-out one has its twin in training, or is one
        build_corpus([*documents, *spaced], tmp_path / "corpus")
