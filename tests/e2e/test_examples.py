"""Every script of examples/, run as its reader would run it, on one small run that was stopped and is continued."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STEPS = 24


def run(script, *arguments, code=0):
    """Run an example; return what it printed."""
    process = subprocess.run(
        [sys.executable, str(ROOT / "examples" / script), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == code, process.stdout + process.stderr
    assert "Traceback" not in process.stderr
    return process.stdout if code == 0 else process.stderr


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A file of 60 articles of the built-in sample, as a user's own."""
    from itertools import islice

    from xuebu.corpus.sample import sample_documents

    path = tmp_path_factory.mktemp("texts") / "own.jsonl"
    records = [{"id": one.id, "title": one.title, "text": one.text} for one in islice(sample_documents(), 60)]
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, texts):
    """A run of a model of some thousand parameters that was stopped after its first step."""
    import dataclasses

    from xuebu.batches.settings import BatchSettings, EvaluationSettings
    from xuebu.model.settings import ModelSettings
    from xuebu.study import StudyFolder, run_study
    from xuebu.train.settings import Recipe, TrainSettings
    from xuebu.train.trainer import StopRequest

    recipe = Recipe(
        batches=BatchSettings(sequences_per_step=8, sequence_length=64),
        evaluation=EvaluationSettings(predictions=200, final_predictions=400, min_predictions=100),
        model=ModelSettings(num_layers=1, hidden_size=32, num_heads=2, intermediate_size=32, max_positions=64),
        train=TrainSettings(
            steps=STEPS, warmup_steps=2, evaluate_every=2, checkpoint_every=STEPS, threads=1, precision="fp32",
            device="cpu", learning_rate=0.01,
        ),
    )  # fmt: skip
    recipe = dataclasses.replace(recipe, corpus=dataclasses.replace(recipe.corpus, held_out_fraction=0.2))
    folder = tmp_path_factory.mktemp("examples") / "run"
    result = run_study(StudyFolder(folder), recipe, [texts], stop=StopRequest("SIGTERM"))
    assert (result.finished, result.step) == (False, 1)
    return folder


@pytest.fixture(scope="module")
def continued(stopped, tmp_path_factory):
    """The run after continue_training.py, and what that printed."""
    folder = tmp_path_factory.mktemp("continued") / "run"
    shutil.copytree(stopped, folder)
    return folder, run("continue_training.py", folder)


def test_continue_training_finishes_the_run(continued):
    folder, printed = continued
    assert f"stands at step 1 of {STEPS}" in printed
    assert f"{STEPS}  held-out accuracy " in printed
    assert str(folder / "report.html") in printed and (folder / "report.html").exists()
    records = [json.loads(line) for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [one["step"] for one in records if one["kind"] == "eval"] == list(range(2, STEPS + 1, 2))


def test_quick_start_fills_every_blank(continued):
    folder, _ = continued
    printed = run("quick_start.py", folder, "学而时习[MASK]，不亦说[MASK]？")
    blanks = [line for line in printed.splitlines() if line.startswith("  token ")]
    assert [line.split(":")[0] for line in blanks] == ["  token 5", "  token 10"]
    assert all(line.count("%") == 5 for line in blanks)
    assert printed.count("as unsure as a fair draw among ") == 2


def test_quick_start_answers_from_a_checkpoint_too(stopped):
    assert run("quick_start.py", stopped).count("  token ") == 3  # its own texts hold three blanks


def test_load_history_reads_a_run_and_the_plain_json_it_writes(continued, tmp_path):
    folder, _ = continued
    plain = tmp_path / "plain.json"
    own = run("load_history.py", folder, "--plain-json", plain)
    assert "held-out records" in own and "too short to beat counting" in own
    content = json.loads(plain.read_text(encoding="utf-8"))
    assert content["steps"] == list(range(2, STEPS + 1, 2)) and len(content["mlm_acc"]) == STEPS // 2
    again = run("load_history.py", plain)
    assert "published study" in again and "nothing was held out" in again
    coefficients = [line.split()[2] for text in (own, again) for line in text.splitlines() if line.startswith("r = ")]
    assert len(coefficients) == 2 and coefficients[0] == coefficients[1]


def test_load_history_needs_no_torch(continued, tmp_path):
    folder, _ = continued
    (tmp_path / "torch.py").write_text('raise ImportError("not here")\n', encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), str(ROOT / "src")])
    process = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "load_history.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr


def test_prepare_data_shows_corpus_vocabulary_store_and_a_batch(texts, tmp_path):
    printed = run("prepare_data.py", texts, "--out", tmp_path / "data")
    for head in ("CORPUS", "VOCABULARY", "STORE", "BATCH of step 1: 4 sequences"):
        assert head in printed
    assert printed.count("b follows a: [CLS]") == printed.count("b is of another document: [CLS]") == 2
    asked = sum(len(line.split(": ")[1].split()) for line in printed.splitlines() if "to predict, in order" in line)
    assert f"{asked} to predict" in printed
    assert run("prepare_data.py", texts, "--out", tmp_path / "data") == printed  # again: the same bytes


@pytest.mark.parametrize("script", ["load_history.py", "continue_training.py"])
def test_a_missing_run_is_said_in_one_line(script, tmp_path):
    error = run(script, tmp_path / "none", code=2)
    assert "`xuebu study`" in error.splitlines()[-1]


def test_every_example_is_short_and_tested():
    tested = Path(__file__).read_text(encoding="utf-8")
    for path in sorted((ROOT / "examples").iterdir()):
        if path.suffix == ".py":
            lines = path.read_text(encoding="utf-8").splitlines()
            assert 20 <= len(lines) <= 50, path
            assert not any("sys.path" in line for line in lines), path
            assert f'"{path.name}"' in tested, path
