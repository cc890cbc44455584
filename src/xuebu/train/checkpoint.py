"""Checkpoints: whole, typed, proven by digest, never half written.

A checkpoint is a folder `step-00001000` of safetensors and JSON with a manifest of SHA-256 digests. It is written
aside, flushed to the disk and renamed, so a folder without ".partial" in its name is complete; the digests tell if it
was damaged later.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from xuebu.errors import CheckpointError
from xuebu.files import sha256_bytes, sync_folder, to_json

FORMAT = 1
_NAME = re.compile(r"step-(\d{8,})")
_FILES = ("model.safetensors", "optimizer.safetensors", "state.json")


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """What a run needs to go on.

    Attributes:
        step: updates done.
        model: named parameters.
        optimizer: named optimizer state.
        state: everything else, as JSON: counters, position in the history, sums since the last record.
    """

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return (step, path) of the complete checkpoints in a folder, newest first; none are opened."""
    if not folder.is_dir():
        return []
    found = ((match, path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)))
    return sorted(((int(match[1]), path) for match, path in found), reverse=True)


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint; when this returns it is on the disk. A whole one of the same step is left as it is.

    Raises:
        OSError: the disk is full or read-only; nothing that was there before is lost.
    """
    final = folder / f"step-{checkpoint.step:08d}"
    if final.exists():
        try:
            read_checkpoint(final)
        except CheckpointError:
            shutil.rmtree(final)
        else:
            return final  # the same step of the same run is the same state
    partial = folder / f"{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        files = {
            "model.safetensors": save_tensors(_contiguous(checkpoint.model)),
            "optimizer.safetensors": save_tensors(_contiguous(checkpoint.optimizer)),
            "state.json": to_json(checkpoint.state).encode("utf-8"),
        }
        manifest = {
            "format": FORMAT,
            "step": checkpoint.step,
            "files": {name: {"bytes": len(data), "sha256": sha256_bytes(data)} for name, data in files.items()},
        }
        for name, data in {**files, "manifest.json": to_json(manifest).encode("utf-8")}.items():
            with (partial / name).open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        sync_folder(partial)
        partial.rename(final)
        sync_folder(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return final


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and prove it against its manifest.

    Raises:
        CheckpointError: a file is missing, damaged or of a newer format; names it.
    """
    manifest = _read_manifest(path)
    data: dict[str, bytes] = {}
    for name, digest in manifest["files"].items():
        try:
            data[name] = (path / name).read_bytes()
        except OSError as error:
            raise CheckpointError(f"{path / name}: {error.strerror}") from None
        if sha256_bytes(data[name]) != digest:
            raise CheckpointError(
                f"{path / name}: damaged ({len(data[name])} bytes do not give the manifest's SHA-256)"
            )
    try:
        model, optimizer = (load_tensors(data[name]) for name in _FILES[:2])
        return Checkpoint(manifest["step"], model, optimizer, json.loads(data["state.json"]))
    except (ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of this program ({error})") from None


def _read_manifest(path: Path) -> dict[str, Any]:
    """Return the step of a manifest and the digest of each file."""
    where = path / "manifest.json"
    try:
        manifest = json.loads(where.read_bytes())
        written_by, step = int(manifest["format"]), int(manifest["step"])
        files = {} if written_by > FORMAT else {name: manifest["files"][name]["sha256"] for name in _FILES}
    except OSError as error:
        raise CheckpointError(f"{where}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{where}: damaged ({error})") from None
    if written_by > FORMAT:
        raise CheckpointError(f"{where}: written by a newer xuebu (format {written_by}); upgrade to read it")
    if path.name != f"step-{step:08d}":
        raise CheckpointError(f"{where}: damaged (it is of step {step}, the folder of another)")
    return {"step": step, "files": files}


def newest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest whole checkpoint, and one line for each newer one that is damaged.

    Raises:
        CheckpointError: there are checkpoints, and none is whole.
    """
    problems: list[str] = []
    for _, path in list_checkpoints(folder):
        try:
            return read_checkpoint(path), problems
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        raise CheckpointError(f"{folder}: no checkpoint is whole: {'; '.join(problems)}")
    return None, problems


def prune_checkpoints(folder: Path, step: int, *, keep_last: int, keep_every: int) -> None:
    """Remove all but the newest `keep_last` checkpoints up to `step` and those at multiples of `keep_every` (0: none).

    Later ones are damaged, or the run would stand there: they count for nothing, and are written again when the run
    comes to them. What a killed process left half written or half removed goes too.
    """
    done = [(at, path) for at, path in list_checkpoints(folder) if at <= step]
    for at, path in done[keep_last:]:
        if not (keep_every and at % keep_every == 0):
            # Renamed first: a half-removed folder must not pass for a checkpoint.
            doomed = path.with_name(f"{path.name}.partial")
            shutil.rmtree(doomed, ignore_errors=True)
            path.rename(doomed)
    for leftover in folder.glob("step-*.partial"):
        shutil.rmtree(leftover)
