"""Files that hold nothing but numbers: appended to while a store is built, memory-mapped when it is read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xuebu.files import sha256_file


def file_facts(path: Path) -> dict[str, Any]:
    """Return what a store's metadata records of a file: its size in bytes and its SHA-256."""
    return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}


class ColumnWriter:
    """Appends arrays to a file of one dtype; `close` flushes it to the disk and returns its facts."""

    def __init__(self, path: Path, dtype: npt.DTypeLike) -> None:
        self.path = path
        self.length = 0
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._stream = path.open("wb", buffering=1 << 20)
        self._digest = hashlib.sha256()

    def append(self, values: npt.ArrayLike) -> None:
        """Append values, which the dtype must hold: nothing is checked."""
        array = np.asarray(values)
        data = np.ascontiguousarray(array, dtype=self._dtype).data
        self._digest.update(data)
        self._stream.write(data)
        self.length += array.size

    def close(self) -> dict[str, Any]:
        """Flush to the disk and return size and SHA-256, as `file_facts` would."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        return {"bytes": self.length * self._dtype.itemsize, "sha256": self._digest.hexdigest()}

    def abandon(self) -> None:
        """Close without flushing to the disk; closing twice is no error."""
        self._stream.close()


class BitWriter:
    """Appends booleans to a file, eight a byte, the first in the lowest bit."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bytes = ColumnWriter(path, np.uint8)
        self._rest = np.zeros(0, dtype=np.bool_)

    def append(self, bits: npt.NDArray[np.bool_]) -> None:
        """Append bits."""
        joined = np.concatenate([self._rest, bits])
        whole = len(joined) // 8 * 8
        self._bytes.append(np.packbits(joined[:whole], bitorder="little"))
        self._rest = joined[whole:]

    def close(self) -> dict[str, Any]:
        """As `ColumnWriter.close`; the last byte is filled up with zeros."""
        self._bytes.append(np.packbits(self._rest, bitorder="little"))
        return self._bytes.close()

    def abandon(self) -> None:
        """As `ColumnWriter.abandon`."""
        self._bytes.abandon()


def read_bits(packed: npt.NDArray[np.uint8], start: int, stop: int) -> npt.NDArray[np.bool_]:
    """Return bits start to stop of what a `BitWriter` wrote."""
    first = start // 8
    bits = np.unpackbits(packed[first : -(-stop // 8)], bitorder="little")
    return bits[start - 8 * first : stop - 8 * first].astype(np.bool_)


def bits_at(packed: npt.NDArray[np.uint8], places: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return the bits at some places of what a `BitWriter` wrote."""
    bits: npt.NDArray[np.bool_] = (packed[places >> 3] >> (places & 7).astype(np.uint8) & 1).astype(np.bool_)
    return bits


def map_column(path: Path, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return a file of numbers as a read-only array that is paged in from the disk as it is touched."""
    little = np.dtype(dtype).newbyteorder("<")
    if path.stat().st_size == 0:
        return np.zeros(0, dtype=little)
    return np.asarray(np.memmap(path, dtype=little, mode="r"))
