"""What every test of training needs: one thread, no measuring of the machine, and a run in one call."""

import contextlib
import json

import pytest
import torch

from xuebu.progress import SilentProgress
from xuebu.train import machine
from xuebu.train.folder import RunFolder
from xuebu.train.session import resume_run, start_run


class StopAt(SilentProgress):
    """Asks to stop when a step is done; the run leaves after the next one."""

    def __init__(self, step, stop):
        self.step, self.stop, self.done = step, stop, 0

    def task(self, name, total=None, unit=""):
        return contextlib.nullcontext(self if name == "training" else SilentProgress())

    def advance(self, count=1):
        self.done += count
        if self.done == self.step:
            self.stop.reason = "SIGTERM"

    def show(self, text):
        pass


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(machine, "measure_peak", lambda device, precision: 1e11)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def start(tokens, tmp_path):
    """Start a run of a recipe in a new folder; returns folder and outcome."""

    def call(recipe, name="run", **options):
        folder = RunFolder(tmp_path / name)
        outcome = start_run(
            folder,
            recipe,
            train_store=options.pop("train_store", tokens.folder / "train"),
            held_out_store=options.pop("held_out_store", tokens.folder / "held_out"),
            vocabulary=options.pop("vocabulary", tokens.folder / "vocab"),
            **options,
        )
        return folder, outcome

    return call


@pytest.fixture
def resume():
    """`resume_run`."""
    return resume_run


@pytest.fixture
def records():
    """The records of a run's history, of one kind; without the fields that clocks decide."""

    def read(folder, kind=None):
        lines = [json.loads(line) for line in folder.history.read_text(encoding="utf-8").splitlines()]
        clocks = ("seconds", "tokens_per_second", "mfu")
        return [
            {key: value for key, value in line.items() if key not in clocks}
            for line in lines
            if kind in (None, line["kind"])
        ]

    return read


@pytest.fixture
def stop_at():
    """`StopAt`."""
    return StopAt
