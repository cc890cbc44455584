"""The one place that knows about other processes, and the only one that talks to torch.distributed.

Every process makes the whole batch of a step (it is a function of the step) and trains on its share of the rows;
gradients and counts are added up once a step. So processes may have different numbers of micro-batches, and each holds
the same weights to the bit. With `sharding = "full"` (FSDP2) each holds a part of every weight instead.
"""

from __future__ import annotations

import gc
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from xuebu.batches.batch import Batch
from xuebu.batches.shares import share_of
from xuebu.errors import ConfigError, TrainingError

_PLACE_IN_SOURCE = re.compile(r"^\[[^]]*\] ")
TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others: the main one may evaluate or prove a checkpoint meanwhile."""


@dataclass(frozen=True, slots=True)
class World:
    """Which process this is, of how many.

    Attributes:
        rank: 0 to size - 1.
        size: number of processes, on all machines.
        local_size: number of processes on this machine.
        sharded: whether each holds a part of every weight.
        beside: what its writing threads talk through; None unless sharded.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1
    sharded: bool = False
    beside: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes history and checkpoints, and talks to the user."""
        return self.rank == 0

    def share(self, batch: Batch) -> Batch:
        """Return the rows that fall to this process; the shares of all processes together are the batch.

        Raises:
            ConfigError: there are fewer rows than processes.
        """
        if batch.num_rows < self.size:
            raise ConfigError(
                f"{self.size} processes for {batch.num_rows} sequences a step: start at most {batch.num_rows} "
                "processes, or raise `batches.sequences_per_step`"
            )
        return share_of(batch, self.rank, self.size)

    def sum_in_place(self, tensors: Sequence[Tensor]) -> None:
        """Add up tensors of one type over all processes, in one message; all get the same bits."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _talking(self):
            dist.all_reduce(flat)
        for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def sum_gradients(self, model: nn.Module) -> None:
        """Add up the gradients over all processes; a parameter without one counts as zero. Sharded ones are summed."""
        if self.size == 1 or self.sharded:
            return
        for parameter in model.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            elif parameter.grad.is_sparse:
                parameter.grad = parameter.grad.to_dense()
        self.sum_in_place([parameter.grad for parameter in model.parameters() if parameter.grad is not None])

    def most(self, number: int) -> int:
        """Return the largest of the processes' numbers."""
        if self.size == 1:
            return number
        tensor = torch.tensor(number, dtype=torch.int64)
        with _talking(self):
            dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor)

    def agree(self, function: Callable[[], Any]) -> Any:
        """Run a function on the main process and return its value, of plain JSON, on all.

        Raises:
            SystemExit: on the others, where the function raised on the main process, which shows why.
        """
        if self.size == 1:
            return function()
        if not self.is_main:
            answer = json.loads(self._broadcast_bytes(b""))
            if "failed" in answer:
                raise SystemExit(2)
            return answer["value"]
        try:
            value = function()
        except BaseException:
            self._broadcast_bytes(b'{"failed": true}')
            raise
        return json.loads(self._broadcast_bytes(json.dumps({"value": value}).encode("utf-8")))["value"]

    def _broadcast_bytes(self, data: bytes) -> bytes:
        """Return the main process's bytes."""
        size = torch.tensor(len(data), dtype=torch.int64)
        with _talking(self):
            dist.broadcast(size, 0)
            message = torch.frombuffer(bytearray(data), dtype=torch.uint8) if self.is_main else torch.empty(int(size))
            message = message.to(torch.uint8)
            dist.broadcast(message, 0)
        return message.numpy().tobytes()

    def send_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the main process's named tensors, in main memory; what the others pass is not looked at."""
        if self.size == 1:
            return dict(tensors)
        heads = self.agree(lambda: [(k, list(t.shape), str(t.dtype).partition(".")[2]) for k, t in tensors.items()])
        received = {}
        for name, shape, dtype in heads:
            tensor = (
                tensors[name].cpu().contiguous() if self.is_main else torch.empty(shape, dtype=getattr(torch, dtype))
            )
            with _talking(self):
                dist.broadcast(tensor, 0)
            received[name] = tensor
        return received

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.size > 1:
            with _talking(self):
                dist.barrier()

    def shard(self, model: nn.Module, layers: Sequence[nn.Module], forward: str) -> None:
        """Leave each process a part of every weight: FSDP2, layer by layer, gradients summed and not averaged.

        Args:
            model: whole, equal on all processes; changed in place.
            layers: its parts that are gathered one at a time.
            forward: name of the method that stands for the model's forward pass.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

        device = next(model.parameters()).device.type
        mesh = init_device_mesh(device, (self.size,))
        for part in (*layers, model):
            fully_shard(part, mesh=mesh)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)  # gloo cannot divide
        register_fsdp_forward_method(model, forward)

    def sync_gradients(self, model: nn.Module, now: bool) -> None:
        """Say whether the next backward pass adds up sharded gradients: only the last of a step does."""
        if self.sharded:
            model.set_requires_gradient_sync(now)  # type: ignore[operator]

    def whole(self, tensor: Tensor) -> Tensor:
        """Return a tensor with all its parts; all processes have to ask in the same order."""
        if not self._is_part(tensor):
            return tensor
        with _talking(self):
            return tensor.full_tensor()  # type: ignore[attr-defined, no-any-return]

    def rows_of(self, tensor: Tensor) -> tuple[int, int] | None:
        """Return the first row of a tensor that this process holds, and the one after the last; None: it holds all."""
        if not self._is_part(tensor):
            return None
        rows = len(tensor)
        each = -(-rows // self.size)  # as torch.chunk, and so FSDP2, deals them out
        return min(self.rank * each, rows), min((self.rank + 1) * each, rows)

    def own(self, tensor: Tensor) -> Tensor:
        """Return the rows of `rows_of`; of a tensor that this process holds all of, itself."""
        return tensor.to_local() if self._is_part(tensor) else tensor  # type: ignore[attr-defined]

    def join(self, own: Tensor, like: Tensor) -> Tensor:
        """Return the tensor of which the processes hold these rows, laid out as `like`."""
        from torch.distributed.tensor import DTensor

        assert isinstance(like, DTensor)
        rows = own.to(like.device)
        return DTensor.from_local(
            rows, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
        )

    def _is_part(self, tensor: Tensor) -> bool:
        if not self.sharded:
            return False
        from torch.distributed.tensor import DTensor

        return isinstance(tensor, DTensor)

    def exchange(self, value: Any) -> list[Any]:
        """Return the values, of plain JSON, of all processes; beside training, from the threads that write."""
        if self.size == 1:
            return [value]
        data = torch.frombuffer(bytearray(json.dumps(value).encode("utf-8")), dtype=torch.uint8)
        lengths = [torch.zeros((), dtype=torch.int64) for _ in range(self.size)]
        with _talking(self):
            dist.all_gather(lengths, torch.tensor(len(data)), group=self.beside)
            message = torch.zeros(max(map(int, lengths)), dtype=torch.uint8)
            message[: len(data)] = data
            messages = [torch.empty_like(message) for _ in lengths]
            dist.all_gather(messages, message, group=self.beside)
        return [json.loads(got[: int(length)].numpy().tobytes()) for got, length in zip(messages, lengths, strict=True)]


ALONE = World()


@contextmanager
def _talking(world: World) -> Iterator[None]:
    """Turn the failure of a connection into one line."""
    try:
        yield
    except RuntimeError as error:  # torch's DistBackendError and gloo's errors are RuntimeErrors
        line = _PLACE_IN_SOURCE.sub("", str(error).strip().split("\n", maxsplit=1)[0])[:120]
        raise TrainingError(
            f"process {world.rank} of {world.size} has lost the others ({line}); one of them has ended, and says why. "
            "The run goes on from its newest checkpoint with --resume"
        ) from None


def join_world(*, sharded: bool = False) -> World:
    """Return this process's place, having met the others where a launcher (torchrun) started several.

    Raises:
        ConfigError: the launcher's environment is not whole.
        TrainingError: the others did not come.
    """
    try:
        size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", str(size)))
        local_rank = int(os.environ.get("LOCAL_RANK", str(rank)))
    except ValueError as error:
        raise ConfigError(
            f"WORLD_SIZE, RANK, LOCAL_WORLD_SIZE and LOCAL_RANK must be whole numbers ({error})"
        ) from None
    if size == 1:
        return ALONE
    if not 0 <= rank < size:
        raise ConfigError(f"RANK = {rank} is not one of WORLD_SIZE = {size} processes; let torchrun set both")
    if torch.cuda.is_available():
        if local_rank >= torch.cuda.device_count():
            raise ConfigError(f"process {rank} has no GPU of its own: {torch.cuda.device_count()} for {local_size}")
        torch.cuda.set_device(local_rank)
    world = World(rank, size, local_size, sharded)
    try:
        with _talking(world):
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
            if sharded:
                world = replace(world, beside=dist.new_group(backend="gloo"))
    except ValueError as error:  # MASTER_ADDR or MASTER_PORT is missing
        raise ConfigError(f"{str(error).strip()}; start several processes by torchrun or by --processes") from None
    return world


def leave_world(world: World) -> None:
    """Part from the others in good order: all arrive, garbage that holds connections goes, then these are closed."""
    if world.size == 1 or not dist.is_initialized():
        return
    world.wait()
    gc.collect()
    dist.destroy_process_group()


def is_restart() -> bool:
    """Whether torchrun has started this process anew after another one had died."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") not in ("", "0")


def launch_name() -> str:
    """Return the name of the job that torchrun was given or made up; "" without one.

    A machine that joins a job has all processes started anew, and does not count as a restart: only the name tells.
    """
    name = os.environ.get("TORCHELASTIC_RUN_ID", "")
    return "" if name == "none" else name  # torchrun's name for one on fixed machines
