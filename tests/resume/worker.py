"""Processes to kill. Each line of standard input is a command, carried out in forks: torch is imported once.

A command is JSON: {"folder": run, "recipe": TOML or null to resume, "tokens": folder of stores, "steps": length of an
extended run, "processes": how many train together, "sharded": each with a part of every weight, "inexact",
"restart": as torchrun says it,
"hold": step at which to wait for a signal, "kill": {"step": s,
"call": name, "number": n, "rank": r}}: SIGKILL to itself at the n-th call of that name from the time that the
checkpoint of step s is begun ("write": of the history, half of whose line is written, from the start). "trouble" is one
of "full" (the disk, at the n-th write or flush: "number"), "limit" (files of more than "number" bytes), "read only",
"clock" (all clocks run backwards). Printed are the process ids, "held" when the first waits, and when all have ended
their statuses. A command given as argument is carried out at once.
"""

import contextlib
import errno
import functools
import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import sys
import threading
import time

from xuebu.config import read_settings
from xuebu.errors import XuebuError
from xuebu.model.encoder import PretrainingModel
from xuebu.progress import SilentProgress
from xuebu.train import machine, snapshots
from xuebu.train.folder import RunFolder
from xuebu.train.optim import make_optimizer
from xuebu.train.parallel import join_world, leave_world
from xuebu.train.session import resume_run, start_run, stop_on_signals
from xuebu.train.settings import Recipe

machine.measure_peak = lambda device, precision: 1e11  # a reading of the clock, not of the run


class Holder(SilentProgress):
    """Waits at a step until it is killed or asked to stop."""

    def __init__(self, step, stop):
        self.hold, self.stop, self.step = step, stop, 0

    def show(self, text):
        self.step += 1
        if self.step == self.hold:
            for thread in threading.enumerate():  # what is being written is written first
                if thread.name == "xuebu-checkpoint":
                    thread.join()
            print("held", flush=True)
            while not self.stop.reason:
                time.sleep(0.002)

    def advance(self, count=1):
        self.step += count if not self.step else 0

    def task(self, name, total=None, unit=""):
        return contextlib.nullcontext(self)

    def note(self, text):
        with contextlib.suppress(OSError):  # the file of what is said has its limit too
            print(text, file=sys.stderr, flush=True)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def arm(step, call, number, rank=0):
    """Make the n-th call of `call` the last."""
    armed, count = [call == "write"], [0]
    save = snapshots.save_checkpoint

    def watched_save(folder, checkpoint, world):
        armed[0] = armed[0] or checkpoint.step == step
        return save(folder, checkpoint, world)

    def wrap(original):
        def last(*arguments, **options):
            count[0] += armed[0]
            if armed[0] and count[0] == number:
                if call == "write":
                    original(arguments[0], arguments[1][: len(arguments[1]) // 2])
                die()
            return original(*arguments, **options)

        return last

    owner = {"fsync": os, "write": os, "rmtree": shutil, "rename": pathlib.Path}[call]
    setattr(owner, call, wrap(getattr(owner, call)))
    snapshots.save_checkpoint = watched_save


def make_trouble(kind, folder, number):
    """Break something for the rest of this process."""
    match kind:
        case "full":
            count = [0]

            def full(original, descriptor, data=None, *place):
                count[0] += 1
                given = () if data is None else (data, *place)
                if count[0] < number:
                    return original(descriptor, *given)
                if given:
                    original(descriptor, data[: len(data) // 2], *place)  # as much as there was room for
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            for name in ("write", "pwrite", "fsync"):
                setattr(os, name, functools.partial(full, getattr(os, name)))
        case "limit":  # of the kernel: the write that goes past it is cut short
            resource.setrlimit(resource.RLIMIT_FSIZE, (number, resource.RLIM_INFINITY))
        case "read only":

            def refuse(event, arguments):
                writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
                if (writes or event in ("os.mkdir", "os.rename", "os.remove", "os.truncate")) and folder in str(
                    arguments[0]
                ):
                    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(arguments[0]))

            sys.addaudithook(refuse)
        case "clock":
            for name in ("time", "monotonic", "perf_counter"):
                setattr(time, name, map(float, range(int(getattr(time, name)()), 0, -1)).__next__)


def carry_out(command):
    """Train; 0: finished, 3: stopped, 2: refused."""
    kill = command.get("kill")
    if kill and kill.get("rank", 0) == int(os.environ.get("RANK", "0")):
        arm(**kill)
    folder, tokens = RunFolder(pathlib.Path(command["folder"])), pathlib.Path(command.get("data") or command["tokens"])
    if command.get("trouble"):
        make_trouble(command["trouble"], command["folder"], command.get("number"))
    with stop_on_signals() as stop:
        try:
            world = join_world(sharded=command.get("sharded", False))
            progress = Holder(command.get("hold") if world.is_main else None, stop)
            options = {"world": world, "progress": progress, "stop": stop}
            if command.get("recipe"):
                recipe = read_settings(Recipe, pathlib.Path(command["recipe"]))
                data = {
                    "train_store": tokens / "train",
                    "held_out_store": tokens / "held_out",
                    "vocabulary": tokens / "vocab",
                }
                outcome = start_run(folder, recipe, **data, **options)
            else:
                options["steps"] = command.get("steps")
                outcome = resume_run(folder, inexact=command.get("inexact", False), **options)
            leave_world(world)
        except (XuebuError, OSError) as error:  # as the command line shows them
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return 2
    return 0 if outcome.finished else 3


def fork(command, environment):
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.environ.update(environment)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the run listens
        code = carry_out(command)
    except SystemExit as error:
        code = error.code
    except BaseException as error:
        print(f"Traceback: {error!r}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)


def environments(processes, restart):
    """What a launcher tells each process."""
    restarts = {"TORCHELASTIC_RESTART_COUNT": str(int(restart))}
    if processes == 1:
        return [restarts]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes), **restarts}
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def main():
    make_optimizer(PretrainingModel(Recipe().model, 10), Recipe().train)  # what they import, once
    print("ready", flush=True)
    children = []
    for line in sys.stdin:
        for child in children:
            os.waitpid(child, 0)
        command = json.loads(line)
        children = [
            fork(command, environment)
            for environment in environments(command.get("processes", 1), command.get("restart", False))
        ]
        print(*children, flush=True)
        # Not reaped: their ids are nobody else's yet.
        ended = [os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT) for child in children]
        print(*(end.si_status if end.si_code == os.CLD_EXITED else -end.si_status for end in ended), flush=True)


if __name__ == "__main__":
    sys.exit(carry_out(json.loads(sys.argv[1])) if len(sys.argv) > 1 else main())
