"""What long runs meet: extension, batches left out, spikes, budgets, schedules on time, changes between sessions."""

import dataclasses
import json
import math
import shutil
import time
from pathlib import Path

import pytest
import torch

from xuebu.errors import ResumeError, TrainingError
from xuebu.progress import SilentProgress
from xuebu.train import trainer as trainer_module
from xuebu.train.checkpoint import list_checkpoints, newest_checkpoint, read_checkpoint
from xuebu.train.folder import RunFolder, read_run_facts, write_run_facts
from xuebu.train.objective import compute_losses
from xuebu.train.schedule import learning_rate
from xuebu.train.session import is_finished
from xuebu.train.stop import StopRequest

ONE_MICRO_BATCH = {"micro_batch_tokens": 10**6}


def weights(folder):
    return (folder.model / "model.safetensors").read_bytes()


def state_of(folder):
    checkpoint, _ = newest_checkpoint(folder.checkpoints)
    return checkpoint.state


@pytest.fixture
def interrupted(start, resume, recipe_of, stop_at):
    """Do a recipe with stops after some steps; returns the folder."""

    def run(recipe, *steps, name="cut"):
        folder = None
        for step in steps:
            stop = StopRequest()
            options = {"stop": stop, "progress": stop_at(step - 1, stop)}
            if folder is None:
                folder, outcome = start(recipe, name, **options)
            else:
                outcome = resume(folder, **options)
            assert outcome.step == step and not outcome.finished
        assert resume(folder).finished
        return folder

    return run


@pytest.fixture
def bad(monkeypatch):
    """Multiply the losses of batches of some numbers: by NaN, or by so much that they are spikes."""
    tried, attempt = [0], trainer_module.Trainer._try_step

    def watched(trainer, batch):
        tried[0] = batch.step
        return attempt(trainer, batch)

    monkeypatch.setattr(trainer_module.Trainer, "_try_step", watched)

    def make(*numbers, factor=math.nan):
        def losses(model, micro, device, precision, counting=None):
            found = compute_losses(model, micro, device, precision)
            if model.training and tried[0] in numbers:
                return found._replace(mlm_nats=found.mlm_nats * factor)
            return found

        monkeypatch.setattr(trainer_module, "compute_losses", losses)

    return make


def test_a_finished_run_is_extended(start, resume, records, recipe_of):
    folder, _ = start(recipe_of())
    first, model = records(folder), weights(folder)
    assert resume(folder, steps=20).finished and is_finished(folder)
    longer = records(folder)
    assert longer[: len(first)] == first  # nothing that was written is lost
    assert longer[len(first)]["event"] == "extend"
    assert {key: longer[len(first)][key] for key in ("step", "total_steps", "peak_learning_rate", "breaks_fits")} == {
        "step": 12, "total_steps": 20, "peak_learning_rate": 0.005, "breaks_fits": True,
    }  # fmt: skip
    train = read_run_facts(folder).recipe.train
    assert (train.steps, train.legs) == (20, (12,))
    rates = {r["step"]: r["learning_rate"] for r in longer if r["kind"] == "train"}
    assert list(rates) == [3, 6, 9, 12, 15, 18, 20]
    assert all(rate == learning_rate(step, train) for step, rate in rates.items())
    assert (folder.path / "leg-00000012" / "model" / "model.safetensors").read_bytes() == model != weights(folder)
    assert resume(folder, steps=20).step == 20  # said again
    assert records(folder) == longer
    assert resume(folder, steps=23).finished
    assert [r["event"] for r in records(folder, "event")] == ["start", "extend", "extend"]


LONG = pytest.mark.long


