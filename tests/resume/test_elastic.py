"""torchrun comes back with another number of processes: its real agents, killed and joined, and `xuebu train`."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xuebu.corpus.build import build_corpus
from xuebu.corpus.sample import sample_documents
from xuebu.corpus.settings import CorpusSettings
from xuebu.train.checkpoint import list_checkpoints, read_checkpoint
from xuebu.train.folder import RunFolder

STEPS = 6000  # more than can be done before the second agent comes back
SMALL = (
    "--preset tiny --model.num-layers 1 --model.hidden-size 32 --model.num-heads 2 --model.intermediate-size 32 "
    "--batches.sequences-per-step 8 --evaluation.predictions 200 --evaluation.final-predictions 200 "
    f"--train.steps {STEPS} --train.evaluate-every {STEPS} --train.record-every 50 --train.checkpoint-every 100"
).split()
RENDEZVOUS = "last_call_timeout=2,keep_alive_interval=1,keep_alive_max_attempt=5"


class Job:
    """torchrun's agents of one job, each as on a machine of its own, with one process."""

    def __init__(self, folder, environment, command):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder, self.environment, self.command = folder, environment, command
        self.agents, self.logs = [], []

    def begin(self):
        """Start an agent; the first one keeps what they agree upon."""
        self.logs.append(self.folder / f"agent-{len(self.logs)}.txt")
        launcher = ["torch.distributed.run", "--nnodes", "1:2", "--nproc-per-node", "1", "--max-restarts", "3"]
        meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{self.port}", "--rdzv-id", "学步"]
        where = ["--local-addr", "127.0.0.1", "--rdzv-conf", RENDEZVOUS, "--monitor-interval", "0.2"]
        with self.logs[-1].open("w") as log:
            agent = subprocess.Popen(
                [sys.executable, "-m", *launcher, *meeting, *where, "-m", "xuebu", "train", *map(str, self.command)],
                # Without, torch 2.13 never agrees with an agent that comes later: all share the first round's store.
                env=self.environment(TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1"),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.agents.append(agent)
        if len(self.agents) == 1:
            self.wait_until(self.answers)
        return agent

    def answers(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def wait_until(self, condition, seconds=600):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.said()
            assert all(agent.poll() in (None, -signal.SIGKILL) for agent in self.agents), self.said()
            time.sleep(0.1)

    def said(self):
        return "\n".join(log.read_text(errors="replace")[-3000:] for log in self.logs)

    def kill(self, agent):
        """An agent and its process at once, as when a machine fails."""
        children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
        for process in (agent.pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        agent.wait()

    def close(self):
        for agent in self.agents:
            if agent.poll() is None:
                self.kill(agent)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elastic") / "corpus"
    build_corpus(sample_documents(), folder, CorpusSettings(held_out_fraction=0.1))
    return folder


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("sharding", ["none", "full"])
def test_a_machine_fails_and_another_comes(corpus, environment, tmp_path, sharding):
    """Two processes, then one, then two: each goes on from the newest checkpoint, and the history says so."""
    run = RunFolder(tmp_path / "run")
    job = Job(tmp_path, environment, ["--corpus", corpus, "--out", run.path, *SMALL, "--train.sharding", sharding])

    def began():
        return [line for line in lines_of(run.sessions) if line["event"] in ("start", "resume")]

    def newest():
        return max((step for step, _ in list_checkpoints(run.checkpoints)), default=0)

    try:
        job.begin()
        second = job.begin()
        job.wait_until(lambda: newest() >= 200)
        job.kill(second)
        job.wait_until(lambda: len(began()) == 2)
        alone = began()[1]["step"]
        job.wait_until(lambda: newest() >= alone + 200)
        job.begin()
        job.wait_until(lambda: len(began()) == 3)
        together = began()[2]["step"]
        job.wait_until(lambda: newest() >= together + 100)
    finally:
        job.close()
    assert [line.get("processes", 1) for line in began()] == [2, 1, 2] and 200 <= alone < together
    assert {line["launch"] for line in began()} == {"学步"}
    events = [line for line in lines_of(run.history) if line["kind"] == "event"]
    assert [line["event"] for line in events] == ["start", "inexact", "inexact"]
    assert [line.get("changes") for line in events[1:]] == [["processes was 2, is 1"], ["processes was 1, is 2"]]
    assert [line["step"] for line in events] == [0, alone, together]
    path = list_checkpoints(run.checkpoints)[0][1]
    assert len(list(path.glob("model*.safetensors"))) == (2 if sharding == "full" else 1)
    assert read_checkpoint(path).step >= together + 100
    losses = [line["mlm_loss_nats"] for line in lines_of(run.history) if line["kind"] == "train"]
    assert losses[-1] < losses[0] - 0.5
