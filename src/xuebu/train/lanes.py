"""Micro-batches side by side, each on a thread of its own.

Where torch cuts every operation into parts for its threads, they wait for each other thousands of times a step. But the
micro-batches of a step are independent up to the sum of their gradients. So each lane has a thread, and a view of the
model: the same weights, gradients of its own. Which lane computes what, and the order in which gradients are added up,
are fixed: a step gives the same bytes each time, however the threads are scheduled.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from threading import Barrier
from typing import Self, TypeVar

import torch
from torch import nn

from xuebu.model.encoder import PretrainingModel
from xuebu.train.machine import Machine

T = TypeVar("T")
R = TypeVar("R")


class Lanes:
    """The threads of a machine, each with its view of one model. One lane is the calling thread and the model itself.

    Args:
        model: on the device that it stays on; its parameters must stay the same tensors.
        machine: says how many lanes, and how many threads each operation in one has.
    """

    def __init__(self, model: PretrainingModel, machine: Machine) -> None:
        count = machine.lanes
        self.models = [model, *(view_of(model) for _ in range(count - 1))]
        self._pool: ThreadPoolExecutor | None = None
        if count > 1:
            self._pool = ThreadPoolExecutor(count, thread_name_prefix="xuebu-lane")
            started = Barrier(count + 1, timeout=60.0)
            for _ in range(count):
                self._pool.submit(_start, max(1, machine.threads // count), started)
            started.wait()
            torch.set_num_threads(machine.threads)  # threads of a later day take what was set last

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def run(
        self,
        function: Callable[[PretrainingModel, T], R],
        items: Sequence[T],
        context: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> list[R]:
        """Return what the function gives for each item, item i computed in lane i mod the number of lanes.

        Args:
            function: called with the lane's view of the model and an item.
            items: what to compute.
            context: what each lane enters around all of its items; torch's contexts hold for one thread.
        """

        def work(lane: int) -> list[R]:
            with context():
                return [function(self.models[lane], item) for item in items[lane :: len(self.models)]]

        if self._pool is None:
            return work(0)
        futures: list[Future[list[R]]] = [self._pool.submit(work, lane) for lane in range(len(self.models))]
        wait(futures)
        parts = [future.result() for future in futures]
        return [parts[number % len(parts)][number // len(parts)] for number in range(len(items))]

    def train(self, mode: bool) -> None:
        """Set the model's mode, training or not, in all lanes."""
        for model in self.models:
            model.train(mode)

    def drop_gradients(self) -> None:
        """Leave no gradient in any lane, as a step finds it; one that was given up has left some."""
        for model in self.models:
            model.zero_grad(set_to_none=True)

    @torch.no_grad()
    def add_up_gradients(self) -> None:
        """Leave the sum of all lanes' gradients in the model's parameters, and none elsewhere."""
        for view in self.models[1:]:
            for own, other in zip(self.models[0].parameters(), view.parameters(), strict=True):
                if other.grad is not None:
                    own.grad = other.grad if own.grad is None else own.grad.add_(other.grad)
                    other.grad = None


def view_of(model: PretrainingModel) -> PretrainingModel:
    """Return a model with the same buffers, whose parameters lie in the same memory, as leaves of their own."""
    same: dict[int, torch.Tensor] = {id(buffer): buffer for buffer in model.buffers()}
    for parameter in model.parameters():
        same[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
    return copy.deepcopy(model, same)


def _start(threads: int, started: Barrier) -> None:
    torch.set_num_threads(threads)  # of this thread, once torch has looked at it, which it does once
    torch.get_num_threads()
    started.wait()
