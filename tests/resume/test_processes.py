"""Several processes do what one does, and several killed ones do what several undisturbed ones do."""

import json
import os
import shutil
import signal

import pytest

from xuebu.train.checkpoint import list_checkpoints
from xuebu.train.folder import RunFolder, read_run_facts

KILLED, FINISHED, STOPPED, REFUSED = -signal.SIGKILL, 0, 3, 2
TWO = {"processes": 2}


@pytest.fixture(scope="module")
def pair(worker, recipe, tmp_path_factory):
    """The run of two processes that nobody disturbed, with dropout."""
    folder = tmp_path_factory.mktemp("pair") / "run"
    assert worker.run(folder, recipe, **TWO) == [FINISHED, FINISHED]
    return folder


def numbers(folder, kind):
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_two_processes_agree_with_one(worker, recipes, tmp_path):
    """To rounding, without dropout; counts are equal."""
    recipe = recipes(steps=12, model={"dropout": 0.0, "attention_dropout": 0.0})
    assert worker.run(tmp_path / "one", recipe) == FINISHED
    assert worker.run(tmp_path / "two", recipe, **TWO) == [FINISHED, FINISHED]
    assert read_run_facts(RunFolder(tmp_path / "two")).processes == 2
    for kind in ("train", "eval"):
        one, two = numbers(tmp_path / "one", kind), numbers(tmp_path / "two", kind)
        assert [line["step"] for line in one] == [line["step"] for line in two]
        for mine, theirs in zip(one, two, strict=True):
            for name in ("tokens", "mlm_predictions", "nsp_predictions", "learning_rate"):
                assert mine.get(name) == theirs.get(name)
            for name in ("mlm_loss_nats", "nsp_loss_nats"):
                assert mine[name] == pytest.approx(theirs[name], rel=1e-5)
            if kind == "train":
                assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)


def test_two_processes_resume_exactly(worker, recipe, pair, tmp_path, check_equal):
    """Both killed; one killed, which the other notices and says; killed inside a save; asked to stop."""
    folder = tmp_path / "run"
    children = worker.begin(folder, recipe, hold=11, **TWO)
    assert worker.read() == "held"
    for child in children:
        os.kill(child, signal.SIGKILL)
    assert worker.end() == [KILLED, KILLED]
    before = worker.said()
    children = worker.begin(folder, hold=13, **TWO)
    assert worker.read() == "held"
    os.kill(children[1], signal.SIGKILL)
    os.kill(children[0], signal.SIGTERM)  # lets it go on from where it waits, into the step that lacks a process
    assert worker.end() == [REFUSED, KILLED]
    said = worker.said().removeprefix(before)
    assert "process 0 of 2 has lost the others" in said and "--resume" in said and "Traceback" not in said
    assert list_checkpoints(RunFolder(folder).checkpoints)[0][0] == 13  # what was done was saved
    assert KILLED in worker.run(folder, kill={"step": 16, "call": "rename", "number": 1}, **TWO)
    children = worker.begin(folder, hold=21, **TWO)
    assert worker.read() == "held"
    os.kill(children[0], signal.SIGTERM)  # one is told, both leave
    assert worker.end() == [STOPPED, STOPPED]
    assert worker.run(folder, **TWO) == [FINISHED, FINISHED]
    check_equal(folder, pair)


def test_another_number_of_processes_is_inexact(worker, recipes, tmp_path):
    folder = tmp_path / "run"
    assert worker.run_until(folder, 5, signal.SIGTERM, recipes(steps=10)) == STOPPED
    before = worker.said()
    assert worker.run(folder, **TWO) == [REFUSED, REFUSED]
    lines = worker.said().removeprefix(before).splitlines()
    assert len(lines) == 1 and "processes was 1, is 2" in lines[0] and "--inexact" in lines[0]  # said once
    children = worker.begin(folder, hold=7, inexact=True, **TWO)
    assert worker.read() == "held", worker.said()
    os.kill(children[0], signal.SIGTERM)
    assert worker.end() == [STOPPED, STOPPED]
    assert worker.run(folder, restart=True) == FINISHED  # as when torchrun comes back with one process
    events = [(line["event"], line["step"], line.get("changes")) for line in numbers(folder, "event")]
    assert events == [
        ("start", 0, None), ("inexact", 6, ["processes was 1, is 2"]), ("inexact", 8, ["processes was 2, is 1"])
    ]  # fmt: skip


