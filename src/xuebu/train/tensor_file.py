"""safetensors files without a detour: laid out in memory as they lie on the disk, and read back row by row.

A checkpoint is copied into its file's image between two steps and written from there, so that a save costs one copy,
one digest and, past the page cache, next to no time of the kernel. Where each process holds a part of every weight,
each writes a file of its own; what is read back may be the rows of several.
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from xuebu.errors import CheckpointError

_NOT_DIRECT = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP)
"""What file systems without O_DIRECT answer."""

_DTYPES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_BLOCK = 4096  # what writing past the page cache counts in, on any disk
_CHUNK = 4 * 2**20
_DIRECT_FROM = 4 * 2**20  # bytes; below, the page cache costs nothing
_DIRECT = getattr(os, "O_DIRECT", 0)


@dataclass(frozen=True, slots=True)
class Rows:
    """Which rows of a larger tensor one is.

    Attributes:
        first: number of the first.
        whole: rows of the larger one.
    """

    first: int
    whole: int


class TensorFile(Mapping[str, Tensor]):
    """A safetensors file in memory, as a mapping of names to tensors that lie in it.

    Args:
        tensors: named, of a type in `_DTYPES`; they are copied.
        rows: of those that are parts of larger ones.

    Source: safetensors' format, README of the project: length of the header, header, data without gaps; types of
    larger items first, as the library orders them, so that all lie aligned. Rows stand in the header's `__metadata__`.
    """

    def __init__(self, tensors: Mapping[str, Tensor], rows: Mapping[str, Rows] | None = None) -> None:
        self._head, places = _lay_out(tensors, rows or {})
        self.num_bytes = len(self._head) + max((end for _, end in places.values()), default=0)
        # Memory of its own: aligned to blocks, in large pages (four times as fast to fill), and kept between saves.
        self._memory = mmap.mmap(-1, -(-self.num_bytes // _BLOCK) * _BLOCK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # a kernel without
                self._memory.madvise(mmap.MADV_HUGEPAGE)
        self._memory[: len(self._head)] = self._head
        self._views = {
            name: torch.frombuffer(
                self._memory, dtype=tensors[name].dtype, count=tensors[name].numel(), offset=len(self._head) + start
            ).view(tensors[name].shape)
            if end > start
            else torch.empty(tensors[name].shape, dtype=tensors[name].dtype)
            for name, (start, end) in places.items()
        }
        self.fill(tensors)

    def __getitem__(self, name: str) -> Tensor:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def has_room_for(self, tensors: Mapping[str, Tensor], rows: Mapping[str, Rows] | None = None) -> bool:
        """Whether the file of these tensors would be laid out as this one."""
        return self._head == _lay_out(tensors, rows or {})[0]

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy values of the same names, shapes and types in."""
        for name, view in self._views.items():
            view.copy_(tensors[name].detach())

    def write(self, path: Path) -> dict[str, int | str]:
        """Write the file to the disk; return its length and digest, as a manifest has them."""
        return write_and_digest(path, memoryview(self._memory), self.num_bytes)


def _lay_out(tensors: Mapping[str, Tensor], rows: Mapping[str, Rows]) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """Return a file's beginning, and from where to where after it each tensor lies."""
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {}
    if rows:
        header["__metadata__"] = {name: f"{rows[name].first} of {rows[name].whole}" for name in names if name in rows}
    places, end = dict[str, tuple[int, int]](), 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        places[name] = start, end
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, places


def write_and_digest(path: Path, data: memoryview, size: int) -> dict[str, int | str]:
    """Write bytes to the disk and return their length and digest; when this returns they are there.

    Large files go past the page cache where the file system lets them: nobody will read them soon, and copying them
    there costs more processor time than all the rest.

    Args:
        path: of the file.
        data: in memory that begins at a page and is padded to whole blocks, if there are 4 MiB or more of it.
        size: how many of the bytes count.
    """
    digest = hashlib.sha256()
    stream = _Stream(path, direct=size >= _DIRECT_FROM)
    try:
        for start in range(0, size, _CHUNK):
            digest.update(data[start : min(start + _CHUNK, size)])
            stream.write(data[start : start + _CHUNK], start)
        stream.close_at(size)
    finally:
        stream.close()
    return {"bytes": size, "sha256": digest.hexdigest()}