@pytest.mark.parametrize("stops", [(13, 14, 17), pytest.param((14,), marks=LONG), pytest.param((16, 19), marks=LONG)])
def test_an_extended_run_resumes_exactly(start, resume, records, recipe_of, stops, stop_at):
    dropout = {"dropout": 0.1}
    whole, _ = start(recipe_of(model=dropout), "whole")
    resume(whole, steps=20)
    folder, _ = start(recipe_of(model=dropout), "cut")
    for step in stops:
        stop = StopRequest()
        outcome = resume(folder, steps=20, stop=stop, progress=stop_at(step - 1, stop))
        assert outcome.step == step
    assert resume(folder).finished
    assert weights(folder) == weights(whole) and records(folder) == records(whole)


def test_an_extension_that_comes_from_before_its_beginning(start, resume, records, recipe_of):
    """The newest checkpoints are damaged: the end of the first leg is done anew, with its records and its event."""
    whole, _ = start(recipe_of(), "whole")
    resume(whole, steps=20)
    folder, _ = start(recipe_of(), "cut")
    (folder.checkpoints / "step-00000012" / "state.json").write_text("{}")
    assert resume(folder, steps=20).finished
    assert weights(folder) == weights(whole) and records(folder) == records(whole)


def test_only_a_finished_run_is_extended(start, resume, recipe_of):
    folder, _ = start(recipe_of(), stop=StopRequest("SIGTERM"))
    before = folder.run_toml.read_bytes()
    with pytest.raises(ResumeError, match="only a finished run can be extended: this one is at step 1 of 12"):
        resume(folder, steps=20)
    assert folder.run_toml.read_bytes() == before


def test_free_settings_change_between_sessions(start, resume, records, recipe_of):
    whole, _ = start(recipe_of(), "whole")
    folder, _ = start(recipe_of(), stop=StopRequest("SIGTERM"))
    recipe = recipe_of(train={"checkpoint_every": 2, "keep_checkpoints": 3})
    assert resume(folder, recipe=recipe).finished
    assert [step for step, _ in list_checkpoints(folder.checkpoints)] == [12, 10, 8]
    assert read_run_facts(folder).recipe == recipe
    assert weights(folder) == weights(whole) and records(folder) == records(whole)
    with pytest.raises(ResumeError, match="`train.beta1` cannot change"):
        resume(folder, recipe=recipe_of(train={"beta1": 0.5}))


def test_inexact_is_an_event(start, resume, records, recipe_of):
    folder, _ = start(recipe_of(), stop=StopRequest("SIGTERM"))
    facts = read_run_facts(folder)
    write_run_facts(folder, dataclasses.replace(facts, numpy_version="1.0", processes=3))
    with pytest.raises(ResumeError, match="numpy_version was '1.0', is .*; processes was 3, is 1"):
        resume(folder)
    recipe = recipe_of(train={"micro_batch_tokens": 96})
    assert resume(folder, inexact=True, recipe=recipe).finished
    (event,) = [record for record in records(folder, "event") if record["event"] == "inexact"]
    assert event["step"] == 1 and len(event["changes"]) == 3
    assert event["changes"][0] == "micro_batch_tokens was 240, is 96"
    assert read_run_facts(folder).machine.micro_batch_tokens == 96


def test_inexact_stays_recorded_when_killed_before_the_next_checkpoint(start, resume, records, recipe_of, tmp_path):
    folder, _ = start(recipe_of(), stop=StopRequest("SIGTERM"))
    shutil.copytree(folder.checkpoints, tmp_path / "kept")
    recipe = recipe_of(train={"micro_batch_tokens": 96})
    resume(folder, inexact=True, recipe=recipe, stop=StopRequest("SIGTERM"))
    shutil.rmtree(folder.checkpoints)
    (tmp_path / "kept").rename(folder.checkpoints)  # as if it had not come to a checkpoint
    assert resume(folder).finished  # run.toml has the new value, the checkpoint the old one
    (event,) = [record for record in records(folder, "event") if record["event"] == "inexact"]
    assert (event["step"], event["changes"]) == (1, ["micro_batch_tokens was 240, is 96"])


