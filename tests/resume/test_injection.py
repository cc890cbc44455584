"""Crashes of every kind, one after another, on runs that end as if nothing had been.

Each injection is a session of a run, chosen and timed by a seeded generator: killed, stopped, out of disk, without
permission, with a clock that runs backwards, found by a second trainer; or, between two sessions, damage to what lies
on the disk. Whatever happens, the session ends in one of the statuses that its kind allows, with one clear line where
it is refused, and never with a traceback. When a run's last step is done, it must equal the run that nobody disturbed,
and the next run begins. Lost is a run that cannot be finished; silent corruption is one that is finished and not equal.
"""

import collections
import os
import random
import shutil
import signal
import time

import pytest

from xuebu.errors import CheckpointError, ResumeError
from xuebu.train.checkpoint import list_checkpoints, read_checkpoint
from xuebu.train.folder import RunFolder
from xuebu.train.session import resume_run

KILLED, FINISHED, STOPPED, REFUSED = -signal.SIGKILL, 0, 3, 2
LIVE = ("kill", "stop", "full", "limit", "read only", "clock", "second trainer", "kill in a save")
AT_REST = ("cut checkpoint", "flipped checkpoint", "torn history", "deleted shard", "flipped shard")


class Injector:
    """Injects into one run after another until enough are done.

    Attributes:
        counts: (kind, what came of it) to how often.
        runs: runs that were finished, each equal to the undisturbed one.
    """

    def __init__(self, worker, recipe, whole, check_equal, folder, tokens, seed):
        self.worker, self.recipe, self.whole, self.check_equal = worker, recipe, whole, check_equal
        self.base, self.tokens, self.draw = folder, tokens, random.Random(seed)
        self.counts, self.runs = collections.Counter(), 0
        self.begin()

    def begin(self):
        self.folder = self.base / f"run-{self.runs}"
        for name in ("train", "held_out", "vocab"):  # inside: what is damaged is this run's own
            shutil.copytree(self.tokens.folder / name, self.folder / name)

    @property
    def run(self):
        return RunFolder(self.folder)

    def session(self, **command):
        """What a session is started with."""
        recipe = None if self.run.run_toml.exists() else self.recipe
        return {"folder": self.folder, "recipe": recipe, "data": str(self.folder), **command}

    def ended(self, kind, status, said, allowed):
        """Judge a session by its status and by what it said."""
        assert status in allowed, f"{kind}: status {status}; {said}"
        assert "Traceback" not in said, said
        notes = ("passed over a damaged checkpoint", "are not trained on")
        lines = [line for line in said.splitlines() if not any(note in line for note in notes)]
        if status == REFUSED:
            assert len(lines) == 1 and len(lines[0]) > 30, said
        else:
            assert not lines, said
        outcome = {KILLED: "killed", FINISHED: "finished", STOPPED: "stopped", REFUSED: "refused"}[status]
        self.counts[kind, outcome] += 1
        if status == FINISHED:
            self.finish()

    def finish(self):
        self.check_equal(self.folder, self.whole)
        self.runs += 1
        shutil.rmtree(self.folder)
        self.begin()

    def whole_checkpoints(self):
        whole = []
        for _, path in list_checkpoints(self.run.checkpoints):
            try:
                read_checkpoint(path)
                whole.append(path)
            except CheckpointError:
                pass
        return whole

    def inject(self):
        """Do one injection that the run's state allows."""
        kinds = list(LIVE)
        if len(self.whole_checkpoints()) > 1:
            kinds += ["cut checkpoint", "flipped checkpoint"]
        if self.run.checkpoints.exists():
            kinds += ["torn history", "deleted shard", "flipped shard"]
        kind = self.draw.choice(kinds)
        before = self.worker.said()
        status, allowed = getattr(self, kind.replace(" ", "_"))()
        self.ended(kind, status, self.worker.said().removeprefix(before), allowed)

    def wait(self):
        time.sleep(self.draw.uniform(0.05, 0.6))

    def kill(self):
        child = self.worker.begin(**self.session())
        self.wait()
        os.kill(child, signal.SIGKILL)
        return self.worker.end(), (KILLED, FINISHED)

    def stop(self):
        child = self.worker.begin(**self.session())
        self.wait()
        os.kill(child, self.draw.choice([signal.SIGTERM, signal.SIGINT]))
        status = self.worker.end()
        return (STOPPED if status in (-signal.SIGTERM, -signal.SIGINT) else status), (STOPPED, FINISHED)

    def kill_in_a_save(self):
        call = self.draw.choice(["fsync", "rename", "rmtree", "write"])
        kill = {"step": self.draw.choice([8, 16, 24, 30]), "call": call, "number": self.draw.randint(1, 6)}
        return self.worker.run(**self.session(kill=kill)), (KILLED, FINISHED)

    def full(self):
        number = self.draw.randint(1, 40)
        return self.worker.run(**self.session(trouble="full", number=number)), (REFUSED, FINISHED)

    def limit(self):
        size = self.draw.randint(0, 60_000)
        return self.worker.run(**self.session(trouble="limit", number=size)), (REFUSED, FINISHED)

    def read_only(self):
        return self.worker.run(**self.session(trouble="read only")), (REFUSED,)

    def clock(self):
        child = self.worker.begin(**self.session(trouble="clock"))
        self.wait()
        os.kill(child, signal.SIGKILL)
        return self.worker.end(), (KILLED, FINISHED)

    def second_trainer(self):
        child = self.worker.begin(**self.session(hold=self.draw.randint(2, 29)))
        answer = self.worker.read()
        if answer != "held":  # the run was beyond that step, and is done
            return int(answer), (FINISHED,)
        with pytest.raises(ResumeError, match="another process is working in this folder"):
            resume_run(self.run)
        os.kill(child, signal.SIGKILL)
        return self.worker.end(), (KILLED,)

    def damage(self, change):
        path = self.whole_checkpoints()[0]
        victim = path / self.draw.choice(["model.safetensors", "optimizer.safetensors", "state.json"])
        victim.write_bytes(change(victim.read_bytes()))
        return self.stop()

    def cut_checkpoint(self):
        return self.damage(lambda data: data[: self.draw.randrange(len(data))])

    def flipped_checkpoint(self):
        return self.damage(self.flip)

    def flip(self, data):
        at, bit = self.draw.randrange(len(data)), 1 << self.draw.randrange(8)
        return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]

    def torn_history(self):
        with self.run.history.open("ab") as stream:
            stream.write(b'{"kind": "train", "step": 1'[: self.draw.randint(1, 27)])
        return self.stop()

    def with_broken(self, path, change):
        data = path.read_bytes()
        change(path, data)
        try:
            return self.worker.run(**self.session()), (REFUSED,)
        finally:
            path.write_bytes(data)

    def shard(self):
        return self.draw.choice(sorted((self.folder / "train").glob("*.bin")))

    def deleted_shard(self):
        return self.with_broken(self.shard(), lambda path, data: path.unlink())

    def flipped_shard(self):
        return self.with_broken(self.shard(), lambda path, data: path.write_bytes(self.flip(data)))

    def until(self, number):
        while self.counts.total() < number:
            self.inject()
        while self.run.run_toml.exists():  # the last run is finished too
            before, runs = self.worker.said(), self.runs
            status = self.worker.run(**self.session())
            self.ended("none", status, self.worker.said().removeprefix(before), (FINISHED,))
            assert self.runs == runs + 1
        del self.counts["none", "finished"]
        return self.counts


@pytest.fixture
def injector(worker, recipe, whole, check_equal, tmp_path, tokens):
    return lambda seed: Injector(worker, recipe, whole, check_equal, tmp_path, tokens, seed)


def test_twenty_injections(injector):
    counts = injector(0).until(20)
    assert counts.total() >= 20


@pytest.mark.long
@pytest.mark.timeout(3600)  # a busy machine needs ten minutes for fifty
@pytest.mark.parametrize("seed", range(1, 6))
def test_two_hundred_and_fifty_injections(injector, seed):
    found = injector(seed)
    counts = found.until(50)
    assert {kind for kind, _ in counts} >= set(LIVE)
    lines = [f"{kind}: {outcome} {count}" for (kind, outcome), count in sorted(counts.items())]
    print(f"seed {seed}: {counts.total()} injections, {found.runs} runs, 0 lost, 0 unequal; " + "; ".join(lines))
