"""Checkpoints: whole, typed, proven by digest, never half written.

A checkpoint is a folder `step-00001000` of safetensors and JSON with a manifest of SHA-256 digests. It is written
aside, flushed to the disk and renamed, so a folder without ".partial" in its name is complete; the digests tell if it
was damaged later. Where each process holds a part of every weight, each writes its own files into the folder, and the
manifest lists them all.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from xuebu.errors import CheckpointError, TrainingError
from xuebu.files import naming, sha256_file, sync_folder, to_json
from xuebu.train.parallel import ALONE, World
from xuebu.train.tensor_file import TensorFile, TensorReader, write_and_digest

FORMAT = 3
"""3: files of several processes. 2 is read as 3, of one."""
_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """What a run needs to go on.

    Attributes:
        step: updates done.
        model: named parameters; a `TensorFile` is written as it is.
        optimizer: named optimizer state, likewise.
        state: everything else, as JSON: counters, position in the history, sums since the last record.
    """

    step: int
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    state: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Proven:
    """A checkpoint whose digests hold.

    Attributes:
        step: updates done.
        model_files, optimizer_files: one for each process that wrote.
        state: as in `Checkpoint`.
    """

    step: int
    model_files: Sequence[Path]
    optimizer_files: Sequence[Path]
    state: dict[str, Any]


class _NewerFormatError(CheckpointError):
    """Not damaged: it must not be passed over for an older one."""


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step lies."""
    return folder / f"step-{step:08d}"


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return (step, path) of the complete checkpoints in a folder, newest first; none are opened."""
    if not folder.is_dir():
        return []
    found = ((match, path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)))
    return sorted(((int(match[1]), path) for match, path in found), reverse=True)


def file_names(rank: int, size: int) -> tuple[str, str]:
    """Return the names of the files that a process of so many writes: of the model, and of the optimizer."""
    part = f"-{rank + 1:05d}-of-{size:05d}" if size > 1 else ""
    return f"model{part}.safetensors", f"optimizer{part}.safetensors"


def save_checkpoint(folder: Path, checkpoint: Checkpoint, world: World = ALONE) -> Path:
    """Write a checkpoint; when this returns it is on the disk. A whole one of the same step is left as it is.

    Where each process holds a part of every weight, all call this, each with its own part; `state` is the main one's.

    Raises:
        OSError: the disk is full or read-only; names the file. Nothing that was there before is lost.
        TrainingError: that happened to another process.
    """
    size = world.size if world.sharded else 1
    final = checkpoint_path(folder, checkpoint.step)
    partial = folder / f"{final.name}.partial"
    try:
        # The same step of the same run is the same state.
        if _together(world, lambda: not world.is_main or _make_room(final, partial))[0] is False:
            return final
        files = _together(world, lambda: _write_tensors(final, partial, checkpoint, file_names(world.rank, size)))
        if world.is_main:
            _complete(final, partial, checkpoint, files)
    except BaseException:
        if world.is_main:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    return final


def _together(world: World, work: Callable[[], Any]) -> list[Any]:
    """Have each process do its work; return what all returned, or raise if one failed."""
    if not world.sharded:
        return [work()]
    answer, failure = None, None
    try:
        answer = work()
    except OSError as error:
        failure = error
    answers = world.exchange({"value": answer, "error": str(failure or "")})
    if failure is not None:
        raise failure
    for rank, other in enumerate(answers):
        if other["error"]:
            raise TrainingError(f"process {rank} could not write its part of the checkpoint: {other['error']}")
    return [other["value"] for other in answers]


def _make_room(final: Path, partial: Path) -> bool:
    """Make the folder that is written to; return False if the checkpoint is there already, and whole."""
    if final.exists():
        try:
            prove_checkpoint(final)
        except CheckpointError:
            shutil.rmtree(final)
        else:
            return False
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return True


def _write_tensors(
    final: Path, partial: Path, checkpoint: Checkpoint, names: tuple[str, str]
) -> dict[str, dict[str, int | str]]:
    files = {}
    for name, tensors in zip(names, (checkpoint.model, checkpoint.optimizer), strict=True):
        with naming(final / name):
            file = tensors if isinstance(tensors, TensorFile) else TensorFile(tensors)
            files[name] = file.write(partial / name)
    return files


def _complete(final: Path, partial: Path, checkpoint: Checkpoint, parts: Sequence[Mapping[str, Any]]) -> None:
    """Add state and manifest to what all processes have written, and give the folder its name."""
    files = {name: digest for part in parts for name, digest in part.items()}
    with naming(final / "state.json"):
        files["state.json"] = _write_json(partial / "state.json", checkpoint.state)
    with naming(final / "manifest.json"):
        manifest = {"format": FORMAT, "step": checkpoint.step, "processes": len(parts), "files": files}
        _write_json(partial / "manifest.json", manifest)
    with naming(final):
        sync_folder(partial)
        partial.rename(final)
        sync_folder(final.parent)
        sync_folder(final.parent.parent)  # which may be new


def _write_json(path: Path, value: dict[str, Any]) -> dict[str, int | str]:
    data = to_json(value).encode("utf-8")
    return write_and_digest(path, memoryview(data), len(data))


def prove_checkpoint(path: Path) -> Proven:
    """Hold all files of a checkpoint against its manifest.

    Raises:
        CheckpointError: a file is missing, damaged or of a newer format; names it.
    """
    manifest = _read_manifest(path)
    for name, digest in manifest["files"].items():
        try:
            found = sha256_file(path / name)
        except OSError as error:
            raise CheckpointError(f"{path / name}: {error.strerror}") from None
        if found != digest:
            size = (path / name).stat().st_size
            raise CheckpointError(f"{path / name}: damaged ({size} bytes do not give the manifest's SHA-256)")
    try:
        state = json.loads((path / "state.json").read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{path}: not a checkpoint of this program ({error})") from None
    model, optimizer = zip(*manifest["names"], strict=True)
    return Proven(manifest["step"], [path / name for name in model], [path / name for name in optimizer], state)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, all of it, and prove it against its manifest.

    Raises:
        CheckpointError: as `prove_checkpoint`, or it is whole and yet no checkpoint.
    """
    return load_checkpoint(prove_checkpoint(path))