class _Stream:
    """A new file that is written past the page cache as long as that goes."""

    def __init__(self, path: Path, *, direct: bool) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self.direct = direct and _DIRECT != 0
        try:
            self.descriptor = os.open(path, flags | (_DIRECT if self.direct else 0), 0o666)
        except OSError as error:
            if not self.direct or error.errno not in _NOT_DIRECT:
                raise
            self.direct = False
            self.descriptor = os.open(path, flags, 0o666)

    def write(self, part: memoryview, at: int) -> None:
        """Write all of a part."""
        while part:
            try:
                done = os.pwrite(self.descriptor, part, at)
            except OSError as error:
                if not self.direct or error.errno not in _NOT_DIRECT:
                    raise
                done = 0
            if done < len(part) and self.direct:  # other blocks, or the end of the disk, as the next write will say
                self._go_through_the_cache()
            part, at = part[done:], at + done

    def _go_through_the_cache(self) -> None:
        import fcntl

        fcntl.fcntl(self.descriptor, fcntl.F_SETFL, fcntl.fcntl(self.descriptor, fcntl.F_GETFL) & ~_DIRECT)
        self.direct = False

    def close_at(self, size: int) -> None:
        """Cut the padding off and wait for the disk."""
        os.ftruncate(self.descriptor, size)
        os.fsync(self.descriptor)

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)


class TensorReader:
    """Tensors of several safetensors files, the rows of one perhaps in many; nothing is read before it is asked for.

    Args:
        paths: of the files.

    Raises:
        CheckpointError: a file is no safetensors file, or rows are missing or there twice; names it.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._held = ExitStack()
        self._parts: dict[str, list[tuple[Rows, int, Any]]] = {}
        try:
            for path in paths:
                self._index(path)
            for name, parts in self._parts.items():
                parts.sort(key=lambda part: (part[0].first, part[1]))
                ends = [0, *(rows.first + count for rows, count, _ in parts)]
                if [rows.first for rows, _, _ in parts] != ends[:-1] or {rows.whole for rows, _, _ in parts} != {
                    ends[-1]
                }:
                    raise CheckpointError(f"{paths[0].parent}: the rows of {name} do not make a whole")
        except BaseException:
            self._held.close()
            raise

    def _index(self, path: Path) -> None:
        try:
            stream = self._held.enter_context(safe_open(path, "pt"))
            known = stream.metadata() or {}
            for name in stream.keys():  # noqa: SIM118 (no mapping)
                shape = stream.get_slice(name).get_shape()
                count = shape[0] if shape else 1
                first, _, whole = known.get(name, f"0 of {count}").partition(" of ")
                self._parts.setdefault(name, []).append((Rows(int(first), int(whole)), count, stream))
        except (SafetensorError, ValueError, OSError) as error:
            raise CheckpointError(f"{path}: not a file of tensors ({error})") from None

    def __enter__(self) -> TensorReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    @property
    def names(self) -> list[str]:
        """Names of the tensors."""
        return sorted(self._parts)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, whole."""
        rows, _, stream = self._parts[name][0]
        shape = stream.get_slice(name).get_shape()
        return (rows.whole, *shape[1:]) if shape else ()

    def tensor(self, name: str) -> Tensor:
        """Return a tensor, whole."""
        parts = self._parts[name]
        found = [stream.get_tensor(name) for _, _, stream in parts]
        whole: Tensor = found[0].clone() if len(found) == 1 else torch.cat(found)
        return whole

    def rows(self, name: str, first: int, last: int) -> Tensor:
        """Return the rows of a tensor from `first` to before `last`; only they are read."""
        found = [
            stream.get_slice(name)[max(first - rows.first, 0) : min(last - rows.first, count)]
            for rows, count, stream in self._parts[name]
            if first < rows.first + count and rows.first < last
        ]
        if not found:
            found = [self._parts[name][0][2].get_tensor(name)[:0]]
        return torch.cat(found)
