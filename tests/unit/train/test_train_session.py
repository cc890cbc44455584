import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from xuebu.config import settings_from, to_table
from xuebu.errors import InputError, ResumeError, StoreError, TrainingError
from xuebu.tokens.vocab import SPECIAL_TOKENS, Vocabulary
from xuebu.train import trainer as trainer_module
from xuebu.train.folder import RunFolder, read_run_facts, write_run_facts
from xuebu.train.session import is_finished, is_relaunch, stop_on_signals
from xuebu.train.settings import Recipe
from xuebu.train.trainer import StopRequest

HOLD = """
import fcntl, sys, time
stream = open(sys.argv[1], "w")
fcntl.flock(stream, fcntl.LOCK_SH)  # shared: whoever trains must want it alone
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def stopped(start, recipe_of):
    """A run stopped after its first step."""
    return start(recipe_of(), stop=StopRequest("SIGTERM"))[0]


def sessions(folder):
    return [json.loads(line) for line in folder.sessions.read_text(encoding="utf-8").splitlines()]


def test_a_second_process_is_refused_and_a_dead_one_is_not_in_the_way(stopped, resume):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, stopped.path / ".lock"], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ResumeError, match="another process is working in this folder; wait for it or end it"):
            resume(stopped)
    finally:
        holder.kill()
        holder.communicate()
    assert resume(stopped).finished
    assert is_finished(stopped)


def test_run_toml_states_what_the_run_is_made_from(stopped, tokens, recipe_of):
    facts = read_run_facts(stopped)
    assert facts.recipe == recipe_of()
    assert facts.digests["train_store"] == tokens.train.digest
    assert facts.digests["held_out_store"] == tokens.held_out.digest
    assert facts.digests["vocabulary"] == tokens.vocabulary.digest
    assert facts.digests["corpus"] == "synthetic"
    assert settings_from(Recipe, to_table(facts.recipe), where="x") == facts.recipe
    assert facts.machine.threads == 1


def test_sessions_are_logged_beside_the_history(stopped, resume):
    resume(stopped)
    events = [(session["event"], session["step"]) for session in sessions(stopped)]
    assert events == [("start", 0), ("stopped", 1), ("resume", 1), ("finished", 12)]
    assert sessions(stopped)[1]["reason"] == "SIGTERM"
    assert all(session["pid"] == os.getpid() for session in sessions(stopped))


def test_a_finished_run_stays_as_it_is(start, resume, recipe_of):
    folder, _ = start(recipe_of())
    assert is_finished(folder)
    before = {
        path: path.read_bytes()
        for path in folder.path.rglob("*")
        if path.is_file() and path.name not in ("sessions.jsonl", ".lock")
    }
    outcome = resume(folder)
    assert outcome.finished and outcome.step == 12
    assert {path: path.read_bytes() for path in before} == before


def test_not_finished_yet(stopped, tmp_path):
    assert not is_finished(stopped)
    assert not is_finished(RunFolder(tmp_path / "nothing"))


def test_a_folder_that_holds_a_run_is_refused(stopped, start, recipe_of):
    with pytest.raises(ResumeError, match="holds a run already; go on with it by --resume"):
        start(recipe_of())
    stopped.run_toml.unlink()
    history = stopped.history.read_bytes()
    with pytest.raises(ResumeError, match="history or checkpoints of a run without its run.toml"):
        start(recipe_of())
    assert stopped.history.read_bytes() == history  # nothing already written is lost
    stopped.history.unlink()
    with pytest.raises(ResumeError, match="history or checkpoints"):
        start(recipe_of())


def test_resume_of_nothing(resume, tmp_path):
    with pytest.raises(InputError, match="not a run folder"):
        resume(RunFolder(tmp_path))


def change(folder, **changes):
    facts = dataclasses.replace(read_run_facts(folder), **changes)
    write_run_facts(folder, facts)
    return facts


def test_another_vocabulary_is_refused_and_named(stopped, resume, tokens, tmp_path):
    other = Vocabulary((*SPECIAL_TOKENS, *tokens.vocabulary.tokens[:4:-1]))
    other.save(tmp_path / "vocab")
    change(stopped, vocabulary=str(tmp_path / "vocab"))
    with pytest.raises(ResumeError, match="made from another vocabulary; it cannot go on"):
        resume(stopped)
    with pytest.raises(ResumeError, match="another vocabulary"):
        resume(stopped, inexact=True)  # other data is no matter of rounding


@pytest.mark.parametrize("which", ["train_store", "held_out_store"])
def test_another_store_is_refused_and_named(stopped, resume, tokens, store_of, which):
    other = store_of(tokens.train_documents[:-1], segmenter="rjieba")
    change(stopped, **{which: str(other.folder)})
    with pytest.raises(ResumeError, match=f"made from another {which}; it cannot go on"):
        resume(stopped)


def test_a_store_that_is_gone_is_named(stopped, resume, tmp_path):
    change(stopped, train_store=str(tmp_path / "gone"))
    with pytest.raises(StoreError, match="gone: no finished token store here"):
        resume(stopped)


def test_another_machine_or_code_needs_inexact(stopped, resume, recipe_of):
    facts = read_run_facts(stopped)
    change(
        stopped,
        machine=dataclasses.replace(facts.machine, device_name="Abacus 1", torch_version="1.0"),
        digests={**facts.digests, "code": "0" * 64},
    )
    with pytest.raises(ResumeError, match="cannot go on exactly: code has changed; device_name was 'Abacus 1'") as e:
        resume(stopped)
    assert "--inexact" in str(e.value) and "\n" not in str(e.value)
    assert resume(stopped, inexact=True).finished
    assert len(sessions(stopped)[2]["changes"]) == 3  # it is on record


def test_a_checkpoint_of_another_model_is_refused(stopped, resume):
    recipe = read_run_facts(stopped).recipe
    change(stopped, recipe=dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, intermediate_size=32)))
    with pytest.raises(ResumeError, match=r"made by another run: model\.intermediate_size is 24 there, 32 here"):
        resume(stopped)


def test_a_history_that_lost_records_is_refused(stopped, resume):
    data = stopped.history.read_bytes()
    stopped.history.write_bytes(data[: len(data) // 2])
    with pytest.raises(ResumeError, match="the checkpoint was saved at byte"):
        resume(stopped)


def test_a_run_can_be_moved_with_its_data(start, resume, recipe_of, tokens, tmp_path):
    import shutil

    inside = tmp_path / "run"
    for name in ("train", "held_out", "vocab"):
        shutil.copytree(tokens.folder / name, inside / "data" / name)
    folder, _ = start(
        recipe_of(),
        stop=StopRequest("SIGTERM"),
        train_store=inside / "data" / "train",
        held_out_store=inside / "data" / "held_out",
        vocabulary=inside / "data" / "vocab",
    )
    assert read_run_facts(folder).train_store == "data/train"
    inside.rename(tmp_path / "moved")
    assert resume(RunFolder(tmp_path / "moved")).finished


def test_a_store_of_another_vocabulary_cannot_start_a_run(start, recipe_of, tmp_path):
    Vocabulary((*SPECIAL_TOKENS, "天")).save(tmp_path / "vocab")
    with pytest.raises(StoreError, match="another vocabulary"):
        start(recipe_of(), vocabulary=tmp_path / "vocab")
    assert not (tmp_path / "run" / "run.toml").exists()  # the folder can be used again


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_become_requests(number):
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert stop.reason == ""
        os.kill(os.getpid(), number)
        deadline = time.monotonic() + 2
        while not stop.reason and time.monotonic() < deadline:
            time.sleep(0.001)
        assert stop.reason == number.name
        os.kill(os.getpid(), signal.SIGTERM)  # patience
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)  # impatience
            time.sleep(0.5)
    assert signal.getsignal(number) is before


def test_an_operation_without_a_deterministic_kernel_is_one_line(start, recipe_of, monkeypatch):
    def refuse(*given, **options):
        raise RuntimeError(
            "cumsum_cuda_kernel does not have a deterministic implementation, but you set "
            "'torch.use_deterministic_algorithms(True)'. You can turn off determinism just for this operation, or\nmore"
        )

    monkeypatch.setattr(trainer_module, "compute_losses", refuse)
    with pytest.raises(TrainingError, match='cumsum_cuda_kernel does .*`train.deterministic` = "off"') as caught:
        start(recipe_of())
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(trainer_module, "compute_losses", lambda *given: (_ for _ in ()).throw(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        start(recipe_of(), "other")


def test_a_job_that_is_launched_again_is_known(start, recipe_of, monkeypatch, tmp_path):
    """By torchrun's count of failures; where a machine has joined, only by the job's name."""
    for name in ("TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    nothing = RunFolder(tmp_path / "nothing")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # torchrun's name for a job on fixed machines
    plain, _ = start(recipe_of(), "plain", stop=StopRequest("SIGTERM"))
    assert not is_relaunch(plain)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", '学"7')
    folder, _ = start(recipe_of(), stop=StopRequest("SIGTERM"))
    assert is_relaunch(folder) and not is_relaunch(plain) and not is_relaunch(nothing)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", '学"')
    assert not is_relaunch(folder)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert is_relaunch(folder) and is_relaunch(plain) and not is_relaunch(nothing)
