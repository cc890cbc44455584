"""What a run's checkpoints hold of model and optimizer: copied between two steps, written beside training, put back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from xuebu.errors import ResumeError
from xuebu.train.checkpoint import Checkpoint, Proven, load_checkpoint, save_checkpoint
from xuebu.train.optim import Optimizers, load_optimizer_tensors, optimizer_tensors
from xuebu.train.parallel import World
from xuebu.train.tensor_file import Rows, TensorFile, TensorReader
from xuebu.train.writer import BackgroundWriter


class Snapshots:
    """Saves and loads model and optimizer; whole, or each process its part.

    Args:
        folder: of the checkpoints.
        model, optimizer: trained between one call and the next.
        world: this process, among how many.
    """

    def __init__(self, folder: Path, model: nn.Module, optimizer: Optimizers, world: World) -> None:
        self.folder, self.model, self.optimizer, self.world = folder, model, optimizer, world
        self._writer = BackgroundWriter()
        self._files: dict[str, TensorFile] = {}  # kept from save to save: fresh memory costs more than the copy

    def __enter__(self) -> Snapshots:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    def check(self) -> None:
        """Raise what writing has raised; costs nothing."""
        self._writer.check()

    def wait(self) -> None:
        """Return when nothing is being written; raises as `check`."""
        self._writer.wait()

    def save(self, step: int, state: dict[str, Any], after: Callable[[], object], *, wait: bool) -> None:
        """Copy model and optimizer, and have the copy written; the processes that hold no part of their own do nothing.

        Args:
            step: updates done.
            state: the rest of the checkpoint, as JSON.
            after: what the main process does when the checkpoint is on the disk.
            wait: until it is.

        Raises:
            OSError, TrainingError: what writing the one before has raised, or, if waited for, this one.
        """
        world = self.world
        if not (world.is_main or world.sharded):
            return
        self._writer.wait()  # its memory is used again
        model = self._copy("model", self.model.state_dict())
        optimizer = self._copy("optimizer", optimizer_tensors(self.model, self.optimizer))
        checkpoint = Checkpoint(step, model, optimizer, state)

        def write() -> None:
            save_checkpoint(self.folder, checkpoint, world)
            if world.is_main:
                after()

        self._writer.submit(write, gently=not wait)
        if wait:
            self._writer.wait()

    def _copy(self, kind: str, tensors: Mapping[str, Tensor]) -> TensorFile:
        rows = {
            name: Rows(found[0], len(tensor))
            for name, tensor in tensors.items()
            if (found := self.world.rows_of(tensor)) is not None
        }
        # What is no part is equal on all: the main process keeps it.
        own = {name: self.world.own(t) for name, t in tensors.items() if name in rows or self.world.is_main}
        file = self._files.get(kind)
        if file is not None and file.has_room_for(own, rows):
            file.fill(own)
            return file
        self._files[kind] = TensorFile(own, rows)
        return self._files[kind]

    def load(self, found: Proven | None) -> tuple[int, dict[str, Any]] | None:
        """Put a checkpoint back that the main process has proven; return its step and state on all, or None.

        Raises:
            CheckpointError: it is whole, and yet no checkpoint.
            ResumeError: it is of another model.
        """
        head = self.world.agree(lambda: found and _head(found))
        if not head:
            return None
        try:
            if self.world.sharded:
                model, optimizer = self._own_parts([Path(p) for p in head[2]], [Path(p) for p in head[3]])
            else:
                model, optimizer = self._whole(found)
            self.model.load_state_dict(model)
            load_optimizer_tensors(self.model, self.optimizer, optimizer)
        except (RuntimeError, KeyError) as error:
            raise ResumeError(f"{self.folder}: the checkpoint is of another model ({error})") from None
        return head[0], head[1]

    def _whole(self, found: Proven | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Read all on the main process, and send it to the others."""
        read: list[Checkpoint] = []
        self.world.agree(lambda: read.extend([load_checkpoint(found)] if found else []))
        sent = [self.world.send_tensors(getattr(read[0], kind) if read else {}) for kind in ("model", "optimizer")]
        return sent[0], sent[1]

    def _own_parts(self, model_files: list[Path], optimizer_files: list[Path]) -> tuple[dict[str, Tensor], ...]:
        """Read what falls to this process, from whichever files hold it."""
        parameters = dict(self.model.named_parameters())
        with TensorReader(model_files) as reader:
            model = {name: self._part(reader, name, parameters[name]) for name in reader.names}
        with TensorReader(optimizer_files) as reader:
            optimizer = {name: self._part(reader, name, parameters[name.rpartition("/")[0]]) for name in reader.names}
        return model, optimizer

    def _part(self, reader: TensorReader, name: str, like: Tensor) -> Tensor:
        """Return a tensor laid out as a parameter; one of another shape (a counter) stays as it is."""
        rows = self.world.rows_of(like)
        if rows is None or reader.shape(name) != tuple(like.shape):
            return reader.tensor(name)
        return self.world.join(reader.rows(name, *rows), like)

    def whole_weights(self) -> dict[str, Tensor]:
        """Return copies of the model's tensors, whole, to the main process; all have to ask."""
        whole = {}
        for name, tensor in self.model.state_dict().items():
            gathered = self.world.whole(tensor.detach())
            if self.world.is_main:
                whole[name] = gathered.to("cpu", copy=True)
        return whole


def _head(found: Proven) -> list[Any]:
    """Return what all processes need to know, as JSON."""
    return [found.step, found.state, list(map(str, found.model_files)), list(map(str, found.optimizer_files))]