def test_the_peak_is_that_of_this_session(start, resume, recipe_of):
    """mfu must not be held against the processes that the run began with."""
    folder, _ = start(recipe_of(), stop=StopRequest("SIGTERM"))
    write_run_facts(folder, dataclasses.replace(read_run_facts(folder), processes=3))
    assert resume(folder, inexact=True).finished
    lines = [json.loads(line) for line in folder.history.read_text(encoding="utf-8").splitlines()]
    flops = lines[0]["flops_per_token"]
    for line in lines:
        if line["kind"] == "train":
            assert line["mfu"] == pytest.approx(line["tokens_per_second"] * flops / 1e11, abs=6e-5)


def test_a_torchrun_restart_implies_inexact(start, resume, records, recipe_of, monkeypatch):
    folder, _ = start(recipe_of(), stop=StopRequest("SIGTERM"))
    write_run_facts(folder, dataclasses.replace(read_run_facts(folder), processes=3))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert resume(folder).finished
    assert records(folder, "event")[-1]["changes"] == ["processes was 3, is 1"]


def test_a_batch_without_a_finite_loss_is_left_out(start, records, recipe_of, bad, interrupted):
    recipe = recipe_of(train=ONE_MICRO_BATCH, model={"dropout": 0.1})
    bad(5, 6, 13)
    whole, outcome = start(recipe, "whole")
    assert outcome.finished and state_of(whole)["skips"] == [5, 6, 13]
    events = [(r["step"], r["batch"], r["what"]) for r in records(whole, "event")[1:]]
    assert events == [(4, 5, "loss"), (4, 6, "loss"), (10, 13, "loss")]
    folder = interrupted(recipe, 3, 6, 10)  # just before the bad ones, and after
    assert weights(folder) == weights(whole) and records(folder) == records(whole)
    assert state_of(folder)["skips"] == [5, 6, 13]


def test_too_many_in_a_row_end_the_run_with_the_last_good_state(start, records, recipe_of, bad, tmp_path):
    recipe = recipe_of(train=ONE_MICRO_BATCH)
    bad(7, 8, 9)
    with pytest.raises(TrainingError, match="step 7: the loss is not finite 3 times in a row; the step was not"):
        start(recipe, "run")
    folder = RunFolder(tmp_path / "run")
    assert [r["event"] for r in records(folder, "event")] == ["start", *["not_finite"] * 3]  # to be seen
    saved, _ = newest_checkpoint(folder.checkpoints)
    assert saved.step == 6 and saved.state["skips"] == []
    assert all(bool(tensor.isfinite().all()) for tensor in saved.model.values())


SPIKES = {"steps": 60, "checkpoint_every": 8, "record_every": 6, "evaluate_every": 30, **ONE_MICRO_BATCH}


def test_a_spike_is_recorded(start, records, recipe_of, bad):
    recipe = recipe_of(train=SPIKES)
    bad(45, factor=30.0)
    folder, outcome = start(recipe)
    (event,) = [r for r in records(folder, "event") if r["event"] == "loss_spike"]
    assert outcome.finished and (event["step"], event["batch"]) == (45, 45)
    assert event["deviations"] > 8 and event["loss_nats"] > 50
    assert state_of(folder)["skips"] == [] and len(state_of(folder)["losses"]) == 60
    quiet, _ = start(recipe_of(train={**SPIKES, "spike_deviations": 0.0}), "quiet")
    assert len(records(quiet, "event")) == 1


def test_a_roll_back_leaves_the_offending_batches_out(start, records, recipe_of, bad, interrupted):
    recipe = recipe_of(train={**SPIKES, "roll_back": 3}, model={"dropout": 0.1})
    bad(45, factor=30.0)
    whole, outcome = start(recipe, "whole")
    assert outcome.finished and state_of(whole)["roll_backs"] == 1
    (event,) = [r for r in records(whole, "event") if r["event"] == "roll_back"]
    assert (event["step"], event["from_step"], event["skipped"]) == (40, 45, [43, 44, 45])
    assert state_of(whole)["skips"] == [43, 44, 45]
    steps = [r["step"] for r in records(whole, "train")]
    assert steps == sorted(set(steps)) == list(range(6, 61, 6))  # one path, no step twice
    folder = interrupted(recipe, 42, 44, 43, 50)  # before the spike; gone back; after it
    assert weights(folder) == weights(whole) and records(folder) == records(whole)


