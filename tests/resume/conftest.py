"""A worker process that forks for each run, the run that nobody disturbed, and what must equal it."""

import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from xuebu.config import to_table, to_toml
from xuebu.train.checkpoint import list_checkpoints
from xuebu.train.folder import RunFolder

WORKER = Path(__file__).with_name("worker.py")
CLOCKS = ("seconds", "tokens_per_second", "mfu")  # what may differ


def environment(**changes):
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "GLOO_SOCKET_IFNAME": "lo", **changes}


class Worker:
    """A process that forks for each command; see worker.py."""

    def __init__(self, tokens, log):
        self.tokens, self.log = tokens, log.open("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment(),
        )
        self.lines = queue.Queue()
        threading.Thread(target=lambda: [self.lines.put(line.strip()) for line in self.process.stdout]).start()
        assert self.read() == "ready"

    def read(self):
        """The next line, within ten minutes: machines can be busy."""
        try:
            return self.lines.get(timeout=600)
        except queue.Empty:
            pytest.fail(f"no answer; {self.said()}")

    def begin(self, folder, recipe=None, **command):
        """Begin a run; return its process id, or a list of them where there are several processes."""
        command |= {"folder": str(folder), "recipe": recipe and str(recipe), "tokens": str(self.tokens.folder)}
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        children = [int(word) for word in self.read().split()]
        assert min(children) > 1
        return children if "processes" in command else children[0]

    def end(self):
        """Its exit status, negative for a signal; a list of them where there are several processes."""
        statuses = [int(word) for word in self.read().split()]
        return statuses if len(statuses) > 1 else statuses[0]

    def run(self, folder, recipe=None, **command):
        self.begin(folder, recipe, **command)
        return self.end()

    def hold(self, folder, step, recipe=None):
        """Begin, and wait until the run has come to a step, where it waits for a signal; return its process id."""
        child = self.begin(folder, recipe, hold=step)
        assert self.read() == "held", self.said()
        return child

    def run_until(self, folder, step, number, recipe=None):
        """Begin, and at a step send a signal from outside."""
        os.kill(self.hold(folder, step, recipe), number)
        return self.end()

    def close(self):
        self.process.stdin.close()
        self.process.wait(300)
        self.process.stdout.close()
        self.log.close()

    def said(self):
        """What was written to standard error so far."""
        self.log.seek(0)
        return self.log.read()


@pytest.fixture(scope="session")
def worker(tokens, tmp_path_factory):
    worker = Worker(tokens, tmp_path_factory.mktemp("worker") / "stderr.txt")
    yield worker
    worker.close()


@pytest.fixture(scope="session")
def recipes(recipe_of, tmp_path_factory):
    """Write a recipe: 30 steps with dropout, an epoch's edge within step 24, checkpoints at 8, 16, 24 and 30."""
    folder = tmp_path_factory.mktemp("recipes")

    def make(batches=None, model=None, **train):
        recipe = recipe_of(
            batches={"sequences_per_step": 24} | (batches or {}),
            model={"dropout": 0.1, "attention_dropout": 0.1} | (model or {}),
            train={"steps": 30, "record_every": 3, "evaluate_every": 7, "checkpoint_every": 8}
            | {"micro_batch_tokens": 480}
            | train,
        )
        path = folder / f"{len(list(folder.iterdir()))}.toml"
        path.write_text(to_toml(to_table(recipe)), encoding="utf-8")
        return path

    return make


@pytest.fixture(scope="session")
def recipe(recipes):
    return recipes()


@pytest.fixture(scope="session")
def whole(worker, recipe, tmp_path_factory):
    """The run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert worker.run(folder, recipe) == 0
    return folder


def facts_of(folder):
    """What must be equal."""
    run = RunFolder(folder)
    history = [json.loads(line) for line in run.history.read_text(encoding="utf-8").splitlines()]
    step, newest = list_checkpoints(run.checkpoints)[0]
    state = json.loads((newest / "state.json").read_bytes())
    return {
        "model": (run.model / "model.safetensors").read_bytes(),
        "weights": [path.read_bytes() for path in sorted(newest.glob("model*.safetensors"))],
        "optimizer": [path.read_bytes() for path in sorted(newest.glob("optimizer*.safetensors"))],
        "history": [json.dumps({key: value for key, value in r.items() if key not in CLOCKS}) for r in history],
        "step": step,
        "state": {key: value for key, value in state.items() if key not in ("seconds", "history_bytes")},
    }


def check_runs_equal(folder, whole):
    mine, theirs = facts_of(folder), facts_of(whole)
    for name, value in theirs.items():
        assert mine[name] == value, f"{name} of the resumed run is another"


@pytest.fixture(scope="session")
def facts():
    """`facts_of`."""
    return facts_of


@pytest.fixture(scope="session")
def check_equal():
    """`check_runs_equal`."""
    return check_runs_equal


@pytest.fixture(scope="session", name="environment")
def environment_of_workers():
    """`environment`."""
    return environment