def load_checkpoint(proven: Proven) -> Checkpoint:
    """Read the tensors of a checkpoint, joined where several processes wrote them.

    Raises:
        CheckpointError: the files hold no tensors, or not all rows of one.
    """
    loaded = []
    for files in (proven.model_files, proven.optimizer_files):
        with TensorReader(files) as reader:
            loaded.append({name: reader.tensor(name) for name in reader.names})
    return Checkpoint(proven.step, loaded[0], loaded[1], proven.state)


def _read_manifest(path: Path) -> dict[str, Any]:
    """Return the step of a manifest, the digest of each file, and the names of each process's two."""
    where = path / "manifest.json"
    try:
        manifest = json.loads(where.read_bytes())
        written_by, step = int(manifest["format"]), int(manifest["step"])
        files, names = {}, list[tuple[str, str]]()
        if written_by <= FORMAT:
            size = int(manifest.get("processes", 1))
            names = [file_names(rank, size) for rank in range(max(1, size))]
            expected = ["state.json", *(name for pair in names for name in pair)]
            files = {name: manifest["files"][name]["sha256"] for name in expected}
    except OSError as error:
        raise CheckpointError(f"{where}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{where}: damaged ({error})") from None
    if written_by > FORMAT:
        raise _NewerFormatError(f"{where}: written by a newer xuebu (format {written_by}); upgrade to read it")
    if path.name != f"step-{step:08d}":
        raise CheckpointError(f"{where}: damaged (it is of step {step}, the folder of another)")
    return {"step": step, "files": files, "names": names}


def newest_proven(folder: Path) -> tuple[Proven | None, list[str]]:
    """Return the newest whole checkpoint, and one line for each newer one that is damaged.

    Raises:
        CheckpointError: there are checkpoints, and none is whole; or a newer version of xuebu wrote one.
    """
    problems: list[str] = []
    for _, path in list_checkpoints(folder):
        try:
            return prove_checkpoint(path), problems
        except _NewerFormatError:
            raise
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        raise CheckpointError(f"{folder}: no checkpoint is whole: {'; '.join(problems)}")
    return None, problems


def newest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return what `newest_proven` does, read.

    Raises:
        CheckpointError: as `newest_proven`.
    """
    found, problems = newest_proven(folder)
    return (load_checkpoint(found) if found else None), problems


def prune_checkpoints(
    folder: Path,
    step: int,
    *,
    keep_last: int,
    keep_every: int,
    is_planned: Callable[[int], bool] = lambda step: True,
) -> None:
    """Remove all but the newest checkpoint, the newest `keep_last` planned ones and the multiples of `keep_every`.

    Later ones than `step` are damaged, or the run would stand there: they count for nothing, and are written again when
    the run comes to them. What a killed process left half written or half removed goes too.

    Args:
        folder: of the checkpoints.
        step: of the newest.
        keep_last: how many.
        keep_every: in steps; 0: none.
        is_planned: whether a step has a checkpoint in a run that nobody disturbs. Interruptions must not decide what
            else is there: a run may have to go back to it.
    """
    done = [(at, path) for at, path in list_checkpoints(folder) if at <= step]
    planned = [at for at, _ in done if is_planned(at)][:keep_last]
    for number, (at, path) in enumerate(done):
        if not (number == 0 or at in planned or (keep_every and at % keep_every == 0)):
            _remove(path)
    for leftover in folder.glob("step-*.partial"):
        shutil.rmtree(leftover)


def remove_later(folder: Path, step: int) -> None:
    """Remove the checkpoints of later steps than the one that a run goes back to."""
    for at, path in list_checkpoints(folder):
        if at > step:
            _remove(path)


def _remove(path: Path) -> None:
    # Renamed first: a half-removed folder must not pass for a checkpoint.
    doomed = path.with_name(f"{path.name}.partial")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed)


@dataclass(frozen=True, slots=True)
class CheckpointEntry:
    """One line of a listing.

    Attributes:
        step: updates done.
        path: its folder.
        num_bytes: of its files.
        saved_at: seconds since 1970 of its manifest; 0 where there is none.
        problem: what is wrong with it, "" if its digests hold.
    """

    step: int
    path: Path
    num_bytes: int
    saved_at: float
    problem: str


def prove_checkpoints(folder: Path) -> list[CheckpointEntry]:
    """Read every checkpoint of a folder and say of each whether it is whole, newest first."""
    entries = []
    for step, path in list_checkpoints(folder):
        problem = ""
        try:
            prove_checkpoint(path)
        except CheckpointError as error:
            problem = str(error)
        try:
            files = {file.name: file.stat() for file in path.iterdir()}
        except FileNotFoundError:  # removed meanwhile by the run, which goes on
            continue
        saved_at = files["manifest.json"].st_mtime if "manifest.json" in files else 0.0
        entries.append(CheckpointEntry(step, path, sum(file.st_size for file in files.values()), saved_at, problem))
    return entries