def test_a_second_roll_back_to_the_same_checkpoint_keeps_what_the_first_left_out(
    start, records, recipe_of, bad, interrupted
):
    recipe = recipe_of(train={**SPIKES, "roll_back": 3}, model={"dropout": 0.1})
    bad(45, 48, factor=30.0)
    whole, outcome = start(recipe, "whole")
    assert outcome.finished and state_of(whole)["roll_backs"] == 2
    assert state_of(whole)["skips"] == [43, 44, 45, 46, 47, 48]
    (event,) = [r for r in records(whole, "event") if r["event"] == "roll_back"]  # that of the first is cut away
    assert (event["step"], event["from_step"], event["skipped"]) == (40, 45, [43, 44, 45, 46, 47, 48])
    folder = interrupted(recipe, 44, 43, 50)
    assert weights(folder) == weights(whole) and records(folder) == records(whole)


def test_a_spike_before_any_checkpoint_is_only_recorded(start, records, recipe_of, bad):
    recipe = recipe_of(train={**SPIKES, "steps": 40, "checkpoint_every": 40, "roll_back": 3})
    bad(36, factor=30.0)
    folder, outcome = start(recipe)
    assert outcome.finished and [r["event"] for r in records(folder, "event")] == ["start", "loss_spike"]


def test_budgets_stop_and_save(start, resume, records, recipe_of):
    whole, _ = start(recipe_of(), "whole")
    recipe = recipe_of(train={"max_cost": 1e-9, "cost_per_hour": 1.0})
    folder, outcome = start(recipe)
    assert (outcome.step, outcome.reason, outcome.finished) == (2, "money budget", False)  # seen after the first
    assert resume(folder).reason == "money budget"  # spent is spent: each session goes one step on
    free = recipe_of(train={"max_cost": 0.0, "cost_per_hour": 1.0})
    assert resume(folder, recipe=free).finished
    assert weights(folder) == weights(whole) and records(folder) == records(whole)


def test_a_schedule_on_time(start, resume, records, recipe_of):
    recipe = recipe_of(train={"steps": 100_000, "schedule_hours": 0.6 / 3600, "warmup_steps": 30_000})
    folder, outcome = start(recipe)
    assert outcome.finished and 1 < outcome.step < 10_000 and is_finished(folder)
    assert read_run_facts(folder).recipe.train.steps == outcome.step
    rates = [record["learning_rate"] for record in records(folder, "train")]
    assert max(rates[:-1]) <= 0.01 and rates[-1] < 0.01 and records(folder, "train")[-1]["step"] == outcome.step
    assert [r["step"] for r in records(folder, "eval")][-1] == outcome.step
    before = folder.history.read_bytes()
    assert resume(folder).finished and folder.history.read_bytes() == before


def test_a_slow_step_is_given_up_when_there_is_little_time(start, resume, records, recipe_of, monkeypatch):
    whole, _ = start(recipe_of(), "whole")
    stop, calls = StopRequest(), []

    def slow(*given):
        calls.append(None)
        if len(calls) == 8:  # within a step of three or more micro-batches
            stop.reason, stop.since = "SIGTERM", time.monotonic() - 20.0
        return compute_losses(*given)

    monkeypatch.setattr(trainer_module, "compute_losses", slow)
    folder, outcome = start(recipe_of(), stop=stop)
    assert len(calls) == 8 and outcome.reason == "SIGTERM" and not outcome.finished
    assert newest_checkpoint(folder.checkpoints)[0].step == outcome.step > 0
    resume(folder)
    assert weights(folder) == weights(whole) and records(folder) == records(whole)