def test_more_processes_than_sequences(worker, recipes, tmp_path):
    recipe = recipes(batches={"sequences_per_step": 1})
    assert worker.run(tmp_path / "run", recipe, **TWO) == [REFUSED, REFUSED]
    assert "2 processes for 1 sequences a step: start at most 1" in worker.said()
    assert not (tmp_path / "run" / "run.toml").exists()


@pytest.mark.long
def test_sharded_weights(worker, recipes, tmp_path, check_equal, facts):
    """FSDP2: the same losses, a file of each process in a checkpoint, exact resume; another number of processes."""
    plain = {"dropout": 0.0, "attention_dropout": 0.0}
    assert worker.run(tmp_path / "one", recipes(steps=12, model=plain)) == FINISHED
    recipe = recipes(steps=12, model=plain, sharding="full")
    assert worker.run(tmp_path / "two", recipe, sharded=True, **TWO) == [FINISHED, FINISHED]
    for mine, theirs in zip(numbers(tmp_path / "one", "train"), numbers(tmp_path / "two", "train"), strict=True):
        assert mine["mlm_loss_nats"] == pytest.approx(theirs["mlm_loss_nats"], rel=1e-5)
        assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
    recipe = recipes(sharding="full")
    assert worker.run(tmp_path / "whole", recipe, sharded=True, **TWO) == [FINISHED, FINISHED]
    folder = tmp_path / "run"
    for step, given in ((11, recipe), (21, None)):
        children = worker.begin(folder, given, hold=step, sharded=True, **TWO)
        assert worker.read() == "held"
        for child in children:
            os.kill(child, signal.SIGKILL)
        worker.end()
    newest = list_checkpoints(RunFolder(folder).checkpoints)[0][1]
    assert newest.name == "step-00000016" and len(list(newest.glob("*-00002-of-00002.safetensors"))) == 2
    shutil.copytree(folder, tmp_path / "other")
    (newest / "optimizer-00002-of-00002.safetensors").unlink()  # then the one before counts
    before = worker.said()
    assert worker.run(folder, sharded=True, **TWO) == [FINISHED, FINISHED]
    (line,) = set(worker.said().removeprefix(before).splitlines())
    assert "passed over a damaged checkpoint" in line and "optimizer-00002-of-00002.safetensors: No such file" in line
    check_equal(folder, tmp_path / "whole")
    check_other_numbers(worker, tmp_path / "other", facts)


def check_other_numbers(worker, folder, facts):
    """Two wrote parts; one goes on from them, then three from its one file."""
    assert worker.run(folder) == REFUSED
    kill = {"step": 24, "call": "rename", "number": 2}  # the checkpoint is there
    assert worker.run(folder, restart=True, kill=kill) == KILLED
    (newest,) = [path for step, path in list_checkpoints(RunFolder(folder).checkpoints) if step == 24]
    assert sorted(path.name for path in newest.glob("*.safetensors")) == ["model.safetensors", "optimizer.safetensors"]
    assert worker.run(folder, restart=True, sharded=True, processes=3) == [FINISHED] * 3
    events = [line.get("changes") for line in numbers(folder, "event")[1:]]
    assert events == [["processes was 2, is 1"], ["processes was 1, is 3"]]
    assert facts(folder)["step"] == 30 and len(facts(folder)["weights"]) == 3


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("processes", [1, 2])
def test_two_hundred_steps_killed_at_every_tenth(worker, recipes, tmp_path, check_equal, processes, tokens):
    """Dropout, eight edges of epochs, kill -9 at steps 10, 20, ..., and inside the saves of 40, 104 and 176."""
    recipe = recipes(steps=200, record_every=7, evaluate_every=25)
    assert 200 * 24 > 8 * len(tokens.train.anchors)
    several = {} if processes == 1 else {"processes": processes}
    worker.run(tmp_path / "whole", recipe, **several)
    folder, given, killed = tmp_path / "run", recipe, 0
    for step in range(10, 200, 10):
        children = worker.begin(folder, given, hold=step, **several)
        assert worker.read() == "held", worker.said()
        for child in children if several else [children]:
            os.kill(child, signal.SIGKILL)
        worker.end()
        given, killed = None, killed + 1
        if step in (30, 100, 170):
            kill = {"step": {30: 40, 100: 104, 170: 176}[step], "call": "fsync", "number": 3}
            statuses = worker.run(folder, kill=kill, **several)
            assert KILLED in (statuses if several else [statuses])
            killed += 1
    statuses = worker.run(folder, **several)
    assert set(statuses if several else [statuses]) == {FINISHED}
    assert killed == 22
    check_equal(folder, tmp_path / "whole")
