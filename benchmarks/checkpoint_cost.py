"""What do checkpoints cost? One run, minute by minute with a save and without, in turns; counted are real tokens.

A window with a save copies the state between two steps and writes it beside training; the next window of the pair has
none. The cost is the paired loss of tokens a second, scaled to one save a minute where windows are shorter. On a
machine that others use as well that is noise; so the parts are measured alone too: how long training stands still for
the copy, how long the writing takes, and the processor seconds of both, as a share of those of a minute.

    python benchmarks/checkpoint_cost.py [--preset reference] [--pairs 5] [--seconds 60] [--quick] [--parts]

`--parts` trains nothing: a model and an optimizer of that size are saved again and again.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import ClassVar

from machine import facts
from xuebu.runtime import prepare_environment

prepare_environment()

import torch  # noqa: E402

from xuebu.corpus.build import build_corpus  # noqa: E402
from xuebu.corpus.sample import sample_documents  # noqa: E402
from xuebu.model.encoder import PretrainingModel  # noqa: E402
from xuebu.model.presets import preset_settings  # noqa: E402
from xuebu.progress import SilentProgress  # noqa: E402
from xuebu.study import StudyFolder, prepare_run  # noqa: E402
from xuebu.train import snapshots as snapshots_module  # noqa: E402
from xuebu.train import trainer as trainer_module  # noqa: E402
from xuebu.train.checkpoint import remove_later  # noqa: E402
from xuebu.train.machine import usable_cores  # noqa: E402
from xuebu.train.optim import make_optimizer  # noqa: E402
from xuebu.train.parallel import ALONE  # noqa: E402
from xuebu.train.session import start_run  # noqa: E402
from xuebu.train.settings import Recipe, TrainSettings  # noqa: E402
from xuebu.train.snapshots import Snapshots  # noqa: E402
from xuebu.train.stop import StopRequest  # noqa: E402

NEVER = 10**9


class Windows(SilentProgress):
    """Looks at the clock after every step: opens and closes windows, has a save made in every other one."""

    def __init__(self, pairs: int, seconds: float, stop: StopRequest) -> None:
        self.left, self.seconds, self.stop = 2 * pairs, seconds, stop
        self.speeds: list[float] = []
        self.begun, self.tokens_at = 0.0, -1

    def task(self, name, total=None, unit=""):
        return contextlib.nullcontext(self)

    def advance(self, count=1):
        pass

    def show(self, text):
        if self.stop.reason:
            return
        trainer, now = Watched.latest, time.perf_counter()
        trainer.settings = dataclasses.replace(trainer.settings, checkpoint_every=NEVER)
        if self.tokens_at < 0 and trainer.step < 5:  # kernels are compiled
            return
        if self.tokens_at < 0 or now - self.begun >= self.seconds:
            if self.tokens_at >= 0:
                self.speeds.append((trainer.state.tokens - self.tokens_at) / (now - self.begun))
            if len(self.speeds) == self.left:
                self.stop.reason = "measured"
                return
            if len(self.speeds) % 2 == 0:
                trainer.settings = dataclasses.replace(trainer.settings, checkpoint_every=1)  # after the next step
            self.begun, self.tokens_at = now, trainer.state.tokens


class Watched(trainer_module.Trainer):
    """A trainer whose copies are clocked."""

    latest: Watched
    copying: ClassVar[list[float]] = []

    def __init__(self, *given, **options):
        super().__init__(*given, **options)
        Watched.latest = self

    def _save(self, *, wait):
        started = time.perf_counter()
        super()._save(wait=wait)
        self.copying.append(time.perf_counter() - started)


def measure_parts(model: torch.nn.Module, settings: TrainSettings, saves: int) -> dict[str, float]:
    """Return what a save costs, medians over some after the first (whose memory is fresh): seconds, processor seconds.

    Everything that writing takes is counted as if training could have used it.
    """
    optimizer = make_optimizer(model, settings)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    model.zero_grad(set_to_none=True)
    found: list[tuple[float, ...]] = []

    def used() -> tuple[float, float]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime, usage.ru_stime

    with tempfile.TemporaryDirectory() as name:
        snapshots = Snapshots(Path(name), model, optimizer, ALONE)
        for step in range(1, saves + 2):
            started, before = time.perf_counter(), used()
            snapshots.save(step, {}, lambda: None, wait=False)
            copied, between = time.perf_counter(), used()
            snapshots.wait()
            ended, after = time.perf_counter(), used()
            remove_later(Path(name), 0)
            found.append((copied - started, sum(between) - sum(before), ended - copied))
            found[-1] += tuple(last - first for first, last in zip(between, after, strict=True))
    copying, copier, writing, user, kernel = (statistics.median(values) for values in zip(*found[1:], strict=True))
    cores = usable_cores()
    return {
        "copy_seconds": round(copying, 3),
        "copy_processor_seconds": round(copier, 3),
        "first_copy_seconds": round(found[0][0], 3),
        "write_seconds": round(writing, 3),
        "write_user_seconds": round(user, 3),
        "write_kernel_seconds": round(kernel, 3),
        "processor_share_at_one_save_a_minute": round((copier + user + kernel) / (60 * cores), 5),
        "share_if_all_stand_still_for_the_copy": round((copying * cores + user + kernel) / (60 * cores), 5),
    }


def print_result(result: dict[str, object]) -> None:
    for key, value in result.items():
        print(f"{key:<38} {value}")
    print(json.dumps({"benchmark": "checkpoint_cost", **result, "machine": facts()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--preset", default="reference")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--quick", action="store_true", help="preset tiny, three pairs of four seconds")
    parser.add_argument("--parts", action="store_true", help="save alone, without training")
    parser.add_argument("--vocabulary", type=int, default=10_054, help="entries, with --parts")
    asked = parser.parse_args()
    if asked.quick:
        asked.preset, asked.pairs, asked.seconds = "tiny", 3, 4.0
    train = TrainSettings(steps=10**6, checkpoint_every=NEVER, evaluate_every=NEVER, record_every=100)
    if asked.parts:
        model = PretrainingModel(preset_settings(asked.preset), asked.vocabulary)
        size = 12 * sum(parameter.numel() for parameter in model.parameters())
        sizes = {"preset": asked.preset, "checkpoint_mb": round(size / 1e6, 1), "saves": asked.pairs}
        print_result({**sizes, **measure_parts(model, train, asked.pairs)})
        return
    writing: list[tuple[float, float]] = []
    save = snapshots_module.save_checkpoint

    def clocked(folder, checkpoint, world):
        started, used = time.perf_counter(), time.thread_time()
        path = save(folder, checkpoint, world)
        writing.append((time.perf_counter() - started, time.thread_time() - used))
        return path

    snapshots_module.save_checkpoint = clocked
    from xuebu.train import session

    session.Trainer = Watched
    recipe = dataclasses.replace(Recipe(), model=preset_settings(asked.preset), train=train)
    recipe = dataclasses.replace(recipe, batches=dataclasses.replace(recipe.batches, sequences_per_step=32))
    with tempfile.TemporaryDirectory() as name:
        folder = StudyFolder(Path(name) / "run")
        build_corpus(sample_documents(), Path(name) / "corpus", recipe.corpus)
        prepare_run(folder, Path(name) / "corpus", recipe)
        stop = StopRequest()
        windows = Windows(asked.pairs, asked.seconds, stop)
        places = {"train_store": folder.store("train"), "held_out_store": folder.store("held_out")}
        outcome = start_run(folder.run, recipe, **places, vocabulary=folder.vocabulary, progress=windows, stop=stop)
        size = sum(file.stat().st_size for file in folder.run.checkpoints.rglob("*.safetensors"))
        size //= max(1, len(list(folder.run.checkpoints.iterdir())))
    lost = [
        (1 - with_save / without) * asked.seconds / 60
        for with_save, without in zip(windows.speeds[::2], windows.speeds[1::2], strict=True)
    ]
    result = {
        "preset": asked.preset,
        "parameters": sum(parameter.numel() for parameter in outcome.model.parameters()),
        "checkpoint_mb": round(size / 1e6, 1),
        "pairs": asked.pairs,
        "window_seconds": asked.seconds,
        "tokens_per_second": round(statistics.median(windows.speeds[1::2]), 1),
        "lost_share_at_one_save_a_minute": [round(share, 4) for share in sorted(lost)],
        "median_lost_share": round(statistics.median(lost), 4),
        "copy_seconds": round(statistics.median(Watched.copying[:-1]), 3),
        "write_seconds": round(statistics.median(seconds for seconds, _ in writing[:-1]), 3),
        "write_processor_seconds": round(statistics.median(used for _, used in writing[:-1]), 3),
    }
    print_result(result)


if __name__ == "__main__":
    main()