def test_records_that_a_stop_left_no_time_for_are_written_later(start, records, recipe_of, interrupted):
    whole, _ = start(recipe_of(), "whole")
    folder = interrupted(recipe_of(), 5, 6, 10)  # an evaluation, a record, an evaluation
    assert weights(folder) == weights(whole) and records(folder) == records(whole)


def test_out_of_memory_later_saves_and_names_the_setting(start, resume, records, recipe_of, monkeypatch):
    whole, _ = start(recipe_of(), "whole")
    calls = []

    def hungry(*given):
        calls.append(None)
        if len(calls) == 20:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has none")
        return compute_losses(*given)

    monkeypatch.setattr(trainer_module, "compute_losses", hungry)
    with pytest.raises(TrainingError, match=r"out of memory \(Tried to allocate 2.00 GiB") as caught:
        start(recipe_of())
    assert "--train.micro-batch-tokens 120" in str(caught.value) and "is saved in" in str(caught.value)
    folder = type(whole)(whole.path.parent / "run")
    resume(folder)
    assert weights(folder) == weights(whole) and records(folder) == records(whole)


def test_a_checkpoint_of_another_corpus_is_refused(start, resume, recipe_of):
    folder, _ = start(recipe_of(), stop=StopRequest("SIGTERM"))
    ((_, path),) = list_checkpoints(folder.checkpoints)
    checkpoint = read_checkpoint(path)
    checkpoint.state["made_from"]["digests"]["corpus"] = "other"
    data = json.dumps(checkpoint.state).encode()
    (path / "state.json").write_bytes(data)
    manifest = json.loads((path / "manifest.json").read_bytes())
    import hashlib

    manifest["files"]["state.json"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ResumeError, match="step-00000001: made by another run: another corpus"):
        resume(folder)


def test_more_processes_than_sequences(tokens, recipe_of):
    from xuebu.batches.loader import Loader
    from xuebu.errors import ConfigError
    from xuebu.train.parallel import World

    batch = Loader(tokens.train, tokens.vocabulary, recipe_of().batches, 0).batch(1)
    with pytest.raises(ConfigError, match="9 processes for 8 sequences a step: start at most 8"):
        World(0, 9).share(batch)


def test_learning_goes_on_after_a_clock_that_goes_back(start, records, recipe_of, monkeypatch):
    clock = iter(range(10**6, 0, -1))
    monkeypatch.setattr(trainer_module.time, "perf_counter", lambda: float(next(clock)))
    folder, outcome = start(recipe_of())
    assert outcome.finished
    lines = [json.loads(line) for line in folder.history.read_text().splitlines()]
    assert all(line["seconds"] == 0 and line.get("tokens_per_second", 0) == 0 for line in lines)
    assert torch.get_num_threads() == 1


class Resident(SilentProgress):
    """Notes the memory of this process at some steps."""

    def __init__(self, steps):
        self.steps, self.done, self.kilobytes = steps, 0, []

    def task(self, name, total=None, unit=""):
        import contextlib

        return contextlib.nullcontext(self)

    def advance(self, count=1):
        self.done += count
        if self.done in self.steps:
            lines = Path("/proc/self/status").read_text().splitlines()
            self.kilobytes.append(next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")))

    def show(self, text):
        pass


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to read the memory in use")
def test_memory_is_flat_over_ten_thousand_steps(start, recipe_of):
    """Saves, evaluations and records included: from step 2,000 on, less than 5 MB more (a leak of 0.7 KB a step)."""
    train = {"steps": 10_000, "evaluate_every": 500, "record_every": 50, "checkpoint_every": 500, "warmup_steps": 50}
    resident = Resident((2_000, 4_000, 6_000, 8_000, 10_000))
    start(recipe_of(train={**train, **ONE_MICRO_BATCH}), progress=resident)
    first, *rest = resident.kilobytes
    print(f"resident kilobytes: {resident.kilobytes}")
    assert max(rest) - first < 5_000, resident.kilobytes
